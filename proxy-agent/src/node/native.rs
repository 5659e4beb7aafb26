//! Whether what native XDP sends back by a device can be relied on, and whether it arrives.
//!
//! What a program sends back is lost without a word on some devices; the driver alone counts it. So `auto` takes native
//! XDP on hardware only, and watches the driver's counters while it is there. Nor is it for a device whose VLANs it cannot tell
//! from the device itself.

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use proxy_common::abi::IfIndex;
use tokio::sync::mpsc;
use tracing::debug;

use super::{Kind, Link, View, driver_has_xdp, ethtool::XdpErrors};

/// From one look at the counters to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// Why `auto` does without native XDP at a device, whatever its driver takes.
pub fn why_not(view: &View, index: IfIndex) -> Option<String> {
    let link = view.links.get(&index)?;
    match link.kind {
        // drivers/net/veth.c, `veth_xdp_flush`: the far end is woken only if it polls.
        Kind::Veth => Some(
            "a veth loses what XDP sends back, unless its far end has an XDP program".to_owned(),
        ),
        Kind::Aggregate => view
            .links
            .iter()
            .filter(|(_, port)| port.master == Some(index))
            .find_map(|(port, link)| {
                Some(format!("its port {}: {}", link.name, why_not(view, *port)?))
            }),
        _ => match (&link.software, driver_has_xdp(index)) {
            (Some(kind), _) => Some(format!("a software device ({kind})")),
            (None, Ok(false)) => Some("its driver has no XDP".to_owned()),
            // Before Linux 6.3 it shows when it is attached.
            (None, Ok(true) | Err(_)) => None,
        },
    }
}

/// Why native XDP would take packets of a device's VLANs for the device's own: their tags are gone before a program sees them.
///
/// A VLAN that was moved to another network namespace is not seen from here.
pub fn hidden_tags(view: &View, index: IfIndex) -> Option<String> {
    let vlan = view.vlans(index).next()?;
    let ports = view
        .links
        .iter()
        .filter(|(port, link)| **port == index || link.master == Some(index));
    let (_, taker) = ports.into_iter().find(|(_, link)| link.takes_tags_off)?;
    Some(format!(
        "{taker} takes the tags of VLANs ({}) off before XDP sees them; `ethtool -K {taker} rxvlan off` would leave them",
        vlan.name,
        taker = taker.name
    ))
}

/// A driver counts frames of XDP that were not sent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Lost {
    pub ifindex: IfIndex,
    /// The driver's counter.
    pub counter: String,
    /// How far it has moved.
    pub frames: u64,
}

/// Looks at the counters of devices, on a thread of its own: a driver may ask its NIC for them. The thread sleeps while
/// there is no device to watch.
pub struct XdpWatch {
    devices: Sender<BTreeMap<IfIndex, String>>,
    lost: mpsc::UnboundedReceiver<Lost>,
}

impl XdpWatch {
    /// # Errors
    /// Where there is no thread to be had.
    pub fn start() -> Result<Self> {
        let (devices, wanted) = channel();
        let (tell, lost) = mpsc::unbounded_channel();
        thread::Builder::new()
            .name("xdp counters".to_owned())
            .spawn(move || watch(&wanted, &tell))
            .context("starting the thread that looks at XDP counters")?;
        Ok(Self { devices, lost })
    }

    /// From now on these devices are watched, by index and name. One that was stays as it was.
    pub fn follow(&self, devices: BTreeMap<IfIndex, String>) {
        // The thread ends with this value only.
        let _ = self.devices.send(devices);
    }

    /// The next loss. May be dropped before there is one.
    pub async fn lost(&mut self) -> Lost {
        match self.lost.recv().await {
            Some(lost) => lost,
            None => std::future::pending().await,
        }
    }
}

/// A device, and what its counters showed last.
struct Watched {
    errors: XdpErrors,
    before: u64,
}

fn watch(wanted: &Receiver<BTreeMap<IfIndex, String>>, tell: &mpsc::UnboundedSender<Lost>) {
    let mut watched = BTreeMap::new();
    loop {
        let news = if watched.is_empty() {
            wanted.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            wanted.recv_timeout(PAUSE)
        };
        match news {
            Ok(devices) => follow(&mut watched, devices),
            Err(RecvTimeoutError::Timeout) => {
                for lost in look(&mut watched) {
                    if tell.send(lost).is_err() {
                        return;
                    }
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn follow(watched: &mut BTreeMap<IfIndex, Watched>, devices: BTreeMap<IfIndex, String>) {
    watched.retain(|index, _| devices.contains_key(index));
    for (index, name) in devices {
        if watched.contains_key(&index) {
            continue;
        }
        let begin = || {
            let mut errors = XdpErrors::of(&name)?;
            let before = errors.read()?.map(|(_, count)| count);
            std::io::Result::Ok(before.map(|before| Watched { errors, before }))
        };
        match begin() {
            Ok(Some(found)) => drop(watched.insert(index, found)),
            Ok(None) => debug!("{name}: its driver counts no lost frames of XDP"),
            Err(error) => debug!("{name}: its driver tells no counters: {error}"),
        }
    }
}

fn look(watched: &mut BTreeMap<IfIndex, Watched>) -> Vec<Lost> {
    let mut all = Vec::new();
    for (&ifindex, Watched { errors, before }) in watched {
        // A device that is gone: the next change of the network takes it out.
        let Ok(Some((counter, now))) = errors.read() else {
            continue;
        };
        if now > *before {
            let frames = now - *before;
            all.push(Lost {
                ifindex,
                counter,
                frames,
            });
        }
        *before = now;
    }
    all
}

impl Link {
    /// How the device is told from others of its name: the kernel gives indices and names again.
    pub fn identity(&self, index: IfIndex) -> String {
        let mac = self.mac.map(|byte| format!("{byte:02x}")).join(":");
        format!("{index} {} {mac}", self.name)
    }
}
