//! A raw socket on one interface.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::netns::Netns;

const PACKET_OUTGOING: u8 = 4;
/// `tp_status`: the checksum is still to be finished by the device.
const CHECKSUM_NOT_READY: u32 = 1 << 3;
/// `tp_status`: the kernel took a VLAN tag off the frame and put it beside.
const VLAN_VALID: u32 = 1 << 4;
/// The length of `struct tpacket_auxdata`.
const AUXDATA_LENGTH: usize = 20;

/// Larger than a segment that the stack leaves for the device to cut.
pub(super) const MAX_FRAME: usize = 1 << 17;

pub struct PacketSocket {
    socket: Socket,
}

/// One frame, and what the kernel notes beside it.
#[derive(Clone, Debug)]
pub struct Frame {
    pub bytes: Vec<u8>,
    /// Sent by this host, not received.
    pub outgoing: bool,
    pub vlan: Option<u16>,
    pub checksum_ready: bool,
}

impl PacketSocket {
    /// Opens a socket that sees and sends every frame on `interface` of `netns`.
    pub fn open(netns: &Netns, interface: &str) -> Result<Self> {
        netns
            .run(|| open(interface))
            .map(|socket| Self { socket })
            .with_context(|| format!("a packet socket on {interface} in {}", netns.name()))
    }

    /// Sends a whole frame, Ethernet header included.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).map(drop).context("sending a frame")
    }

    /// Lets this many bytes of frames wait to be received.
    pub(super) fn set_room(&self, bytes: usize) -> Result<()> {
        setsockopt(&self.socket, sockopt::RcvBufForce, &bytes)
            .context("the room for frames that wait")
    }

    /// Waits until there is a frame, or an error, at most for this long.
    pub(super) fn wait(&self, limit: Duration) -> io::Result<()> {
        let mut waited = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match poll(&mut waited, limit) {
            Err(nix::Error::EINTR) => Ok(()),
            ended => Ok(ended.map(drop)?),
        }
    }

    /// The next frame that waits; `room` is for at least [`MAX_FRAME`] bytes.
    pub(super) fn receive(&self, room: &mut [u8]) -> io::Result<Option<Frame>> {
        let mut control = nix::cmsg_space!([u8; AUXDATA_LENGTH]);
        let mut parts = [IoSliceMut::new(room)];
        let message = match recvmsg::<LinkAddr>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        ) {
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
            received => received?,
        };
        let length = message.bytes;
        let outgoing = message
            .address
            .is_some_and(|address| address.pkttype() == PACKET_OUTGOING);
        let auxdata = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Unknown(unknown) => Some(unknown.data_bytes),
            _ => None,
        });
        let status = auxdata
            .as_deref()
            .map_or(0, |data| u32::from_ne_bytes(field(data, 0)));
        let vlan = auxdata
            .as_deref()
            .filter(|_| status & VLAN_VALID != 0)
            .map(|data| u16::from_ne_bytes(field(data, 16)) & 0x0fff);
        Ok(Some(Frame {
            bytes: room[..length].to_vec(),
            outgoing,
            vlan,
            checksum_ready: status & CHECKSUM_NOT_READY == 0,
        }))
    }
}

fn field<const N: usize>(data: &[u8], offset: usize) -> [u8; N] {
    data[offset..offset + N]
        .try_into()
        .expect("a slice of N bytes is an array of N bytes")
}

fn open(interface: &str) -> Result<Socket> {
    // No protocol yet: nothing is seen before the socket is bound to its interface.
    let socket = Socket::new(
        Domain::from(libc::AF_PACKET),
        Type::RAW,
        Some(Protocol::from(0)),
    )?;
    let on: libc::c_int = 1;
    // SAFETY: the option value is a live integer of the length that is given.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_AUXDATA,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error()).context("asking for auxiliary data");
    }
    socket.bind(&link_address(if_nametoindex(interface)?))?;
    Ok(socket)
}

fn link_address(index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is large enough for every socket address, and all-zero bytes are a valid one.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    link.sll_ifindex = index as i32;
    // SAFETY: the storage was filled as a `sockaddr_ll` just now.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}
