//! `proxy-agent completions` and `man`: what other programs show of the command line.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::Shell;

use super::output::print_raw;

#[derive(Clone, Debug, clap::Args)]
pub struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Man {
    /// Where the pages are written, as `proxy-agent-run.1`; made if it is not there
    directory: PathBuf,
}

pub fn completions(args: &Completions, mut command: Command) -> Result<()> {
    // The generator panics where it cannot write: a reader may be gone.
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print_raw(&script).map(drop)
}

pub fn man(args: &Man, command: Command) -> Result<()> {
    let directory = &args.directory;
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .with_context(|| format!("writing man pages to {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, ValueEnum as _};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_is_completed_in_every_shell() {
        for &shell in Shell::value_variants() {
            let mut command = Cli::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "proxy-agent", &mut script);
            let script = String::from_utf8(script).unwrap();
            for name in Cli::command().get_subcommands().map(Command::get_name) {
                assert!(script.contains(name), "{shell}: no {name}");
            }
            assert!(script.contains("healthz-bind"), "{shell}");
        }
    }

    #[test]
    fn every_command_has_a_page_with_its_flags() {
        let directory = tempfile::tempdir().unwrap();
        let args = Man {
            directory: directory.path().join("man1"),
        };
        man(&args, Cli::command()).unwrap();
        for name in Cli::command().get_subcommands().map(Command::get_name) {
            let page = args.directory.join(format!("proxy-agent-{name}.1"));
            let text = fs::read_to_string(&page).unwrap();
            assert!(text.contains(".SH"), "{name}: {text}");
        }
        let run = fs::read_to_string(args.directory.join("proxy-agent-run.1")).unwrap();
        // As man pages write a hyphen that is one.
        assert!(run.contains("healthz\\-bind"), "{run}");
    }
}
