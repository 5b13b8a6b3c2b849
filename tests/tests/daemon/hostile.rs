//! Clients that do not behave, and a host that runs out of descriptors.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::CallError;
use reeve_ipc::api::call::{CallBody, DomainDefine, SupervisorInfoGet};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::message::{CallId, FromClient, ToClient};
use reeve_ipc::api::{API, ApiVersion};
use reeve_ipc::{codec, local, scm};
use reeve_tests::daemon::{Daemon, built_in};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::world::end_everything;
use super::{ECHO, define};

/// A client that says what it likes.
struct Raw(OwnedFd);

impl Raw {
    fn connect(daemon: &Daemon) -> Result<Self> {
        Ok(Self(local::connect(&daemon.socket())?))
    }

    fn greeted(daemon: &Daemon) -> Result<Self> {
        let raw = Self::connect(daemon)?;
        raw.say(&FromClient::Hello {
            api: API,
            client: "raw".to_owned(),
        })?;
        let first = raw.hear()?.context("closed")?;
        ensure!(matches!(first, ToClient::Welcome { .. }), "{first:?}");
        Ok(raw)
    }

    fn say(&self, message: &FromClient) -> Result<()> {
        self.bytes(&codec::encode(message)?, &[])
    }

    fn bytes(&self, bytes: &[u8], fds: &[OwnedFd]) -> Result<()> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        Ok(scm::send(self.0.as_fd(), bytes, &fds)?)
    }

    /// The next message; `None` when the supervisor has closed the connection.
    fn hear(&self) -> Result<Option<ToClient>> {
        let timeout = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout))?;
        ensure!(ready > 0, "the supervisor says nothing");
        match scm::receive_message(self.0.as_fd()) {
            Ok((bytes, _)) => Ok(Some(codec::decode(&bytes)?)),
            Err(scm::ScmError::Closed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn info(&self, id: u64) -> Result<()> {
        self.say(&FromClient::Call {
            id: CallId(id),
            body: CallBody::SupervisorInfoGet(SupervisorInfoGet {}),
        })
    }
}

/// Whether others are served as ever.
fn serves(daemon: &Daemon) -> Result<()> {
    let begin = Instant::now();
    daemon.connect()?.call(SupervisorInfoGet {})?;
    ensure!(
        begin.elapsed() < Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
    Ok(())
}

/// Waits until the clients that have gone are in nobody's way.
fn serves_again(daemon: &Daemon) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = serves(daemon) {
        ensure!(Instant::now() < deadline, "{error:#}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// That, and its books balance once every client is gone and every domain was ended.
fn serves_and_holds_nothing(daemon: &Daemon) -> Result<()> {
    serves(daemon)?;
    end_everything(daemon, &[])
}

#[test]
fn garbage_ends_its_own_connection_and_no_other() -> Result<()> {
    let daemon = Daemon::start()?;
    let good = Raw::greeted(&daemon)?;
    for bytes in [
        &[0xff; 64][..],
        &[1, 0],
        &[0; 65000],
        &[1, 1, 0xfd, 0xff, 0xff],
    ] {
        let bad = Raw::greeted(&daemon)?;
        bad.bytes(bytes, &[])?;
        ensure!(bad.hear()?.is_none(), "{bytes:?} was taken");
        let unasked = Raw::connect(&daemon)?;
        unasked.bytes(bytes, &[])?;
        ensure!(unasked.hear()?.is_none());
    }
    good.info(1)?;
    ensure!(matches!(good.hear()?, Some(ToClient::Reply { .. })));
    drop(good);
    serves_and_holds_nothing(&daemon)
}

#[test]
fn a_client_of_another_version_is_told() -> Result<()> {
    let daemon = Daemon::start()?;
    let raw = Raw::connect(&daemon)?;
    raw.say(&FromClient::Hello {
        api: ApiVersion(99),
        client: "future".to_owned(),
    })?;
    let Some(ToClient::Refused(error)) = raw.hear()? else {
        anyhow::bail!("it was not refused");
    };
    ensure!(error.message.contains("99"), "{}", error.message);
    ensure!(raw.hear()?.is_none());
    Ok(())
}

#[test]
fn descriptors_that_do_not_belong_are_refused_and_closed() -> Result<()> {
    let daemon = Daemon::start()?;
    let raw = Raw::greeted(&daemon)?;
    let before = descriptors(&daemon)?;
    for id in 0..100 {
        let call = FromClient::Call {
            id: CallId(id),
            body: CallBody::SupervisorInfoGet(SupervisorInfoGet {}),
        };
        let strays = [
            std::fs::File::open("/dev/null")?.into(),
            std::fs::File::open("/dev/null")?.into(),
        ];
        let sent = raw.bytes(&codec::encode(&call)?, &strays);
        drop(strays);
        if let Err(error) = sent {
            // The kernel refuses them to the client itself (Linux 6.16).
            let refused = error.downcast_ref::<scm::ScmError>();
            let refused = matches!(refused, Some(scm::ScmError::Os(Errno::PERM)));
            ensure!(refused, "{error}");
            continue;
        }
        let Some(ToClient::Reply {
            result: Err(error), ..
        }) = raw.hear()?
        else {
            anyhow::bail!("it was not refused");
        };
        ensure!(error.message.contains("descriptors"), "{}", error.message);
    }
    // By another thread, where the kernel let them through.
    let deadline = Instant::now() + Duration::from_secs(10);
    while descriptors(&daemon)? > before {
        ensure!(Instant::now() < deadline, "some are left open");
        std::thread::sleep(Duration::from_millis(10));
    }
    raw.info(100)?;
    ensure!(matches!(
        raw.hear()?,
        Some(ToClient::Reply { result: Ok(_), .. })
    ));
    drop(raw);
    serves_and_holds_nothing(&daemon)
}

#[test]
fn a_descriptor_whose_close_takes_long_holds_nobody_up() -> Result<()> {
    let daemon = Daemon::start()?;
    let call = codec::encode(&FromClient::Call {
        id: CallId(1),
        body: CallBody::SupervisorInfoGet(SupervisorInfoGet {}),
    })?;
    let raws = [
        Raw::greeted(&daemon)?,
        Raw::greeted(&daemon)?,
        Raw::connect(&daemon)?,
    ];
    let pid = Pid::from_raw(i32::try_from(daemon.pid().context("not running")?)?);
    let pid = pid.context("no pid")?;
    // Stopped, so that its copy is the last of each.
    kill_process(pid, Signal::STOP)?;
    let mut others = Vec::new();
    for (raw, garbage) in raws.iter().zip([false, true, false]) {
        if garbage {
            // What is behind it is never read.
            raw.bytes(&[0xff; 64], &[])?;
        }
        let (stray, other) = lingering(8)?;
        // Refused to the client by a kernel that can (Linux 6.16); else the supervisor's to close.
        if raw.bytes(&call, std::slice::from_ref(&stray)).is_err() {
            std::mem::forget(stray);
        }
        others.push(other);
    }
    kill_process(pid, Signal::CONT)?;
    for _ in 0..5 {
        serves(&daemon)?;
    }
    Ok(())
}

/// A socket whose last close takes so long, and its other end, which never reads.
fn lingering(seconds: u64) -> Result<(OwnedFd, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut ours = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    ours.set_nonblocking(true)?;
    while ours.write(&[0; 65536]).is_ok() {}
    ours.set_nonblocking(false)?;
    rustix::net::sockopt::set_socket_linger(&ours, Some(Duration::from_secs(seconds)))?;
    Ok((ours.into(), other))
}

fn descriptors(daemon: &Daemon) -> Result<usize> {
    let pid = daemon.pid().context("not running")?;
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[test]
fn a_client_that_does_not_read_loses_its_connection() -> Result<()> {
    let daemon = Daemon::start()?;
    let raw = Raw::greeted(&daemon)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut id = 0;
    loop {
        id += 1;
        match raw.info(id) {
            Ok(()) => {}
            Err(error) if error.to_string().contains("closed") => break,
            // Its own socket is full: the supervisor is not reading it any faster.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        ensure!(Instant::now() < deadline, "{id} calls and still served");
    }
    drop(raw);
    serves_and_holds_nothing(&daemon)
}

#[test]
fn a_client_that_says_nothing_is_let_go() -> Result<()> {
    let daemon = Daemon::start()?;
    let raw = Raw::connect(&daemon)?;
    ensure!(raw.hear()?.is_none(), "after its time it is closed");
    drop(raw);
    serves_and_holds_nothing(&daemon)
}

#[test]
fn a_flood_of_connections_is_bounded_and_passes() -> Result<()> {
    let daemon = Daemon::start()?;
    let flood: Vec<_> = (0..600).map(|_| Raw::connect(&daemon)).collect();
    let refused = flood
        .iter()
        .flatten()
        .filter(|raw| matches!(raw.hear_now(), Some(ToClient::Refused(_))));
    let refused = refused.count();
    ensure!(
        refused > 0 || flood.iter().any(Result::is_err),
        "nobody was refused"
    );
    drop(flood);
    serves_again(&daemon)?;
    serves_and_holds_nothing(&daemon)
}

impl Raw {
    /// What is there already, or comes at once.
    fn hear_now(&self) -> Option<ToClient> {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout));
        ready.ok().filter(|ready| *ready > 0)?;
        let (bytes, _) = scm::receive_message(self.0.as_fd()).ok()?;
        codec::decode(&bytes).ok()
    }
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_call_has_made_it_or_not() -> Result<()> {
    let daemon = Daemon::start()?;
    for number in 0..20 {
        let raw = Raw::greeted(&daemon)?;
        raw.say(&FromClient::Call {
            id: CallId(1),
            body: CallBody::DomainDefine(DomainDefine {
                definition: Box::new(built_in(&format!("d{number}"), ECHO)),
                only_new: false,
            }),
        })?;
    }
    let mut connection = daemon.connect()?;
    for number in 0..20 {
        // One that is being made yet is there a moment later, with its own UUID.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let domains = connection.domains(false)?;
            let Err(error) = define(&mut connection, &domain_again(&domains, number)) else {
                break;
            };
            let code = error
                .downcast_ref::<CallError>()
                .and_then(CallError::refused);
            let exists = code.is_some_and(|error| error.code == ApiErrorCode::DomainExists);
            ensure!(exists && Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let domains = connection.domains(false)?;
    let records = std::fs::read_dir(daemon.state().join("domains"))?.count();
    assert_eq!(
        (records, domains.len()),
        (20, 20),
        "what is shown is on disk"
    );
    drop(connection);
    serves_and_holds_nothing(&daemon)
}

/// The definition of `d<number>`, with the UUID that it has already where it was made.
fn domain_again(
    domains: &[reeve_ipc::api::view::DomainSummary],
    number: usize,
) -> reeve_ipc::model::Domain {
    let name = format!("d{number}");
    let mut domain = built_in(&name, ECHO);
    if let Some(known) = domains.iter().find(|domain| domain.name.as_str() == name) {
        domain.uuid = known.uuid;
    }
    domain
}

#[test]
fn without_descriptors_the_supervisor_waits_and_does_not_spin() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let pid = daemon.pid().context("not running")?;
    let limit = descriptors(&daemon)? + 8;
    let status = std::process::Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={limit}:{limit}")])
        .status()?;
    ensure!(status.success(), "prlimit of util-linux is missing");
    let held: Vec<_> = (0..40).filter_map(|_| Raw::connect(&daemon).ok()).collect();
    let before = cpu_ticks(pid)?;
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu_ticks(pid)? - before;
    ensure!(spent < 30, "{spent} of 100 ticks");
    drop(held);
    serves_again(&daemon)?;
    serves(&daemon)?;
    ensure!(daemon.terminate()?.success());
    Ok(())
}

/// CPU time of a process, in hundredths of a second (proc(5)).
fn cpu_ticks(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
    };
    Ok(number(11).context("utime")? + number(12).context("stime")?)
}
