//! `proxy-agent status`: is there an agent, is its datapath whole, and what had to be put back?

use anyhow::Result;
use serde::Serialize;

use super::output::{Format, Output, Row, print};
use crate::{
    datapath::Lock,
    state::{self, Looks, Place},
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Serialize)]
struct StatusRow {
    what: &'static str,
    state: String,
}

pub fn status(args: &Args) -> Result<()> {
    let Args { output, place } = args;
    let agent = match Lock::holder(&place.bpffs)? {
        Some(Some(process)) => format!("runs (process {process})"),
        Some(None) => "runs".to_owned(),
        None => "does not run".to_owned(),
    };
    let pins = place.pins();
    let datapath = match pins.root().exists() {
        true => pins.root().display().to_string(),
        false => "none".to_owned(),
    };
    let looks: Looks = state::read(&place.looks())?;
    let rows = [
        ("agent", agent),
        ("datapath", datapath),
        ("links", pins.pinned_links()?.len().to_string()),
        ("restored", restored(&looks)),
        ("lacking", list(&looks.lacking)),
        ("unpinned", looks.unpinned.unwrap_or_else(|| "-".to_owned())),
    ];
    let rows = rows.map(|(what, state)| StatusRow { what, state });
    print(&Output::of(*output).text(&rows)?)?;
    Ok(())
}

fn restored(looks: &Looks) -> String {
    let sums: Vec<_> = looks
        .restored
        .iter()
        .map(|(sort, count)| format!("{count} {sort}"))
        .collect();
    match looks.last.as_slice() {
        [] => "-".to_owned(),
        [last] => format!("{}; last: {last}", sums.join(", ")),
        [last, more @ ..] => format!("{}; last: {last}, and {} more", sums.join(", "), more.len()),
    }
}

fn list(all: &[String]) -> String {
    match all {
        [] => "-".to_owned(),
        all => all.join("; "),
    }
}

impl Row for StatusRow {
    const COLUMNS: &'static [&'static str] = &["WHAT", "STATE"];

    fn cells(&self) -> Vec<String> {
        vec![self.what.to_owned(), self.state.clone()]
    }
}
