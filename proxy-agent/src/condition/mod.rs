//! What state the agent and its datapath are in, for whoever asks on the node.
//!
//! In: what the agent says of itself, and what the kernel and the maps say. Out: a [`Condition`], and the [`View`] of what is programmed.
//!
//! The one rule: it looks and changes nothing, and the kernel's answer counts, not what an agent remembers.
//!
//! | file | subject |
//! |---|---|
//! | `agent` | is there an agent, and does it speak |
//! | `programs` | are the programs where they are wanted |
//! | `services` | what is served, and what is not |
//! | `drops` | what is dropped, and how much a second |
//! | `view` | the maps and the names, put together |

mod agent;
mod drops;
mod programs;
mod services;
mod view;

use std::{thread, time::Duration};

use anyhow::Result;
use serde::Serialize;

use crate::{
    doctor,
    state::{self, Looks, Place, Word, word},
};

pub use self::{
    agent::{Agent, age},
    drops::{Count, Drops, OfService, by_reason, counts, of_services},
    programs::Program,
    services::Services,
    view::{ServicePort, View, endpoints, place_of, state_of},
};

/// What an agent that lives may need until its word is as the kernel is: a device comes or goes, tables grow.
const MOMENT: Duration = Duration::from_millis(1500);
/// A source that has not answered for so long: a watch ends in order every 90 s at the latest.
const UNHEARD: u64 = 180;
/// An update that waits for so long is late.
const LATE: u64 = 10;

/// All of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    pub api_version: &'static str,
    pub kind: &'static str,
    /// Nothing is a problem.
    pub ok: bool,
    /// What is not as it should be, the worst first.
    pub problems: Vec<String>,
    /// What is worth knowing, and no fault of the agent's.
    pub notes: Vec<String>,
    pub agent: Agent,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Services>,
    pub programs: Vec<Program>,
    pub tables: Vec<Table>,
    pub drops: Vec<Drops>,
}

/// Where the agent has Services from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard_seconds_ago: Option<u64>,
    pub trouble: Vec<String>,
}

/// How full a map is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Table {
    pub map: &'static str,
    pub used: usize,
    pub size: u32,
    pub percent: usize,
}

/// Looks at everything. Takes a second or two.
pub fn look(place: &Place) -> Result<Condition> {
    let pins = place.pins();
    if !pins.root().exists() {
        let (agent, _) = Agent::look(place)?;
        let missing = pins.open_maps().err().map(|error| format!("{error:#}"));
        return Ok(Condition::of(agent, None, missing.into_iter().collect()));
    }
    let drops = by_reason(&counts(&pins.open_maps()?)?);
    let mut condition = now(place)?;
    if !condition.ok && condition.agent.running {
        thread::sleep(MOMENT);
        condition = now(place)?;
    }
    condition.drops = drops;
    Ok(condition)
}

fn now(place: &Place) -> Result<Condition> {
    let pins = place.pins();
    let (agent, word) = Agent::look(place)?;
    let view = View::read(place, None)?;
    let services = services::services(place, &view)?;
    let wanted = word
        .as_ref()
        .map(|word| &word.hooks[..])
        .unwrap_or_default();
    let programs = programs::programs(&pins, wanted)?;
    let tables = view
        .maps
        .occupancy(&view.maps.image()?, &pins)?
        .into_iter()
        .map(|map| Table {
            map: map.map,
            used: map.used,
            size: map.size,
            percent: map.used * 100 / (map.size as usize).max(1),
        })
        .collect();
    let looks: Looks = state::read(&place.looks())?;
    let mut problems: Vec<_> = programs
        .iter()
        .filter_map(|program| {
            let Program {
                hook, device, lost, ..
            } = program;
            Some(format!("{device} lacks {hook}: {}", lost.as_ref()?))
        })
        .collect();
    if word.is_none() {
        problems.push(format!(
            "{} programs are pinned; which ones are wanted is not known: no agent has left its word under {}",
            pins.pinned_links()?.len(),
            place.state_dir.display()
        ));
    }
    problems.extend(services.problems());
    problems.extend(
        looks.unpinned.map(|why| {
            format!("pins are missing, and the datapath would end with the agent: {why}")
        }),
    );
    let mut condition = Condition::of(agent, word, problems);
    condition.notes = services.notes();
    if !looks.restored.is_empty() {
        let sums = looks
            .restored
            .iter()
            .map(|(sort, count)| format!("{count} {sort}"));
        condition.notes.push(format!(
            "others took away what the agent put back: {}; last: {}",
            sums.collect::<Vec<_>>().join(", "),
            looks.last.join("; ")
        ));
    }
    condition.notes.extend(doctor::others());
    condition.services = Some(services);
    condition.programs = programs;
    condition.tables = tables;
    Ok(condition)
}

impl Condition {
    /// `others` are problems besides those of the agent and its source.
    fn of(agent: Agent, word: Option<Word>, others: Vec<String>) -> Self {
        let mut problems: Vec<_> = agent.trouble.iter().cloned().collect();
        let now = word::now();
        if let Some(word) = word.as_ref().filter(|_| agent.running) {
            let since = |at: u64| now.saturating_sub(at);
            if let Some(waits) = word.waiting_since.map(since).filter(|waits| *waits >= LATE) {
                problems.push(format!(
                    "an update has waited for {} to be written",
                    age(waits)
                ));
            }
            let unheard = word
                .source
                .heard
                .map(since)
                .filter(|heard| *heard >= UNHEARD);
            if !word.source.trouble.is_empty() {
                problems.push(format!(
                    "{} is not read: {}",
                    word.source.name,
                    word.source.trouble.join("; ")
                ));
            } else if let Some(unheard) = unheard.filter(|_| word.source.is_server()) {
                problems.push(format!(
                    "{} was not heard for {}",
                    word.source.name,
                    age(unheard)
                ));
            }
        }
        problems.extend(others);
        Self {
            api_version: "portside/v1",
            kind: "Status",
            ok: problems.is_empty(),
            problems,
            notes: Vec::new(),
            source: word.map(|Word { source, .. }| Source {
                heard_seconds_ago: source.heard.map(|at| now.saturating_sub(at)),
                name: source.name,
                trouble: source.trouble,
            }),
            agent,
            services: None,
            programs: Vec::new(),
            tables: Vec::new(),
            drops: Vec::new(),
        }
    }
}
