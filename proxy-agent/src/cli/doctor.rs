//! `proxy-agent doctor`: what runs on this node, how and why.

use std::process::ExitCode;

use anyhow::Result;

use super::table::Table;
use crate::doctor::{self, Report, Verdict};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    examined: doctor::Choices,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, clap::ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// Success means that the agent can run here.
pub fn doctor(args: &Args) -> Result<ExitCode> {
    let report = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(doctor::examine(&args.examined))?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print(&report)?,
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(report: &Report) -> Result<()> {
    let mut table = Table::new(&["AREA", "CHECK", "FOUND", "RESULT", "WHAT FOLLOWS"]);
    for check in &report.checks {
        let result = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Fallback => "fallback",
            Verdict::Note => "note",
            Verdict::Problem => "PROBLEM",
        };
        table.row(vec![
            check.area.to_owned(),
            check.name.clone(),
            check.found.clone(),
            result.to_owned(),
            check.follows.clone(),
        ]);
    }
    table.print()?;
    let problems = report
        .checks
        .iter()
        .filter(|check| check.verdict == Verdict::Problem)
        .count();
    match problems {
        0 => println!("\nPortside can run on this node."),
        1 => println!("\nPortside cannot run on this node: 1 problem."),
        many => println!("\nPortside cannot run on this node: {many} problems."),
    }
    Ok(())
}
