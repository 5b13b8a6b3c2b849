//! What cannot be run is refused with one line that says what, on what, and what to do.

use std::process::{Command, Output, Stdio};

use super::harness::{Installation, assert_refusal, text};

/// Runs `reeve` with a `/dev` that has, beside `null`, what `make` puts into `$dev`; without any
/// capability. Works for root, who becomes nobody, and for an ordinary user.
fn with_dev(installation: &Installation, make: &str, arguments: &[&str]) -> Output {
    let root = rustix::process::geteuid().is_root();
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !root {
        command.args(["--map-current-user", "--keep-caps"]);
    }
    let drop = if root {
        "setpriv --reuid 65534 --regid 65534 --clear-groups"
    } else {
        "setpriv --inh-caps=-all --ambient-caps=-all"
    };
    let script = format!(
        "set -e; dev=$1; shift; mkdir $dev; touch $dev/null; mount --bind /dev/null $dev/null; \
         {make}; mount --rbind $dev /dev; exec {drop} \"$@\""
    );
    command
        .args(["sh", "-c", &script, "sh"])
        .arg(installation.directory.path().join("dev"))
        .arg(installation.reeve())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_host_without_kvm_is_told_how_to_get_it() {
    let installation = Installation::new();
    let output = with_dev(&installation, "true", &["run"]);
    let parts = [
        "/dev/kvm",
        "no such file or directory",
        "modprobe kvm_intel",
    ];
    assert_refusal(&output, 1, &parts);
}

#[test]
fn a_user_who_may_not_open_kvm_is_told_how_to_be_allowed() {
    let installation = Installation::new();
    let make = "touch $dev/kvm; chmod 0 $dev/kvm";
    let output = with_dev(&installation, make, &["run"]);
    let parts = ["/dev/kvm", "permission denied", "usermod -aG kvm"];
    assert_refusal(&output, 1, &parts);
}

#[test]
fn doctor_names_what_is_missing_and_what_mends_it() {
    let installation = Installation::new();
    let output = with_dev(&installation, "true", &["doctor"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("FAIL  KVM"), "{table}");
    assert!(table.contains("to mend it: load KVM"), "{table}");
    assert!(table.contains("pass  worker"), "{table}");

    let output = with_dev(&Installation::new(), "true", &["doctor", "--json"]);
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = checks.as_array().unwrap();
    let kvm = checks.iter().find(|check| check["name"] == "KVM").unwrap();
    assert_eq!(kvm["passed"], false);
    assert_eq!(kvm["mandatory"], true);
    assert!(kvm["mend"].as_str().unwrap().contains("modprobe"));
}

#[test]
fn a_missing_worker_is_named_with_both_places() {
    let installation = Installation::new();
    std::fs::remove_file(installation.directory.path().join("reeve-worker")).unwrap();
    let output = installation.output(&["run"]);
    let parts = [
        "cannot find reeve-worker",
        "/usr/libexec/reeve/reeve-worker",
    ];
    assert_refusal(&output, 1, &parts);
}

#[test]
fn a_kernel_that_is_no_file_is_named() {
    let installation = Installation::new();
    let output = installation.output(&["run", "--kernel", "/nonexistent/vmlinux"]);
    let parts = [
        "kernel /nonexistent/vmlinux",
        "no such file",
        "check --kernel",
    ];
    assert_refusal(&output, 1, &parts);
    let output = installation.output(&["run", "--kernel", "/etc"]);
    assert_refusal(&output, 1, &["kernel /etc is a directory"]);
    let output = installation.output(&["run", "--kernel", "/etc/passwd", "--initrd", "/nowhere"]);
    assert_refusal(&output, 1, &["initrd /nowhere", "check --initrd"]);
    installation.assert_nothing_left();
}

#[test]
fn numbers_out_of_range_are_refused_before_anything_is_tried() {
    let installation = Installation::new();
    let refused = |arguments: &[&str], part: &str| {
        let mut all = vec!["run"];
        all.extend(arguments);
        assert_refusal(&installation.output(&all), 2, &[part]);
    };
    refused(&["--cpus", "0"], "1 to 1024");
    refused(&["--cpus", "-1"], "1 to 1024");
    refused(&["--cpus", "1025"], "1 to 1024");
    refused(&["--cpus", "99999999999"], "1 to 1024");
    refused(&["--cpus", "many"], "not a number");
    refused(&["--memory", "0"], "2M to 32T");
    refused(&["--memory", "4K"], "2M to 32T");
    refused(&["--memory", "33T"], "2M to 32T");
    refused(&["--memory", "2097153"], "whole pages");
    refused(&["--memory", "99999999999999999999"], "is not a size");
    refused(&["--memory=-1M"], "is not a size");
    refused(&["--machine", "pc"], "reeve-1.0, reeve-legacy-1.0");
    refused(&["--cmdline", &"x".repeat(2048)], "2048 bytes");
    refused(&["--name", "a/b"], "must not contain '/'");
    refused(&["--name", ""], "must not be empty");
    refused(&["--initrd", "/etc/passwd"], "--kernel");
    refused(&["--limit-cpu", "0"], "--limit-cpu");
    refused(&["--kernal", "x"], "'--kernel'; see 'reeve run --help'");
}

#[test]
fn limits_that_nothing_can_enforce_stop_the_start() {
    let installation = Installation::new();
    let output = installation.output(&["run", "--name", "powers-off", "--limit-pids", "64"]);
    if output.status.success() {
        // A host with the controllers: the report names the cgroup, which is gone.
        let line = text(&output.stderr);
        let cgroup = line.rsplit("limits in cgroup ").next().unwrap().trim();
        assert!(cgroup.starts_with('/'), "{line}");
        assert!(!std::path::Path::new(cgroup).exists(), "{line}");
    } else {
        assert_refusal(&output, 1, &["cannot limit 'powers-off'", "cgroup"]);
    }
    installation.assert_nothing_left();
}

#[test]
fn help_version_and_completion_are_there() {
    let installation = Installation::new();
    let run = text(&installation.output(&["run", "--help"]).stdout);
    for part in ["Exit codes:", "Examples:", "Ctrl-]", "--kernel <FILE>"] {
        assert!(run.contains(part), "{run}");
    }
    assert!(!run.contains('\u{1b}'), "colours in a pipe");
    let version = text(&installation.output(&["--version"]).stdout);
    assert!(version.contains("worker protocol 1, build"), "{version}");
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&installation.output(&["completion", shell]).stdout);
        assert!(script.contains("limit-memory"), "{shell}");
    }
    let bare = installation.output(&[]);
    assert_eq!(bare.status.code(), Some(2));
    assert!(text(&bare.stderr).contains("reeve doctor"));
}
