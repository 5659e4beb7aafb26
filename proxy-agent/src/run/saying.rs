//! The agent says of itself what the commands tell: that it lives, whether it is ready, whom it hears, what it wants attached.
//!
//! In: the time, and what the other parts know. Out: a file beside the names, replaced when there is something new to say, and now and then
//! when there is not.

use std::{
    path::PathBuf,
    process,
    time::{Duration, Instant},
};

use tracing::warn;

use crate::{
    datapath::Datapath,
    serve::Status,
    source::Heard,
    state::{
        self,
        word::{self, Source, Word},
    },
    version::{self, VERSION},
};

/// From one look at whether there is something new to the next.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Saying {
    file: PathBuf,
    started: u64,
    heard: Heard,
    /// Which build the programs are of.
    object: String,
    last: Option<Word>,
    due: Instant,
    has_failed: bool,
}

impl Saying {
    pub fn new(file: PathBuf, heard: Heard, object: &[u8]) -> Self {
        Self {
            file,
            started: word::now(),
            heard,
            object: version::of_object(object),
            last: None,
            due: Instant::now(),
            has_failed: false,
        }
    }

    /// When [`Self::say`] has something to do.
    pub const fn next_due(&self) -> Instant {
        self.due
    }

    /// There may be something new to say.
    pub fn soon(&mut self) {
        self.due = Instant::now();
    }

    pub fn say(&mut self, now: Instant, datapath: &Datapath, status: &Status) {
        if self.due > now {
            return;
        }
        self.due = now + LOOK;
        let word = self.word(now, datapath, status);
        let is_new = self.last.as_ref().is_none_or(|last| {
            !word.is_as(last) || word.said.saturating_sub(last.said) >= word::EVERY.as_secs()
        });
        if !is_new {
            return;
        }
        match state::write(&self.file, &word) {
            Ok(()) => self.has_failed = false,
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                warn!("{error:#}: `proxy-agent status` does not know this agent");
            }
            Err(_) => {}
        }
        self.last = Some(word);
    }

    fn word(&self, now: Instant, datapath: &Datapath, status: &Status) -> Word {
        let said = word::now();
        let since = |at: Instant| said.saturating_sub(now.saturating_duration_since(at).as_secs());
        let heard = self.heard.told();
        Word {
            process: process::id(),
            version: VERSION.to_owned(),
            object: Some(self.object.clone()),
            started: self.started,
            said,
            not_ready: status.why_not_ready(),
            waiting_since: status.waiting_since().map(since),
            source: Source {
                name: heard.name,
                heard: heard.at.map(since),
                trouble: heard
                    .trouble
                    .into_iter()
                    .map(|(what, why)| format!("{what}: {why}"))
                    .collect(),
            },
            hooks: datapath.wanted(),
        }
    }
}
