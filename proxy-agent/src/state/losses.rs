//! Keeps how many frames of native XDP each driver lost, for the next agent and for `doctor`.
//!
//! It stands in a file beside the names: a device that lost frames is served by TC from then on, also by the agent that
//! comes next, until the node starts anew or `proxy-agent cleanup` forgets it.

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::{Context, Result};
use proxy_common::abi::IfIndex;
use serde::{Deserialize, Serialize};

use crate::node::{Link, Lost};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// What was lost at a device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Loss {
    /// The driver's counter that moved.
    pub counter: String,
    /// How far, since it was first seen to.
    pub frames: u64,
}

/// What was lost, device by device.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Losses {
    /// The start of the node that they are from.
    boot: String,
    devices: BTreeMap<String, Loss>,
}

impl Losses {
    /// Those in `file`, if they are of this start of the node.
    pub fn read(file: &Path) -> Result<Self> {
        let boot = fs::read_to_string(BOOT).unwrap_or_default();
        let boot = boot.trim().to_owned();
        let found: Self = match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            read => read
                .map_err(anyhow::Error::from)
                .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
                .with_context(|| format!("reading {}", file.display()))?,
        };
        let devices = if found.boot == boot {
            found.devices
        } else {
            BTreeMap::new()
        };
        Ok(Self { boot, devices })
    }

    /// What was lost at a device.
    pub fn at(&self, index: IfIndex, link: &Link) -> Option<&Loss> {
        self.devices.get(&link.identity(index))
    }

    /// Takes in what was lost at `link`.
    pub fn add(&mut self, link: &Link, lost: &Lost) {
        let Lost {
            ifindex,
            counter,
            frames,
        } = lost;
        let loss = self
            .devices
            .entry(link.identity(*ifindex))
            .or_insert_with(|| Loss {
                counter: String::new(),
                frames: 0,
            });
        loss.counter.clone_from(counter);
        loss.frames += frames;
    }

    /// Replaces `file` as a whole.
    pub fn write(&self, file: &Path) -> Result<()> {
        super::write(file, self)
    }

    pub fn remove(file: &Path) -> Result<()> {
        super::remove(file)
    }
}

impl Loss {
    /// In words, with the counter's name.
    pub fn text(&self) -> String {
        let Self { counter, frames } = self;
        format!("its driver lost {frames} of the frames that XDP sent back ({counter})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Framing, Kind, Ways};

    #[test]
    fn losses_are_of_one_device_and_one_start_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state").join("losses.json");
        let mut link = Link {
            name: "eth0".to_owned(),
            kind: Kind::Physical,
            software: None,
            up: true,
            framing: Framing::Ethernet,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            master: None,
            lower: None,
            peer_elsewhere: false,
            addresses: Vec::new(),
            ways: Ways::default(),
            rp_filter: 0,
            takes_tags_off: false,
        };
        let lost = Lost {
            ifindex: IfIndex(2),
            counter: "rx_xdp_tx_full".to_owned(),
            frames: 3,
        };
        let mut losses = Losses::read(&file).unwrap();
        assert_eq!(losses.at(IfIndex(2), &link), None);
        losses.add(&link, &lost);
        losses.add(&link, &lost);
        losses.write(&file).unwrap();
        let read = Losses::read(&file).unwrap();
        assert_eq!(read, losses);
        assert_eq!(read.at(IfIndex(2), &link).unwrap().frames, 6);
        assert_eq!(
            read.at(IfIndex(3), &link),
            None,
            "another device of the name"
        );
        link.mac[5] = 2;
        assert_eq!(
            read.at(IfIndex(2), &link),
            None,
            "another device of the index"
        );

        let earlier = Losses {
            boot: "another".to_owned(),
            ..losses
        };
        earlier.write(&file).unwrap();
        assert_eq!(Losses::read(&file).unwrap().devices.len(), 0);
        Losses::remove(&file).unwrap();
        Losses::remove(&file).unwrap();
        fs::write(&file, "{").unwrap();
        Losses::read(&file).unwrap_err();
    }
}
