//! Media and sizes of disks that change: what is noted, and what is asked of the worker.

use reeve_ipc::model::{Device, Layer, Medium};
use reeve_ipc::spec::DiskFormat;

use super::devices::{asked, at, detach, running, slot, told};
use super::*;
use crate::domain::driver::{CallFailure, DeviceCall};

fn medium(path: &str) -> Medium {
    Medium {
        image: Layer {
            path: path.into(),
            format: DiskFormat::Raw,
        },
        backing: Vec::new(),
        from_image: false,
    }
}

fn change(path: Option<&str>, persistent: bool) -> Request {
    Request::ChangeMedium {
        device: "1".parse().unwrap(),
        medium: path.map(medium).map(Box::new),
        live: true,
        persistent,
    }
}

/// The paths of the running and the kept definition's first disk.
fn images(fed: &Fed) -> [Option<std::path::PathBuf>; 2] {
    [false, true].map(|persistent| {
        let domain = fed.actor.definition(persistent).unwrap();
        let image = domain.devices.disks[0].image.clone();
        image.map(|layer| layer.path)
    })
}

/// With a disk that is removable.
fn drive() -> Fed {
    let mut cd = Disk::new("vda".parse().unwrap(), None);
    (cd.removable, cd.read_only) = (true, true);
    let mut fed = running();
    let effects = fed.ask(detach("vda", true));
    let effects = fed.through(effects);
    assert_eq!(answer(&effects), None);
    fed.notice(Notice::DeviceRemoved(at(1)));
    let effects = fed.ask(Request::Detach {
        device: "vda".parse().unwrap(),
        force: true,
        live: false,
        persistent: true,
    });
    fed.through(effects);
    let effects = fed.ask(Request::Attach {
        device: Box::new(Device::Disk(cd)),
        live: true,
        persistent: true,
    });
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    fed
}

#[test]
fn a_medium_is_noted_before_the_worker_has_it_and_kept_where_that_is_said() {
    let mut fed = drive();
    let effects = fed.ask_written(change(Some("/a"), false));
    let (serial, call) = asked(&effects);
    let DeviceCall::Medium { domain, slot: at } = call else {
        panic!("{call:?}")
    };
    assert_eq!(at, slot(1));
    let disk = &domain.devices.disks[0];
    assert_eq!(disk.image, Some(medium("/a").image));
    let effects = fed.called(serial, Ok(()));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(told(&effects, &medium_changed(true)));
    assert_eq!(images(&fed), [Some("/a".into()), None]);
    let effects = fed.ask(change(Some("/b"), true));
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    assert_eq!(images(&fed), [Some("/b".into()), Some("/b".into())]);
    let effects = fed.ask(change(None, false));
    let effects = fed.through(effects);
    assert_eq!(answer(&effects), Some(Ok(())));
    assert!(told(&effects, &medium_changed(false)));
    assert_eq!(images(&fed), [None, Some("/b".into())]);
}

/// What is told of the drive.
fn medium_changed(inserted: bool) -> EventKind {
    EventKind::MediumChanged {
        device: "vda".parse().unwrap(),
        inserted,
    }
}

#[test]
fn a_medium_that_is_not_put_in_is_not_noted() {
    let mut fed = drive();
    let effects = fed.ask_written(change(Some("/a"), true));
    let refused = CallFailure::Refused("it is broken".to_owned());
    let effects = fed.called(asked(&effects).0, Err(refused));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Worker)));
    assert_eq!(images(&fed), [None, None]);
    // Or cannot be kept.
    let effects = fed.ask_written(change(Some("/a"), true));
    let effects = fed.called(asked(&effects).0, Ok(()));
    let full = Done::Written(Err("no space left".to_owned()));
    let effects = fed.feed(Input::Done(writes(&effects), full));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    let (_, undo) = asked(&effects);
    let DeviceCall::Medium { domain, .. } = undo else {
        panic!("{undo:?}")
    };
    assert_eq!(domain.devices.disks[0].image, None);
    assert_eq!(images(&fed), [None, None]);
}

#[test]
fn a_medium_that_is_put_in_late_is_noted() {
    let mut fed = drive();
    let effects = fed.ask_written(change(Some("/a"), false));
    let late = CallFailure::Late("its medium changes when it has".to_owned());
    let effects = fed.called(asked(&effects).0, Err(late));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Timeout)));
    assert_eq!(images(&fed), [Some("/a".into()), None]);
}

#[test]
fn a_size_is_asked_of_the_worker_and_none_of_a_definition() {
    let mut fed = running();
    let (bytes, shrink) = (Some(1 << 30), false);
    let change = DeviceChange::DiskSize { bytes, shrink };
    let request = |persistent| Request::Update {
        device: "vda".parse().unwrap(),
        change,
        live: true,
        persistent,
    };
    // This one has no medium.
    let effects = fed.ask(request(false));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
    let mut with = Disk::new("vdb".parse().unwrap(), Some(medium("/a").image));
    with.address = Some(slot(9));
    let effects = fed.ask(Request::Attach {
        device: Box::new(Device::Disk(with)),
        live: true,
        persistent: true,
    });
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    let request = |persistent| Request::Update {
        device: "vdb".parse().unwrap(),
        change,
        live: true,
        persistent,
    };
    let effects = fed.ask(request(true));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::InvalidArgument)));
    let effects = fed.ask_written(request(false));
    let slot = slot(9);
    assert_eq!(asked(&effects).1, DeviceCall::Update { slot, change });
}
