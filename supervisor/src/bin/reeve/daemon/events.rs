//! What happens to domains and storage pools, as it happens.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainGet, DomainRef};
use reeve_ipc::api::event::{
    Cursor, DomainEvent, Event, EventKind, Label, NetworkEvent, NetworkEventKind, PoolEvent,
    PoolEventKind,
};
use reeved::logging::printable;
use serde_json::{Value, json};

use super::args::EventsArgs;
use super::{CommandError, Output, print};

pub(super) fn events(
    connection: &mut Connection,
    out: Output,
    args: &EventsArgs,
) -> Result<(), CommandError> {
    let subscribed = connection.subscribe(args.since)?;
    if subscribed.lost {
        out.notice("events between that one and the first below are lost");
    }
    let domain = match args.domain.clone() {
        None => None,
        Some(domain) => {
            // Nothing is ever told of one that is misspelt.
            let get = DomainGet {
                domain: domain.clone(),
            };
            let details = connection.call(get)?;
            Some(match domain {
                // A number is of a worker, which an event does not name.
                DomainRef::Id(_) => DomainRef::Uuid(details.summary.uuid),
                other => other,
            })
        }
    };
    let timeout = args.timeout.map(Duration::from_secs);
    let mut last = subscribed.cursor.number;
    let mut count = 0;
    while args.count.is_none_or(|most| count < most) {
        let Some((cursor, event)) = connection.next_event(timeout)? else {
            return Ok(());
        };
        if cursor.number > last + 1 {
            out.notice(&format!("{} events are lost", cursor.number - last - 1));
        }
        last = cursor.number;
        if !is_chosen(domain.as_ref(), &event) {
            continue;
        }
        count += 1;
        if out.json {
            print(&format!("{}\n", event_json(cursor, &event)))?;
        } else {
            print(&line(&event))?;
        }
    }
    Ok(())
}

/// Whether an event is of the domain that was asked for, if one was.
fn is_chosen(domain: Option<&DomainRef>, event: &Event) -> bool {
    match domain {
        None | Some(DomainRef::Id(_)) => true,
        Some(DomainRef::Uuid(uuid)) => of_domain(event).is_some_and(|event| event.uuid == *uuid),
        Some(DomainRef::Name(name)) => of_domain(event).is_some_and(|event| event.name == *name),
    }
}

const fn of_domain(event: &Event) -> Option<&DomainEvent> {
    match event {
        Event::Domain(event) => Some(event),
        Event::Pool(_) | Event::Network(_) => None,
    }
}

const fn pool_words(kind: PoolEventKind) -> &'static str {
    match kind {
        PoolEventKind::Defined { changed: false } => "defined",
        PoolEventKind::Defined { changed: true } => "defined again",
        PoolEventKind::Undefined => "undefined",
        PoolEventKind::Started => "started",
        PoolEventKind::Stopped => "stopped",
        PoolEventKind::Created => "directory made",
        PoolEventKind::Deleted => "directory removed",
        PoolEventKind::Refreshed => "volumes changed",
        PoolEventKind::Autostart { on: true } => "starts with the host",
        PoolEventKind::Autostart { on: false } => "no longer starts with the host",
    }
}

fn network_words(kind: &NetworkEventKind) -> String {
    match kind {
        NetworkEventKind::Defined { changed: false } => "defined".to_owned(),
        NetworkEventKind::Defined { changed: true } => "defined again".to_owned(),
        NetworkEventKind::Undefined => "undefined".to_owned(),
        NetworkEventKind::Started => "started".to_owned(),
        NetworkEventKind::Stopped => "stopped".to_owned(),
        NetworkEventKind::Autostart { on: true } => "starts with the host".to_owned(),
        NetworkEventKind::Autostart { on: false } => "no longer starts with the host".to_owned(),
        NetworkEventKind::Updated => "has another definition".to_owned(),
        NetworkEventKind::Labels { label } => label_words(label),
        NetworkEventKind::PortAdded { port } => format!("has a further port, {port}"),
        NetworkEventKind::PortRemoved { port } => format!("has lost the port {port}"),
    }
}

fn label_words(label: &Label) -> String {
    match label {
        Label::Title => "its title was set".to_owned(),
        Label::Description => "its description was set".to_owned(),
        Label::Metadata { uri } => format!("its metadata of '{uri}' was set"),
    }
}

