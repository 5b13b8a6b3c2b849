//! The greeting: clients of other versions, and clients that do not greet.

use reeve_ipc::api::call::SupervisorInfoGet;
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::message::{FromClient, MAX_CLIENT_NAME_BYTES};
use reeve_ipc::api::{API, ApiVersion};

use super::harness::{Instance, Raw};

#[test]
fn an_older_and_a_newer_client_are_told_both_versions_and_what_to_do() {
    let instance = Instance::start("");
    for version in [0, API.0 + 1, u16::MAX] {
        let raw = Raw::connect(&instance);
        raw.hello(ApiVersion(version));
        // What it goes on to say is of its own version; it must hear the refusal all the same.
        raw.bytes(&[9; 100], &[]);
        let refusal = raw.refusal();
        assert_eq!(refusal.code, ApiErrorCode::Unsupported);
        let message = refusal.message;
        assert!(
            message.contains(&format!("version {} of the API", API.0)),
            "{message}"
        );
        assert!(
            message.contains(&format!("the client version {version}")),
            "{message}"
        );
        assert!(message.contains("install both of one build"), "{message}");
        assert!(raw.hear().is_none(), "and that is the end of it");
    }
}

#[test]
fn a_client_that_does_not_greet_or_greets_twice_is_let_go() {
    let instance = Instance::start("");
    let raw = Raw::connect(&instance);
    raw.call(1, SupervisorInfoGet {});
    assert!(raw.hear().is_none(), "a call before the hello");
    let raw = Raw::greeted(&instance);
    raw.hello(API);
    assert!(raw.hear().is_none(), "a second hello");
}

#[test]
fn a_client_may_call_itself_anything_that_fits() {
    let instance = Instance::start("log_level = \"debug\"\n");
    let greet = |client: String| {
        let raw = Raw::connect(&instance);
        raw.say(&FromClient::Hello { api: API, client });
        raw.hear()
    };
    assert!(greet(String::new()).is_some());
    assert!(greet("x".repeat(MAX_CLIENT_NAME_BYTES)).is_some());
    assert!(greet("x".repeat(MAX_CLIENT_NAME_BYTES + 1)).is_none());
    // What it calls itself is logged, and makes no line of its own there.
    assert!(greet("evil\nERROR reeved: \u{1b}[31mfire".to_owned()).is_some());
    instance.eventually("it is logged", |instance| instance.log().contains("evil"));
    let log = instance.log();
    assert!(!log.contains('\u{1b}'), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("ERROR")), "{log}");
}
