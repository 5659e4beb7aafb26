//! The source, on a thread of its own: it reads long lists while the datapath is loaded, and the next event while one is written.

use std::thread;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};

use super::{Args, own_service};
use crate::{
    notices::Notices,
    own_thread,
    source::{self, Arrival, Files, Heard, Kube, Source},
};

/// Starts the source that `args` choose. What comes out is how it ends, which it does by itself only if it fails; and when it was last
/// heard.
pub async fn start(
    args: &Args,
    arrivals: mpsc::Sender<Arrival>,
    notices: Notices,
) -> Result<(oneshot::Receiver<Result<()>>, Heard)> {
    let args = args.clone();
    let (begin, begun) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let thread = thread::Builder::new().name("source".to_owned());
    own_thread::start(thread, move || async move {
        let result = feed(&args, arrivals, notices, begin).await;
        // An agent that has ended does not ask.
        let _ = end.send(result);
    })
    .context("starting the thread that reads Services")?;
    match begun.await {
        Ok(heard) => Ok((ended, heard)),
        Err(_) => Err(match ended.await.context(PANICKED)? {
            Err(error) => error,
            Ok(()) => anyhow::anyhow!("the source of Services ended before it began"),
        }),
    }
}

pub const PANICKED: &str = "the source of Services panicked";

/// Says by `begin` that it has what it needs to know.
async fn feed(
    args: &Args,
    arrivals: mpsc::Sender<Arrival>,
    notices: Notices,
    begin: oneshot::Sender<Heard>,
) -> Result<()> {
    match &args.manifests {
        Some(dir) => {
            let files = Files::new(dir, &args.node_name, args.max_manifest_bytes).telling(notices);
            let _ = begin.send(files.heard());
            files.run(arrivals).await
        }
        None => {
            let kube = Kube::new(&args.api, &args.node_name, own_service::before(args)).await?;
            let kube = kube.telling(notices.clone());
            if args.events {
                let node = args.node_name.clone();
                tokio::spawn(source::publish_events(kube.client(), notices, node));
            }
            let _ = begin.send(kube.heard());
            kube.run(arrivals).await
        }
    }
}
