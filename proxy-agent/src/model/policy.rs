//! Chooses the endpoints of a service port's internal and external scope (docs/conformance.md, items D, F and N).
//!
//! 1. `cluster`: the ready endpoints that the topology hints leave; without any, those that are terminating and still
//!    serve.
//! 2. `local`: the ready endpoints on this node; without any, those on this node that are terminating and still serve.
//!    Hints do not apply.
//! 3. A scope takes one of the two by its policy. An empty scope rejects, unless its policy is `Local` and some other
//!    node has an endpoint: then it drops.
//!
//! An endpoint of weight 0 counts as neither ready nor serving: it keeps the connections that it has.
//!
//! Hints count over ready endpoints only, and only if all of those carry one and one of them names this node (else, this
//! node's zone). So they never leave nothing.

use super::{EndpointId, Node, OnEmpty, Scope, SliceEndpoint, TrafficPolicy, endpoints::Candidate};

/// The outcome for one service port.
#[derive(Debug)]
pub struct Choice {
    pub cluster: Vec<EndpointId>,
    pub internal: Scope,
    pub external: Scope,
    pub has_any: bool,
}

/// Chooses among `candidates`; an [`EndpointId`] is an index into them.
pub fn choose(
    candidates: &[Candidate<'_>],
    node: &Node,
    internal: TrafficPolicy,
    external: TrafficPolicy,
) -> Choice {
    let hints = Hints::evaluate(candidates, node);
    let cluster = ready_or_fallback(candidates, |_| true, |c| hints.allow(c.source, node));
    let local = ready_or_fallback(candidates, |c| c.endpoint.local, |_| true);
    let has_any = candidates.iter().any(|c| is_ready(c) || is_fallback(c));

    let scope = |policy| Scope {
        policy,
        endpoints: match policy {
            TrafficPolicy::Cluster => cluster.clone(),
            TrafficPolicy::Local => local.clone(),
        },
        on_empty: match policy {
            TrafficPolicy::Local if has_any => OnEmpty::Drop,
            TrafficPolicy::Local | TrafficPolicy::Cluster => OnEmpty::Reject,
        },
    };
    Choice {
        internal: scope(internal),
        external: scope(external),
        cluster,
        has_any,
    }
}

/// Among the `eligible` endpoints: the ready and `preferred` ones, or else those on their way out that still serve.
fn ready_or_fallback(
    candidates: &[Candidate<'_>],
    eligible: impl Fn(&Candidate<'_>) -> bool,
    preferred: impl Fn(&Candidate<'_>) -> bool,
) -> Vec<EndpointId> {
    let ready = ids(candidates, |c| eligible(c) && is_ready(c) && preferred(c));
    if !ready.is_empty() {
        return ready;
    }
    ids(candidates, |c| eligible(c) && is_fallback(c))
}

fn ids(candidates: &[Candidate<'_>], wanted: impl Fn(&Candidate<'_>) -> bool) -> Vec<EndpointId> {
    (0..)
        .zip(candidates)
        .filter(|(_, candidate)| wanted(candidate))
        .map(|(index, _)| EndpointId(index))
        .collect()
}

fn is_ready(candidate: &Candidate<'_>) -> bool {
    candidate.endpoint.conditions.ready && candidate.endpoint.weight > 0
}

fn is_fallback(candidate: &Candidate<'_>) -> bool {
    candidate.endpoint.conditions.is_fallback() && candidate.endpoint.weight > 0
}

/// Which hints hold for a service port on this node.
#[derive(Clone, Copy)]
enum Hints {
    Node,
    Zone,
    Ignored,
}

impl Hints {
    fn evaluate(candidates: &[Candidate<'_>], node: &Node) -> Self {
        [Self::Node, Self::Zone]
            .into_iter()
            .find(|hints| hints.hold(candidates, node))
            .unwrap_or(Self::Ignored)
    }

    /// Do all ready endpoints carry this sort of hint, and does one of them name us?
    fn hold(self, candidates: &[Candidate<'_>], node: &Node) -> bool {
        let ready = || candidates.iter().filter(|c| is_ready(c));
        ready().all(|c| self.is_given(c.source)) && ready().any(|c| self.allow(c.source, node))
    }

    fn is_given(self, endpoint: &SliceEndpoint) -> bool {
        match self {
            Self::Node => !endpoint.node_hints.is_empty(),
            Self::Zone => !endpoint.zone_hints.is_empty(),
            Self::Ignored => true,
        }
    }

    fn allow(self, endpoint: &SliceEndpoint, node: &Node) -> bool {
        match self {
            Self::Node => endpoint.node_hints.iter().any(|name| **name == *node.name),
            Self::Zone => node
                .zone
                .as_deref()
                .is_some_and(|zone| endpoint.zone_hints.iter().any(|hint| **hint == *zone)),
            Self::Ignored => true,
        }
    }
}
