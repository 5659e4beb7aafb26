//! Reads each device's check of source addresses: `rp_filter`, as the kernel applies it.
//!
//! The kernel takes the higher one of `conf.all` and `conf.DEVICE`; of a bridge's port it asks the bridge, to which the
//! packet belongs by then. A device of a multipath route is not asked strictly: the way back may be by its peer. IPv6 has
//! no such switch of its own (rules of the packet filter do its work), and a device asks of it what it asks of IPv4.

use std::{fs, path::Path};

use proxy_common::abi::{IfIndex, Sources};

use super::{Role, View};

const CONF: &str = "/proc/sys/net/ipv4/conf";

/// Which sources are taken from workloads and from other devices.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, clap::ValueEnum)]
pub enum SourceCheck {
    /// As the device's rp_filter says.
    #[default]
    Auto,
    /// Strict for pods' interfaces, whatever their rp_filter; as the device's says for the others.
    Strict,
    Off,
}

impl View {
    /// Reads the switches, which send no event. A device without one, or that is gone, asks nothing.
    pub fn read_reverse_paths(&mut self) {
        let all = read(Path::new(CONF).join("all"));
        for link in self.links.values_mut() {
            link.rp_filter = all.max(read(Path::new(CONF).join(&link.name)));
        }
    }
}

fn read(directory: impl AsRef<Path>) -> u8 {
    let text = fs::read_to_string(directory.as_ref().join("rp_filter"));
    text.map_or(0, |text| text.trim().parse().unwrap_or(0))
}

/// The sources that a device takes.
pub fn sources(view: &View, index: IfIndex, role: Role, check: SourceCheck) -> Sources {
    let Some(link) = view.links.get(&index) else {
        return Sources::All;
    };
    let asked = view.above(index).unwrap_or(link);
    match check {
        SourceCheck::Off => Sources::All,
        SourceCheck::Strict if role == Role::Workload => Sources::Strict,
        SourceCheck::Auto | SourceCheck::Strict => match asked.rp_filter {
            1 if asked.ways.multipath => Sources::Loose,
            1 => Sources::Strict,
            2 => Sources::Loose,
            _ => Sources::All,
        },
    }
}
