//! `reeve run`: arguments to domain, session, report, exit code.

use std::time::Duration;

use reeve_ipc::model::Domain;

use super::args::RunArgs;
use super::messages;
use super::session::session;

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
    let domain = match definition(args) {
        Ok(domain) => domain,
        Err(line) => {
            messages::say(&line);
            return super::USAGE;
        }
    };
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
            error.exit_code()
        }
    }
}

fn definition(args: &RunArgs) -> Result<Domain, String> {
    let domain = args.domain().map_err(|error| error.to_string())?;
    domain.validate().map_err(|error| error.to_string())?;
    Ok(domain)
}
