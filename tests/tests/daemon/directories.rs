//! The directories of an instance: damaged, full, read-only, missing, wiped, taken, side by side.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Result, ensure};
use reeve_ipc::api::call::{DomainDefine, DomainDestroy, DomainGet, SupervisorInfoGet};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::model::{BootSource, Channel, KernelBoot};
use reeve_tests::daemon::{Daemon, built_in, named};

use super::world::end_everything;
use super::{ECHO, assert_at_rest, define, start, wait_until_off};

fn record(daemon: &Daemon, name: &str) -> Result<std::path::PathBuf> {
    for entry in fs::read_dir(daemon.state().join("domains"))? {
        let path = entry?.path();
        if fs::read_to_string(&path)?.contains(&format!("\"name\": \"{name}\"")) {
            return Ok(path);
        }
    }
    anyhow::bail!("no record of {name}")
}

#[test]
fn a_damaged_definition_is_told_left_alone_and_in_nobodys_way() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let damaged = built_in("damaged", ECHO);
    for domain in [&damaged, &built_in("newer", ECHO), &built_in("fine", ECHO)] {
        define(&mut connection, domain)?;
    }
    daemon.kill()?;
    let (truncated, newer) = (record(&daemon, "damaged")?, record(&daemon, "newer")?);
    let text = fs::read_to_string(&truncated)?;
    let half = &text[..text.len() / 2];
    fs::write(&truncated, half)?;
    let text = fs::read_to_string(&newer)?.replace("\"schema\": 3", "\"schema\": 99");
    fs::write(&newer, &text)?;
    // The name of another, under a UUID of its own.
    let copy = newer.with_file_name("ffffffff-0000-4000-8000-000000000000.json");
    let twin = fs::read_to_string(record(&daemon, "fine")?)?;
    let own = twin
        .split('"')
        .find(|part| part.len() == 36 && part.contains('-'))
        .expect("a UUID")
        .to_owned();
    fs::write(
        &copy,
        twin.replace(&own, "ffffffff-0000-4000-8000-000000000000"),
    )?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let info = connection.call(SupervisorInfoGet {})?;
    assert_eq!(info.refused.len(), 3, "{:?}", info.refused);
    for (path, word) in [(&truncated, "damaged"), (&newer, "99"), (&copy, "fine")] {
        let name = path.file_name().expect("a name").to_string_lossy();
        let told = info.refused.iter().find(|line| line.contains(&*name));
        ensure!(told.is_some(), "{word}: {:?}", info.refused);
    }
    assert_eq!(connection.domains(false)?.len(), 1);
    // Its UUID cannot be defined over it, and the line names the file.
    let again = connection.call(DomainDefine {
        definition: Box::new(damaged),
        only_new: false,
    });
    let error = again.unwrap_err().to_string();
    ensure!(error.contains(&*truncated.to_string_lossy()), "{error}");
    assert_eq!(fs::read_to_string(&truncated)?, half, "it is as it was");
    assert_eq!(fs::read_to_string(&newer)?, text);
    Ok(())
}

#[test]
fn the_schema_before_this_one_still_loads() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("old", ECHO))?;
    daemon.kill()?;
    let path = record(&daemon, "old")?;
    let text = fs::read_to_string(&path)?;
    let mut value: serde_json::Value = serde_json::from_str(&text)?;
    value["schema"] = 1.into();
    fs::write(&path, serde_json::to_string_pretty(&value)?)?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let info = connection.call(SupervisorInfoGet {})?;
    ensure!(info.refused.is_empty(), "{:?}", info.refused);
    start(&mut connection, "old")?;
    drop(connection);
    end_everything(&daemon, &[])
}

