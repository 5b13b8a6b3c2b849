//! All that can be done with the devices of a domain while its guest runs, in one boot of it: a boot is
//! most of what such a test takes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_tests::lab::inside_outer_guest;
use reeve_tests::leftovers::Snapshot;
use reeve_tests::network::Network;
use reeve_tests::reeve::Reeve;
use reeve_tests::soaking;

use super::domain::{Domain, NAME};
use super::guest::SOON;
use super::{balloon, plug, ports};

#[reeve_tests::in_lab(timeout = "1800s", root)]
fn devices_of_a_running_domain_are_used_given_and_taken() -> Result<()> {
    let rounds = if soaking() { 50 } else { 2 };
    pages("always")?;
    let network = Network::new()?;
    // The place of the namespaces of networks stays when a network goes.
    let before = Snapshot::take();
    let drivers = [
        &["virtio_blk", "virtio_net", "virtio_balloon"][..],
        &ports::DRIVERS,
    ];
    let memory = format!("{}M", balloon::all_mib());
    let mut domain = Domain::start(&drivers.concat(), &memory, options)?;
    let mut events = Reeve::command()?
        .arg("--socket")
        .arg(domain.daemon.socket())
        .arg("events")
        .arg(NAME)
        .spawn()?;

    plug::a_removal_before_the_guest_is_up_ends(&mut domain).context("an early removal")?;
    ports::random_numbers_come(&mut domain).context("rng")?;
    ports::streams_go_through_a_socket_device(&mut domain).context("vsock")?;
    ports::a_guest_reaches_programs_of_the_host(&mut domain).context("vsock outwards")?;
    ports::bytes_go_through_a_channel(&mut domain).context("channel")?;
    ports::ports_come_and_go(&mut domain).context("ports")?;
    plug::devices_come_and_go_under_io(&mut domain, &network, rounds).context("plug")?;
    pages("never")?;
    balloon::memory_is_taken_and_given_back(&mut domain).context("balloon")?;
    domain.shut_down()?;

    events.expect("shut off", SOON)?;
    let told = events.output();
    for (text, least) in [
        ("has a further device, vdc at address", rounds),
        ("has lost a device, vdc", rounds + 1),
        (&format!("has a further device, channel:{}", ports::LIVE), 3),
        (&format!("has lost a device, channel:{}", ports::LIVE), 3),
        ("has lost a device, console:0", 3),
        ("has lost a device, ports", 1),
        (&format!("is left {}M of memory", balloon::all_mib()), 1),
        (&format!("is left {}M of memory", balloon::all_mib() / 2), 1),
    ] {
        let found = told.matches(text).count();
        ensure!(found >= least as usize, "{text}: {found}: {told}");
    }
    drop((events, network));
    before.assert_nothing_new(Duration::from_secs(5));
    Ok(())
}

/// Whether the host backs guests' memory by large pages. In the outer guest each page that a guest touches
/// first costs an exit, and each exit an emulated processor's whole TLB: with pages of 2 MiB there are 50
/// instead of 17,000 at a boot. A balloon is measured without new ones, as on a host that is set up for
/// balloons: a guest that moves a lent page (compaction) and touches its old place has all the 2 MiB
/// around it back at once.
fn pages(huge: &str) -> Result<()> {
    if inside_outer_guest() {
        let settings = Path::new("/sys/kernel/mm/transparent_hugepage");
        fs::write(settings.join("shmem_enabled"), huge)?;
        // Nor are they put where small ones have been taken out.
        fs::write(settings.join("khugepaged/max_ptes_none"), "0")?;
    }
    Ok(())
}

/// A disk that is read and written all the time, one that goes at once, and what else there is.
fn options(files: &Path) -> Result<Vec<String>> {
    let mut options = ports::options(files);
    for name in ["data", "early"] {
        let path = files.join(name);
        fs::File::create(&path)?.set_len(plug::IO_BYTES)?;
        options.push("--disk".to_owned());
        options.push(format!("{},format=raw", path.display()));
    }
    options.push("--balloon".to_owned());
    options.push("--limit-memory=800M".to_owned());
    options.push(format!("--max-cpus={}", plug::VCPUS));
    Ok(options)
}
