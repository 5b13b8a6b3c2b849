//! What serves shared directories comes and goes with the domain and its devices, and outlives the daemon
//! as they do.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::model::{Device, Devices, Share};

use super::devices::Place;

/// Whoever owns the shared directories: nobody else's processes are of this user.
fn owner() -> u32 {
    0x7fff_0000 + std::process::id()
}

fn share(tag: &str, source: PathBuf) -> Share {
    Share {
        tag: tag.to_owned(),
        source,
        read_only: false,
        address: None,
    }
}

/// The processes that serve: the programs and their launchers are of one user.
fn serving() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let of_owner = status.contains(&format!("Uid:\t{}\t", owner()));
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let name = entry.file_name().to_string_lossy().parse();
        if let (true, "virtiofsd", Ok(pid)) = (of_owner, comm.trim(), name) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn wait_for_serving(count: usize) -> Result<Vec<u32>> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = serving()?;
        if found.len() == count {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{found:?} serve, not {count}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_share_is_served_as_long_as_it_is_there_whatever_becomes_of_the_daemon() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        // The daemon of an ordinary user shares as that user: tried in the lab.
        return Ok(());
    }
    let mut place = Place::with(|allowed| {
        let data = allowed.join("data");
        fs::create_dir(&data)?;
        chown(&data, Some(owner()), Some(owner()))?;
        Ok(Devices {
            shares: vec![share("data", data)],
            ..Devices::default()
        })
    })?;
    let first = wait_for_serving(1)?;

    // Another daemon finds the domain, and has nothing to find of what serves it.
    place.daemon.kill()?;
    place.daemon.spawn()?;
    place.connection = place.daemon.connect()?;
    ensure!(serving()? == first, "the same process serves");

    let more = place.path("more");
    fs::create_dir(&more)?;
    let refused = place.attach(Device::Share(share("more", more.clone())), false);
    let refused = refused.err().and_then(|error| error.refused().cloned());
    ensure!(
        refused.as_ref().is_some_and(|refused| {
            refused.code == ApiErrorCode::InvalidArgument && refused.message.contains("is root's")
        }),
        "{refused:?}"
    );
    chown(&more, Some(owner()), Some(owner()))?;
    place.attach(Device::Share(share("more", more)), true)?;
    wait_for_serving(2)?;
    // Nobody else's directory can be named.
    let refused = place.attach(Device::Share(share("etc", "/etc".into())), false);
    let refused = refused.err().and_then(|error| error.refused().cloned());
    ensure!(
        refused
            .as_ref()
            .is_some_and(|refused| refused.code == ApiErrorCode::PathRefused),
        "{refused:?}"
    );
    place.detach("share:more", true, true)?;
    ensure!(wait_for_serving(1)? == first, "the other goes on");
    place.end()?;
    wait_for_serving(0)?;
    Ok(())
}
