//! `proxy-agent maps`: how full the maps are.

use anyhow::Result;
use serde::Serialize;

use super::output::{Format, Output, Row, print};
use crate::state::Place;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Serialize)]
struct MapRow {
    map: &'static str,
    used: usize,
    size: u32,
}

pub fn maps(args: &Args) -> Result<()> {
    let pins = args.place.pins();
    let maps = pins.open_maps()?;
    let rows: Vec<_> = maps
        .occupancy(&maps.image()?, &pins)?
        .into_iter()
        .map(|map| MapRow {
            map: map.map,
            used: map.used,
            size: map.size,
        })
        .collect();
    print(&Output::of(args.output).text(&rows)?)?;
    Ok(())
}

impl Row for MapRow {
    const KIND: &'static str = "Map";
    const COLUMNS: &'static [&'static str] = &["MAP", "USED", "SIZE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.map.to_owned(),
            self.used.to_string(),
            self.size.to_string(),
        ]
    }
}
