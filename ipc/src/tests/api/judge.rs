//! What a client takes from a supervisor, and in which order.

use super::samples::from_client;
use super::supervisor_samples::to_client;
use crate::BuildId;
use crate::api::call::{AnswerBody, Operation};
use crate::api::error::{ApiError, ApiErrorCode};
use crate::api::judge::{self, GreetingError, Told, Waiting};
use crate::api::message::{CallId, FromClient, ToClient};
use crate::api::{API, Access, ApiVersion};

fn welcome(api: ApiVersion) -> ToClient {
    ToClient::Welcome {
        api,
        build: BuildId("b".to_owned()),
        access: Access::ReadOnly,
    }
}

fn answer(id: CallId, body: AnswerBody) -> ToClient {
    let result = Ok(body);
    ToClient::Reply { id, result }
}

#[test]
fn a_supervisor_of_another_version_is_named_with_what_to_do() {
    for other in [0, 2, u16::MAX] {
        let error = judge::greeting(welcome(ApiVersion(other))).unwrap_err();
        assert_eq!(error, GreetingError::Version(other));
        let message = error.to_string();
        assert!(message.contains(&other.to_string()), "{message}");
        assert!(message.contains("install both of one build"), "{message}");
    }
    assert_eq!(
        judge::greeting(welcome(API)).unwrap().access,
        Access::ReadOnly
    );
}

#[test]
fn a_refusal_is_told_as_the_supervisor_said_it() {
    let refusal = ApiError::new(ApiErrorCode::AccessDenied, "not you");
    let error = judge::greeting(ToClient::Refused(refusal)).unwrap_err();
    assert_eq!(error.to_string(), "not you");
}

#[test]
fn only_a_greeting_comes_first_and_never_a_second_time() {
    for (name, message) in to_client() {
        let greets = matches!(message, ToClient::Welcome { .. } | ToClient::Refused(_));
        let first = judge::greeting(message.clone());
        assert_eq!(
            matches!(first, Err(GreetingError::Protocol)),
            !greets,
            "{name}"
        );
        let mut waiting = Waiting::default();
        waiting.begin(Operation::DomainGet, ());
        if greets {
            assert!(waiting.judge(message).is_err(), "{name}");
        }
    }
}

#[test]
fn an_answer_is_taken_once_and_only_of_its_own_call() {
    let mut waiting = Waiting::default();
    let pause = waiting.begin(Operation::DomainPause, "pause");
    let resume = waiting.begin(Operation::DomainResume, "resume");
    // In whatever order they end.
    let told = waiting.judge(answer(resume, AnswerBody::DomainResume(())));
    assert!(matches!(told, Ok(Told::Answer("resume", Ok(_)))));
    let again = waiting.judge(answer(resume, AnswerBody::DomainResume(())));
    assert!(again.unwrap_err().contains("nobody made"));
    let other = waiting.judge(answer(pause, AnswerBody::DomainResume(())));
    assert_eq!(
        other.unwrap_err(),
        "'pause' was answered as 'resume'",
        "both are named"
    );
    let never = waiting.judge(answer(CallId(u64::MAX), AnswerBody::DomainPause(())));
    assert!(never.is_err());
}

#[test]
fn an_answer_to_a_call_that_was_given_up_is_let_pass() {
    let mut waiting = Waiting::default();
    let id = waiting.begin(Operation::DomainPause, ());
    waiting.give_up(id);
    let late = waiting.judge(answer(id, AnswerBody::DomainPause(())));
    assert!(matches!(late, Ok(Told::Late)));
    let id = waiting.begin(Operation::DomainPause, ());
    waiting.forget(id);
    assert!(
        waiting
            .judge(answer(id, AnswerBody::DomainPause(())))
            .is_err()
    );
}

#[test]
fn every_call_says_its_own_operation() {
    for (name, message) in from_client() {
        if let FromClient::Call { body, .. } = message {
            let operation = body.operation();
            assert!(Operation::ALL.contains(&operation), "{name}");
            assert!(!operation.name().is_empty());
        }
    }
}
