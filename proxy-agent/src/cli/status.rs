//! `proxy-agent status`: does it work, on one page.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;

use super::{
    output::{Format, print},
    table::Table,
};
use crate::{
    condition::{self, Agent, Condition, Drops, Program, Services, age},
    state::Place,
};

/// What a script looks for: something is not as it should be.
const NOT_OK: u8 = 2;
/// So wide is a line, where what it tells can be cut.
const WIDTH: usize = 80;
/// Reasons that are shown.
const REASONS: usize = 3;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    place: Place,
}

pub fn status(args: &Args) -> Result<ExitCode> {
    let condition = condition::look(&args.place)?;
    print(&match args.output {
        None | Some(Format::Wide) => page(&condition),
        Some(Format::Json) => serde_json::to_string_pretty(&condition)? + "\n",
        Some(Format::Yaml) => serde_saphyr::to_string(&condition)?,
    })?;
    Ok(if condition.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_OK)
    })
}

/// What is wrong stands first.
fn page(condition: &Condition) -> String {
    let Condition {
        problems,
        notes,
        agent,
        source,
        services,
        programs,
        tables,
        drops,
        ..
    } = condition;
    let mut page = match problems.len() {
        0 => "Portside works.\n".to_owned(),
        1 => "1 problem:\n".to_owned(),
        many => format!("{many} problems:\n"),
    };
    for problem in problems {
        page += &format!("  {problem}\n");
    }
    page.push('\n');
    let mut table = Table::without_header();
    let mut line = |what: &str, text: String| table.row(vec![what.to_owned(), text]);
    line("agent", agent_line(agent));
    if let Some(source) = source {
        let heard = source.heard_seconds_ago.map_or_else(
            || "not heard yet".to_owned(),
            |seconds| format!("heard {} ago", age(seconds)),
        );
        line("source", format!("{}, {heard}", source.name));
    }
    if let Some(services) = services {
        line("services", services_line(services));
        line("left out", services.left_out.len().to_string());
    }
    if services.is_some() {
        line("drops", drops_line(drops));
        let full: Vec<_> = tables
            .iter()
            .filter(|table| table.percent > 0)
            .map(|table| format!("{} {}%", table.map, table.percent))
            .collect();
        line(
            "tables",
            match &full[..] {
                [] => "all below 1%".to_owned(),
                full => format!("{}; others below 1%", full.join(", ")),
            },
        );
    }
    page += &table.text();
    if !programs.is_empty() {
        page += &format!("\n{}", programs_table(programs).text());
    }
    if !notes.is_empty() {
        page += "\nnotes:\n";
        for note in notes {
            page += &format!("  {note}\n");
        }
    }
    page
}

fn agent_line(agent: &Agent) -> String {
    let mut parts = vec![match (agent.running, agent.process) {
        (true, Some(process)) => format!("runs (process {process})"),
        (true, None) => "runs".to_owned(),
        (false, _) => "does not run".to_owned(),
    }];
    if agent.running {
        parts.extend(
            agent
                .version
                .as_ref()
                .map(|version| format!("version {version}")),
        );
        parts.extend(
            agent
                .uptime_seconds
                .map(|seconds| format!("up {}", age(seconds))),
        );
        parts.push(if agent.ready { "ready" } else { "not ready" }.to_owned());
    }
    parts.join(", ")
}

fn services_line(services: &Services) -> String {
    let Services {
        services,
        service_ports,
        endpoints,
        without_endpoints,
        ..
    } = services;
    format!(
        "{services} with {service_ports} ports and {endpoints} endpoints; {} without an endpoint",
        without_endpoints.len()
    )
}

fn drops_line(drops: &[Drops]) -> String {
    let all: f64 = drops.iter().map(|one| one.per_second).sum();
    let reasons: Vec<_> = drops
        .iter()
        .take(REASONS)
        .map(|one| format!("{} {:.0}/s of {}", one.reason, one.per_second, one.packets))
        .collect();
    match &reasons[..] {
        [] => "none".to_owned(),
        reasons => format!("{all:.0} a second: {}", reasons.join(", ")),
    }
}

/// A line for each hook and mode.
fn programs_table(programs: &[Program]) -> Table {
    let mut groups: BTreeMap<(&str, &str), Vec<&Program>> = BTreeMap::new();
    for program in programs {
        let key = (&*program.hook, program.mode);
        groups.entry(key).or_default().push(program);
    }
    let mut table = Table::new(&["HOOK", "MODE", "ATTACHED", "DEVICES"]);
    for ((hook, mode), programs) in groups {
        let there = programs.iter().filter(|one| one.lost.is_none()).count();
        let names: Vec<_> = programs.iter().map(|one| &*one.device).collect();
        let attached = format!("{there} of {}", programs.len());
        table.row(vec![
            hook.to_owned(),
            mode.to_owned(),
            attached,
            // The columns before it are 15, 7 and 8 wide, with three spaces behind each.
            cut(&names, WIDTH - 15 - 7 - 10 - 9),
        ]);
    }
    table
}

/// As many names as fit, and how many there are more.
fn cut(names: &[&str], width: usize) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        let more = format!(", {} more", names.len() - index);
        if index > 0 && text.len() + name.len() + 2 + more.len() > width {
            return text + &more;
        }
        if index > 0 {
            text += ", ";
        }
        text += name;
    }
    text
}

#[cfg(test)]
mod tests {
    use proxy_common::abi::IfIndex;

    use super::*;

    #[test]
    fn names_that_do_not_fit_are_counted() {
        let names: Vec<String> = (0..100).map(|number| format!("veth{number:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = cut(&names, 40);
        assert_eq!(text, "veth0000, veth0001, veth0002, 97 more");
        assert_eq!(cut(&names[..2], 40), "veth0000, veth0001");
        assert_eq!(cut(&[], 40), "");
    }

    #[test]
    fn a_device_without_its_program_shows_in_the_count() {
        let program = |device: &str, lost: Option<&str>| Program {
            hook: "tc_workload_in".to_owned(),
            device: device.to_owned(),
            ifindex: IfIndex(1),
            mode: "tcx",
            lost: lost.map(str::to_owned),
        };
        let table = programs_table(&[
            program("veth1", None),
            program("veth2", Some("its link was detached")),
        ]);
        assert_eq!(
            table.text(),
            "HOOK             MODE   ATTACHED   DEVICES\ntc_workload_in   tcx    1 of 2     veth1, veth2\n"
        );
    }

    #[test]
    fn drops_are_told_by_rate_and_sum() {
        assert_eq!(drops_line(&[]), "none");
        let one = |reason, packets, per_second| Drops {
            reason,
            packets,
            per_second,
        };
        let drops = [one("refused", 90, 5.0), one("no-route", 3, 0.0)];
        assert_eq!(
            drops_line(&drops),
            "5 a second: refused 5/s of 90, no-route 0/s of 3"
        );
    }
}
