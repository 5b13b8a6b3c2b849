//! `<dns>`: a network's server of names.

use std::net::IpAddr;

use reeve_ipc::model::{Dns, DnsForwarder, DnsHost, DnsService, DnsText};

use super::super::XmlError;
use super::super::element::Element;
use super::super::write::Writer;
use super::{all, contents, needed};

pub(super) fn parse(element: Element<'_>) -> Result<Dns, XmlError> {
    element.known(&["enable", "forwardPlainNames"])?;
    contents(element, &[], &["forwarder", "txt", "srv", "host"])?;
    let mut dns = Dns {
        enabled: element.switch("enable")?.unwrap_or(true),
        forward_plain_names: element.switch("forwardPlainNames")?.unwrap_or(true),
        ..Dns::default()
    };
    for child in element.children() {
        match child.name() {
            "forwarder" => dns.forwarders.push(forwarder(child)?),
            "txt" => dns.texts.push(text(child, false)?),
            "srv" => dns.services.push(service(child)?),
            _ => {
                let (_, names) = host(child, false)?;
                let address = needed(child, "ip")?;
                dns.hosts.push(DnsHost { address, names });
            }
        }
    }
    Ok(dns)
}

fn forwarder(element: Element<'_>) -> Result<DnsForwarder, XmlError> {
    element.known(&["addr", "domain"])?;
    element.no_children()?;
    Ok(DnsForwarder {
        address: element.parsed("addr")?,
        domain: element.attribute("domain").map(str::to_owned),
    })
}

/// Reads a text; where less will do, one with a name alone.
pub(super) fn text(element: Element<'_>, partial: bool) -> Result<DnsText, XmlError> {
    element.known(&["name", "value"])?;
    element.no_children()?;
    let value = match partial {
        true => element.attribute("value").unwrap_or_default(),
        false => element.required("value")?,
    };
    Ok(DnsText {
        name: element.required("name")?.to_owned(),
        value: value.to_owned(),
    })
}

pub(super) fn service(element: Element<'_>) -> Result<DnsService, XmlError> {
    let numbers = ["port", "priority", "weight"];
    let known = ["service", "protocol", "domain", "target"];
    let known: Vec<&str> = known.into_iter().chain(numbers).collect();
    element.known(&known)?;
    element.no_children()?;
    let text = |name: &str| element.attribute(name).map(str::to_owned);
    Ok(DnsService {
        service: element.required("service")?.to_owned(),
        protocol: element.required("protocol")?.to_owned(),
        domain: text("domain"),
        target: text("target"),
        port: element.parsed("port")?,
        priority: element.parsed("priority")?,
        weight: element.parsed("weight")?,
    })
}

/// Reads the names of an address; where less will do, an address or names alone.
pub(super) fn host(
    element: Element<'_>,
    partial: bool,
) -> Result<(Option<IpAddr>, Vec<String>), XmlError> {
    element.known(&["ip"])?;
    contents(element, &[], &["hostname"])?;
    let mut names = Vec::new();
    for name in all(element, "hostname") {
        name.known(&[])?;
        name.no_children()?;
        names.push(name.text().trim().to_owned());
    }
    let address = match element.parsed("ip")? {
        None if names.is_empty() || !partial => Some(needed(element, "ip")?),
        address => address,
    };
    if names.is_empty() && !partial {
        return Err(element.invalid("there is no <hostname> in it"));
    }
    Ok((address, names))
}

pub(super) fn format(writer: &mut Writer, dns: &Dns) {
    if *dns == Dns::default() {
        return;
    }
    let no = |said: bool| (!said).then_some("no");
    let tag = writer.tag("dns").optional("enable", no(dns.enabled));
    let tag = tag.optional("forwardPlainNames", no(dns.forward_plain_names));
    let Dns {
        forwarders,
        hosts,
        texts,
        services,
        ..
    } = dns;
    if forwarders.is_empty() && hosts.is_empty() && texts.is_empty() && services.is_empty() {
        return tag.empty();
    }
    tag.open();
    for DnsForwarder { address, domain } in forwarders {
        let tag = writer.tag("forwarder").optional("domain", domain.as_ref());
        tag.optional("addr", address.as_ref()).empty();
    }
    for DnsText { name, value } in texts {
        let tag = writer.tag("txt").attribute("name", name);
        tag.attribute("value", value).empty();
    }
    for service in services {
        let tag = writer.tag("srv").attribute("service", &service.service);
        tag.attribute("protocol", &service.protocol)
            .optional("domain", service.domain.as_ref())
            .optional("target", service.target.as_ref())
            .optional("port", service.port)
            .optional("priority", service.priority)
            .optional("weight", service.weight)
            .empty();
    }
    for DnsHost { address, names } in hosts {
        writer.tag("host").attribute("ip", address).open();
        for name in names {
            writer.text("hostname", name);
        }
        writer.close("host");
    }
    writer.close("dns");
}
