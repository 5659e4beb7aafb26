//! Maps that look at themselves after every single write.

use std::{collections::BTreeSet, net::IpAddr};

use proxy_common::{
    abi::{
        BackendFlags, Extent, FrontendKind, FrontendRef, Service, ServiceFlags, ServiceId, Slot,
        gate,
    },
    addr::{Be16, Ip4, Ip6},
};

use super::*;
use crate::model::Family;

#[derive(Clone, Debug)]
pub struct Machine {
    pub image: Image,
    room: Room,
    /// Services that have asked for ranges since the plan began when none were there. One whose ranges find no room stays closed.
    asking: BTreeSet<ServiceId>,
    /// Looks at everything after each write, not only at what the write can have broken, and demands that both say the same.
    is_wary: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            is_wary: true,
            ..Self::with_room(ROOM)
        }
    }
}

impl Machine {
    /// Maps of this size, which a write fails that does not fit into them.
    pub fn with_room(room: Room) -> Self {
        Self {
            image: Image::default(),
            room,
            asking: BTreeSet::new(),
            is_wary: false,
        }
    }

    pub const fn room(&self) -> Room {
        self.room
    }

    /// The same maps in another size, whatever they hold.
    pub fn of_size(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// What grows keeps what it holds.
    pub fn grow(&mut self, room: Room) {
        assert!(room.holds(&self.room), "{room:?} after {:?}", self.room);
        self.room = room;
    }

    /// The endpoints that new connections go to: last part of the address, and port.
    pub fn sockets(&self) -> Vec<(u8, u16)> {
        let services = self.image.services.values();
        let slots = services.flat_map(|service| service.internal.slots());
        let sockets = slots.map(|slot| self.image.backends[&self.image.slots[&slot]].socket);
        let parts = sockets.map(|socket| match socket.ip() {
            IpAddr::V4(addr) => (addr.octets()[3], socket.port()),
            IpAddr::V6(addr) => (addr.octets()[15], socket.port()),
        });
        parts.collect()
    }

    /// Does the operations, and fails at the first after which a look-up could find something that is not whole.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), String> {
        self.asking.clear();
        for op in ops {
            let replaces = self.replaces_serving(op);
            self.write(op).map_err(|why| format!("{op}: {why}"))?;
            let found = self.check_after(op, replaces);
            if self.is_wary {
                let all = self.check();
                assert_eq!(found.is_ok(), all.is_ok(), "{op}: {found:?} and {all:?}");
            }
            found.map_err(|why| format!("after {op}: {why}"))?;
        }
        self.check()
    }

    /// The same where nobody looks before the last of them.
    pub fn apply_unseen(&mut self, ops: &[Op]) -> Result<(), String> {
        self.asking.clear();
        for op in ops {
            self.write(op).map_err(|why| format!("{op}: {why}"))?;
        }
        self.check()
    }

