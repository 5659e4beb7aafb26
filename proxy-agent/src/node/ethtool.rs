//! Reads a driver's XDP counters, as `ethtool -S` shows them, and whether the driver takes VLAN tags off.
//!
//! Only the ioctl tells the counters: the statistics of ethtool's netlink family are standard ones, and none of them is XDP's.

use std::{io, mem, net::UdpSocket, os::fd::AsRawFd};

use nix::libc;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// Commands, and the set of strings that names statistics (include/uapi/linux/ethtool.h).
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETH_SS_STATS: u32 = 1;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
/// Length of a name, `ETH_GSTRING_LEN`.
const NAME: usize = 32;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    texts: [[u8; 32]; 5],
    reserved: [u8; 12],
    private_flags: u32,
    statistics: u32,
    rest: [u32; 3],
}

/// The counters of a device that rise when a frame that an XDP program sends is lost.
#[derive(Debug)]
pub struct XdpErrors {
    device: String,
    socket: UdpSocket,
    /// Place among the statistics, and name.
    counters: Vec<(usize, String)>,
}

impl XdpErrors {
    /// Finds those of a device of the calling thread's network namespace; none where its driver has none.
    pub fn of(device: &str) -> io::Result<Self> {
        let mut errors = Self {
            device: device.to_owned(),
            socket: UdpSocket::bind("0.0.0.0:0")?,
            counters: Vec::new(),
        };
        errors.find()?;
        Ok(errors)
    }

    /// What they count now, all together, and the name of one of the highest.
    pub fn read(&mut self) -> io::Result<Option<(String, u64)>> {
        if self.counters.is_empty() {
            return Ok(None);
        }
        let mut values = self.statistics()?;
        // Queues have come or gone.
        if self
            .counters
            .iter()
            .any(|(place, _)| *place >= values.len())
        {
            self.find()?;
            values = self.statistics()?;
        }
        let found = self
            .counters
            .iter()
            .filter_map(|(place, name)| Some((name, *values.get(*place)?)));
        let sum = found.clone().map(|(_, value)| value).sum();
        let highest = found.max_by_key(|(_, value)| *value);
        Ok(highest.map(|(name, _)| (name.clone(), sum)))
    }

    fn find(&mut self) -> io::Result<()> {
        let count = self.count()?;
        let mut buffer = room(count, NAME);
        buffer[0] = ETHTOOL_GSTRINGS;
        buffer[1] = ETH_SS_STATS;
        self.ask(buffer.as_mut_ptr())?;
        let bytes: Vec<u8> = buffer[3..]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let count = buffer[2] as usize;
        self.counters = bytes
            .chunks_exact(NAME)
            .take(count)
            .map(text)
            .enumerate()
            .filter(|(_, name)| tells_of_loss(name))
            .collect();
        Ok(())
    }

    fn statistics(&self) -> io::Result<Vec<u64>> {
        let mut buffer = room(self.count()?, size_of::<u64>());
        buffer[0] = ETHTOOL_GSTATS;
        self.ask(buffer.as_mut_ptr())?;
        let count = buffer[1] as usize;
        let values = buffer[2..].chunks_exact(2);
        let value = |words: &[u32]| {
            let [a, b] = [words[0].to_ne_bytes(), words[1].to_ne_bytes()];
            u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
        };
        Ok(values.take(count).map(value).collect())
    }

    /// How many statistics there are.
    fn count(&self) -> io::Result<usize> {
        // SAFETY: zeroes are a value of this structure.
        let mut info: DriverInfo = unsafe { mem::zeroed() };
        info.command = ETHTOOL_GDRVINFO;
        self.ask((&raw mut info).cast())?;
        Ok(info.statistics as usize)
    }

    fn ask(&self, data: *mut u32) -> io::Result<()> {
        ask(&self.socket, &self.device, data)
    }
}

/// Does the device take the VLAN's tag off what it receives, and tell it beside the packet? One that cannot be asked does not.
pub fn takes_tags_off(device: &str) -> bool {
    let mut value = [ETHTOOL_GFLAGS, 0];
    let asked =
        UdpSocket::bind("0.0.0.0:0").and_then(|socket| ask(&socket, device, value.as_mut_ptr()));
    asked.is_ok() && value[1] & ETH_FLAG_RXVLAN != 0
}

/// `data` begins with the command, and has room for what the command fills in.
fn ask(socket: &UdpSocket, device: &str, data: *mut u32) -> io::Result<()> {
    // SAFETY: zeroes are an `ifreq` of no name.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = data.cast();
    // SAFETY: the request outlives the call, and `data` has the room that the command wants.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A head of three words, and `count` items of this size: twice as many and some more, as the kernel writes as many as
/// there are by then.
fn room(count: usize, size: usize) -> Vec<u32> {
    vec![0; 3 + (2 * count + 256) * size / size_of::<u32>()]
}

fn text(name: &[u8]) -> String {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// Is it a counter of frames that XDP was to send and that were lost? Drivers call them `xdp_tx_errors`,
/// `rx_xdp_tx_full`, `tx_queue_0_xdp_tx_drops`; what a program drops, as it should, is `xdp_drops` without `tx`.
fn tells_of_loss(name: &str) -> bool {
    let name = name.to_lowercase();
    let Some((before, after)) = name.split_once("xdp") else {
        return false;
    };
    let sends = ["tx", "xmit"]
        .iter()
        .any(|word| after.contains(word) || before.contains(word));
    sends
        && ["err", "drop", "full"]
            .iter()
            .any(|word| after.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_lost_frames_are_told_from_those_of_what_a_program_decides() {
        for (name, lost) in [
            // drivers/net/veth.c
            ("rx_queue_0_xdp_tx_errors", true),
            ("tx_queue_0_xdp_xmit_errors", true),
            ("rx_queue_0_xdp_drops", false),
            ("rx_queue_0_xdp_tx", false),
            // drivers/net/virtio_net.c
            ("tx_queue_1_xdp_tx_drops", true),
            ("rx0_xdp_drops", false),
            // mlx5
            ("rx_xdp_tx_full", true),
            ("rx_xdp_tx_err", true),
            ("tx_xdp_err", true),
            ("rx_xdp_drop", false),
            // mvneta, fec, gve
            ("rx_xdp_tx_errors", true),
            ("tx_xdp_xmit_errors", true),
            ("rx_xdp_redirect_errors", false),
            ("tx_errors", false),
        ] {
            assert_eq!(tells_of_loss(name), lost, "{name}");
        }
    }

    #[test]
    fn the_structure_is_the_kernels() {
        assert_eq!(size_of::<DriverInfo>(), 196);
    }

    #[test]
    fn a_device_without_a_driver_has_no_statistics() {
        XdpErrors::of("no-such-device").unwrap_err();
        // The loopback device has none either, and says so by an error or by none.
        if let Ok(mut errors) = XdpErrors::of("lo") {
            assert_eq!(errors.read().unwrap(), None);
        }
    }
}
