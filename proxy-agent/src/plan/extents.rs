//! Runs of the slot array: who may write where.
//!
//! Best fit, and neighbours that are free become one run again. All operations are logarithmic in the number of free runs.

use std::collections::{BTreeMap, BTreeSet};

use proxy_common::abi::{Extent, Slot};

#[derive(Debug)]
pub struct Extents {
    slots: u32,
    /// Length of each free run, by its base.
    by_base: BTreeMap<Slot, u32>,
    /// The same runs as (length, base).
    by_len: BTreeSet<(u32, Slot)>,
}

impl Extents {
    /// `slots` slots, all free.
    pub fn new(slots: u32) -> Self {
        let mut all = Self {
            slots,
            by_base: BTreeMap::new(),
            by_len: BTreeSet::new(),
        };
        if slots > 0 {
            all.insert(Slot(0), slots);
        }
        all
    }

    /// There are `slots` slots now, if that is more.
    pub fn raise(&mut self, slots: u32) {
        if slots > self.slots {
            let new = Extent {
                base: Slot(self.slots),
                len: slots - self.slots,
            };
            self.slots = slots;
            self.give_back(new);
        }
    }

    /// A run of `len` slots; `None` where no free run is that long.
    pub fn take(&mut self, len: u32) -> Option<Extent> {
        let &(found, base) = self.by_len.range((len, Slot(0))..).next()?;
        self.remove(base, found);
        if found > len {
            self.insert(base.plus(len), found - len);
        }
        Some(Extent { base, len })
    }

    /// Takes this very run; `false` where a part of it is not free.
    pub fn reserve(&mut self, extent: Extent) -> bool {
        let Extent { base, len } = extent;
        let Some((&start, &found)) = self.by_base.range(..=base).next_back() else {
            return false;
        };
        let (end, asked) = (
            u64::from(start.0) + u64::from(found),
            u64::from(base.0) + u64::from(len),
        );
        if asked > end {
            return false;
        }
        self.remove(start, found);
        if base > start {
            self.insert(start, base.0 - start.0);
        }
        if end > asked {
            self.insert(base.plus(len), (end - asked) as u32);
        }
        true
    }

    /// Frees a run that was taken.
    pub fn give_back(&mut self, extent: Extent) {
        let Extent { mut base, mut len } = extent;
        if let Some((&before, &found)) = self.by_base.range(..base).next_back()
            && before.plus(found) == base
        {
            self.remove(before, found);
            base = before;
            len += found;
        }
        if let Some(&after) = self.by_base.get(&(base.plus(len))) {
            self.remove(base.plus(len), after);
            len += after;
        }
        self.insert(base, len);
    }

    fn insert(&mut self, base: Slot, len: u32) {
        self.by_base.insert(base, len);
        self.by_len.insert((len, base));
    }

    fn remove(&mut self, base: Slot, len: u32) {
        self.by_base.remove(&base);
        self.by_len.remove(&(len, base));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_tightest_free_run_is_taken() {
        let mut extents = Extents::new(100);
        let first = extents.take(10).unwrap();
        let second = extents.take(3).unwrap();
        let third = extents.take(10).unwrap();
        extents.give_back(second);
        assert_eq!(extents.take(3), Some(second));
        extents.give_back(first);
        extents.give_back(third);
        assert_eq!(extents.take(88), None);
        assert_eq!(
            extents.take(87),
            Some(Extent {
                base: Slot(13),
                len: 87
            })
        );
    }

    #[test]
    fn new_slots_join_the_free_run_before_them() {
        let mut extents = Extents::new(10);
        assert_eq!(
            extents.take(7),
            Some(Extent {
                base: Slot(0),
                len: 7
            })
        );
        extents.raise(20);
        assert_eq!(
            extents.take(13),
            Some(Extent {
                base: Slot(7),
                len: 13
            })
        );
        extents.raise(15);
        assert_eq!(extents.take(1), None, "slots never become fewer");
    }

    #[test]
    fn a_run_that_is_taken_cannot_be_reserved() {
        let mut extents = Extents::new(10);
        assert!(extents.reserve(Extent {
            base: Slot(4),
            len: 3
        }));
        for (base, len, free) in [
            (0, 5, false),
            (6, 1, false),
            (7, 4, false),
            (7, 3, true),
            (0, 4, true),
        ] {
            assert_eq!(
                extents.reserve(Extent {
                    base: Slot(base),
                    len
                }),
                free,
                "{base}+{len}"
            );
        }
    }

    proptest! {
        #[test]
        fn runs_never_overlap_and_all_slots_come_back(steps in prop::collection::vec((any::<bool>(), 1u32..20), 0..200)) {
            let mut extents = Extents::new(128);
            let mut taken: Vec<Extent> = Vec::new();
            for (give, n) in steps {
                if give && !taken.is_empty() {
                    let extent = taken.swap_remove(n as usize % taken.len());
                    extents.give_back(extent);
                } else if let Some(extent) = extents.take(n) {
                    prop_assert!(extent.base.0 + extent.len <= 128);
                    for other in &taken {
                        prop_assert!(extent.base.plus(extent.len) <= other.base || other.base.plus(other.len) <= extent.base);
                    }
                    taken.push(extent);
                }
            }
            for extent in taken {
                extents.give_back(extent);
            }
            prop_assert_eq!(extents.take(128), Some(Extent { base: Slot(0), len: 128 }));
        }
    }
}
