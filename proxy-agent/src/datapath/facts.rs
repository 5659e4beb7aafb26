//! What the node looks like -> configuration, device table, table of local addresses.

use std::collections::HashMap;

use anyhow::{Context, Result};
use proxy_common::{
    abi::{Config, Device, LocalAddr, names},
    addr::{Ip4, Ip6},
};

use super::{Datapath, maps::replace};

/// What the programs know of the node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Facts {
    /// By interface index.
    pub devices: HashMap<u32, Device>,
    pub local4: HashMap<Ip4, LocalAddr>,
    pub local6: HashMap<Ip6, LocalAddr>,
}

impl Datapath {
    /// Makes the tables equal to `facts`.
    pub fn set_facts(&mut self, facts: &Facts) -> Result<()> {
        let Facts {
            devices,
            local4,
            local6,
        } = facts;
        let maps = &mut self.maps;
        replace(&mut maps.devices, devices).context(names::DEVICES)?;
        replace(&mut maps.v4.local_addrs, local4).context(names::LOCAL_ADDRS[0])?;
        replace(&mut maps.v6.local_addrs, local6).context(names::LOCAL_ADDRS[1])?;
        Ok(())
    }

    /// Writes the defaults of this kernel. A configuration that was there keeps its seed, so that the same tuples go on
    /// choosing the same slots, and its epoch counts on; and flows that are to stay where they are go on to.
    pub fn configure(&mut self, seed: u32) -> Result<()> {
        let found = self.config()?;
        let mut config = Config::for_hz(self.hz, seed);
        if found.epoch != 0 {
            config.seed = found.seed;
            config.epoch = found.epoch;
            if found.refresh == Config::STILL {
                config.refresh = Config::STILL;
            }
        }
        self.set_config(&config)?;
        self.bump_epoch()
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
        // 0 marks a flow without hints.
        config.epoch = config.epoch.wrapping_add(1).max(1);
        self.set_config(&config)
    }
}
