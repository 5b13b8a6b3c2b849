//! What cannot be done: one line that says what failed, on which object, and what to do.

use std::io::BufRead as _;

use anyhow::{Context as _, Result};

use super::{Cli, eventually, refusal};

#[test]
fn every_command_names_the_domain_that_is_not_there() -> Result<()> {
    let cli = Cli::start()?;
    for command in [
        &["info"][..],
        &["inspect"],
        &["start"],
        &["shutdown"],
        &["reboot"],
        &["reset"],
        &["nmi"],
        &["pause"],
        &["resume"],
        &["destroy"],
        &["undefine"],
        &["console"],
        &["edit"],
        &["autostart"],
        &["label", "--title", "T"],
        &["logs"],
        &["export"],
        &["stats"],
    ] {
        let uuid = "6f1f9b0e-3c62-4a8d-9c1f-0c8a2f3f7a10";
        for (name, said) in [("none", "'none'"), ("77", "number 77"), (uuid, uuid)] {
            let arguments = [command, &[name]].concat();
            cli.refused(
                &arguments,
                &["there is no domain", said, "'reeve list --all'"],
            )?;
        }
    }
    cli.refused(&["rename", "none", "other"], &["'none'"])
}

#[test]
fn what_a_state_does_not_allow_says_what_would() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    cli.define("db")?;
    let off = ["domain 'web'", "not running"];
    for command in [
        "pause", "resume", "reset", "nmi", "reboot", "shutdown", "destroy", "console",
    ] {
        cli.refused(&[command, "web"], &off)?;
    }
    cli.refused(&["rename", "web", "db"], &["'db'"])?;
    cli.silent(&["start", "web"])?;
    cli.refused(&["start", "web"], &["domain 'web'", "running already"])?;
    cli.refused(&["rename", "web", "new"], &["domain 'web'", "shut it down"])?;
    cli.refused(
        &["define", "web", "--new"],
        &["domain 'web'", "defined already"],
    )?;
    cli.refused(&["create", "web"], &["'web'"])?;
    cli.ok(&[
        "create",
        "once",
        "--memory",
        "32M",
        "--cmdline",
        "mode=echo",
    ])?;
    for command in [&["undefine", "once"][..], &["autostart", "once"]] {
        cli.refused(command, &["domain 'once'", "transient", "define it first"])?;
    }
    Ok(())
}

#[test]
fn a_path_that_clients_may_not_name_is_refused_with_the_line_that_would_allow_it() -> Result<()> {
    let cli = Cli::start()?;
    let kernel = cli.path("vmlinuz");
    std::fs::write(&kernel, "no kernel")?;
    let path = kernel.display().to_string();
    cli.ok(&["define", "web", "--kernel", &path])?;
    let directory = kernel.parent().map(|path| path.display().to_string());
    let directory = directory.unwrap_or_default();
    cli.refused(
        &["start", "web"],
        &[
            "cannot start 'web'",
            &path,
            "allowed_directories",
            &directory,
        ],
    )
}

#[test]
fn a_host_without_vhost_net_says_what_loads_it_and_what_does_without() -> Result<()> {
    if std::fs::exists("/dev/vhost-net")? {
        return Ok(());
    }
    let cli = Cli::start()?;
    cli.ok(&["define", "web", "--net", "none,driver=vhost"])?;
    cli.refused(
        &["start", "web"],
        &[
            "cannot start 'web'",
            "/dev/vhost-net cannot be opened",
            "'sudo modprobe vhost_net'",
            "driver=user",
        ],
    )
}

#[test]
fn a_filtered_interface_is_not_the_kernel_s_to_serve_neither_defined_nor_attached() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    cli.silent(&["start", "web"])?;
    let filtered = "bridge=br0,driver=vhost";
    let says = [
        "driver vhost",
        "source filter",
        "driver=user",
        "trust-guest and no addresses",
    ];
    cli.refused(&["define", "db", "--net", filtered], &says)?;
    for more in [&["--persistent"][..], &[]] {
        let attach = ["attach", "web", "--net", filtered];
        cli.refused(&[&attach, more].concat(), &says)?;
    }
    let bound = "bridge=br0,driver=vhost,trust-guest,ip=192.0.2.5";
    cli.refused(&["attach", "web", "--net", bound], &says)?;
    // What the filter is no obstacle to.
    let free = "bridge=no-such-br0,driver=vhost,trust-guest";
    cli.ok(&["define", "db", "--net", free])?;
    Ok(())
}

#[test]
fn without_a_daemon_every_command_says_how_to_start_it() -> Result<()> {
    let mut cli = Cli::start()?;
    cli.daemon.terminate()?;
    for command in [
        &["list"][..],
        &["status"],
        &["start", "web"],
        &["events"],
        &["edit", "web"],
    ] {
        cli.refused(
            command,
            &["no supervisor listens at", "systemctl start reeved"],
        )?;
    }
    // Something else that listens there is told from a supervisor.
    let path = cli.path("other");
    let _listener = std::os::unix::net::UnixListener::bind(&path)?;
    let mut command = cli.daemon.reeve_command(&["list"])?;
    refusal(
        &command.env("REEVE_SOCKET", &path).output()?,
        &["cannot connect to", "other"],
    )
}

#[test]
fn what_guests_and_definitions_say_cannot_forge_output() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    let title = "a\u{1b}[31mb\u{202e}c\rd";
    cli.silent(&["label", "web", "--title", title])?;
    for command in [&["list", "-a"][..], &["info", "web"]] {
        let text = cli.ok(command)?;
        for character in ['\u{1b}', '\u{202e}', '\r'] {
            assert!(!text.contains(character), "{text:?}");
        }
    }
    assert_eq!(cli.json(&["info", "web"])?["title"], title);
    Ok(())
}

#[test]
fn a_supervisor_that_goes_is_named_with_its_socket() -> Result<()> {
    let mut cli = Cli::start()?;
    let socket = cli.daemon.socket().display().to_string();
    let mut command = cli.daemon.reeve_command(&["events"])?;
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut events = command.spawn()?;
    // It is served once it has printed something; its pipe is drained from then on.
    let printed = std::io::BufReader::new(events.stdout.take().context("no pipe")?);
    let (tell, told) = std::sync::mpsc::sync_channel(1024);
    std::thread::spawn(move || {
        for line in printed.lines() {
            let _ = tell.send(line);
        }
    });
    let mut names = 0..;
    eventually("an event is printed", || {
        let name = format!("d{}", names.next().unwrap_or(0));
        cli.ok(&["define", &name, "--cmdline", "mode=echo"])?;
        Ok(told.try_recv().is_ok())
    })?;
    cli.daemon.kill()?;
    refusal(
        &events.wait_with_output()?,
        &["closed the connection", &socket, "'reeve status'"],
    )
}
