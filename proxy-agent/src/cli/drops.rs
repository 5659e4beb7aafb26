//! `proxy-agent drops`: what was dropped, for which reason, at which hook, of which Service; and what a reason means.

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use proxy_common::reason::{Reason, Words};
use serde::Serialize;

use super::{
    output::{Format, print},
    table::Table,
};
use crate::{
    condition::{self, Count, OfService, View},
    state::Place,
};

#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    explain: Option<Explain>,
    /// Show every reason: also those for which packets were let through or translated, and those that were never met
    #[arg(long)]
    all: bool,
    /// Every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Explain {
    /// Say what a reason means, and what to do
    Explain {
        #[arg(value_parser = PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.text())), hide_possible_values = true)]
        reason: String,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<ReasonRow>,
    /// Those of which a packet was refused or dropped.
    services: Vec<OfService>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReasonRow {
    reason: &'static str,
    hook: &'static str,
    packets: u64,
    per_second: f64,
    action: &'static str,
}

pub fn drops(args: &Args) -> Result<()> {
    if let Some(Explain::Explain { reason }) = &args.explain {
        if let Some(reason) = Reason::named(reason) {
            print(&explained(reason))?;
        }
        return Ok(());
    }
    let counts = condition::counts(&args.place.pins().open_maps()?)?;
    let items: Vec<_> = counts
        .iter()
        .filter(|count| args.all || (count.reason.is_drop() && count.packets > 0))
        .map(row)
        .collect();
    let services = condition::of_services(&View::read(&args.place, None)?)?;
    let document = Document {
        api_version: "portside/v1",
        kind: "Drops",
        items,
        services,
    };
    print(&match args.output {
        None | Some(Format::Wide) => text(&document, args.all),
        Some(Format::Json) => serde_json::to_string_pretty(&document)? + "\n",
        Some(Format::Yaml) => serde_saphyr::to_string(&document)?,
    })?;
    Ok(())
}

fn row(count: &Count) -> ReasonRow {
    ReasonRow {
        reason: count.reason.text(),
        hook: count.hook.name,
        packets: count.packets,
        per_second: count.per_second,
        action: count.reason.outcome().text(),
    }
}

fn text(document: &Document, all: bool) -> String {
    let Document {
        items, services, ..
    } = document;
    if items.is_empty() {
        return "nothing was dropped\n".to_owned();
    }
    let columns = ["REASON", "HOOK", "PACKETS", "PER-SECOND", "ACTION"];
    let shown = if all { 5 } else { 4 };
    let mut reasons = Table::new(&columns[..shown]);
    for row in items {
        let mut cells = vec![
            row.reason.to_owned(),
            row.hook.to_owned(),
            row.packets.to_string(),
            format!("{:.0}", row.per_second),
            row.action.to_owned(),
        ];
        cells.truncate(shown);
        reasons.row(cells);
    }
    let mut text = reasons.text();
    if !services.is_empty() {
        let mut table = Table::new(&["SERVICE", "REFUSED", "DROPPED", "HELD"]);
        for one in services {
            table.row(vec![
                one.service.clone(),
                one.refused_packets.to_string(),
                one.dropped_packets.to_string(),
                one.held_packets.to_string(),
            ]);
        }
        text += &format!("\n{}", table.text());
    }
    text
}

fn explained(reason: Reason) -> String {
    let Words { meaning, advice } = reason.words();
    format!(
        "{} ({})\n\n{meaning}\n\nWhat to do: {advice}\n",
        reason.text(),
        reason.outcome().text()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(items: Vec<ReasonRow>) -> Document {
        Document {
            api_version: "portside/v1",
            kind: "Drops",
            items,
            services: vec![OfService {
                service: "default/web:http".to_owned(),
                refused_packets: 4,
                dropped_packets: 0,
                held_packets: 0,
            }],
        }
    }

    #[test]
    fn reasons_and_services_are_tables_of_their_own() {
        let row = ReasonRow {
            reason: "refused",
            hook: "tc_workload_in",
            packets: 4,
            per_second: 1.4,
            action: "drop",
        };
        assert_eq!(
            text(&of(vec![row]), false),
            "REASON    HOOK             PACKETS   PER-SECOND\n\
             refused   tc_workload_in   4         1\n\n\
             SERVICE            REFUSED   DROPPED   HELD\n\
             default/web:http   4         0         0\n"
        );
        assert_eq!(text(&of(vec![]), false), "nothing was dropped\n");
    }

    #[test]
    fn an_explanation_names_the_outcome_and_what_to_do() {
        let text = explained(Reason::SourceRange);
        assert!(
            text.starts_with("source-range (drop)\n\nThe client is outside"),
            "{text}"
        );
        assert!(text.contains("\nWhat to do: "), "{text}");
    }
}
