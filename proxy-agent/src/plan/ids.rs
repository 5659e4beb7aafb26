//! Ids of services, and of backends.
//!
//! An id that has become free is the last to be used again, and a backend's then has the next generation: that is how a
//! flow of the old one tells that its backend is gone. Id 0 is nobody's.

use std::collections::{BTreeSet, VecDeque};

use proxy_common::abi::{BackendId, Generation};

/// Ids below `limit`.
#[derive(Debug)]
pub struct Ids {
    next: u32,
    limit: u32,
    free: VecDeque<u32>,
}

impl Ids {
    /// Ids of which those in `used` are taken.
    pub fn new(limit: u32, used: impl Iterator<Item = u32>) -> Self {
        let used: BTreeSet<u32> = used.collect();
        let next = used.last().map_or(1, |last| last.saturating_add(1));
        Self {
            next,
            limit,
            free: (1..next).filter(|id| !used.contains(id)).collect(),
        }
    }

    pub fn take(&mut self) -> Option<u32> {
        if self.next < self.limit {
            self.next += 1;
            Some(self.next - 1)
        } else {
            self.free.pop_front()
        }
    }

    pub fn give_back(&mut self, id: u32) {
        self.free.push_back(id);
    }

    /// There is room for more.
    pub fn raise(&mut self, limit: u32) {
        self.limit = self.limit.max(limit);
    }
}

/// Backend ids with their generations.
#[derive(Debug)]
pub struct BackendIds {
    ids: Ids,
    /// By id.
    generations: Vec<Generation>,
}

impl BackendIds {
    /// `seen` are the ids that were ever used, each with its last generation, `used` those that are now.
    pub fn new(
        limit: u32,
        used: &BTreeSet<BackendId>,
        seen: impl IntoIterator<Item = (BackendId, Generation)>,
    ) -> Self {
        let mut new = Self {
            ids: Ids::new(limit, used.iter().map(|id| id.0)),
            generations: Vec::new(),
        };
        for (id, generation) in seen {
            *new.generation(id) = generation;
        }
        new
    }

    /// An id and its generation.
    pub fn take(&mut self) -> Option<(BackendId, Generation)> {
        let id = BackendId(self.ids.take()?);
        let generation = self.generation(id);
        *generation = generation.next();
        Some((id, *generation))
    }

    pub fn give_back(&mut self, id: BackendId) {
        self.ids.give_back(id.0);
    }

    /// There is room for more.
    pub fn raise(&mut self, limit: u32) {
        self.ids.raise(limit);
    }

    fn generation(&mut self, id: BackendId) -> &mut Generation {
        let index = id.0 as usize;
        if index >= self.generations.len() {
            self.generations.resize(index + 1, Generation::NONE);
        }
        &mut self.generations[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ids_are_used_again_only_when_no_fresh_one_is_left() {
        let mut ids = Ids::new(4, [2].into_iter());
        assert_eq!(ids.take(), Some(3));
        ids.give_back(2);
        assert_eq!(ids.take(), Some(1));
        assert_eq!(ids.take(), Some(2));
        assert_eq!(ids.take(), None);
        ids.raise(5);
        assert_eq!(ids.take(), Some(4));
        assert_eq!(ids.take(), None);
    }

    #[test]
    fn an_id_that_is_used_again_has_the_next_generation() {
        let mut ids = BackendIds::new(2, &BTreeSet::new(), [(BackendId(1), Generation(7))]);
        assert_eq!(ids.take(), Some((BackendId(1), Generation(8))));
        assert_eq!(ids.take(), None);
        ids.give_back(BackendId(1));
        assert_eq!(ids.take(), Some((BackendId(1), Generation(9))));
    }
}
