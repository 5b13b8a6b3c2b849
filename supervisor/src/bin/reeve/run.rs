//! `reeve run`: arguments to domain, session, report, exit code.

use std::time::Duration;

use reeve_ipc::model::Domain;
use serde_json::json;

use super::args::RunArgs;
use super::messages;
use super::session::{SessionError, session};

/// How long the last lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
const FAILURE: u8 = 1;

/// Runs one domain; gives the exit code.
pub fn run(args: &RunArgs) -> u8 {
    if messages::start(args.verbose).is_err() {
        return FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        // Without a runtime there is nobody to wait for the line to be written either.
        Err(_) => return FAILURE,
    };
    runtime.block_on(async {
        let code = attempt(args).await;
        let _ = tokio::time::timeout(LAST_LINES, messages::flushed()).await;
        code
    })
}

async fn attempt(args: &RunArgs) -> u8 {
    let domain = match args.domain() {
        Ok(domain) => domain,
        Err(error) => {
            messages::say(&format!("{error:#}"));
            return FAILURE;
        }
    };
    if let Err(error) = domain.accept() {
        messages::say(&error.to_string());
        return super::USAGE;
    }
    match session(args, &domain).await {
        Ok(report) => {
            if args.json {
                messages::result(report.json());
            } else {
                messages::say(&report.to_string());
            }
            report.exit_code()
        }
        Err(error) => {
            messages::say(&error.to_string());
            if args.json {
                messages::result(not_started(&domain, &error));
            }
            error.exit_code()
        }
    }
}

/// The report of a domain that did not start, as one line of JSON.
fn not_started(domain: &Domain, error: &SessionError) -> String {
    let report = json!({
        "name": domain.name.as_str(),
        "uuid": domain.uuid.to_string(),
        "outcome": "not-started",
        "exit_code": error.exit_code(),
        "detail": error.to_string(),
    });
    format!("{report}\n")
}
