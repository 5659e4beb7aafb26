//! Services and their backends.

use super::Kernel;
use crate::maps::{self, FamilyMaps};
use aya_ebpf::{bindings::BPF_ANY, btf_maps::lpm_trie::Key};
use proxy_common::{
    abi::{
        Affinity, AffinityKey, Backend, BackendId, FrontendKey, FrontendRef, RangeKey, Service,
        ServiceId, Slot,
    },
    tables::Services,
};

impl<F: FamilyMaps> Services<F> for Kernel {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey<F::Addr>) -> Option<FrontendRef> {
        // SAFETY: as for services.
        unsafe { F::MAPS.frontends.get(key) }.map(|v| FrontendRef(*v))
    }

    #[inline(always)]
    fn service(&self, id: ServiceId) -> Option<&Service> {
        // SAFETY: elements are replaced, not written in place; RCU keeps this one for the program's run.
        unsafe { maps::SERVICES.get(id) }
    }

    #[inline(always)]
    fn slot(&self, slot: Slot) -> Option<BackendId> {
        maps::SLOTS.get(slot.0).copied()
    }

    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<&Backend<F::Addr>> {
        F::MAPS.backends.get(id.0)
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey<F::Addr>) -> Option<Affinity> {
        // SAFETY: plain data; a torn read at worst forgets an affinity.
        unsafe { F::MAPS.affinities.get(key) }.copied()
    }

    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey<F::Addr>, value: &Affinity) {
        // A table that is full costs stickiness, not traffic.
        let _ = F::MAPS.affinities.insert(key, value, BPF_ANY as u64);
    }

    #[inline(always)]
    fn in_ranges(&self, key: RangeKey<F::Addr>) -> bool {
        let bits = RangeKey::<F::Addr>::BITS;
        F::MAPS.ranges.get(&Key::new(bits, key)).is_some()
    }
}
