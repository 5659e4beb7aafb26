//! Is there an agent, and does it speak?

use anyhow::Result;
use serde::Serialize;

use crate::{
    datapath::{Holder, Lock},
    state::{
        self, Place, Word,
        word::{self, EVERY},
    },
};

/// Words of silence after which an agent is taken for stuck: the machine may be busy.
const SILENT: u64 = 6 * EVERY.as_secs();

/// The agent of a place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    pub running: bool,
    pub ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// Of the agent that runs, or of the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_word_seconds: Option<u64>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Agent {
    /// Looks for it; with its word, which may be an earlier agent's.
    pub fn look(place: &Place) -> Result<(Self, Option<Word>)> {
        let holder = Lock::holder(&place.bpffs)?;
        let word: Word = state::read(&place.word())?;
        let word = (word.process != 0).then_some(word);
        Ok((Self::of(holder, word.as_ref(), word::now()), word))
    }

    /// From the holder of the lock.
    fn of(holder: Holder, word: Option<&Word>, now: u64) -> Self {
        let running = holder != Holder::Nobody;
        let process = match holder {
            Holder::Process(process) => Some(process),
            Holder::Nobody | Holder::Hidden => None,
        };
        // A process of another PID namespace has another number there.
        let own =
            word.filter(|word| running && process.is_none_or(|process| process == word.process));
        let silence = word.map(|word| now.saturating_sub(word.said));
        let last = match (word, silence) {
            (Some(word), Some(silence)) => format!(
                " (the last one, process {} of version {}, spoke {} ago)",
                word.process,
                word.version,
                age(silence)
            ),
            _ => String::new(),
        };
        let trouble = match (running, own, silence) {
            (false, ..) => Some(format!(
                "no agent runs: what is programmed stays in force and follows nothing any more{last}"
            )),
            (true, None, _) => {
                Some("the agent has not said anything yet: it is starting".to_owned())
            }
            (true, Some(_), Some(silence)) if silence > SILENT => Some(format!(
                "the agent has not said anything for {}: it is stuck, or cannot write its state",
                age(silence)
            )),
            (true, Some(word), _) => word
                .not_ready
                .as_ref()
                .map(|why| format!("the agent is not ready: {why}")),
        };
        Self {
            running,
            ready: trouble.is_none(),
            process,
            version: word.map(|word| word.version.clone()),
            uptime_seconds: own.map(|word| now.saturating_sub(word.started)),
            last_word_seconds: silence,
            trouble,
        }
    }
}

/// As kubectl has it: `40s`, `12m`, `5h`, `3d`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_dead_starting_stuck_or_not_ready() {
        let word = Word {
            process: 7,
            version: "1".to_owned(),
            started: 10,
            said: 100,
            ..Word::default()
        };
        let unready = Word {
            not_ready: Some("no list".to_owned()),
            ..word.clone()
        };
        for (holder, word, now, begins) in [
            (Holder::Nobody, None, 100, Some("no agent runs")),
            (Holder::Nobody, Some(&word), 140, Some("no agent runs")),
            (
                Holder::Process(8),
                Some(&word),
                101,
                Some("the agent has not said anything yet"),
            ),
            (
                Holder::Process(7),
                Some(&word),
                131,
                Some("the agent has not said anything for 31s"),
            ),
            (
                Holder::Process(7),
                Some(&unready),
                101,
                Some("the agent is not ready: no list"),
            ),
            (Holder::Process(7), Some(&word), 130, None),
            (Holder::Hidden, Some(&word), 130, None),
        ] {
            let agent = Agent::of(holder, word, now);
            assert_eq!(agent.ready, begins.is_none(), "{agent:?}");
            let trouble = agent.trouble.as_deref().unwrap_or_default();
            assert!(trouble.starts_with(begins.unwrap_or_default()), "{agent:?}");
        }
        let dead = Agent::of(Holder::Nobody, Some(&word), 140).trouble.unwrap();
        assert!(
            dead.ends_with("(the last one, process 7 of version 1, spoke 40s ago)"),
            "{dead}"
        );
        assert_eq!(
            Agent::of(Holder::Process(7), Some(&word), 130).uptime_seconds,
            Some(120)
        );
    }

    #[test]
    fn an_age_has_one_unit() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_200, "2h"),
            (200_000, "2d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
