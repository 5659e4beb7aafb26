//! The sources of the model's events.
//!
//! In: Kubernetes objects, from an API server or from files. Out: [`Batch`]es of [`Event`]s on a channel, each with the time at
//! which it was received and the difference between two consistent views; the first ends with [`Event::Synced`] for both kinds.
//!
//! The one rule: Kubernetes types do not leave this module, and an object that is not valid costs itself, never the others.
//!
//! | file | subject |
//! |---|---|
//! | `access` | what an API server is asked for |
//! | `convert` | Kubernetes objects into the model's, defaults and validation included; for every source |
//! | `files` | a directory of manifests, read again when it changes |
//! | `heard` | when a source was last heard, and what cannot be read of it |
//! | `kube` | an API server, listed and watched |

pub mod access;
pub mod convert;
mod files;
mod heard;
pub mod kube;

use std::{future::Future, time::Instant};

use tokio::sync::mpsc;

use crate::model::Event;

pub use self::{
    files::Files,
    heard::Heard,
    kube::{Kube, publish_events},
};

/// What changed from one consistent view to the next. Apply all of it before acting on any of it.
pub type Batch = Vec<Event>;

/// A batch as it came.
#[derive(Debug)]
pub struct Arrival {
    /// When the first of its events was received; for files, when the directory was quiet again.
    pub at: Instant,
    pub batch: Batch,
}

pub trait Source {
    /// Sends batches until the receiver is gone. Fails if there is nothing to read from at the start, never later.
    fn run(
        self,
        arrivals: mpsc::Sender<Arrival>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}
