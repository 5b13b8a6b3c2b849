//! Network filters.

use reeve_ipc::api::call::{AnswerBody, CallBody, NwfilterBindingPage, NwfilterPage, NwfilterRef};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::nwfilter::{NwfilterBinding, NwfilterSummary};
use reeve_ipc::model::{
    DomainUuid, FilterChain, FilterReference, InterfaceName, Nwfilter, NwfilterUuid,
};
use uuid::Uuid;

use super::harness::{Act, Client};
use crate::wire::types::handles;
use crate::wire::types::network as net;

const ABSENT: Act = Act::Fail(ApiErrorCode::NoNwfilter, "there is no such filter");

fn filter(name: &str, uuid: u128) -> Nwfilter {
    Nwfilter {
        name: name.parse().unwrap(),
        uuid: NwfilterUuid(Uuid::from_u128(uuid)),
        chain: FilterChain::root(),
        priority: 0,
        entries: Vec::new(),
    }
}

fn binding(interface: &str) -> NwfilterBinding {
    NwfilterBinding {
        interface: interface.parse().unwrap(),
        domain: DomainUuid(Uuid::from_u128(5)),
        name: "web".parse().unwrap(),
        mac: "52:54:00:01:02:03".parse().unwrap(),
        filter: FilterReference {
            filter: "one".parse().unwrap(),
            parameters: Vec::new(),
        },
    }
}

/// A supervisor with two filters and two interfaces that have one, each on a page of its own.
fn script() -> impl FnMut(&CallBody) -> Act + Send {
    let mut filters = vec![filter("one", 1), filter("two", 2)];
    move |call| {
        let summary = |filter: &Nwfilter| NwfilterSummary {
            name: filter.name.clone(),
            uuid: filter.uuid,
        };
        let is = |filter: &Nwfilter, of: &NwfilterRef| match of {
            NwfilterRef::Uuid(uuid) => filter.uuid == *uuid,
            NwfilterRef::Name(name) => filter.name == *name,
        };
        Act::Answer(match call {
            CallBody::NwfilterList(list) => {
                let after =
                    |it: &&Nwfilter| list.after.as_ref().is_none_or(|after| it.name > *after);
                let filters: Vec<_> = filters.iter().filter(after).take(1).map(summary).collect();
                let more = !filters.is_empty();
                AnswerBody::NwfilterList(NwfilterPage { filters, more })
            }
            CallBody::NwfilterGet(get) => {
                let Some(found) = filters.iter().find(|it| is(it, &get.filter)) else {
                    return ABSENT;
                };
                AnswerBody::NwfilterGet(Box::new(found.clone()))
            }
            CallBody::NwfilterDefine(define) if define.filter.name.as_str() == "loop" => {
                return Act::Fail(ApiErrorCode::WrongState, "filter would introduce a loop");
            }
            CallBody::NwfilterDefine(define) => {
                filters.push(Nwfilter::clone(&define.filter));
                AnswerBody::NwfilterDefine(summary(&define.filter))
            }
            CallBody::NwfilterUndefine(undefine) => {
                let Some(found) = filters.iter().find(|it| is(it, &undefine.filter)) else {
                    return ABSENT;
                };
                if found.name.as_str() == "one" {
                    return Act::Fail(ApiErrorCode::InUse, "nwfilter is in use");
                }
                filters.retain(|it| !is(it, &undefine.filter));
                AnswerBody::NwfilterUndefine(())
            }
            CallBody::NwfilterBindingList(list) => {
                let all = ["vnet0", "vnet1"].map(binding);
                let after = |name: &InterfaceName| list.after.as_ref().is_none_or(|it| name > it);
                let all = all.into_iter().filter(|it| after(&it.interface)).take(1);
                let bindings: Vec<_> = all.collect();
                let more = !bindings.is_empty();
                AnswerBody::NwfilterBindingList(NwfilterBindingPage { bindings, more })
            }
            other => panic!("the supervisor is asked {other:?}"),
        })
    }
}

