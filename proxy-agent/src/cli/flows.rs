//! `proxy-agent flows`: connections through services, as their clients see them.

use anyhow::Result;

use super::{Place, table::Table};
use crate::{datapath::ConnectionState, run::Names};

pub fn flows(place: &Place) -> Result<()> {
    let names = Names::read(&place.names())?;
    let mut table = Table::new(&[
        "PROTOCOL", "CLIENT", "TO", "BACKEND", "SEEN-AS", "STATE", "SERVICE",
    ]);
    for flow in place.pins().open_maps()?.connections()? {
        let protocol = flow
            .protocol
            .map_or_else(|| "?".to_owned(), |p| p.to_string());
        table.row(vec![
            protocol,
            flow.client.to_string(),
            flow.frontend.to_string(),
            flow.backend.to_string(),
            flow.source.to_string(),
            match flow.state {
                ConnectionState::New => "new",
                ConnectionState::Established => "established",
                ConnectionState::Closing => "closing",
            }
            .to_owned(),
            names.text(flow.service),
        ]);
    }
    Ok(table.print()?)
}
