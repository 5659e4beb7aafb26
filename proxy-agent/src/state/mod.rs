//! The files that the agent leaves beside its datapath for the commands and for the next agent.
//!
//! In: what the agent knows. Out: the same for who asks. The one rule: a file is JSON and is replaced as a whole, so that a reader never
//! sees half of one.
//!
//! | file | subject |
//! |---|---|
//! | `place` | where a datapath and these files are |
//! | `names` | whose a service id is |
//! | `looks` | what came of looking after the datapath |
//! | `losses` | what native XDP lost |
//! | `word` | what the agent says of itself |

mod looks;
mod losses;
mod names;
mod place;
pub mod word;

use std::{fs, io, path::Path};

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    looks::Looks,
    losses::{Loss, Losses},
    names::{Name, Names},
    place::Place,
    word::Word,
};

/// What is in `file`; nothing where no agent has written it yet.
pub fn read<T: DeserializeOwned + Default>(file: &Path) -> Result<T> {
    match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        read => read
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
            .with_context(|| format!("reading {}", file.display())),
    }
}

pub fn write<T: Serialize + ?Sized>(file: &Path, content: &T) -> Result<()> {
    let new = file.with_extension("new");
    let write = || -> Result<()> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&new, serde_json::to_vec(content)?)?;
        Ok(fs::rename(&new, file)?)
    };
    write().with_context(|| format!("writing {}", file.display()))
}

/// Removes the file, if it is there.
pub fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("removing {}", file.display())),
    }
}