#[test]
fn a_filter_lives_as_libvirts_do() {
    let mut client = Client::open(script());
    assert_eq!(client.ask(&net::ConnectNumOfNwfilters {}), 2);
    let names = client.ask(&net::ConnectListNwfilters { maxnames: 9 });
    assert_eq!(names.0, ["one", "two"]);
    let names = client.ask(&net::ConnectListNwfilters { maxnames: 1 });
    assert_eq!(names.0, ["one"]);
    let (need_results, flags) = (true, 0);
    let all = net::ConnectListAllNwfilters {
        need_results,
        flags,
    };
    let all = client.ask(&all);
    assert_eq!((all.ret, all.filters.0.len()), (2, 2));
    let name = "one".to_owned();
    let one = client.ask(&net::NwfilterLookupByName { name });
    assert_eq!(
        client.ask(&net::NwfilterLookupByUuid { uuid: one.uuid }),
        one
    );
    let xml = client.ask(&net::NwfilterGetXmlDesc {
        filter: one.clone(),
        flags,
    });
    assert!(xml.starts_with("<filter name='one' chain='root'>"), "{xml}");
    let refused = client.refused(&net::NwfilterUndefine { filter: one });
    assert_eq!((refused.code, refused.domain), (55, 33));
    assert!(refused.message.ends_with("nwfilter is in use"));

    let xml = "<filter name='three'/>".to_owned();
    let three = client.ask(&net::NwfilterDefineXml { xml: xml.clone() });
    assert_eq!(three.name, "three");
    let (xml, flags) = (xml.replace("three", "four"), 1);
    client.ask(&net::NwfilterDefineXmlFlags { xml, flags });
    client.ask(&net::NwfilterUndefine {
        filter: three.clone(),
    });
    for refused in [
        client.refused(&net::NwfilterUndefine {
            filter: three.clone(),
        }),
        client.refused(&net::NwfilterGetXmlDesc {
            filter: three,
            flags: 0,
        }),
        client.refused(&net::NwfilterLookupByName {
            name: "three".to_owned(),
        }),
        client.refused(&net::NwfilterLookupByName {
            name: "a/b".to_owned(),
        }),
        client.refused(&net::NwfilterLookupByUuid { uuid: [7; 16] }),
    ] {
        assert_eq!((refused.code, refused.domain), (62, 33), "{refused:?}");
    }
    let xml = "<filter name='loop'/>".to_owned();
    let refused = client.refused(&net::NwfilterDefineXml { xml });
    assert_eq!((refused.code, refused.domain), (9, 33));
    let (xml, flags) = ("<filter/>".to_owned(), 1);
    let refused = client.refused(&net::NwfilterDefineXmlFlags { xml, flags });
    assert_eq!((refused.code, refused.domain), (92, 33), "{refused:?}");
}

#[test]
fn an_interface_that_has_a_filter_is_found_by_its_name() {
    let mut client = Client::open(script());
    let (need_results, flags) = (true, 0);
    let all = net::ConnectListAllNwfilterBindings {
        need_results,
        flags,
    };
    let all = client.ask(&all);
    assert_eq!((all.ret, all.bindings.0.len()), (2, 2));
    let name = "vnet1".to_owned();
    let found = client.ask(&net::NwfilterBindingLookupByPortDev { name });
    assert_eq!(
        (found.port_device.as_str(), found.filter.as_str()),
        ("vnet1", "one")
    );
    let xml = client.ask(&net::NwfilterBindingGetXmlDesc {
        binding: found,
        flags,
    });
    for part in [
        "<name>web</name>",
        "<portdev name='vnet1'/>",
        "<filterref filter='one'/>",
    ] {
        assert!(xml.contains(part), "{xml}");
    }
    let name = "vnet9".to_owned();
    let refused = client.refused(&net::NwfilterBindingLookupByPortDev { name });
    assert_eq!((refused.code, refused.domain), (101, 33));
    let binding = handles::NwfilterBinding {
        port_device: "vnet9".to_owned(),
        filter: "one".to_owned(),
    };
    let refused = client.refused(&net::NwfilterBindingGetXmlDesc { binding, flags });
    assert_eq!((refused.code, refused.domain), (101, 33));
}

#[test]
fn the_test_hypervisor_has_none_and_says_so_as_libvirts_test_driver() {
    let none = Act::Fail as fn(_, _) -> _;
    let mut client = Client::open(move |_| none(ApiErrorCode::Unsupported, "none"));
    let refused = client.refused(&net::ConnectNumOfNwfilters {});
    assert_eq!(refused.code, 3);
    let line = "this function is not supported by the connection driver: virConnectNumOfNWFilters";
    assert_eq!(refused.message, line);
}
