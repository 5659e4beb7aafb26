//! Flow tables of another size, under traffic.
//!
//! In: tables of an earlier agent that was started with another `--max-flows`. Out: tables of the size that was chosen, with the same
//! flows. The one rule: as long as programs with the old tables and programs with the new ones run side by side, no flow is in a table
//! that only some of them see.
//!
//! A new flow is made in the pending table. All programs share that one, which therefore keeps its size; what a program confirms leaves it
//! for the flow table. So, once all links have programs of this agent:
//!
//! 1. The programs are loaded again, with new flow tables that are pinned as `NAME-new`.
//! 2. The configuration tells all programs that flows stay in their tables ([`Config::STILL`]). The flow tables only lose entries now.
//! 3. They are copied. A flow that has expired leaves the old table instead: its reply tuple is free to be taken, and in one table alone
//!    it would be.
//! 4. Each link gets its new program, in place.
//! 5. `NAME-new` replaces `NAME`.
//! 6. Flows move again.
//!
//! An agent that ends on the way leaves flows still, where step 2 was done. The next one has the programs of all links use the tables
//! that are pinned, and begins anew; both kinds of tables hold the same flows until then.

use std::{collections::HashSet, fs, hash::Hash, mem};

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use nix::libc;
use proxy_common::{
    abi::{Affinity, AffinityKey, Backend, Config, Flow, FlowKey, Jiffies, names},
    addr::Addr,
    flow::track::has_expired,
    tables::Table,
};
use tracing::{info, warn};

use super::{
    Datapath, FamilyMaps, PinDir, Takeover, clock,
    maps::{entries, remove},
    pin::{forget, new_pin},
    program,
    shape::{Role, Shape, shapes},
    sys::wait_for_programs,
};

const NOEXIST: u64 = 1;

impl Datapath {
    /// Gives the tables of flows and of affinity the size that was chosen. All links have programs of this process by now.
    pub fn resize_flows(&mut self, object: &[u8]) -> Result<()> {
        let Some(takeover) = &self.takeover else {
            return Ok(());
        };
        let pins = takeover.pins().clone();
        let shapes = shapes(&self.sizes);
        let wanted = resized(&shapes, &pins)?;
        for shape in &shapes {
            forget(&new_pin(&pins, shape.name))?;
        }
        if wanted.is_empty() {
            return self.let_flows_move();
        }
        let pin = |name: &str| match wanted.iter().any(|shape| shape.name == name) {
            true => new_pin(&pins, name),
            false => pins.map(name),
        };
        let (mut ebpf, mut maps) =
            match super::open(object, &shapes, self.xdp, |name| Some(pin(name))) {
                Ok(opened) => opened,
                Err(error) => {
                    warn!("the tables of flows keep their size: {error:#}");
                    return self.let_flows_move();
                }
            };
        self.hold_flows()?;
        let moving = Moving {
            wanted: &wanted,
            config: Config::for_hz(self.hz, 0),
            now: clock::now(&self.ebpf)?,
        };
        let moved4 = moving.first(&mut self.maps.v4, &mut maps.v4, 0)?;
        let moved6 = moving.first(&mut self.maps.v6, &mut maps.v6, 1)?;
        program::link_slow(&ebpf, self.xdp.is_used(), &mut maps)?;
        mem::swap(&mut self.ebpf, &mut ebpf);
        mem::swap(&mut self.maps, &mut maps);
        self.attach_anew()?;
        // The last that may move a flow in the old tables.
        wait_for_programs();
        // Affinity, which has been written in both.
        moved4.add_news(&maps.v4, &mut self.maps.v4)?;
        moved6.add_news(&maps.v6, &mut self.maps.v6)?;
        for shape in wanted {
            fs::rename(new_pin(&pins, shape.name), pins.map(shape.name))
                .with_context(|| format!("pinning {} anew", shape.name))?;
            info!(
                "{} has room for {} entries now",
                shape.name, shape.max_entries
            );
        }
        self.let_flows_move()
    }

    /// Has flows stay in their tables, for all programs.
    fn hold_flows(&mut self) -> Result<()> {
        self.set_config(&Config {
            refresh: Config::STILL,
            ..self.config()?
        })?;
        wait_for_programs();
        Ok(())
    }

    /// Brings the maps into force, if they are not. Flows of agents that had other tables for them come with them.
    pub(super) fn enforce(&mut self) -> Result<()> {
        let Some(takeover) = &self.takeover else {
            return Ok(());
        };
        if takeover.is_staged() {
            let old = takeover.old_flows()?;
            if !old.is_empty() {
                self.hold_flows()?;
            }
            for pins in old {
                Takeover::convert(&pins, &mut self.maps)?;
            }
        }
        match &mut self.takeover {
            Some(takeover) => takeover.enforce(),
            None => Ok(()),
        }
    }

    /// Ends what an earlier agent was part of, when no link has programs of its own any more.
    pub(super) fn end_takeover(&mut self) -> Result<()> {
        let Some(takeover) = &self.takeover else {
            return Ok(());
        };
        let old = takeover.old_flows()?;
        if !old.is_empty() {
            // The last that may write there.
            wait_for_programs();
        }
        for pins in old {
            Takeover::convert(&pins, &mut self.maps)?;
        }
        takeover.remove_others()
    }

    /// Ends [`Config::STILL`], whoever began it.
    fn let_flows_move(&mut self) -> Result<()> {
        let config = self.config()?;
        if config.refresh != Config::STILL {
            return Ok(());
        }
        let refresh = Config::for_hz(self.hz, config.seed).refresh;
        self.set_config(&Config { refresh, ..config })
    }
}

