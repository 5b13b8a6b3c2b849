//! The manual, made from what the programs themselves say: a page for `reeve`, one for each of its
//! commands, one for `reeved`, one for the configuration; and the completion scripts beside them.

mod config_page;
#[path = "../../reeved/args.rs"]
mod reeved;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Cli;

/// The configuration as it is installed, which documents every setting.
const CONFIGURATION: &str = include_str!("../../../../../packaging/reeve.toml");

/// Writes everything into `directory`, which is made if need be.
pub fn write(directory: &Path) -> ExitCode {
    match pages(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let directory = directory.display();
            let line = format!("reeve: cannot write the manual into {directory}: {error}");
            let _ = writeln!(io::stderr(), "{line}");
            ExitCode::FAILURE
        }
    }
}

fn pages(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let version = env!("CARGO_PKG_VERSION");
    let mut cli = Cli::command().version(version);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut cli, "reeve", directory)?;
    }
    clap_mangen::generate_to(cli.propagate_version(true), directory)?;
    let mut daemon = reeved::Arguments::command().version(version);
    daemon.build();
    let path = directory.join("reeved.8");
    Man::new(daemon)
        .section("8")
        .render(&mut fs::File::create(path)?)?;
    let configuration = config_page::render(CONFIGURATION, version);
    fs::write(directory.join("reeve.toml.5"), configuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command_that_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        pages(directory.path()).unwrap();
        let written = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        for command in Cli::command().get_subcommands() {
            let page = directory
                .path()
                .join(format!("reeve-{}.1", command.get_name()));
            assert_eq!(page.exists(), !command.is_hide_set(), "{}", page.display());
        }
        assert!(written("reeve.1").contains("reeve\\-shutdown(1)"));
        assert!(written("reeved.8").contains("\\-\\-check\\-config"));
        for script in ["reeve.bash", "_reeve", "reeve.fish"] {
            assert!(written(script).contains("shutdown"), "{script}");
        }
    }
}
