//! The writes of one call, whatever order they were found in, in the order in which they are safe.
//!
//! First what others will refer to, then the services' values, then the frontends; what goes is taken away from the
//! outside in.

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

impl Batch {
    /// The operations; `gate` opens the way for them.
    pub fn into_ops(self, gate: Vec<Op>) -> Vec<Op> {
        let Self {
            prepare,
            services,
            frontends,
            remove,
        } = self;
        let mut ops = gate;
        ops.extend(prepare);
        ops.extend(services);
        let (set, gone): (Vec<_>, Vec<_>) = frontends.into_iter().partition(|(_, to)| to.is_some());
        ops.extend(
            set.into_iter()
                .filter_map(|(at, to)| to.map(|to| Op::Frontend { at, to })),
        );
        ops.extend(gone.into_iter().map(|(at, _)| Op::RemoveFrontend { at }));
        ops.extend(remove);
        ops
    }
}
