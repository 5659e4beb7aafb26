//! `proxy-agent drops`: why packets were dropped or left alone, and how many were translated where.

use anyhow::Result;
use proxy_common::{edge::hook::Hook, reason::Reason};
use serde::Serialize;

use super::output::{Format, Output, Row, print};
use crate::state::Place;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Show reasons that were never met, too
    #[arg(long)]
    all: bool,
    /// Every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Serialize)]
struct ReasonRow {
    action: &'static str,
    reason: &'static str,
    hook: &'static str,
    packets: u64,
}

pub fn drops(args: &Args) -> Result<()> {
    let maps = args.place.pins().open_maps()?;
    let mut rows = Vec::new();
    for &reason in Reason::ALL {
        for hook in &Hook::ALL {
            let packets = maps.reason_count(hook, reason)?;
            if packets > 0 || args.all {
                rows.push(ReasonRow {
                    action: reason.outcome().text(),
                    reason: reason.text(),
                    hook: hook.name,
                    packets,
                });
            }
        }
    }
    print(&Output::of(args.output).text(&rows)?)?;
    Ok(())
}

impl Row for ReasonRow {
    const COLUMNS: &'static [&'static str] = &["REASON", "HOOK", "PACKETS", "ACTION"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.reason.to_owned(),
            self.hook.to_owned(),
            self.packets.to_string(),
            self.action.to_owned(),
        ]
    }
}
