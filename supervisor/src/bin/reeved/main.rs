//! `reeved`: the daemon.

mod args;
mod usage;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use reeved::config::{Config, DEFAULT_LOG_DIRECTORY, DEFAULT_PATH};
use reeved::daemon::{self, Configured, Driven, Settings};
use reeved::host::confinement::CgroupPlace;
use reeved::logging::{self, LogFiles};

use self::args::{Arguments, DriverName, STATE_DIRECTORY};

/// The exit code of a command line that cannot be meant.
const USAGE: u8 = 2;
/// How long the last lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    reeved::crash::check_environment();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            let line = usage::one_line(&error, "reeved --help");
            let _ = writeln!(std::io::stderr(), "reeved: {line}");
            return ExitCode::from(USAGE);
        }
        // Help, or the version.
        Err(error) => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
    };
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "reeved: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let config = configuration(&arguments)?;
    if arguments.check_config {
        writeln!(std::io::stdout(), "{}: fine", arguments.config.display())?;
        return Ok(());
    }
    let files = match arguments.test {
        // Nothing is kept of its domains.
        true => None,
        false => Some(log_files(&arguments, &config)?),
    };
    let filter = std::env::var("REEVE_LOG").unwrap_or_else(|_| config.log_level.clone());
    let log = logging::install(&filter, files.clone())?;
    let configured = Arc::new(Configured::new(arguments.config, config, log, files));
    let run_directory = absolute(&arguments.run_dir)?;
    let settings = Settings {
        state_directory: match arguments.test {
            // What it has no use for; by which its uids are told apart from those of others.
            true => run_directory.clone(),
            false => absolute(&arguments.state_dir)?,
        },
        run_directory,
        driven: match arguments.driver {
            _ if arguments.test => Driven::TestHypervisor,
            DriverName::Kvm => Driven::Kvm,
            DriverName::Test => Driven::Test,
        },
        cgroups: match &arguments.cgroup {
            None => CgroupPlace::Own,
            Some(directory) => CgroupPlace::Directory(absolute(directory)?),
        },
        configured: Arc::clone(&configured),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(daemon::run(settings, |_| {
        // Nobody listens where no service manager has started this.
        let _ = sd_notify::notify(true, &[sd_notify::NotifyState::Ready]);
    }));
    // What still runs beside it is let go, not waited for: no domain is touched.
    runtime.shutdown_background();
    configured.flush_log(LAST_LINES);
    result.map_err(Into::into)
}

/// The host's own instance is configured by the file of the host; a test hypervisor by one that is named only.
fn configuration(arguments: &Arguments) -> anyhow::Result<Config> {
    if arguments.test && arguments.config == Path::new(DEFAULT_PATH) {
        return Ok(Config::default());
    }
    Ok(Config::load_for_instance(&arguments.config)?)
}

/// What writes the domains' logs.
fn log_files(arguments: &Arguments, config: &Config) -> anyhow::Result<LogFiles> {
    let own = if arguments.state_dir == Path::new(STATE_DIRECTORY) {
        PathBuf::from(DEFAULT_LOG_DIRECTORY)
    } else {
        arguments.state_dir.join("log")
    };
    let directory = config.log_directory_or(&own);
    LogFiles::start(directory, daemon::bounds(config))
        .with_context(|| format!("cannot make the log directory {}", directory.display()))
}

/// Workers and logs are found by path from wherever a later supervisor is started.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}
