//! What is done to domains.

use std::time::{Duration, Instant};

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    ConfigReload, DomainAutostartSet, DomainDestroy, DomainGet, DomainLabelSet, DomainNmiInject,
    DomainPause, DomainReboot, DomainRef, DomainRename, DomainReset, DomainResume, DomainShutdown,
    DomainStart, DomainUndefine, DomainUpgrade, LabelChange, LogFilterSet, StartOptions,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::model::MetadataElement;
use reeved::logging::printable;
use serde_json::json;

use super::args::{AutostartArgs, HowArgs, LabelArgs, RenameArgs, ShutdownArgs, StartArgs};
use super::outcome::{each, entry, identity};
use super::show::summary_json;
use super::{CommandError, Output, console, json as print_json, print};

pub(super) fn start(
    connection: &mut Connection,
    out: Output,
    args: &StartArgs,
) -> Result<(), CommandError> {
    if args.how.console && args.many.domains.len() > 1 {
        let why = "--console shows the console of one domain; name one";
        return Err(CommandError::Usage(why.to_owned()));
    }
    let mut domains = Vec::new();
    each(connection, out, &args.many.domains, |connection, domain| {
        let summary = connection.call(DomainStart {
            domain: domain.clone(),
            options: options(&args.how),
        })?;
        domains.push(DomainRef::Uuid(summary.uuid));
        Ok(Some(summary_json(&summary)))
    })
    .tell(out)?;
    stay(connection, &domains, &args.how)
}

pub(super) fn options(how: &HowArgs) -> StartOptions {
    StartOptions {
        // A guest that is faster than its console would be over before it is seen.
        paused: how.paused || how.console,
        auto_destroy: how.auto_destroy,
    }
}

/// What `start` and `create` do once the domains stand: show a console, hold the connection.
pub(super) fn stay(
    connection: &mut Connection,
    domains: &[DomainRef],
    how: &HowArgs,
) -> Result<(), CommandError> {
    if let ([domain], true) = (domains, how.console) {
        let stream = console::attach(connection, domain, true)?;
        if !how.paused {
            let domain = domain.clone();
            connection.call(DomainResume { domain })?;
        }
        console::show(&stream, true)?;
    }
    if how.auto_destroy && !how.console {
        wait_until_off(connection, domains.to_vec(), None)?;
    }
    Ok(())
}

