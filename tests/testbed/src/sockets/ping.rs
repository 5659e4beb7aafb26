//! An echo request, and the wait for its reply.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;
use crate::patience::patient;
use crate::sockets::client::unique_content;

const PATIENCE: Duration = Duration::from_secs(2);

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const HEADER: usize = 8;

/// Pings `target` once from `netns`; the reply has to bring the same content back.
pub fn ping(netns: &Netns, target: IpAddr) -> Result<()> {
    // Lets every group open such a socket; the kernel fills in identifier and checksum.
    netns.sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
    let content = unique_content(56);
    let reply = netns
        .run(|| exchange(target, &content))
        .with_context(|| format!("pinging {target}"))?;
    ensure!(
        reply == content,
        "the echo of {target} is not what was sent"
    );
    Ok(())
}

fn exchange(target: IpAddr, content: &[u8]) -> io::Result<Vec<u8>> {
    let (domain, protocol, request) = match target {
        IpAddr::V4(_) => (Domain::IPV4, libc::IPPROTO_ICMP, ECHO_REQUEST_V4),
        IpAddr::V6(_) => (Domain::IPV6, libc::IPPROTO_ICMPV6, ECHO_REQUEST_V6),
    };
    let mut socket = Socket::new(domain, Type::DGRAM, Some(Protocol::from(protocol)))?;
    socket.connect(&SocketAddr::new(target, 0).into())?;
    socket.set_read_timeout(Some(patient(PATIENCE)))?;
    let mut message = vec![request, 0, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(content);
    socket.write_all(&message)?;
    let mut reply = vec![0; message.len() + 1];
    let length = socket.read(&mut reply)?;
    Ok(reply[HEADER.min(length)..length].to_vec())
}
