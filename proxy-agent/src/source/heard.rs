//! When the source was last heard, and what cannot be read of it now.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Shared by the source, which tells, and the agent, which says it on.
#[derive(Clone, Default, Debug)]
pub struct Heard(Arc<Mutex<State>>);

#[derive(Clone, Default, Debug)]
pub struct State {
    /// Which one is read: an API server, or a folder.
    pub name: String,
    pub at: Option<Instant>,
    /// What is wrong now, by what is not read.
    pub trouble: BTreeMap<&'static str, String>,
}

impl Heard {
    /// Of this one; it was not heard yet.
    pub fn of(name: impl Into<String>) -> Self {
        Self(Arc::new(Mutex::new(State {
            name: name.into(),
            ..State::default()
        })))
    }

    /// Which one is to be read.
    pub fn name(&self, name: String) {
        self.state().name = name;
    }

    /// It has answered; `name` is given by one of several.
    pub fn now(&self, name: Option<String>) {
        let mut state = self.state();
        state.at = Some(Instant::now());
        if let Some(name) = name {
            state.name = name;
        }
    }

    /// `what` cannot be read, as `why` says.
    pub fn trouble(&self, what: &'static str, why: impl Into<String>) {
        self.state().trouble.insert(what, why.into());
    }

    /// `what` is read again.
    pub fn is_over(&self, what: &'static str) {
        self.state().trouble.remove(what);
    }

    pub fn told(&self) -> State {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values: whoever panicked left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