pub(super) fn shutdown(
    connection: &mut Connection,
    out: Output,
    args: &ShutdownArgs,
) -> Result<(), CommandError> {
    let domains = if args.all {
        let running = connection.domains(true)?;
        running
            .iter()
            .map(|domain| DomainRef::Uuid(domain.uuid))
            .collect()
    } else {
        args.domains.clone()
    };
    let destroy_after_ms = args.timeout.map(|seconds| seconds.saturating_mul(1000));
    let mut asked = Vec::new();
    let outcomes = each(connection, out, &domains, |connection, domain| {
        let press = DomainShutdown {
            domain: domain.clone(),
            destroy_after_ms,
            for_host: false,
        };
        match connection.call(press) {
            Ok(()) => {}
            // One that cannot notice the button, and is to be gone whatever it takes.
            Err(error) if args.all && destroy_after_ms.is_some() => {
                let code = error.refused().map(|refused| refused.code);
                match code {
                    Some(ApiErrorCode::NoDomain) => return Ok(None),
                    Some(ApiErrorCode::WrongState) => {
                        out.notice(&format!("{error}; it is destroyed"));
                        connection.call(DomainDestroy {
                            domain: domain.clone(),
                        })?;
                    }
                    _ => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        asked.push(domain.clone());
        Ok(None)
    });
    let waited = if args.wait {
        wait_until_off(connection, asked, None)
    } else {
        Ok(())
    };
    // What was asked is told even where the wait failed; a refusal goes before that.
    outcomes.tell(out)?;
    waited
}

/// How long to wait for an event before looking again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The same where only the kernel is waited for.
const REAPED_SOON: Duration = Duration::from_millis(5);
/// How long a killed worker usually takes at most.
const KILLED_SOON: Duration = Duration::from_millis(500);

/// Waits until none of `domains` has a worker, no longer than `patience` where that is given.
fn wait_until_off(
    connection: &mut Connection,
    mut domains: Vec<DomainRef>,
    patience: Option<Duration>,
) -> Result<(), CommandError> {
    let begin = Instant::now();
    connection.subscribe(None)?;
    loop {
        let mut left = Vec::new();
        let mut names = Vec::new();
        // Nothing tells that the kernel has released a worker; it takes no time to speak of.
        let mut wait = REAPED_SOON;
        for domain in domains {
            let get = DomainGet {
                domain: domain.clone(),
            };
            match connection.call(get) {
                Ok(details) if details.summary.state.is_active() => {
                    wait = LOOK_AGAIN;
                    names.push(printable(details.summary.name.as_str()).to_string());
                    left.push(domain);
                }
                Ok(details) if details.summary.reaping => {
                    names.push(printable(details.summary.name.as_str()).to_string());
                    left.push(domain);
                }
                Ok(_) => {}
                Err(error)
                    if error
                        .refused()
                        .is_some_and(|e| e.code == ApiErrorCode::NoDomain) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        domains = left;
        if patience.is_some_and(|patience| begin.elapsed() >= patience) {
            return Err(CommandError::Own(still_run(&names, begin.elapsed())));
        }
        connection.next_event(Some(wait))?;
    }
}

fn still_run(names: &[String], time: Duration) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    format!(
        "not off after {} s: {}; 'reeve info NAME' tells what holds one up, 'reeve destroy NAME' \
         ends it at once",
        time.as_secs(),
        quoted.join(", ")
    )
}

macro_rules! simple {
    ($($(#[$doc:meta])* $name:ident: $call:ident;)*) => { $(
        $(#[$doc])*
        pub(super) fn $name(
            connection: &mut Connection,
            out: Output,
            domains: &[DomainRef],
        ) -> Result<(), CommandError> {
            each(connection, out, domains, |connection, domain| {
                let domain = domain.clone();
                connection.call($call { domain })?;
                Ok(None)
            })
            .tell(out)
        }
    )* };
}

simple! {
    reboot: DomainReboot;
    reset: DomainReset;
    nmi: DomainNmiInject;
    pause: DomainPause;
    resume: DomainResume;
    upgrade: DomainUpgrade;
    undefine: DomainUndefine;
}

pub(super) fn destroy(
    connection: &mut Connection,
    out: Output,
    domains: &[DomainRef],
) -> Result<(), CommandError> {
    let mut killed = Vec::new();
    let outcomes = each(connection, out, domains, |connection, domain| {
        connection.call(DomainDestroy {
            domain: domain.clone(),
        })?;
        killed.push(domain.clone());
        Ok(None)
    });
    // So that what a script does next finds them off; a worker that hangs in the kernel is not waited
    // for.
    if !killed.is_empty() {
        let _ = wait_until_off(connection, killed, Some(KILLED_SOON));
    }
    outcomes.tell(out)
}

pub(super) fn autostart(
    connection: &mut Connection,
    out: Output,
    args: &AutostartArgs,
) -> Result<(), CommandError> {
    let order = (!args.disable).then_some(args.order);
    each(connection, out, &args.many.domains, |connection, domain| {
        let domain = domain.clone();
        connection.call(DomainAutostartSet { domain, order })?;
        Ok(None)
    })
    .tell(out)
}

pub(super) fn rename(
    connection: &mut Connection,
    out: Output,
    args: &RenameArgs,
) -> Result<(), CommandError> {
    let mut who = if out.json {
        identity(connection, &args.domain)
    } else {
        serde_json::Map::new()
    };
    connection.call(DomainRename {
        domain: args.domain.clone(),
        name: args.name.clone(),
    })?;
    who.insert("name".to_owned(), json!(args.name));
    out.value(&entry(who, None, None), String::new)
}

pub(super) fn label(
    connection: &mut Connection,
    out: Output,
    args: &LabelArgs,
) -> Result<(), CommandError> {
    let details = connection.call(DomainGet {
        domain: args.domain.clone(),
    })?;
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let mut changes = Vec::new();
    changes.extend(
        args.title
            .as_ref()
            .map(|title| LabelChange::Title(some(title))),
    );
    changes.extend(
        args.description
            .as_ref()
            .map(|description| LabelChange::Description(some(description))),
    );
    match args.metadata.as_deref() {
        Some([uri, content]) => changes.push(LabelChange::Metadata(MetadataElement {
            uri: uri.clone(),
            content: content.clone(),
        })),
        Some([uri]) => changes.push(LabelChange::MetadataRemove { uri: uri.clone() }),
        _ => {}
    }
    for label in changes {
        connection.call(DomainLabelSet {
            domain: args.domain.clone(),
            label,
            live: details.summary.state.is_active(),
            persistent: details.summary.persistent,
        })?;
    }
    let summary = details.summary;
    let value = json!({ "name": summary.name, "uuid": summary.uuid, "result": "ok" });
    out.value(&value, String::new)
}

pub(super) fn reload(connection: &mut Connection, out: Output) -> Result<(), CommandError> {
    let changes = connection.call(ConfigReload {})?;
    if out.json {
        return print_json(&changes);
    }
    print(
        &changes
            .iter()
            .map(|change| format!("{change}\n"))
            .collect::<String>(),
    )
}

pub(super) fn log_level(
    connection: &mut Connection,
    out: Output,
    filter: &str,
) -> Result<(), CommandError> {
    let value = json!({ "filter": filter, "result": "ok" });
    let filter = filter.to_owned();
    connection.call(LogFilterSet { filter })?;
    out.value(&value, String::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_still_run_are_named_with_what_ends_them() {
        let names = ["web".to_owned(), "db".to_owned()];
        let line = still_run(&names, Duration::from_secs(150));
        assert!(
            line.starts_with("not off after 150 s: 'web', 'db'; "),
            "{line}"
        );
        assert!(line.contains("'reeve destroy NAME'"), "{line}");
    }
}