    fn write(&mut self, op: &Op) -> Result<(), String> {
        let image = &mut self.image;
        match op.clone() {
            Op::Gate { word, bits } => {
                image.gate.resize(gate::WORDS as usize, 0);
                let old = std::mem::replace(&mut image.gate[word as usize], bits);
                ensure(old & !bits == 0, || "a bit was taken away".to_owned())?;
            }
            Op::ClearServiceCount { .. } | Op::ClearBackendCount { .. } | Op::AwaitPrograms => {}
            Op::Backend { id, entry } => {
                ensure(id.0 != 0 && id.0 < self.room.backends, || {
                    "no such id".to_owned()
                })?;
                if let Some(old) = image.backends.insert(id, entry) {
                    let same = !old.flags.is_empty()
                        && old.socket == entry.socket
                        && old.service == entry.service;
                    let closed = entry.flags.is_empty() && old.generation == entry.generation;
                    ensure(
                        closed
                            || same && old.generation == entry.generation
                            || old.flags.is_empty() && entry.generation > old.generation,
                        || format!("{old:?} became {entry:?} without a new generation"),
                    )?;
                }
            }
            Op::AddRange { service, range } => {
                ensure(!self.asking.contains(&service), || {
                    "it was asked for before it is there".to_owned()
                })?;
                image.ranges.insert((service, range));
            }
            Op::RemoveRange { service, range } => {
                image.ranges.remove(&(service, range));
                if image.services.get(&service).is_some_and(asks_for_ranges)
                    && !has_range(image, service)
                {
                    self.asking.insert(service);
                }
            }
            Op::Slots { base, backends } => {
                let written = Extent {
                    base,
                    len: backends.len() as u32,
                };
                let end = base.plus(written.len);
                ensure(end.0 <= self.room.slots(), || "past the end".to_owned())?;
                for (id, service) in &image.services {
                    for extent in extents(service) {
                        ensure(
                            extent.len == 0
                                || end <= extent.base
                                || extent.base.plus(extent.len) <= base,
                            || format!("service {id} is using {extent:?}"),
                        )?;
                    }
                }
                image.slots.extend(written.slots().zip(backends));
            }
            Op::Service { id, value } => {
                ensure(id.0 != 0 && id.0 < self.room.services, || {
                    "no such id".to_owned()
                })?;
                if asks_for_ranges(&value) && !has_range(image, id) {
                    self.asking.insert(id);
                }
                image.services.insert(id, value);
            }
            Op::RemoveService { id } => {
                image.services.remove(&id);
            }
            Op::Frontend { at, to } => {
                image.frontends.insert(at, to);
            }
            Op::RemoveFrontend { at } => {
                image.frontends.remove(&at);
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let image = &self.image;
        for family in [Family::Ipv4, Family::Ipv6] {
            self.check_frontends_fit(family)?;
            self.check_ranges_fit(family)?;
        }
        for (at, to) in &image.frontends {
            self.check_frontend(*at, *to)?;
        }
        for (id, service) in &image.services {
            self.check_slots(*id, service, |_| true)?;
        }
        Ok(())
    }

    /// Does this write put a backend in the place of one that new connections may go to?
    fn replaces_serving(&self, op: &Op) -> bool {
        let Op::Backend { id, .. } = op else {
            return false;
        };
        let old = self.image.backends.get(id);
        old.is_some_and(|old| old.flags.contains(BackendFlags::SERVING))
    }

    /// The same where all was whole before this write.
    fn check_after(&self, op: &Op, replaces_serving: bool) -> Result<(), String> {
        let image = &self.image;
        match *op {
            Op::Frontend { at, to } => {
                self.check_frontends_fit(at.family())?;
                self.check_frontend(at, to)
            }
            Op::AddRange { range, .. } => self.check_ranges_fit(range.family()),
            Op::Service { id, value } => self.check_slots(id, &value, |_| true),
            Op::RemoveService { id } => {
                let mut frontends = image.frontends.iter();
                let of_service = frontends.find(|(_, to)| to.service() == id);
                of_service.map_or(Ok(()), |(at, to)| self.check_frontend(*at, *to))
            }
            Op::Backend { id, .. } if replaces_serving => {
                let is_changed = |slot: Slot| image.slots.get(&slot) == Some(&id);
                let mut services = image.services.iter();
                services.try_for_each(|(id, service)| self.check_slots(*id, service, is_changed))
            }
            // No service has these slots, as `write` saw to, and what is taken away leads nowhere.
            Op::Slots { .. }
            | Op::Backend { .. }
            | Op::Gate { .. }
            | Op::ClearServiceCount { .. }
            | Op::ClearBackendCount { .. }
            | Op::RemoveFrontend { .. }
            | Op::RemoveRange { .. }
            | Op::AwaitPrograms => Ok(()),
        }
    }

    fn check_frontend(&self, at: FrontendAt, to: FrontendRef) -> Result<(), String> {
        let is_there =
            to.kind() == FrontendKind::Refuse || self.image.services.contains_key(&to.service());
        ensure(is_there, || {
            format!("{at} leads to service {}, which is not there", to.service())
        })?;
        ensure(self.is_open(at), || format!("the gate is closed for {at}"))
    }

    fn check_slots(
        &self,
        id: ServiceId,
        service: &Service,
        which: impl Fn(Slot) -> bool,
    ) -> Result<(), String> {
        let slots = extents(service).into_iter();
        let mut slots = slots.flat_map(|extent| extent.slots());
        slots.try_for_each(|slot| match which(slot) {
            true => self.check_slot(id, slot),
            false => Ok(()),
        })
    }

    fn check_frontends_fit(&self, family: Family) -> Result<(), String> {
        let all = self.image.frontends.keys();
        let number = all.filter(|at| at.family() == family).count();
        ensure(number <= self.room.frontends() as usize, || {
            format!("{number} {family} frontends")
        })
    }

    fn check_ranges_fit(&self, family: Family) -> Result<(), String> {
        let all = self.image.ranges.iter();
        let number = all.filter(|(_, range)| range.family() == family).count();
        ensure(number <= self.room.ranges() as usize, || {
            format!("{number} {family} ranges")
        })
    }

    fn check_slot(&self, service: ServiceId, slot: Slot) -> Result<(), String> {
        let entry = self
            .image
            .slots
            .get(&slot)
            .and_then(|id| self.image.backends.get(id))
            .ok_or_else(|| format!("slot {slot} of service {service} has no backend"))?;
        ensure(
            entry.service == service && entry.flags.contains(BackendFlags::SERVING),
            || format!("slot {slot} of service {service} leads to {entry:?}"),
        )?;
        let addr = match entry.socket.ip() {
            IpAddr::V4(addr) => gate::backend_addr(&Ip4::from(addr)),
            IpAddr::V6(addr) => gate::backend_addr(&Ip6::from(addr)),
        };
        let port = gate::backend_port(Be16::new(entry.socket.port()));
        ensure(self.has_bit(addr) && self.has_bit(port), || {
            format!("the gate is closed for {}", entry.socket)
        })
    }

    fn is_open(&self, at: FrontendAt) -> bool {
        self.has_bit(match at {
            FrontendAt::Port { addr, .. } | FrontendAt::WholeAddress(addr) => match addr {
                IpAddr::V4(addr) => gate::service_addr(&Ip4::from(addr)),
                IpAddr::V6(addr) => gate::service_addr(&Ip6::from(addr)),
            },
            FrontendAt::NodePort { port, protocol, .. } => {
                gate::node_port(protocol.number(), Be16::new(port))
            }
        })
    }

    fn has_bit(&self, bit: gate::Bit) -> bool {
        let word = self.image.gate.get(bit.word as usize).copied();
        word.is_some_and(|word| word & bit.mask != 0)
    }
}

pub fn extents(service: &Service) -> [Extent; 3] {
    [service.internal, service.external, service.short_circuit]
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn asks_for_ranges(service: &Service) -> bool {
    service.flags.contains(ServiceFlags::SOURCE_RANGES)
}

fn has_range(image: &Image, service: ServiceId) -> bool {
    image.ranges.iter().any(|(of, _)| *of == service)
}
