//! The worker killed after each named step of its start.

use super::harness::{Installation, text};

#[test]
fn a_start_that_fails_at_any_step_says_so_in_one_line_and_leaves_nothing() {
    let steps = [
        ("before-spawn", 1),
        ("after-welcome", 1),
        ("after-launch-sent", 1),
        ("after-spawn", 1),
        ("after-hello", 1),
        ("after-launched", 4),
        ("running", 4),
    ];
    let installation = Installation::new();
    for (step, code) in steps {
        let output = installation
            .run("good")
            .env("REEVE_FAULT", format!("kill-worker@{step}"))
            .output()
            .unwrap();
        let ours: Vec<String> = text(&output.stderr)
            .lines()
            .filter(|line| line.starts_with("reeve: "))
            .map(str::to_owned)
            .collect();
        assert_eq!(ours.len(), 1, "{step}: {ours:?}");
        assert!(ours[0].contains("'good'"), "{step}: {ours:?}");
        let actual = output.status.code();
        // The reply may be lost to the kill, or not.
        let alternative = step.starts_with("after-").then_some(4);
        assert!(
            actual == Some(code) || actual == alternative,
            "{step}: {actual:?} {ours:?}"
        );
        installation.assert_nothing_left();
    }
}