#[test]
fn two_supervisors_do_not_share_a_directory_and_several_stand_side_by_side() -> Result<()> {
    let daemon = Daemon::start()?;
    let second = daemon
        .command()?
        .stderr(std::process::Stdio::piped())
        .output()?;
    ensure!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    let line = said.lines().last().unwrap_or_default();
    ensure!(
        line.contains(&format!("pid {}", daemon.pid().unwrap_or(0))),
        "{said}"
    );
    let others = [Daemon::start()?, Daemon::start()?];
    for instance in others.iter().chain([&daemon]) {
        let mut connection = instance.connect()?;
        define(&mut connection, &built_in("same", ECHO))?;
        start(&mut connection, "same")?;
    }
    let uid = |instance: &Daemon| -> Result<u32> {
        let mut connection = instance.connect()?;
        let details = connection.call(DomainGet {
            domain: named("same"),
        })?;
        Ok(details.worker.map_or(0, |worker| worker.uid))
    };
    let uids = [uid(&daemon)?, uid(&others[0])?, uid(&others[1])?];
    ensure!(
        uids[0] != uids[1] && uids[1] != uids[2] && uids[0] != uids[2],
        "{uids:?}"
    );
    for instance in others.iter().chain([&daemon]) {
        end_everything(instance, &[])?;
    }
    Ok(())
}

#[test]
fn a_full_disk_refuses_a_definition_and_loses_none() -> Result<()> {
    let mut daemon = Daemon::prepare()?;
    let mount = Mount::tmpfs(&daemon.state(), "size=128k,mode=700")?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let mut defined = 0;
    let error = loop {
        match define(&mut connection, &built_in(&format!("d{defined}"), ECHO)) {
            Ok(()) => defined += 1,
            Err(error) => break error,
        }
        ensure!(defined < 1000, "the disk is never full");
    };
    ensure!(error.to_string().contains("space"), "{error}");
    assert_eq!(connection.domains(false)?.len(), defined);
    // A definition that is there still starts and ends: that needs no disk.
    start(&mut connection, "d0")?;
    daemon.crash()?;
    let mut connection = daemon.connect()?;
    assert_eq!(connection.domains(false)?.len(), defined);
    connection.call(DomainDestroy {
        domain: named("d0"),
    })?;
    wait_until_off(&mut connection, "d0")?;
    drop(connection);
    end_everything(&daemon, &[])?;
    daemon.kill()?;
    drop(mount);
    Ok(())
}

#[test]
fn a_read_only_disk_still_runs_what_is_defined() -> Result<()> {
    let mut daemon = Daemon::prepare()?;
    let mount = Mount::tmpfs(&daemon.state(), "size=1m,mode=700")?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("web", ECHO))?;
    // With files open for writing the kernel would not.
    daemon.kill()?;
    mount.remount("ro")?;
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let error = define(&mut connection, &built_in("db", ECHO)).unwrap_err();
    ensure!(error.to_string().contains("read-only"), "{error}");
    start(&mut connection, "web")?;
    mount.remount("rw")?;
    define(&mut connection, &built_in("db", ECHO))?;
    assert_eq!(connection.domains(false)?.len(), 2);
    drop(connection);
    end_everything(&daemon, &[])?;
    daemon.kill()?;
    drop(mount);
    Ok(())
}

#[test]
fn a_missing_state_directory_is_made_and_one_that_cannot_be_is_named() -> Result<()> {
    let daemon = Daemon::start()?;
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(daemon.state())?.permissions());
    assert_eq!(mode & 0o777, 0o711);
    let mut impossible = Daemon::prepare()?;
    let file = impossible.state();
    fs::write(&file, "not a directory")?;
    impossible.spawn_unready()?;
    ensure!(!impossible.wait_for_end()?.success());
    let log = impossible.log();
    ensure!(log.contains(&*file.to_string_lossy()), "{log}");
    Ok(())
}

#[test]
fn a_run_directory_wiped_under_a_running_instance_costs_no_domain() -> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in("before", ECHO))?;
    start(&mut connection, "before")?;
    fs::remove_dir_all(daemon.run())?;
    // The connection that is open goes on, and so does everything behind it.
    define(&mut connection, &built_in("after", ECHO))?;
    start(&mut connection, "after")?;
    for name in ["before", "after"] {
        connection.call(DomainDestroy {
            domain: named(name),
        })?;
        wait_until_off(&mut connection, name)?;
    }
    assert_at_rest(&daemon);
    Ok(())
}

