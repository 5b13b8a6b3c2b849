//! How long clients wait for a guest's agent, which is kept for them.

use reeve_ipc::api::view::AgentTimeout;

use super::devices::running;
use super::*;

fn said(fed: &Fed) -> Option<AgentTimeout> {
    fed.actor.details(None).unwrap().agent_timeout
}

/// What the status that is written says.
fn written(effects: &[Effect]) -> Vec<Option<AgentTimeout>> {
    let written = effects.iter().filter_map(|effect| match effect {
        Effect::WriteStatus(_, _, record) | Effect::Start { record, .. } => {
            Some(record.agent_timeout)
        }
        _ => None,
    });
    written.collect()
}

#[test]
fn what_is_said_of_a_domain_that_runs_is_in_its_status_first() {
    let mut fed = running();
    assert_eq!(said(&fed), None);
    let timeout = AgentTimeout::Seconds(7);
    let effects = fed.ask(Request::SetAgentTimeout(timeout));
    assert_eq!(written(&effects), [Some(timeout)]);
    assert_eq!(answer(&effects), None);
    assert_eq!(said(&fed), None);
    assert_eq!(answer(&fed.through(effects)), Some(Ok(())));
    assert_eq!(said(&fed), Some(timeout));

    // What cannot be written is not so.
    let effects = fed.ask(Request::SetAgentTimeout(AgentTimeout::Block));
    let Some(Effect::WriteStatus(Some(serial), ..)) = effects.first() else {
        panic!("{effects:?}");
    };
    let effects = fed.feed(Input::Done(*serial, Done::Written(Err("no".to_owned()))));
    assert_eq!(answer(&effects), Some(Err(ApiErrorCode::Storage)));
    assert_eq!(said(&fed), Some(timeout));
}

#[test]
fn what_is_said_of_a_domain_that_is_off_holds_from_its_next_start_on() {
    let mut fed = Fed::new();
    let effects = fed.ask(Request::Define {
        domain: Box::new(domain()),
        only_new: true,
    });
    fed.through(effects);
    let timeout = AgentTimeout::Default;
    let effects = fed.ask(Request::SetAgentTimeout(timeout));
    assert_eq!(answer(&effects), Some(Ok(())));
    assert_eq!(said(&fed), Some(timeout));
    let effects = fed.ask(Request::Start(StartOptions::default(), SessionId(1)));
    assert_eq!(written(&effects), [Some(timeout)]);
}

#[test]
fn a_supervisor_finds_what_was_said_to_the_one_before() {
    let timeout = Some(AgentTimeout::Seconds(0));
    let live = LiveRecord {
        definition: domain(),
        intents: Intents::default(),
        started_ms: 1,
        agent_timeout: timeout,
    };
    let ids = Arc::new(AtomicU32::new(1));
    let actor = DomainActor::recovered(domain().uuid, None, Some(live), ids);
    assert_eq!(said(&Fed::with(actor)), timeout);
}
