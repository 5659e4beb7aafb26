//! Sockets that wait for connections.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections that the kernel holds while none is accepted.
const BACKLOG: i32 = 1024;

/// Whom an unspecified address admits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    /// Clients of both families, also at `0.0.0.0`, where the kernel has IPv6.
    Both,
    /// Clients of the address's own family.
    Own,
}

/// Waits for TCP connections at `at`. The socket does not block, as tokio wants it.
pub fn listen(at: SocketAddr, families: Families) -> io::Result<TcpListener> {
    if families == Families::Both && at.ip().is_unspecified() {
        let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), at.port());
        match open(both, false) {
            // A kernel without IPv6.
            Err(error) if at.is_ipv4() && error.kind() != io::ErrorKind::AddrInUse => {}
            opened => return opened,
        }
    }
    open(at, true)
}

fn open(at: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // Connections of an earlier agent that are in TIME_WAIT do not count.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(at))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
