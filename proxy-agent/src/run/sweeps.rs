//! When connections that are over are taken out of their table.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::{self, JoinHandle};
use tracing::{debug, warn};

use crate::datapath::Datapath;

/// From the end of one look at all connections to the next. The shortest time after which one is over is about a minute.
const PAUSE: Duration = Duration::from_secs(30);

/// The look that goes on, or when the next one begins.
#[derive(Debug, Default)]
pub struct Sweeps {
    look: Option<JoinHandle<Result<usize>>>,
    next: Option<Instant>,
}

impl Sweeps {
    /// Begins a look if it is time for one, or if connections are refused for want of room; on a thread of its own, since the table may be
    /// large. Ends one that is done.
    pub fn advance(&mut self, datapath: &Datapath) -> Result<()> {
        let now = Instant::now();
        match &mut self.look {
            Some(look) if !look.is_finished() => {}
            Some(_) => {
                self.next = Some(now + PAUSE);
                if let Some(look) = self.look.take() {
                    task::spawn(async { tell(look.await.map_err(anyhow::Error::from).flatten()) });
                }
            }
            None if self.next.is_some_and(|next| now < next) && !datapath.lacks_room()? => {}
            None => {
                let Some(sweep) = datapath.sweep()? else {
                    return Ok(());
                };
                self.look = Some(task::spawn_blocking(move || sweep.run()));
            }
        }
        Ok(())
    }
}

fn tell(swept: Result<usize>) {
    match swept {
        Ok(0) => {}
        Ok(entries) => debug!(
            "{} connections were over, and left their table",
            entries / 2
        ),
        Err(error) => warn!(
            "connections that are over stay in their table: {error:#}; looking again in {PAUSE:?}"
        ),
    }
}
