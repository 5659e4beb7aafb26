//! `proxy-agent maps`: how full the maps are.

use anyhow::Result;

use super::{Place, table::Table};

pub fn maps(place: &Place) -> Result<()> {
    let pins = place.pins();
    let mut table = Table::new(&["MAP", "USED", "SIZE"]);
    let maps = pins.open_maps()?;
    for map in maps.occupancy(&maps.image()?, &pins)? {
        table.row(vec![
            map.map.to_owned(),
            map.used.to_string(),
            map.size.to_string(),
        ]);
    }
    Ok(table.print()?)
}