/// The tables whose pinned map is of another size.
fn resized<'a>(shapes: &'a [Shape], pins: &PinDir) -> Result<Vec<&'a Shape>> {
    let mut wanted = Vec::new();
    for shape in shapes {
        let is_resizable = matches!(shape.role, Role::Flows | Role::Affinity)
            && !names::PENDING.contains(&shape.name);
        if is_resizable && pins.size(shape.name)? != shape.max_entries {
            wanted.push(shape);
        }
    }
    Ok(wanted)
}

type Entries<K, V> = HashMap<MapData, K, V>;

struct Moving<'a> {
    wanted: &'a [&'a Shape],
    config: Config,
    now: Jiffies,
}

impl Moving<'_> {
    /// Copies what is in the old tables; new ones of that size are empty.
    fn first<A>(
        &self,
        old: &mut FamilyMaps<A>,
        new: &mut FamilyMaps<A>,
        family: usize,
    ) -> Result<Moved<A>>
    where
        A: Addr + Eq + Hash,
        Backend<A>: Pod,
        FlowKey<A>: Pod,
        Flow<A>: Pod,
        AffinityKey<A>: Pod,
    {
        let Self { config, now, .. } = self;
        // What a program has touched since is of age 0.
        let age = |seen: Jiffies| now.since(seen).cast_signed().max(0);
        let flow_age = |key: &FlowKey<A>, flow: &Flow<A>| {
            let age = age(flow.last_seen);
            let table = Table::confirmed(key.proto());
            let is_over = has_expired(flow, key.proto(), table, config, *now);
            (age == 0 || !is_over).then_some(age)
        };
        let affinity_age = |_: &AffinityKey<A>, affinity: &Affinity| Some(age(affinity.last_used));
        let (flows, datagrams) = (names::FLOWS[family], names::DATAGRAMS[family]);
        let affinity = names::AFFINITY[family];
        Ok(Moved {
            flows: self.copy(flows, &mut old.flows, &mut new.flows, flow_age)?,
            datagrams: self.copy(datagrams, &mut old.datagrams, &mut new.datagrams, flow_age)?,
            affinity: self.copy(affinity, &mut old.affinity, &mut new.affinity, affinity_age)?,
        })
    }

    /// Copies a table, if it is one that gets another size; returns the keys it had. Without an `age`, an entry is removed; if there are
    /// too many, so are the oldest.
    fn copy<K: Pod + Eq + Hash, V: Pod>(
        &self,
        name: &str,
        old: &mut Entries<K, V>,
        new: &mut Entries<K, V>,
        age: impl Fn(&K, &V) -> Option<i32>,
    ) -> Result<Option<HashSet<K>>> {
        let Some(shape) = self.wanted.iter().find(|shape| shape.name == name) else {
            return Ok(None);
        };
        let all = entries(old).context(shape.name)?;
        let mut keys = HashSet::with_capacity(all.len());
        let mut kept = Vec::with_capacity(all.len());
        for (key, value) in all {
            if !keys.insert(key) {
                continue;
            }
            match age(&key, &value) {
                Some(age) => kept.push((age, key, value)),
                None => remove(old, &key)?,
            }
        }
        kept.sort_by_key(|(age, ..)| *age);
        let room = kept.len().min(shape.max_entries as usize);
        let too_many = kept.split_off(room);
        if !too_many.is_empty() {
            warn!(
                "no room any more for {} entries of {name}, the oldest",
                too_many.len()
            );
        }
        for (_, key, _) in too_many {
            remove(old, &key)?;
        }
        // The oldest first: they are the first to go when room is needed.
        for (_, key, value) in kept.iter().rev() {
            add(new, key, value)?;
        }
        Ok(Some(keys))
    }
}

/// The keys that were in the old tables of a family; `None` where a table keeps its size.
struct Moved<A> {
    flows: Option<HashSet<FlowKey<A>>>,
    datagrams: Option<HashSet<FlowKey<A>>>,
    affinity: Option<HashSet<AffinityKey<A>>>,
}

impl<A> Moved<A>
where
    Backend<A>: Pod,
    FlowKey<A>: Pod + Eq + Hash,
    Flow<A>: Pod,
    AffinityKey<A>: Pod + Eq + Hash,
{
    /// Copies what has come into the old tables since.
    fn add_news(&self, old: &FamilyMaps<A>, new: &mut FamilyMaps<A>) -> Result<()> {
        add_news(&self.flows, &old.flows, &mut new.flows)?;
        add_news(&self.datagrams, &old.datagrams, &mut new.datagrams)?;
        add_news(&self.affinity, &old.affinity, &mut new.affinity)
    }
}

fn add_news<K: Pod + Eq + Hash, V: Pod>(
    moved: &Option<HashSet<K>>,
    old: &Entries<K, V>,
    new: &mut Entries<K, V>,
) -> Result<()> {
    let Some(moved) = moved else {
        return Ok(());
    };
    let news = entries(old)?;
    let mut news = news.iter().filter(|(key, _)| !moved.contains(key));
    news.try_for_each(|(key, value)| add(new, key, value))
}

/// Leaves alone what a program has written under the key, and what there is no room for: it has gone on in the other table until now.
pub(super) fn add<K: Pod, V: Pod>(to: &mut Entries<K, V>, key: &K, value: &V) -> Result<()> {
    match to.insert(key, value, NOEXIST) {
        Err(MapError::SyscallError(error))
            if matches!(
                error.io_error.raw_os_error(),
                Some(libc::EEXIST | libc::E2BIG)
            ) =>
        {
            Ok(())
        }
        done => Ok(done?),
    }
}
