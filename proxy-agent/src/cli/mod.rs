//! The command line.
//!
//! In: arguments. Out: for `run`, an agent; for the rest, text about the datapath that runs, read from its pinned maps. The
//! one rule: these commands need no agent; they show what the kernel has.
//!
//! | file | subject |
//! |---|---|
//! | `controller` | addresses for load balancers: a process of its own, beside no agent |
//! | `get` | services, backends, node ports |
//! | `describe` | one Service, and what keeps clients from it |
//! | `explain` | what would become of a packet, and why |
//! | `flows` | connections |
//! | `drops` | what was dropped, and why |
//! | `status` | does it work, on one page |
//! | `maps` | how full the maps are |
//! | `doctor` | what runs here, how and why |
//! | `cleanup` | taking things down: our datapath, or what kube-proxy left |
//! | `pages` | completions for shells, and man pages |
//! | `output`, `table` | rows as a table or a document |

mod cleanup;
pub mod controller;
mod describe;
mod doctor;
mod drops;
mod explain;
mod flows;
mod get;
mod maps;
mod output;
mod pages;
mod status;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{log, memory, run, state::Place};

pub use self::output::print_raw;

/// A kube-proxy replacement for any CNI
#[derive(Debug, Parser)]
#[command(name = "proxy-agent", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent
    Run(Box<run::Args>),
    /// Show services, backends or node ports
    Get(get::Args),
    /// Show one Service as this node has it, and why it is not reachable, if so
    Describe(describe::Args),
    /// Show connections through services
    Flows(flows::Args),
    /// Show what was dropped, and why; `drops explain REASON` says what a reason means
    Drops(drops::Args),
    /// Say what the datapath would do with a packet, step by step, and why; nothing is sent and nothing is changed
    Explain(Box<explain::Args>),
    /// Show how full the maps are
    Maps(maps::Args),
    /// Say on one page whether it works: agent, source, programs, tables, drops; exits with 2 where something is wrong
    Status(status::Args),
    /// Say what runs on this node, how and why; exits with 1 where the agent cannot run
    Doctor(doctor::Args),
    /// Give addresses to Services of type LoadBalancer, by IPAddressPools: one such process for a cluster, with rights of its own
    Controller(Box<controller::Args>),
    /// Print the completions of a shell: `source <(proxy-agent completions bash)`
    Completions(pages::Completions),
    /// Write a man page for each command into a directory
    Man(pages::Man),
    /// Detach the programs of this network namespace and forget everything, or remove what kube-proxy left in it
    Cleanup(cleanup::Args),
}

impl Cli {
    /// How to log.
    pub fn log(&self) -> log::Args {
        match &self.command {
            Command::Run(args) => args.log.clone(),
            Command::Controller(args) => args.log.clone(),
            _ => log::Args::default(),
        }
    }

    /// What `run` is asked for, if that is the command.
    pub fn run_args(&self) -> Option<&run::Args> {
        match &self.command {
            Command::Run(args) => Some(args),
            _ => None,
        }
    }

    /// What `controller` is asked for, if that is the command.
    pub fn controller_args(&self) -> Option<&controller::Args> {
        match &self.command {
            Command::Controller(args) => Some(args),
            _ => None,
        }
    }

    /// The place whose datapath is to be taken down, if that is the command.
    pub fn cleaned_place(&self) -> Option<&Place> {
        match &self.command {
            Command::Cleanup(args) => args.taken_down(),
            _ => None,
        }
    }

    /// Does what was asked for; `object` is the eBPF object that is loaded for it. Only `doctor` and `status` end without success and without an error.
    pub fn execute(self, object: &'static [u8]) -> Result<ExitCode> {
        match self.command {
            Command::Run(args) => {
                memory::settle();
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?
                    .block_on(run::run(*args, object))
            }
            Command::Controller(args) => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(controller::controller(*args)),
            Command::Get(args) => get::get(&args),
            Command::Describe(args) => describe::describe(&args),
            Command::Flows(args) => flows::flows(&args),
            Command::Drops(args) => drops::drops(&args),
            Command::Explain(args) => explain::explain(&args, object),
            Command::Doctor(args) => return doctor::doctor(&args, object),
            Command::Maps(args) => maps::maps(&args),
            Command::Status(args) => return status::status(&args),
            Command::Completions(args) => pages::completions(&args, Self::command()),
            Command::Man(args) => pages::man(&args, Self::command()),
            Command::Cleanup(args) => cleanup::cleanup(&args),
        }
        .map(|()| ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
