//! `proxy-agent doctor`: what runs on this node, how and why.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    output::{Format, print},
    table::Table,
};
use crate::doctor::{self, Report, Verdict};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    examined: doctor::Choices,
}

/// Success means that the agent can run here.
pub fn doctor(args: &Args, object: &[u8]) -> Result<ExitCode> {
    let report = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(doctor::examine(&args.examined, object))?;
    print(&match args.output {
        None | Some(Format::Wide) => text(&report),
        Some(Format::Json) => serde_json::to_string_pretty(&report)? + "\n",
        Some(Format::Yaml) => serde_saphyr::to_string(&report)?,
    })?;
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn text(report: &Report) -> String {
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
    let problems = report
        .checks
        .iter()
        .filter(|check| check.verdict == Verdict::Problem)
        .count();
    let table = table.text();
    match problems {
        0 => format!("{table}\nPortside can run on this node.\n"),
        1 => format!("{table}\nPortside cannot run on this node: 1 problem.\n"),
        many => format!("{table}\nPortside cannot run on this node: {many} problems.\n"),
    }
}
