//! Fragments: only the first one of a datagram shows the ports; the others find them by the datagram's id.

use crate::{
    abi::{FragmentKey, FragmentPorts},
    addr::Family,
    hook::Hook,
    parse::{Part, View},
    reason::Reason,
    tables::Tables,
};

/// Fills in the ports of a fragment, or notes them. A later fragment that comes before its first one goes on
/// untouched.
#[inline(always)]
pub fn complete<F: Family, T: Tables<F>>(
    hook: Hook,
    view: &mut View<F::Addr>,
    tables: &T,
) -> Result<(), Reason> {
    let key = FragmentKey {
        src: view.ip.src,
        dst: view.ip.dst,
        id: view.ip.datagram,
        kind: view.ip.proto as u32 | (hook.dir as u32) << 8,
    };
    if view.ip.part == Part::First {
        tables.put_fragment(
            &key,
            &FragmentPorts {
                sport: view.tuple.sport,
                dport: view.tuple.dport,
            },
        );
        return Ok(());
    }
    let Some(ports) = tables.fragment(&key) else {
        return Err(Reason::FragmentUnknown);
    };
    view.tuple.sport = ports.sport;
    view.tuple.dport = ports.dport;
    Ok(())
}
