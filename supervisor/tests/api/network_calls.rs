//! One call of every operation on virtual networks: about the network 'lan'.

use reeve_ipc::api::call::{
    Call as _, CallBody, LabelChange, NetworkAutostartSet, NetworkCreate, NetworkDefine,
    NetworkDefinitionGet, NetworkFilter, NetworkGet, NetworkLabelSet, NetworkLeasesGet,
    NetworkList, NetworkPortList, NetworkRef, NetworkStart, NetworkStop, NetworkUndefine,
    NetworkUpdate, Operation,
};
use reeve_ipc::model::{DnsText, EditCommand, Network, NetworkEdit, NetworkPart, NetworkUuid};

pub fn network(operation: Operation) -> Option<CallBody> {
    use Operation as O;
    let network = NetworkRef::Name("lan".parse().unwrap());
    let uuid = NetworkUuid(uuid::Uuid::from_u128(7));
    let definition = Box::new(Network::new("lan".parse().unwrap(), uuid));
    Some(match operation {
        O::NetworkList => NetworkList {
            after: None,
            filter: NetworkFilter::default(),
        }
        .into_body(),
        O::NetworkGet => NetworkGet { network }.into_body(),
        O::NetworkDefinitionGet => NetworkDefinitionGet {
            network,
            persistent: true,
        }
        .into_body(),
        O::NetworkDefine => NetworkDefine {
            network: definition,
            only_new: false,
        }
        .into_body(),
        O::NetworkCreate => NetworkCreate {
            network: definition,
        }
        .into_body(),
        O::NetworkStart => NetworkStart { network }.into_body(),
        O::NetworkStop => NetworkStop { network }.into_body(),
        O::NetworkUndefine => NetworkUndefine { network }.into_body(),
        O::NetworkAutostartSet => NetworkAutostartSet {
            network,
            autostart: true,
        }
        .into_body(),
        O::NetworkUpdate => NetworkUpdate {
            network,
            edit: Box::new(NetworkEdit {
                command: EditCommand::AddLast,
                part: NetworkPart::DnsText(DnsText {
                    name: "t".to_owned(),
                    value: String::new(),
                }),
            }),
            live: false,
            persistent: true,
        }
        .into_body(),
        O::NetworkLabelSet => NetworkLabelSet {
            network,
            label: LabelChange::Title(None),
            live: false,
            persistent: true,
        }
        .into_body(),
        O::NetworkLeasesGet => NetworkLeasesGet { network }.into_body(),
        O::NetworkPortList => NetworkPortList {
            network,
            after: None,
        }
        .into_body(),
        _ => return None,
    })
}
