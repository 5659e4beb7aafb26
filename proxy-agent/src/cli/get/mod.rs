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

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Result, ensure};

use self::{
    backends::BackendRow, left_out::LeftOutRow, node_ports::NodePortRow, services::ServiceRow,
};
use super::output::{Event, Format, Output, Row, print};
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
    /// Names of Services; without one, all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Namespace of the services
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Services of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// All columns, or every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Shown>,
    /// Leave out the header
    #[arg(long)]
    no_headers: bool,
    /// Go on, and show what comes, changes and goes; counters alone are no change
    #[arg(short, long)]
    watch: bool,
    /// Say of each row whether it was added, modified or deleted
    #[arg(long, requires = "watch")]
    output_watch_events: bool,
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

/// In place of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Shown {
    /// The table with all its columns.
    Wide,
    Json,
    Yaml,
    /// `service/NAME`, a line each.
    Name,
}

impl Shown {
    const fn format(self) -> Option<Format> {
        match self {
            Self::Wide => Some(Format::Wide),
            Self::Json => Some(Format::Json),
            Self::Yaml => Some(Format::Yaml),
            Self::Name => None,
        }
    }
}

/// A row that can be found again.
trait Named: Row + PartialEq {
    /// Columns that traffic moves.
    const COUNTS: &'static [&'static str];

    fn key(&self) -> String;

    /// The Service that it is of.
    fn service(&self) -> &str;
}

/// Do they differ in more than what traffic moves?
fn is_changed<R: Named>(before: &R, now: &R) -> bool {
    let columns = R::COLUMNS.iter();
    let cells = columns.zip(before.cells().into_iter().zip(now.cells()));
    cells
        .filter(|(column, _)| !R::COUNTS.contains(column))
        .any(|(_, (before, now))| before != now)
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
        format: args.output.and_then(Shown::format),
        // Of one namespace, its name says nothing.
        skip: usize::from(!args.all_namespaces),
        header: !args.no_headers,
        events: args.output_watch_events,
    };
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let is_asked_for =
        |row: &R| args.names.is_empty() || args.names.iter().any(|name| name == row.service());
    let read = || -> Result<Vec<R>> {
        let mut all = rows(&args.place, namespace)?;
        all.retain(is_asked_for);
        Ok(all)
    };
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
    if let (true, true, Some(namespace)) = (first.is_empty(), args.names.is_empty(), namespace) {
        eprintln!("nothing in namespace {namespace} (-A shows all)");
    }
    let text = |rows: &[R]| match args.output {
        Some(Shown::Name) => Ok(names(rows.iter())),
        _ => output.text(rows),
    };
    let mut is_read = print(&text(&first)?)?;
    if !args.watch {
        let lacks = |name: &&String| !first.iter().any(|row| row.service() == *name);
        let missing: Vec<_> = args
            .names
            .iter()
            .filter(lacks)
            .map(String::as_str)
            .collect();
        ensure!(missing.is_empty(), "not found: {}", missing.join(", "));
        return Ok(());
    }
    let mut before = by_key(first);
    while is_read {
        thread::sleep(EVERY);
        let now = by_key(read()?);
        let changed = changes(&before, &now);
        is_read = changed.is_empty()
            || print(&match args.output {
                Some(Shown::Name) => names(changed.iter().map(|(_, row)| *row)),
                _ => output.more(&changed)?,
            })?;
        before = now;
    }
    Ok(())
}

/// What came, changed and went, by key.
fn changes<'a, R: Named>(
    before: &'a BTreeMap<String, R>,
    now: &'a BTreeMap<String, R>,
) -> Vec<(Event, &'a R)> {
    let gone = before
        .iter()
        .filter(|(key, _)| !now.contains_key(*key))
        .map(|(_, row)| (Event::Deleted, row));
    let come = now.iter().filter_map(|(key, row)| match before.get(key) {
        None => Some((Event::Added, row)),
        Some(before) => is_changed(before, row).then_some((Event::Modified, row)),
    });
    gone.chain(come).collect()
}

fn names<'a, R: Named + 'a>(rows: impl Iterator<Item = &'a R>) -> String {
    let mut names: Vec<_> = rows
        .map(|row| format!("service/{}\n", row.service()))
        .collect();
    names.dedup();
    names.concat()
}

fn by_key<R: Named>(rows: impl IntoIterator<Item = R>) -> BTreeMap<String, R> {
    rows.into_iter().map(|row| (row.key(), row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    #[derive(PartialEq, Serialize)]
    struct One(&'static str, u32, u32);

    impl Row for One {
        const KIND: &'static str = "One";
        const COLUMNS: &'static [&'static str] = &["NAME", "ENDPOINTS", "CONNECTIONS"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_string(), self.2.to_string()]
        }
    }

    impl Named for One {
        const COUNTS: &'static [&'static str] = &["CONNECTIONS"];

        fn key(&self) -> String {
            self.0.to_owned()
        }

        fn service(&self) -> &str {
            self.0
        }
    }

    #[test]
    fn what_goes_is_told_and_what_only_counts_is_not() {
        let before = by_key([One("counts", 1, 1), One("grows", 1, 1), One("goes", 1, 1)]);
        let now = by_key([One("counts", 1, 9), One("grows", 2, 1), One("new", 0, 0)]);
        let told: Vec<_> = changes(&before, &now)
            .into_iter()
            .map(|(event, row)| (event, row.0))
            .collect();
        assert_eq!(
            told,
            [
                (Event::Deleted, "goes"),
                (Event::Modified, "grows"),
                (Event::Added, "new")
            ]
        );
        assert_eq!(
            names(now.values()),
            "service/counts\nservice/grows\nservice/new\n"
        );
    }
}
