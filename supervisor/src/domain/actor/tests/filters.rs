//! Network filters of interfaces that change: what is looked at first, what is noted, and what is asked of the host.

use reeve_ipc::model::{FilterReference, Nic, NicSource};

use super::devices::asked;
use super::*;
use crate::domain::driver::{CallFailure, DeviceCall, StartFailure, StartFailureKind};

fn filter(name: &str) -> Option<Box<FilterReference>> {
    let filter = name.parse().unwrap();
    Some(Box::new(FilterReference {
        filter,
        parameters: Vec::new(),
    }))
}

fn change(filter: Option<Box<FilterReference>>) -> Request {
    Request::ChangeFilter {
        device: "52:54:00:00:00:05".parse().unwrap(),
        filter,
        live: true,
        persistent: true,
    }
}

/// With an interface like that.
fn with(source: NicSource) -> Fed {
    let mut domain = domain();
    let mut nic = Nic::new(source);
    nic.mac = Some("52:54:00:00:00:05".parse().unwrap());
    domain.devices.nics = vec![nic];
    domain.complete().unwrap();
    Fed::running_as(domain)
}

/// Those of the running and the kept definition.
fn filters(fed: &Fed) -> [Option<Box<FilterReference>>; 2] {
    [false, true].map(|persistent| {
        let domain = fed.actor.definition(persistent).unwrap();
        domain.devices.nics[0].filter.clone()
    })
}

#[test]
fn a_filter_that_cannot_be_had_is_not_noted_first() {
    let mut fed = with(NicSource::Bridge("br0".parse().unwrap()));
    let effects = fed.ask(change(filter("no-such")));
    assert!(noted(&effects).is_none(), "{effects:?}");
    let (serial, call) = asked(&effects);
    assert!(matches!(call, DeviceCall::FilterCheck { .. }), "{call:?}");
    let missing = CallFailure::NotMade(StartFailure {
        kind: StartFailureKind::Definition,
        message: "referenced filter 'no-such' is missing".to_owned(),
    });
    let effects = fed.called(serial, Err(missing));
    assert!(noted(&effects).is_none(), "{effects:?}");
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
    assert_eq!(filters(&fed), [None, None]);

    let effects = fed.ask(change(filter("allow-arp")));
    let effects = fed.called(asked(&effects).0, Ok(()));
    assert!(noted(&effects).is_some(), "{effects:?}");
    let effects = fed.written(effects);
    let (serial, call) = asked(&effects);
    assert!(matches!(call, DeviceCall::Filter { .. }), "{call:?}");
    let effects = fed.called(serial, Ok(()));
    let effects = fed.written(effects);
    assert_eq!(answer(&effects), Some(Ok(())));
    assert_eq!(filters(&fed), [filter("allow-arp"), filter("allow-arp")]);
}

#[test]
fn a_filter_that_is_put_late_is_noted() {
    let mut fed = with(NicSource::Bridge("br0".parse().unwrap()));
    let effects = fed.ask(change(filter("allow-arp")));
    let effects = fed.called(asked(&effects).0, Ok(()));
    let effects = fed.written(effects);
    let late = CallFailure::Late("the host has not answered".to_owned());
    let effects = fed.called(asked(&effects).0, Err(late));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Timeout)));
    assert_eq!(filters(&fed), [filter("allow-arp"), None]);
}

#[test]
fn nothing_is_done_for_an_interface_that_has_what_it_is_to_have_or_can_have_none() {
    let mut fed = with(NicSource::Tap("mytap".parse().unwrap()));
    let effects = fed.ask(change(None));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert_eq!(effects.len(), 1, "{effects:?}");
    let effects = fed.ask(change(filter("allow-arp")));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
    assert_eq!(effects.len(), 1, "{effects:?}");
}
