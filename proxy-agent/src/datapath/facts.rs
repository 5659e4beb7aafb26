//! Turns the node's state into the configuration, the device table and the table of local addresses.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{self, MapData, MapError},
};
use nix::libc;
use proxy_common::{
    abi::{Config, ConfigFlags, Device, Epoch, FrontendKey, IfIndex, LocalAddr, NextHop, names},
    addr::{Ip4, Ip6},
};

use super::{
    Datapath, Maps, PinDir, clock, fib_source,
    maps::{MapAddr, entries, replace},
};

/// What the programs know of the node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Facts {
    /// By interface index.
    pub devices: HashMap<IfIndex, Device>,
    pub local4: HashMap<Ip4, LocalAddr>,
    pub local6: HashMap<Ip6, LocalAddr>,
}

pub(super) fn write(maps: &mut Maps, facts: &Facts) -> Result<()> {
    let Facts {
        devices,
        local4,
        local6,
    } = facts;
    replace(&mut maps.devices, devices).context(names::DEVICES)?;
    replace(&mut maps.v4.local_addrs, local4).context(names::LOCAL_ADDRS[0])?;
    replace(&mut maps.v6.local_addrs, local6).context(names::LOCAL_ADDRS[1])?;
    Ok(())
}

impl Datapath {
    /// Makes the tables equal to `facts`.
    pub fn set_facts(&mut self, facts: &Facts) -> Result<()> {
        write(&mut self.maps, facts)
    }

    /// Writes the defaults of this kernel. A configuration that was there keeps its seed, so that the same tuples go on
    /// choosing the same slots, and its epoch counts on; and flows that are to stay where they are go on to. A configuration that
    /// is new begins with any epoch: flows that are from before it have hints of epochs that nobody knows.
    pub fn configure(&mut self, seed: u32) -> Result<()> {
        let found = self.config()?;
        let mut config = Config::for_hz(self.hz, seed);
        if fib_source::is_known()? {
            config.flags |= ConfigFlags::FIB_SOURCE;
        }
        config.epoch = Epoch(!seed);
        config.share = self.sizes().share();
        if found.epoch != Epoch::NONE {
            config.seed = found.seed;
            config.epoch = found.epoch;
            if found.refresh == Config::STILL {
                config.refresh = Config::STILL;
            }
        }
        self.set_config(&config)?;
        self.bump_epoch()
    }

    /// From now on workloads may send from a backend's address only where that is theirs, whoever they send to.
    pub fn ask_all_sources(&mut self) -> Result<()> {
        let mut config = self.config()?;
        config.flags |= ConfigFlags::WORKLOADS_STRICT;
        self.set_config(&config)
    }

    /// From now on a segment of no known connection to a service address is answered by a reset, or passed on.
    pub fn reset_strangers(&mut self, on: bool) -> Result<()> {
        let mut config = self.config()?;
        let before = config.flags;
        if on {
            config.flags |= ConfigFlags::RESET_STRANGERS;
        } else {
            config.flags -= ConfigFlags::RESET_STRANGERS;
        }
        if config.flags == before {
            return Ok(());
        }
        self.set_config(&config)
    }

    /// The next hops that hints of flows led to within the last `seconds`, each by its device's index.
    pub fn next_hops(&self, seconds: u32) -> Result<Vec<(IfIndex, IpAddr)>> {
        let now = clock::now(&self.ebpf)?;
        let hops = entries(&self.maps.next_hops).context(names::NEXT_HOPS)?;
        Ok(hops
            .into_iter()
            .filter(|(_, used)| now.since(*used) <= seconds * self.hz)
            .filter_map(|(hop, _)| Some((hop.ifindex, address(&hop)?)))
            .collect())
    }

    pub fn config(&self) -> Result<Config> {
        self.maps.config.get(&0, 0).context(names::CONFIG)
    }

    pub fn set_config(&mut self, config: &Config) -> Result<()> {
        self.maps.config.set(0, config, 0).context(names::CONFIG)
    }

    /// Makes every egress hint of the flows stale.
    pub fn bump_epoch(&mut self) -> Result<()> {
        let mut config = self.config()?;
        config.epoch = config.epoch.next();
        self.set_config(&config)
    }
}

impl PinDir {
    /// The addresses of services that are programmed, those of NodePorts not counted.
    pub fn service_addresses(&self) -> Result<HashSet<IpAddr>> {
        let maps = self.open_maps()?;
        let mut all = addresses(&maps.v4.frontends).context(names::FRONTENDS[0])?;
        all.extend(addresses(&maps.v6.frontends).context(names::FRONTENDS[1])?);
        all.retain(|addr| !addr.is_unspecified());
        Ok(all)
    }
}

fn addresses<A: MapAddr>(
    frontends: &maps::HashMap<MapData, FrontendKey<A>, u32>,
) -> Result<HashSet<IpAddr>, MapError>
where
    FrontendKey<A>: Pod,
{
    frontends
        .keys()
        .map(|key| key.map(|key| key.addr.ip()))
        .collect()
}

/// `None` for a family that there is not.
fn address(hop: &NextHop) -> Option<IpAddr> {
    let [a, b, c, d] = hop.addr.map(u32::to_ne_bytes);
    match i32::try_from(hop.family) {
        Ok(libc::AF_INET) => Some(Ipv4Addr::from(a).into()),
        Ok(libc::AF_INET6) => {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&[a, b, c, d].concat());
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_read_as_programs_write_it() {
        let hop = |family: i32, bytes: [u8; 16]| NextHop {
            addr: [0, 4, 8, 12].map(|at: usize| {
                let word: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
                u32::from_ne_bytes(word)
            }),
            ifindex: IfIndex(2),
            family: family as u32,
        };
        let v6: Ipv6Addr = "fe80::1:2".parse().unwrap();
        assert_eq!(address(&hop(libc::AF_INET6, v6.octets())), Some(v6.into()));
        let mut v4 = [0; 16];
        v4[..4].copy_from_slice(&[192, 0, 2, 1]);
        assert_eq!(
            address(&hop(libc::AF_INET, v4)),
            Some(Ipv4Addr::new(192, 0, 2, 1).into())
        );
        assert_eq!(address(&hop(0, v4)), None);
    }
}
