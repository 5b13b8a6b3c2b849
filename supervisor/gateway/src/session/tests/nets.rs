//! A supervisor's networks in few words: in memory, changed as the model has it.

#![expect(
    clippy::result_large_err,
    reason = "what a test answers, made once a call"
)]

use std::collections::BTreeMap;
use std::io::{Seek as _, Write as _};

use reeve_ipc::api::call::{
    AnswerBody, CallBody, DomainPage, LabelChange, NetworkPage, NetworkPortPage, NetworkRef,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::event::{Label, NetworkEventKind};
use reeve_ipc::api::network::{NetworkDetails, NetworkForward, NetworkSummary, PortDetails};
use reeve_ipc::model::{Forward, Network};

use super::harness::{Act, Supervisor};

#[derive(Debug, Clone)]
pub(super) struct Held {
    active: Option<Network>,
    kept: Option<Network>,
    autostart: bool,
    ports: Vec<PortDetails>,
}

/// Every network, by name, and what their servers have lent.
#[derive(Debug, Default)]
pub(super) struct Nets {
    pub(super) held: BTreeMap<String, Held>,
    /// The book of every network.
    pub(super) book: String,
    /// Ports that a network gets when it is started.
    pub(super) ports: Vec<PortDetails>,
}

const fn wrong() -> Act {
    Act::Fail(ApiErrorCode::WrongState, "it is in the wrong state")
}

impl Held {
    fn now(&self) -> &Network {
        self.active.as_ref().or(self.kept.as_ref()).unwrap()
    }

    fn summary(&self) -> NetworkSummary {
        let network = self.now();
        NetworkSummary {
            name: network.name.clone(),
            uuid: network.uuid,
            active: self.active.is_some(),
            persistent: self.kept.is_some(),
            autostart: self.autostart,
            forward: match &network.forward {
                Forward::Isolated => None,
                Forward::Bridge(_) => Some(NetworkForward::Bridge),
                Forward::Direct { mode, .. } => Some(NetworkForward::Direct(*mode)),
                _ => Some(NetworkForward::Nat),
            },
            bridge: match &network.forward {
                Forward::Bridge(name) => Some(name.clone()),
                _ => network.bridge.name.clone(),
            },
            ports: u32::try_from(self.ports.len()).unwrap(),
        }
    }
}

impl Nets {
    /// None yet, whose servers will have that book.
    pub(super) fn with_book(book: &str) -> Self {
        Self {
            book: book.to_owned(),
            ..Self::default()
        }
    }

    fn find(&mut self, network: &NetworkRef) -> Result<&mut Held, Act> {
        let is = |held: &&mut Held| match network {
            NetworkRef::Uuid(uuid) => held.now().uuid == *uuid,
            NetworkRef::Name(name) => held.now().name == *name,
            NetworkRef::Bridge(name) => held.now().bridge.name.as_ref() == Some(name),
        };
        let none = || Act::Fail(ApiErrorCode::NoNetwork, "there is none");
        self.held.values_mut().find(is).ok_or_else(none)
    }

    fn entry(&mut self, network: &Network) -> Result<&mut Held, Act> {
        if let Err(error) = network.validate() {
            let why = Box::leak(error.to_string().into_boxed_str());
            return Err(Act::Fail(ApiErrorCode::InvalidArgument, why));
        }
        let name = network.name.as_str().to_owned();
        let taken = |other: &Held| other.now().uuid != network.uuid;
        if self.held.get(&name).is_some_and(taken) {
            let why = "network exists already with another uuid";
            return Err(Act::Fail(ApiErrorCode::NetworkExists, why));
        }
        Ok(self.held.entry(name).or_insert(Held {
            active: None,
            kept: None,
            autostart: false,
            ports: Vec::new(),
        }))
    }

    /// Answers a call.
    pub(super) fn act(&mut self, supervisor: &Supervisor, call: &CallBody) -> Act {
        match self.answer(supervisor, call) {
            Ok(act) | Err(act) => act,
        }
    }

    fn answer(&mut self, supervisor: &Supervisor, call: &CallBody) -> Result<Act, Act> {
        use AnswerBody as A;
        use CallBody as C;
        let tell = |network: &Network, kind| supervisor.network_event(network, kind);
        let given = self.ports.clone();
        Ok(Act::Answer(match call {
            C::NetworkList(list) => {
                let filter = list.filter;
                let passing = self.held.values().map(Held::summary).filter(|network| {
                    let is = |wanted: Option<bool>, is| wanted.is_none_or(|wanted| wanted == is);
                    list.after
                        .as_ref()
                        .is_none_or(|after| network.name > *after)
                        && is(filter.active, network.active)
                        && is(filter.persistent, network.persistent)
                        && is(filter.autostart, network.autostart)
                });
                // One to a page.
                let networks: Vec<NetworkSummary> = passing.take(1).collect();
                let more = !networks.is_empty();
                A::NetworkList(NetworkPage { networks, more })
            }
            C::NetworkGet(get) => A::NetworkGet(NetworkDetails {
                summary: self.find(&get.network)?.summary(),
                changes: false,
                fault: None,
            }),
            C::NetworkDefinitionGet(get) => {
                let held = self.find(&get.network)?;
                let network = match get.persistent {
                    true => held.kept.clone(),
                    false => Some(held.now().clone()),
                };
                A::NetworkDefinitionGet(Box::new(network.ok_or_else(wrong)?))
            }
            C::NetworkDefine(define) => {
                let network = &*define.network;
                let held = self.entry(network)?;
                let changed = held.kept.replace(network.clone()).is_some();
                tell(network, NetworkEventKind::Defined { changed });
                A::NetworkDefine(held.summary())
            }
            C::NetworkCreate(create) => {
                let network = &*create.network;
                let held = self.entry(network)?;
                held.active = Some(network.clone());
                tell(network, NetworkEventKind::Started);
                A::NetworkCreate(held.summary())
            }
            C::NetworkStart(start) => {
                let held = self.find(&start.network)?;
                if held.active.is_some() {
                    return Err(wrong());
                }
                held.active = held.kept.clone();
                held.ports = given;
                tell(held.now(), NetworkEventKind::Started);
                A::NetworkStart(held.summary())
            }
            C::NetworkStop(stop) => {
                let held = self.find(&stop.network)?;
                let network = held.active.take().ok_or_else(wrong)?;
                held.ports.clear();
                tell(&network, NetworkEventKind::Stopped);
                if held.kept.is_none() {
                    self.held.remove(network.name.as_str());
                }
                A::NetworkStop(())
            }
            C::NetworkUndefine(undefine) => {
                let held = self.find(&undefine.network)?;
                let network = held.kept.take().ok_or_else(wrong)?;
                tell(&network, NetworkEventKind::Undefined);
                if held.active.is_none() {
                    self.held.remove(network.name.as_str());
                }
                A::NetworkUndefine(())
            }
            C::NetworkAutostartSet(set) => {
                let held = self.find(&set.network)?;
                if held.kept.is_none() {
                    return Err(wrong());
                }
                held.autostart = set.autostart;
                tell(
                    held.now(),
                    NetworkEventKind::Autostart { on: set.autostart },
                );
                A::NetworkAutostartSet(())
            }
            C::NetworkUpdate(update) => {
                let held = self.find(&update.network)?;
                let edited = |network: &mut Option<Network>, meant: bool| {
                    if let Some(network) = network.as_mut().filter(|_| meant) {
                        *network = network.edited(&update.edit).map_err(|error| {
                            let why = Box::leak(error.to_string().into_boxed_str());
                            Act::Fail(ApiErrorCode::WrongState, why)
                        })?;
                    }
                    Ok(())
                };
                edited(&mut held.active, update.live)?;
                edited(&mut held.kept, update.persistent)?;
                tell(held.now(), NetworkEventKind::Updated);
                A::NetworkUpdate(())
            }
            C::NetworkLabelSet(set) => {
                let held = self.find(&set.network)?;
                let both = [
                    (&mut held.active, set.live),
                    (&mut held.kept, set.persistent),
                ];
                for (network, _) in both.into_iter().filter(|(_, meant)| *meant) {
                    let labels = &mut network.as_mut().unwrap().labels;
                    match set.label.clone() {
                        LabelChange::Title(title) => labels.title = title,
                        LabelChange::Description(text) => labels.description = text,
                        LabelChange::Metadata(element) => labels.metadata = vec![element],
                        LabelChange::MetadataRemove { .. } => labels.metadata.clear(),
                    }
                }
                let label = match &set.label {
                    LabelChange::Title(_) => Label::Title,
                    LabelChange::Description(_) => Label::Description,
                    LabelChange::Metadata(element) => Label::Metadata {
                        uri: element.uri.clone(),
                    },
                    LabelChange::MetadataRemove { uri } => Label::Metadata { uri: uri.clone() },
                };
                tell(held.now(), NetworkEventKind::Labels { label });
                A::NetworkLabelSet(())
            }
            C::NetworkLeasesGet(get) => {
                if self.find(&get.network)?.active.is_none() {
                    return Err(wrong());
                }
                let mut book = tempfile::tempfile().unwrap();
                book.write_all(self.book.as_bytes()).unwrap();
                book.rewind().unwrap();
                return Ok(Act::Fds(A::NetworkLeasesGet(true), vec![book.into()]));
            }
            C::NetworkPortList(list) => {
                let held = self.find(&list.network)?;
                let behind =
                    |port: &&PortDetails| list.after.is_none_or(|after| port.port.uuid > after);
                let ports: Vec<_> = held.ports.iter().filter(behind).take(1).cloned().collect();
                let more = !ports.is_empty();
                A::NetworkPortList(NetworkPortPage { ports, more })
            }
            // Whoever watches looks at what runs first.
            C::DomainList(_) => A::DomainList(DomainPage {
                domains: Vec::new(),
                more: false,
            }),
            other => panic!("the supervisor is asked {other:?}"),
        }))
    }
}
