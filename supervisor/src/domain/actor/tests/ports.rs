//! Channels and consoles that come and go: the controller comes with the first and goes with the last, and
//! what the worker says of ports counts as what it says of devices does.

use reeve_ipc::model::{Channel, Device, DevicePlace, PortConsole};

use super::devices::{asked, at, detach, listed, noted_has, running, told};
use super::*;
use crate::domain::driver::{CallFailure, DeviceCall, OpenPorts};

fn attach(device: Device, persistent: bool) -> Request {
    Request::Attach {
        device: Box::new(device),
        live: true,
        persistent,
    }
}

fn channel(name: &str) -> Device {
    Device::Channel(Channel {
        name: name.to_owned(),
        path: format!("/run/{name}").into(),
        port: None,
    })
}

fn console(path: &str) -> Device {
    Device::Console(PortConsole {
        path: path.into(),
        port: None,
    })
}

/// Port `number` of the controller, which is at the first place that is free.
fn port(number: u8) -> DevicePlace {
    DevicePlace::port(at(3).slot, number)
}

fn event(device: &str, added: bool) -> EventKind {
    let (device, slot) = (device.parse().unwrap(), at(3).slot);
    match added {
        true => EventKind::DeviceAdded { device, slot },
        false => EventKind::DeviceRemoved { device, slot },
    }
}

fn releases(effects: &[Effect], place: DevicePlace) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Release(_, at) if *at == place))
}

/// With these channels, which came while it ran.
fn with(names: &[&str]) -> Fed {
    let mut fed = running();
    for name in names {
        let effects = fed.ask(attach(channel(name), false));
        assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    }
    fed
}

#[test]
fn the_first_port_brings_its_controller_and_the_next_comes_beside_it() {
    let mut fed = running();
    for (name, place, called) in [("a", at(3), "ports"), ("b", port(2), "channel:b")] {
        let effects = fed.ask_written(attach(channel(name), true));
        assert!(noted_has(&effects, &format!("channel:{name}")));
        let (serial, call) = asked(&effects);
        let DeviceCall::Attach { domain, place: to } = call else {
            panic!("{call:?}");
        };
        assert_eq!(to, place);
        assert!(domain.devices.name_at(place).is_some());
        let effects = fed.called(serial, Ok(()));
        assert!(told(&effects, &event(called, true)), "{effects:?}");
        let effects = fed.written(effects);
        assert_eq!(answer(&effects), Some(Ok(())));
    }
    for persistent in [false, true] {
        let devices = &fed.actor.definition(persistent).unwrap().devices;
        assert_eq!(devices.ports_address, Some(at(3).slot));
        let ports: Vec<_> = devices.placed_ports().into_iter().collect();
        assert_eq!(ports.len(), 2);
        assert_eq!((ports[0].0, ports[1].0), (port(1), port(2)));
    }
}

#[test]
fn a_console_has_one_number_in_both_definitions_and_a_channel_its_name() {
    let mut fed = running();
    let effects = fed.ask(Request::Attach {
        device: Box::new(console("/run/kept")),
        live: false,
        persistent: true,
    });
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    for device in [console("/run/both"), channel("also")] {
        let effects = fed.ask(attach(device, true));
        assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    }
    assert!(fed.kept_has("console:0") && !fed.live_has("console:0"));
    assert!(fed.kept_has("console:1") && fed.live_has("console:1"));
    let numbers = [false, true].map(|persistent| {
        let devices = &fed.actor.definition(persistent).unwrap().devices;
        devices.channels[0].port
    });
    assert_eq!(numbers, [Some(2), Some(2)]);
}

#[test]
fn a_port_is_taken_without_a_question_and_its_number_stays_free_for_the_next() {
    for early in [true, false] {
        let mut fed = with(&["a", "b", "c"]);
        let effects = fed.ask(detach("channel:b", false));
        let (serial, call) = asked(&effects);
        let (place, force) = (port(2), false);
        assert_eq!(call, DeviceCall::Detach { place, force });
        let (effects, last) = if early {
            let effects = fed.notice(Notice::DeviceRemoved(place));
            (effects, fed.called(serial, Ok(())))
        } else {
            assert_eq!(answer(&fed.called(serial, Ok(()))), None);
            let effects = fed.notice(Notice::DeviceRemoved(place));
            (effects.clone(), effects)
        };
        assert!(told(&effects, &event("channel:b", false)));
        assert!(releases(&effects, place) && !noted_has(&effects, "channel:b"));
        assert_eq!(answer(&last), Some(Ok(())));
        assert!(!fed.live_has("channel:b") && fed.live_has("channel:c"));
        let effects = fed.ask_written(attach(channel("d"), false));
        let DeviceCall::Attach { place, .. } = asked(&effects).1 else {
            panic!("{effects:?}")
        };
        assert_eq!(place, port(2));
    }
}

