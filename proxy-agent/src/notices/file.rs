//! The file by which the commands of this node find notices, beside the names of services.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::{task::spawn_blocking, time::sleep};
use tracing::warn;

use super::{Notice, Notices, Shape};
use crate::{model::ObjectName, state};

/// From a change until it is written: others may come with it.
const SETTLE: Duration = Duration::from_millis(200);

/// All that is told of Services.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Told {
    pub services: Vec<Entry>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub namespace: String,
    pub name: String,
    #[serde(default)]
    pub notices: Vec<Notice>,
    #[serde(default)]
    pub shape: Option<Shape>,
}

impl Told {
    pub(super) fn of(&mut self, name: &ObjectName) -> &mut Entry {
        let key = (&*name.namespace, &*name.name);
        let found = self
            .services
            .binary_search_by(|one| (&*one.namespace, &*one.name).cmp(&key));
        let at = found.unwrap_or_else(|at| {
            let entry = Entry {
                namespace: name.namespace.to_string(),
                name: name.name.to_string(),
                notices: Vec::new(),
                shape: None,
            };
            self.services.insert(at, entry);
            at
        });
        &mut self.services[at]
    }
}

fn beside(names: &Path) -> PathBuf {
    names.with_file_name("notices.json")
}

/// What is told beside this file of names; nothing where no agent has written it.
pub fn read(names: &Path) -> Result<Told> {
    state::read(&beside(names))
}

/// Keeps the file beside `names` as what is told is, for ever.
pub async fn keep(notices: Notices, names: PathBuf) {
    let mut changes = notices.changes();
    loop {
        changes.borrow_and_update();
        let (told, names) = (notices.told(), names.clone());
        // On a thread of its own: events do not wait for that.
        let written = spawn_blocking(move || write(&told, &names)).await;
        if let Ok(Err(error)) = written {
            warn!("{error:#}: `proxy-agent get` shows no notices");
        }
        if changes.changed().await.is_err() {
            return;
        }
        sleep(SETTLE).await;
    }
}

pub fn remove(names: &Path) -> Result<()> {
    state::remove(&beside(names))
}

pub(super) fn write(told: &Told, names: &Path) -> Result<()> {
    state::write(&beside(names), told)
}
