//! `proxy-agent flows`: connections through services, as their clients see them.

mod filter;

use std::net::SocketAddr;

use anyhow::Result;
use serde::Serialize;

use self::filter::Filter;
use super::output::{Format, Output, Row, print};
use crate::{
    datapath::ConnectionState,
    state::{Names, Place},
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    filter: Filter,
    /// Only say how many there are
    #[arg(long, conflicts_with = "output")]
    count: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FlowRow {
    protocol: String,
    client: SocketAddr,
    to: SocketAddr,
    backend: SocketAddr,
    seen_as: SocketAddr,
    state: &'static str,
    service: String,
}

pub fn flows(args: &Args) -> Result<()> {
    let names = Names::read(&args.place.names())?;
    let connections = args.place.pins().open_maps()?.connections()?;
    let connections = connections
        .into_iter()
        .filter(|flow| args.filter.takes(flow, &names.get(flow.service)));
    if args.count {
        print(&format!("{}\n", connections.count()))?;
        return Ok(());
    }
    let rows: Vec<_> = connections
        .map(|flow| FlowRow {
            protocol: flow
                .protocol
                .map_or_else(|| "?".to_owned(), |protocol| protocol.to_string()),
            client: flow.client,
            to: flow.frontend,
            backend: flow.backend,
            seen_as: flow.source,
            state: match flow.state {
                ConnectionState::New => "new",
                ConnectionState::Established => "established",
                ConnectionState::Closing => "closing",
            },
            service: names.text(flow.service),
        })
        .collect();
    print(&Output::of(args.output).text(&rows)?)?;
    Ok(())
}

impl Row for FlowRow {
    const KIND: &'static str = "Flow";
    const COLUMNS: &'static [&'static str] = &[
        "PROTOCOL", "CLIENT", "TO", "BACKEND", "SEEN-AS", "STATE", "SERVICE",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.protocol.clone(),
            self.client.to_string(),
            self.to.to_string(),
            self.backend.to_string(),
            self.seen_as.to_string(),
            self.state.to_owned(),
            self.service.clone(),
        ]
    }
}