#[test]
fn with_the_last_port_its_controller_is_asked_for() {
    let mut fed = with(&["a"]);
    let effects = fed.ask(detach("channel:a", false));
    let (serial, call) = asked(&effects);
    let (place, force) = (at(3), false);
    assert_eq!(call, DeviceCall::Detach { place, force });
    assert_eq!(answer(&fed.called(serial, Ok(()))), None);
    let effects = fed.notice(Notice::DeviceRemoved(place));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(told(&effects, &event("ports", false)));
    assert!(releases(&effects, place));
    assert!(!fed.live_has("channel:a") && !fed.live_has("ports"));
}

#[test]
fn a_controller_takes_all_of_its_ports_along_and_whoever_waits_for_one() {
    let mut fed = with(&["a", "b"]);
    let effects = fed.ask(detach("channel:a", false));
    fed.called(asked(&effects).0, Ok(()));
    let effects = fed.notice(Notice::DeviceRemoved(at(3)));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(!fed.live_has("channel:a") && !fed.live_has("channel:b"));
}

#[test]
fn whoever_waits_for_a_controller_is_answered_though_its_last_port_went_before_it() {
    let mut fed = with(&["a"]);
    let effects = fed.ask(detach("ports", false));
    let (serial, _) = asked(&effects);
    assert_eq!(answer(&fed.called(serial, Ok(()))), None);
    // Of a detach that was given up: the worker has taken the port yet.
    let effects = fed.notice(Notice::DeviceRemoved(port(1)));
    assert!(told(&effects, &event("channel:a", false)));
    assert_eq!(answer(&effects), None);
    let effects = fed.notice(Notice::DeviceRemoved(at(3)));
    assert_eq!(answer(&effects), Some(Ok(())));
}

#[test]
fn a_port_that_could_not_be_made_is_taken_back_and_the_others_stay() {
    let mut fed = with(&["a"]);
    let effects = fed.ask_written(attach(channel("b"), true));
    let refused = CallFailure::Refused("port 8 cannot be had".to_owned());
    let effects = fed.called(asked(&effects).0, Err(refused));
    assert!(matches!(answer(&effects), Some(Err(_))));
    assert!(!noted_has(&effects, "channel:b") && noted_has(&effects, "channel:a"));
    assert!(!fed.kept_has("channel:b") && fed.live_has("channel:a"));
}

#[test]
fn a_definition_that_cannot_be_written_costs_the_port() {
    let mut fed = with(&["a"]);
    let effects = fed.ask_written(attach(channel("b"), true));
    let effects = fed.called(asked(&effects).0, Ok(()));
    let full = Done::Written(Err("no space left".to_owned()));
    let effects = fed.feed(Input::Done(writes(&effects), full));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    let (place, force) = (port(2), true);
    assert_eq!(asked(&effects).1, DeviceCall::Detach { place, force });
    fed.notice(Notice::DeviceRemoved(place));
    assert!(!fed.live_has("channel:b") && fed.live_has("channel:a"));
}

#[test]
fn ports_that_nobody_heard_of_are_compared_as_devices_are() {
    for arrived in [true, false] {
        let mut fed = with(&["a", "b"]);
        let effects = fed.ask_written(attach(channel("c"), false));
        let effects = fed.called(asked(&effects).0, Err(CallFailure::Deadline));
        assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Timeout)));
        assert!(fed.live_has("channel:c"), "it may come yet");
        // Meanwhile one has gone, and nobody heard.
        let mut there = vec![at(1), at(2), at(3), port(1)];
        there.extend(arrived.then(|| port(3)));
        let effects = fed.notice(Notice::Lost);
        let effects = fed.notice(Notice::Devices(listed(&effects), there));
        assert!(told(&effects, &event("channel:b", false)));
        assert!(releases(&effects, port(2)));
        assert_eq!(fed.live_has("channel:c"), arrived);
        assert!(fed.live_has("channel:a"));
    }
}

