//! The door to services and their backends.

use crate::{
    abi::{
        Affinity, AffinityKey, Backend, BackendId, FrontendKey, FrontendRef, RangeKey, Service,
        ServiceId, Slot,
    },
    addr::Family,
};

/// Services and backends as one family sees them.
pub trait Services<F: Family> {
    fn frontend(&self, key: &FrontendKey<F::Addr>) -> Option<FrontendRef>;
    fn service(&self, id: ServiceId) -> Option<&Service>;
    fn slot(&self, slot: Slot) -> Option<BackendId>;
    fn backend(&self, id: BackendId) -> Option<&Backend<F::Addr>>;
    fn affinity(&self, key: &AffinityKey<F::Addr>) -> Option<Affinity>;
    fn set_affinity(&self, key: &AffinityKey<F::Addr>, value: &Affinity);
    fn in_ranges(&self, key: RangeKey<F::Addr>) -> bool;
}
