//! `proxy-agent get`: services, backends and node ports, as the datapath has them.
//!
//! | file | subject |
//! |---|---|
//! | `services`, `backends`, `node_ports` | the rows of each kind |
//! | `left_out` | what there is no room for |

mod backends;
mod left_out;
mod node_ports;
mod services;

use std::{collections::HashMap, thread, time::Duration};

use anyhow::Result;

use self::{
    backends::BackendRow, left_out::LeftOutRow, node_ports::NodePortRow, services::ServiceRow,
};
use super::output::{Format, Output, Row, print};
use crate::{
    condition::{Agent, View},
    state::Place,
};

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    what: What,
    /// Namespace of the services
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Services of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// All columns, or every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// Go on, and show once a second what changed
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum What {
    #[value(alias = "svc", alias = "service")]
    Services,
    #[value(alias = "backend")]
    Backends,
    #[value(alias = "nodeport")]
    Nodeports,
    /// What there is no room for
    LeftOut,
}

/// A row that can be found again.
trait Named: Row + PartialEq {
    fn key(&self) -> String;
}

pub fn get(args: &Args) -> Result<()> {
    match args.what {
        What::Services => list::<ServiceRow>(args, of_maps(services::rows)),
        What::Backends => list::<BackendRow>(args, of_maps(backends::rows)),
        What::Nodeports => list::<NodePortRow>(args, of_maps(node_ports::rows)),
        What::LeftOut => list::<LeftOutRow>(args, left_out::rows),
    }
}

/// Rows that are made of the maps.
fn of_maps<R>(
    rows: fn(&View) -> Result<Vec<R>>,
) -> impl Fn(&Place, Option<&str>) -> Result<Vec<R>> {
    move |place, namespace| rows(&View::read(place, namespace)?)
}

fn list<R: Named>(
    args: &Args,
    rows: impl Fn(&Place, Option<&str>) -> Result<Vec<R>>,
) -> Result<()> {
    let output = Output {
        format: args.output,
        // Of one namespace, its name says nothing.
        skip: usize::from(!args.all_namespaces),
    };
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let read = || rows(&args.place, namespace);
    let first = read()?;
    if let (
        Agent {
            trouble: Some(trouble),
            ..
        },
        _,
    ) = Agent::look(&args.place)?
    {
        eprintln!("{trouble}");
    }
    if let (true, Some(namespace)) = (first.is_empty(), namespace) {
        eprintln!("nothing in namespace {namespace} (-A shows all)");
    }
    let mut is_read = print(&output.text(&first)?)?;
    let mut before = by_key(first);
    while args.watch && is_read {
        thread::sleep(EVERY);
        let (same, changed): (Vec<_>, Vec<_>) = read()?
            .into_iter()
            .partition(|row| before.get(&row.key()) == Some(row));
        is_read = changed.is_empty() || print(&output.more(&changed)?)?;
        before = by_key(same.into_iter().chain(changed));
    }
    Ok(())
}

fn by_key<R: Named>(rows: impl IntoIterator<Item = R>) -> HashMap<String, R> {
    rows.into_iter().map(|row| (row.key(), row)).collect()
}
