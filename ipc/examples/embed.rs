//! A daemon that embeds Reeve: `embed [SOCKET [COMMAND-LINE]]` runs one domain, tells what happens to
//! it, prints what its guest says, and ends when the domain does. The supervisor may die and come
//! back meanwhile: the domain goes on, and this daemon behind the last event that it has seen.
#![expect(clippy::print_stderr, reason = "this is how the daemon tells")]

use std::error::Error;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use reeve_ipc::api::call::{
    DomainConsole, DomainCreate, DomainGet, DomainRef, DomainResume, StartOptions,
};
use reeve_ipc::api::client::Client;
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::DomainState;
use reeve_ipc::api::{RUN_DIRECTORY, SOCKET_NAME};
use reeve_ipc::model::{
    BootSource, Devices, Domain, DomainUuid, Labels, LifecycleAction, MemorySize, Platform,
    ResourceLimits, Tuning,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};
use uuid::Uuid;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let host = format!("{RUN_DIRECTORY}/{SOCKET_NAME}");
    let socket = PathBuf::from(arguments.next().unwrap_or(host));
    let command_line = arguments.next().unwrap_or_default();
    let definition = Domain {
        name: "embedded".parse()?,
        uuid: DomainUuid(Uuid::new_v4()),
        machine: MachineType::Reeve1_0,
        vcpus: 1.try_into()?,
        max_vcpus: 1.try_into()?,
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(64),
        boot: BootSource::BuiltIn { command_line },
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    };
    let uuid = definition.uuid;
    let domain = || DomainRef::Uuid(uuid);

    // Subscribed before there is a domain: nothing that happens to it is missed.
    let (mut client, mut events) = Client::open(&socket, "embed").await?;
    let mut seen = client.subscribe(None).await?.cursor;
    // It stands paused until all is in place. Its definition is not kept: it is gone when it ends.
    let create = DomainCreate {
        definition: Box::new(definition),
        options: StartOptions {
            paused: true,
            auto_destroy: false,
        },
    };
    client.call(create).await?;

    // The other end of the stream is the machine itself: it lives as long as that does.
    let attach = DomainConsole {
        domain: domain(),
        input: false,
    };
    let (_, fds) = client.call_with_fds(attach).await?;
    let mut console = UnixStream::from(fds.into_iter().next().ok_or("no console came")?);
    console.set_nonblocking(false)?;
    let said = thread::spawn(move || std::io::copy(&mut console, &mut std::io::stdout()));
    client.call(DomainResume { domain: domain() }).await?;

    'alive: loop {
        while let Some((cursor, event)) = events.recv().await {
            seen = cursor;
            let Some(event) = event.of_domain() else {
                continue;
            };
            if event.uuid == uuid {
                eprintln!("embed: event {}: {:?}", cursor.number, event.kind);
                if matches!(event.kind, EventKind::State(DomainState::ShutOff(_))) {
                    break 'alive;
                }
            }
        }
        eprintln!("embed: the supervisor is gone; the domain is not");
        (client, events) = loop {
            match Client::open(&socket, "embed").await {
                Ok(connection) => break connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let subscribed = client.subscribe(Some(seen)).await?;
        seen = subscribed.cursor;
        // Another supervisor process cannot tell what this one missed: look instead.
        let look = DomainGet { domain: domain() };
        if subscribed.lost && client.call(look).await.is_err() {
            break;
        }
        eprintln!("embed: the supervisor is back");
    }
    said.join().map_err(|_| "the console was not read")??;
    Ok(())
}
