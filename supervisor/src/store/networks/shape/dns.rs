//! What a network's server of names knows, in words.

use std::net::IpAddr;

use reeve_ipc::model;
use serde::{Deserialize, Serialize};

use super::yes;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default = "yes")]
    forward_plain_names: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    forwarders: Vec<Forwarder>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<DnsHost>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    texts: Vec<Text>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    services: Vec<Service>,
}

impl Default for Dns {
    fn default() -> Self {
        Self::from(&model::Dns::default())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forwarder {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DnsHost {
    address: IpAddr,
    names: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Text {
    name: String,
    value: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    service: String,
    protocol: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
}

impl From<&model::Dns> for Dns {
    fn from(dns: &model::Dns) -> Self {
        let model::Dns {
            enabled,
            forward_plain_names,
            forwarders,
            hosts,
            texts,
            services,
        } = dns;
        let forwarders = forwarders
            .iter()
            .map(|model::DnsForwarder { address, domain }| Forwarder {
                address: *address,
                domain: domain.clone(),
            });
        let hosts = hosts
            .iter()
            .map(|model::DnsHost { address, names }| DnsHost {
                address: *address,
                names: names.clone(),
            });
        let texts = texts.iter().map(|model::DnsText { name, value }| Text {
            name: name.clone(),
            value: value.clone(),
        });
        let services = services.iter().cloned().map(
            |model::DnsService {
                 service,
                 protocol,
                 domain,
                 target,
                 port,
                 priority,
                 weight,
             }| Service {
                service,
                protocol,
                domain,
                target,
                port,
                priority,
                weight,
            },
        );
        Self {
            enabled: *enabled,
            forward_plain_names: *forward_plain_names,
            forwarders: forwarders.collect(),
            hosts: hosts.collect(),
            texts: texts.collect(),
            services: services.collect(),
        }
    }
}

impl From<Dns> for model::Dns {
    fn from(dns: Dns) -> Self {
        let forwarders = dns.forwarders.into_iter();
        let services = dns.services.into_iter();
        Self {
            enabled: dns.enabled,
            forward_plain_names: dns.forward_plain_names,
            forwarders: forwarders
                .map(|Forwarder { address, domain }| model::DnsForwarder { address, domain })
                .collect(),
            hosts: dns.hosts.into_iter().map(Into::into).collect(),
            texts: dns.texts.into_iter().map(Into::into).collect(),
            services: services.map(Into::into).collect(),
        }
    }
}

impl From<DnsHost> for model::DnsHost {
    fn from(DnsHost { address, names }: DnsHost) -> Self {
        Self { address, names }
    }
}

impl From<Text> for model::DnsText {
    fn from(Text { name, value }: Text) -> Self {
        Self { name, value }
    }
}

impl From<Service> for model::DnsService {
    fn from(service: Service) -> Self {
        Self {
            service: service.service,
            protocol: service.protocol,
            domain: service.domain,
            target: service.target,
            port: service.port,
            priority: service.priority,
            weight: service.weight,
        }
    }
}
