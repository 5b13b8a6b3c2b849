//! A call of each operation about network filters.

use reeve_ipc::api::call::{
    Call as _, CallBody, NwfilterBindingList, NwfilterDefine, NwfilterGet, NwfilterList,
    NwfilterRef, NwfilterUndefine, Operation,
};
use reeve_ipc::model::{FilterChain, Nwfilter, NwfilterUuid};
use uuid::Uuid;

/// One about the filter 'own'; `None` for other operations.
pub fn nwfilter(operation: Operation) -> Option<CallBody> {
    let own = || NwfilterRef::Name("own".parse().unwrap());
    Some(match operation {
        Operation::NwfilterList => NwfilterList { after: None }.into_body(),
        Operation::NwfilterGet => NwfilterGet { filter: own() }.into_body(),
        Operation::NwfilterUndefine => NwfilterUndefine { filter: own() }.into_body(),
        Operation::NwfilterBindingList => NwfilterBindingList { after: None }.into_body(),
        Operation::NwfilterDefine => NwfilterDefine {
            filter: Box::new(Nwfilter {
                name: "own".parse().unwrap(),
                uuid: NwfilterUuid(Uuid::from_u128(8)),
                chain: FilterChain::root(),
                priority: 0,
                entries: Vec::new(),
            }),
            only_new: false,
        }
        .into_body(),
        _ => return None,
    })
}
