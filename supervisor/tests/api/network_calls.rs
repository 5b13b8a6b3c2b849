//! One call of every operation on virtual networks: about the network 'lan'.

use reeve_ipc::api::call::{
    Call as _, CallBody, LabelChange, NetworkAutostartSet, NetworkCreate, NetworkDefine,
    NetworkDefinitionGet, NetworkFilter, NetworkGet, NetworkLabelSet, NetworkLeasesGet,
    NetworkList, NetworkPortList, NetworkRef, NetworkStart, NetworkStop, NetworkUndefine,
    NetworkUpdate, NwfilterBindingList, NwfilterDefine, NwfilterGet, NwfilterList, NwfilterRef,
    NwfilterUndefine, Operation,
};
use reeve_ipc::model::{
    DnsText, EditCommand, FilterChain, Network, NetworkEdit, NetworkPart, NetworkUuid, Nwfilter,
    NwfilterUuid,
};

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
        O::NwfilterList => NwfilterList { after: None }.into_body(),
        O::NwfilterGet => NwfilterGet { filter: filter() }.into_body(),
        O::NwfilterDefine => NwfilterDefine {
            filter: Box::new(Nwfilter {
                name: "own".parse().unwrap(),
                uuid: NwfilterUuid(uuid.0),
                chain: FilterChain::root(),
                priority: 0,
                entries: Vec::new(),
            }),
            only_new: true,
        }
        .into_body(),
        O::NwfilterUndefine => NwfilterUndefine { filter: filter() }.into_body(),
        O::NwfilterBindingList => NwfilterBindingList { after: None }.into_body(),
        _ => return None,
    })
}

fn filter() -> NwfilterRef {
    NwfilterRef::Name("own".parse().unwrap())
}
