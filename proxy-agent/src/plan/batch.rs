//! The writes of one call, whatever order they were found in, in the order in which they are safe.
//!
//! First frontends that go, whose room new ones may need; then what others will refer to, the services' values, and the
//! frontends; what goes with them is taken away from the outside in.

use std::collections::BTreeMap;

use proxy_common::abi::FrontendRef;

use super::{FrontendAt, Op};

#[derive(Debug, Default)]
pub struct Batch {
    /// Everything that is written before a service's value.
    pub prepare: Vec<Op>,
    pub services: Vec<Op>,
    /// The last word on each frontend: one that moves between services is never away.
    pub frontends: BTreeMap<FrontendAt, Option<FrontendRef>>,
    /// Everything that nothing refers to once the frontends are written.
    pub remove: Vec<Op>,
}

/// What comes before what in preparation. First goes what an earlier process left half done: the ids in it may be given to others.
const fn turn(op: &Op) -> u8 {
    match op {
        Op::RemoveFrontend { .. } | Op::RemoveService { .. } => 0,
        Op::RemoveRange { .. } => 1,
        Op::ClearServiceCount { .. } => 2,
        Op::ClearBackendCount { .. } => 3,
        Op::Backend { .. } => 4,
        Op::AddRange { .. } => 5,
        Op::Slots { .. } => 6,
        Op::Gate { .. } | Op::Service { .. } | Op::Frontend { .. } | Op::AwaitPrograms => 7,
    }
}

impl Batch {
    /// The operations; `gate` opens the way for them.
    pub fn into_ops(self, gate: Vec<Op>) -> Vec<Op> {
        let Self {
            mut prepare,
            services,
            frontends,
            remove,
        } = self;
        let (set, gone): (Vec<_>, Vec<_>) = frontends.into_iter().partition(|(_, to)| to.is_some());
        let gone = gone.into_iter().map(|(at, _)| Op::RemoveFrontend { at });
        // Nothing refers to any of it yet: writes of one map may stand together.
        prepare.sort_by_key(turn);
        // In place: of a first sync there are hundreds of thousands.
        prepare.splice(0..0, gate.into_iter().chain(gone));
        let mut ops = prepare;
        ops.extend(services);
        ops.extend(
            set.into_iter()
                .filter_map(|(at, to)| to.map(|to| Op::Frontend { at, to })),
        );
        ops.extend(remove);
        ops
    }
}