#[test]
fn a_first_port_that_is_being_made_is_missed_by_nobody() {
    let mut fed = running();
    let effects = fed.ask_written(attach(channel("a"), false));
    let (serial, _) = asked(&effects);
    let effects = fed.notice(Notice::Lost);
    fed.notice(Notice::Devices(listed(&effects), vec![at(1), at(2)]));
    assert!(fed.live_has("channel:a"));
    assert_eq!(answer(&fed.called(serial, Ok(()))), Some(Ok(())));
    assert!(fed.live_has("channel:a"));
}

#[test]
fn a_controller_whose_worker_took_the_last_port_by_itself_is_taken_too() {
    let mut fed = with(&["a"]);
    let effects = fed.notice(Notice::DeviceRemoved(port(1)));
    assert!(told(&effects, &event("channel:a", false)));
    let (place, force) = (at(3), true);
    assert_eq!(asked(&effects), (0, DeviceCall::Detach { place, force }));
    assert!(!fed.live_has("ports"));
    assert_eq!(fed.notice(Notice::DeviceRemoved(place)), []);
    // What comes next is made with a controller of its own.
    let effects = fed.ask_written(attach(channel("b"), false));
    let DeviceCall::Attach { place, .. } = asked(&effects).1 else {
        panic!("{effects:?}")
    };
    assert_eq!(place, at(3));
}

#[test]
fn ports_that_cannot_be_had_are_refused_before_anything_is_done() {
    let mut fed = with(&["a"]);
    let mut there = console("/run/x");
    if let Device::Console(console) = &mut there {
        console.port = Some(1);
    }
    let mut same_path = channel("b");
    if let Device::Channel(channel) = &mut same_path {
        channel.path = "/run/a".into();
    }
    let mut zero = channel("c");
    if let Device::Channel(channel) = &mut zero {
        channel.port = Some(0);
    }
    for device in [channel("a"), channel("a/b"), there, same_path, zero] {
        let effects = fed.ask(attach(device.clone(), false));
        assert_eq!(
            answer(&effects),
            Some(Err(ApiErrorCode::InvalidArgument)),
            "{device:?}"
        );
        assert_eq!(effects.len(), 1, "{effects:?}");
    }
    let effects = fed.ask(detach("channel:b", false));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::NoDevice)));
    for _ in 0..29 {
        let free = (0..).map(|number| format!("n{number}"));
        let mut free = free.filter(|name| !fed.live_has(&format!("channel:{name}")));
        let name = free.next().unwrap();
        let effects = fed.ask(attach(channel(&name), false));
        assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    }
    let effects = fed.ask(attach(channel("more"), false));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
}

#[test]
fn a_guest_that_opens_and_closes_channels_has_each_change_told_once() {
    let mut fed = with(&["a", "b"]);
    let numbers: Vec<u8> = {
        let definition = fed.actor.definition(false).unwrap();
        let channels = definition.devices.channels.iter();
        channels.map(|channel| channel.port.unwrap()).collect()
    };
    let bits = |open: &[u8]| OpenPorts(open.iter().map(|number| 1_u32 << number).sum());
    let changed = |channel: &str, open| {
        let channel = channel.to_owned();
        Effect::Event(EventKind::ChannelChanged { channel, open })
    };
    let controller = at(3).slot;
    let mut say = |slot, open| fed.notice(Notice::Ports(slot, open));
    let (a, b) = (numbers[0], numbers[1]);
    assert_eq!(say(controller, bits(&[a])), [changed("a", true)]);
    assert_eq!(say(controller, bits(&[a])), []);
    assert_eq!(
        say(controller, bits(&[b])),
        [changed("a", false), changed("b", true)]
    );
    // Of ports that are none of its channels, and of another place, nothing is told.
    assert_eq!(say(controller, OpenPorts(u32::MAX)), [changed("a", true)]);
    assert_eq!(say(at(9).slot, OpenPorts(0)), []);
}