fn words(kind: &EventKind) -> String {
    match kind {
        EventKind::Defined { changed: false } => "defined".to_owned(),
        EventKind::Defined { changed: true } => "defined again".to_owned(),
        EventKind::Undefined => "undefined".to_owned(),
        EventKind::Renamed { before } => format!("renamed, was '{before}'"),
        EventKind::State(state) => format!("{} ({})", state.name(), state.reason()),
        EventKind::Reset => "reset".to_owned(),
        EventKind::Adopted => "taken over".to_owned(),
        EventKind::Unresponsive => "does not answer".to_owned(),
        EventKind::Responsive => "answers again".to_owned(),
        EventKind::JobFailed { job, message } => format!("could not {}: {message}", job.verb()),
        EventKind::Autostart { order: Some(order) } => {
            format!("starts with the host, place {order}")
        }
        EventKind::Autostart { order: None } => "no longer starts with the host".to_owned(),
        EventKind::Labels { label } => label_words(label),
        EventKind::DeviceAdded { device, slot } => {
            format!("has a further device, {device} at address {slot}")
        }
        EventKind::DeviceRemoved { device, .. } => format!("has lost a device, {device}"),
        EventKind::VcpusChanged { vcpus: 1 } => "has 1 vCPU".to_owned(),
        EventKind::VcpusChanged { vcpus } => format!("has {vcpus} vCPUs"),
        EventKind::Panicked => "its kernel panicked".to_owned(),
        EventKind::CrashKernel => "its kernel panicked, and its crash kernel starts".to_owned(),
        EventKind::WatchdogExpired { action } => {
            format!("its watchdog has expired: {action}")
        }
        EventKind::MediumChanged {
            device,
            inserted: true,
        } => format!("has another medium in {device}"),
        EventKind::MediumChanged { device, .. } => format!("has no medium in {device} any more"),
        EventKind::ChannelChanged {
            channel,
            open: true,
        } => format!("its guest has opened the channel '{channel}'"),
        EventKind::ChannelChanged { channel, .. } => {
            format!("its guest has closed the channel '{channel}'")
        }
        EventKind::Tuned { .. } => "has other bounds on what it may use of the host".to_owned(),
        EventKind::BalloonChanged { memory } => format!("its guest is left {memory} of memory"),
    }
}

fn line(event: &Event) -> String {
    match event {
        Event::Domain(DomainEvent {
            time_ms,
            name,
            kind,
            ..
        }) => {
            let (name, words) = (printable(name.as_str()), words(kind));
            format!("{}  {name}  {}\n", clock(*time_ms), printable(&words))
        }
        Event::Pool(PoolEvent {
            time_ms,
            name,
            kind,
            ..
        }) => {
            let name = printable(name.as_str());
            format!("{}  pool {name}  {}\n", clock(*time_ms), pool_words(*kind))
        }
        Event::Network(NetworkEvent {
            time_ms,
            name,
            kind,
            ..
        }) => {
            let (name, words) = (printable(name.as_str()), network_words(kind));
            format!(
                "{}  network {name}  {}\n",
                clock(*time_ms),
                printable(&words)
            )
        }
    }
}

fn event_json(cursor: Cursor, event: &Event) -> Value {
    let event = match event {
        Event::Domain(event) => event,
        Event::Pool(event) => {
            return json!({
                "cursor": format!("{}:{}", cursor.epoch, cursor.number),
                "time_unix_ms": event.time_ms,
                "pool_uuid": event.uuid,
                "pool": event.name,
                "event": event.kind,
                "text": pool_words(event.kind),
            });
        }
        Event::Network(event) => {
            return json!({
                "cursor": format!("{}:{}", cursor.epoch, cursor.number),
                "time_unix_ms": event.time_ms,
                "network_uuid": event.uuid,
                "network": event.name,
                "event": event.kind,
                "text": network_words(&event.kind),
            });
        }
    };
    json!({
        "cursor": format!("{}:{}", cursor.epoch, cursor.number),
        "time_unix_ms": event.time_ms,
        "uuid": event.uuid,
        "name": event.name,
        "event": event.kind,
        "text": words(&event.kind),
    })
}

/// Time of day, UTC, and the date where it is not today.
fn clock(ms: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = ms / 1000;
    let of_day = seconds % 86400;
    let time = format!(
        "{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        ms % 1000
    );
    match (now.as_secs() / 86400).saturating_sub(seconds / 86400) {
        0 => time,
        days => format!("{days} d ago {time}"),
    }
}