#[test]
fn a_path_outside_the_allowed_directories_is_refused_with_the_line_that_allows_it() -> Result<()> {
    let mut daemon = Daemon::prepare()?;
    let config = daemon.run().with_file_name("reeve.toml");
    fs::write(
        &config,
        "allowed_directories = [\"/var/lib/reeve/images\"]\n",
    )?;
    daemon.argument(&format!("--config={}", config.display()));
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let images = tempfile::tempdir()?;
    let kernel = images.path().join("vmlinux");
    fs::write(&kernel, "no kernel")?;
    let mut domain = built_in("web", "");
    domain.boot = BootSource::Kernel(KernelBoot {
        kernel: kernel.clone(),
        initrd: None,
        command_line: String::new(),
    });
    define(&mut connection, &domain)?;
    let refused = connection.call(reeve_ipc::api::call::DomainStart {
        domain: named("web"),
        options: reeve_ipc::api::call::StartOptions::default(),
    });
    let error = refused.unwrap_err();
    assert_eq!(
        error.refused().map(|e| e.code),
        Some(ApiErrorCode::PathRefused)
    );
    let line = error.to_string();
    let advice = line
        .split('\'')
        .find(|part| part.starts_with("allowed_directories"));
    let advice = advice.ok_or_else(|| anyhow::anyhow!("no line to add in: {line}"))?;
    fs::write(&config, format!("{advice}\n"))?;
    daemon.reeve(&["reload"])?;
    let error = start(&mut connection, "web").unwrap_err().to_string();
    ensure!(
        error.contains("neither an ELF file nor a bzImage"),
        "{error}"
    );
    assert_at_rest(&daemon);
    Ok(())
}

#[test]
fn sockets_may_be_in_a_directory_of_the_instances_own_and_nothing_else_is_opened_there()
-> Result<()> {
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let own = daemon.run().join("sockets");
    let mut domain = built_in("web", ECHO);
    domain.devices.channels.push(Channel {
        name: "org.qemu.guest_agent.0".to_owned(),
        path: own.join("web.agent"),
        port: None,
    });
    define(&mut connection, &domain)?;
    start(&mut connection, "web")?;
    ensure!(own.join("web.agent").exists());
    ensure!(fs::metadata(&own)?.permissions().mode() & 0o777 == 0o700);
    for (name, path) in [
        ("out", own.join("../out")),
        ("under", own.join("under/web.agent")),
        ("beside", daemon.run().join("sockets-too")),
    ] {
        let mut other = built_in(name, ECHO);
        other.devices.channels.clone_from(&domain.devices.channels);
        other.devices.channels[0].path = path;
        let refused = define(&mut connection, &other).and_then(|()| start(&mut connection, name));
        ensure!(refused.is_err(), "{name} is started");
    }
    ensure!(fs::read_dir(&own)?.count() == 1);
    let kernel = own.join("vmlinux");
    fs::write(&kernel, "no kernel")?;
    let mut other = built_in("other", "");
    other.boot = BootSource::Kernel(KernelBoot {
        kernel: kernel.clone(),
        initrd: None,
        command_line: String::new(),
    });
    define(&mut connection, &other)?;
    let refused = start(&mut connection, "other").err();
    let refused = refused.map(|error| error.to_string()).unwrap_or_default();
    ensure!(
        refused.contains("outside the allowed directories"),
        "{refused}"
    );
    fs::remove_file(kernel)?;
    connection.call(DomainDestroy {
        domain: named("web"),
    })?;
    wait_until_off(&mut connection, "web")?;
    assert_at_rest(&daemon);
    Ok(())
}

/// A file system of a test's own, in this machine's mount namespace for as long as the test runs.
struct Mount(std::path::PathBuf);

impl Mount {
    fn tmpfs(at: &Path, options: &str) -> Result<Self> {
        fs::create_dir_all(at)?;
        run(&["mount", "-t", "tmpfs", "-o", options, "reeve-test"], at)?;
        Ok(Self(at.to_owned()))
    }

    fn remount(&self, how: &str) -> Result<()> {
        run(&["mount", "-o", &format!("remount,{how}")], &self.0)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run(&["umount", "-l"], &self.0);
    }
}

fn run(command: &[&str], at: &Path) -> Result<()> {
    let (program, arguments) = command.split_first().expect("a program");
    let status = std::process::Command::new(program)
        .args(arguments)
        .arg(at)
        .status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
