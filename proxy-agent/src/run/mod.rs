//! `proxy-agent run`: source -> model -> plan -> datapath, until a signal.
//!
//! In: batches of events from a source, changes of the node's network, the time. Out: map writes and attached programs.
//!
//! The one rule: nothing is written before the source's lists are complete, and programs see packets only after that. One task does
//! all writing in turn, so that there is one order of writes.
//!
//! | file | subject |
//! |---|---|
//! | `args` | what can be chosen on the command line |
//! | `feed` | the source, on a thread of its own |
//! | `files` | how many may be open |
//! | `agent` | the state, and what each event does to it |
//! | `phase` | how far it is: starting, serving, unsure what the maps hold |
//! | `looking` | looking after the datapath |
//! | `sweeps` | when connections that are over leave their table |
//! | `saying` | what the agent says of itself to the commands |
//! | `growth` | how far tables may grow |
//! | `lock` | one agent at a time |
//! | `hooks` | the programs at each device follow its role |
//! | `complaints` | what is wrong with objects, in few lines |
//! | `room` | tables that grow, and what is left out |
//! | `rounds` | when to look at what sends no event |
//! | `own_service` | the service of the API servers as the datapath has it |

mod agent;
mod args;
mod complaints;
mod feed;
mod files;
mod growth;
mod hooks;
mod lock;
mod looking;
mod own_service;
mod phase;
mod room;
mod rounds;
mod saying;
mod sweeps;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time,
};
use tracing::info;

use crate::{
    datapath,
    node::Netlink,
    notices,
    serve::Status,
    state::{self, Losses, Place},
};

pub use self::args::Args;
use self::{agent::Agent, saying::Saying};

/// Batches that may wait: a source that is ahead is held up, and what waits is taken at once.
const BATCHES: usize = 64;

/// How long open connections have to end before the datapath is taken down.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Runs the agent with this eBPF object until a signal ends it.
pub async fn run(args: Args, object: &'static [u8]) -> Result<()> {
    let mut end = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    files::allow_all();
    // From a terminal that goes, or from somebody who wants files read anew: no reason to end.
    let mut hangup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
    // Before anything is touched: an agent that cannot be asked should not begin.
    let lock = tokio::select! {
        lock = lock::take(&args.place.bpffs) => lock?,
        _ = end.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let listeners = lock::listeners(&args.serve).await?;
    let netlink = Netlink::open().await?;
    let (sender, mut arrivals) = mpsc::channel(BATCHES);
    let status = Arc::new(Status::default());
    let (mut source, heard) = feed::start(&args, sender, status.notices().clone()).await?;
    tokio::spawn(notices::keep(status.notices().clone(), args.place.names()));
    listeners.serve(Arc::clone(&status), args.place.pins())?;
    let saying = Saying::new(args.place.word(), heard, object);
    let mut agent = Agent::start(&args, object, netlink, status, (lock, saying)).await?;
    loop {
        let due = agent.next_due();
        tokio::select! {
            _ = end.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                if args.manifests.is_none() {
                    info!("SIGHUP: nothing is read anew, an API server tells what changes");
                }
            }
            ended = &mut source => {
                ended.context(feed::PANICKED)??;
                anyhow::bail!("the source of Services ended");
            }
            arrival = arrivals.recv() => {
                let Some(arrival) = arrival else { continue };
                agent.take(arrival);
                while let Ok(more) = arrivals.try_recv() {
                    agent.take(more);
                }
                agent.sync()?;
            }
            change = agent.network_changed() => agent.follow_network(change?).await?,
            () = sleep_until(due) => agent.advance()?,
        }
    }
    info!(
        "ending; {}",
        if args.cleanup_on_exit {
            "the datapath is taken down"
        } else {
            "the datapath stays as it is"
        }
    );
    let lock = agent.end();
    if args.cleanup_on_exit {
        for what in cleanup(&args.place, Some(DRAIN))? {
            info!("removed {what}");
        }
    }
    drop(lock);
    Ok(())
}

/// Takes down the datapath under `place`, and forgets what is kept beside it. Open connections have this long to end; `None` is beside an
/// agent that goes on, and needs what is kept. Tells what it has removed.
pub fn cleanup(place: &Place, drain: Option<Duration>) -> Result<Vec<String>> {
    let removed = datapath::cleanup(&place.bpffs, drain)?;
    if drain.is_some() {
        Losses::remove(&place.losses())?;
        state::remove(&place.looks())?;
        state::remove(&place.word())?;
        state::remove(&place.left_out())?;
        notices::remove(&place.names())?;
        state::remove(&place.names())?;
    }
    Ok(removed)
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
