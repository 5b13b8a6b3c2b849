//! The lab itself: what the outer guest offers, and that what happens in a body, good or bad,
//! arrives outside.

use std::fs;
use std::process::Command;
use std::time::Duration;

use kvm_ioctls::Kvm;
use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use reeve_tests::lab::{Test, assets, inside, inside_outer_guest, probe, run_inside};
use reeve_tests::reeve::Builder;

#[reeve_tests::in_lab]
fn kvm_is_there() {
    assert_eq!(Kvm::new().unwrap().get_api_version(), 12);
}

#[reeve_tests::in_lab]
fn the_probe_finds_that_this_kvm_runs_kernel_code() {
    assert!(probe::kvm_runs_kernel_code());
}

/// With two processors an outer guest stops in such a loop; with one it does not.
#[reeve_tests::in_lab]
fn many_machines_one_after_the_other_do_not_upset_the_outer_guest() {
    for _ in 0..100 {
        assert!(probe::kvm_runs_kernel_code());
    }
}

#[reeve_tests::in_lab]
fn the_body_runs_in_a_process_of_the_lab() {
    assert!(reeve_tests::lab::inside());
}

#[reeve_tests::in_lab(root)]
fn cgroup_v2_has_the_controllers_that_limits_need() {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    for wanted in ["cpu", "memory", "pids", "io"] {
        assert!(
            controllers.split_whitespace().any(|name| name == wanted),
            "{controllers}"
        );
    }
}

#[reeve_tests::in_lab]
fn landlock_is_enforced_with_abi_2_or_later() {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))
        .unwrap()
        .create()
        .unwrap();
}

#[reeve_tests::in_lab(root)]
fn an_ordinary_user_may_open_kvm_in_the_outer_guest() -> anyhow::Result<()> {
    let mut script = Command::new("/bin/sh");
    script.args(["-c", "echo uid $(id -u); test -w /dev/kvm && echo may"]);
    let mut shell = Builder::new(script).as_user().spawn()?;
    if inside_outer_guest() {
        shell.expect("uid 1000", Duration::from_secs(10))?;
    }
    shell.expect("may", Duration::from_secs(10))?;
    Ok(())
}

#[reeve_tests::in_lab]
fn guest_assets_are_there() {
    let head = |path: &std::path::Path| {
        let mut bytes = [0; 0x206];
        std::io::Read::read_exact(&mut fs::File::open(path).unwrap(), &mut bytes).unwrap();
        bytes
    };
    assert!(head(&assets().vmlinux).starts_with(b"\x7fELF"));
    assert_eq!(&head(&assets().bzimage)[0x202..0x206], b"HdrS");
    assert!(head(&assets().initramfs).starts_with(b"070701"));
}

#[reeve_tests::in_lab]
fn a_body_may_return_a_result() -> anyhow::Result<()> {
    anyhow::ensure!(fs::exists("/proc/self")?);
    Ok(())
}

/// Runs one of the tests below inside, from its outside half; returns how it failed and what it
/// printed.
fn failure_of(path: &'static str, limit: Duration) -> (String, String) {
    let mut printed = Vec::new();
    let test = Test {
        path,
        limit,
        needs_root: false,
    };
    let result = run_inside(&test, &mut |output| printed.extend_from_slice(output));
    let error = result.expect_err("the inside half fails");
    (
        format!("{error:#}"),
        String::from_utf8_lossy(&printed).into_owned(),
    )
}

#[test]
fn a_failing_body_fails_outside_with_its_output() {
    if inside() {
        println!("said before failing");
        panic!("this is the reason");
    }
    let path = "lab::a_failing_body_fails_outside_with_its_output";
    let (error, printed) = failure_of(path, Duration::from_secs(60));
    assert!(error.contains("failed with status 101"), "{error}");
    assert!(printed.contains("said before failing"), "{printed}");
    assert!(printed.contains("this is the reason"), "{printed}");
}

#[test]
fn a_hanging_body_is_cut_at_its_limit() {
    if inside() {
        println!("said before hanging");
        loop {
            std::thread::park();
        }
    }
    let (error, printed) = failure_of(
        "lab::a_hanging_body_is_cut_at_its_limit",
        Duration::from_secs(2),
    );
    assert!(error.contains("longer than its limit of 2 s"), "{error}");
    assert!(printed.contains("said before hanging"), "{printed}");
}

#[test]
fn a_name_that_no_test_has_is_no_success() {
    let (error, _) = failure_of("lab::there_is_no_such_test", Duration::from_secs(60));
    assert!(error.contains("no test of this name ran"), "{error}");
}
