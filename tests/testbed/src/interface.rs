//! Requests about a network interface of the calling thread's namespace, netdevice(7).

use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::libc;

/// Brings the loopback device up.
pub(crate) fn start_loopback() -> io::Result<()> {
    let flags = libc::IFF_UP as libc::c_short;
    let what = libc::__c_anonymous_ifr_ifru { ifru_flags: flags };
    // SAFETY: the request takes flags.
    unsafe { request("lo", libc::SIOCSIFFLAGS as libc::Ioctl, what) }
}

/// Asks for `number` with the argument `what`.
///
/// # Safety
/// `what` is what this request takes; a structure that it points to outlives the call.
pub(crate) unsafe fn request(
    interface: &str,
    number: libc::Ioctl,
    what: libc::__c_anonymous_ifr_ifru,
) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: zeroes are an `ifreq` of no name.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru = what;
    // SAFETY: the request outlives the call, and its argument is right by the caller's word.
    match unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
