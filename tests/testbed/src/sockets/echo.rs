//! Echo servers over TCP, UDP and SCTP that say who they are and which client address they saw.
//!
//! A server binds the very addresses it is reached at: a reply then has the right source on a host with several.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use socket2::SockRef;

use super::Protocol;
use super::client::unique_content;
use super::listener::Listener;
use super::wording::{Greeting, LATE, LATE_WORD, Request, Sum};
use crate::address::Family;
use crate::netns::Netns;
use crate::topology::Host;

const MAX_DATAGRAM: usize = 65536;

/// TCP, UDP and, where the kernel has it, SCTP on one port, at both addresses of a host.
pub struct EchoServer {
    _streams: Vec<Listener>,
    _udp: Vec<UdpServer>,
}

impl EchoServer {
    /// Serves `port` at the host's addresses, as `<name of the host>:<port>`.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        let who = format!("{}:{port}", host.name);
        let addresses = Family::BOTH.map(|family| SocketAddr::new(host.ip.of(family), port));
        Ok(Self {
            _streams: [Protocol::Tcp, Protocol::Sctp]
                .into_iter()
                .filter(|protocol| protocol.missing().is_none())
                .flat_map(|protocol| addresses.map(|at| (protocol, at)))
                .map(|(protocol, at)| serve_streams(&host.netns, protocol, at, &who))
                .collect::<Result<_>>()?,
            _udp: addresses
                .iter()
                .map(|at| UdpServer::start(&host.netns, *at, &who))
                .collect::<Result<_>>()?,
        })
    }
}

fn serve_streams(
    netns: &Netns,
    protocol: Protocol,
    address: SocketAddr,
    who: &str,
) -> Result<Listener> {
    let who = who.to_owned();
    Listener::start(netns, protocol, address, move |stream, client| {
        let no_delay = match protocol {
            Protocol::Tcp => stream.set_nodelay(true),
            _ => Ok(()),
        };
        // An error here is the client's end of the connection, and the client reports it.
        let _ = no_delay.and_then(|()| answer_requests(stream, client, &who));
    })
}

fn answer_requests(stream: TcpStream, client: SocketAddr, who: &str) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let Some((request, length)) = Request::parse(&line) else {
            return writer.write_all(b"this is no request\n");
        };
        line.clear();
        let (sum, content) = match request {
            Request::Echo | Request::Late => {
                let mut content = vec![0; length];
                reader.read_exact(&mut content)?;
                if let Request::Late = request {
                    thread::sleep(LATE);
                }
                (Sum::of(&content), content)
            }
            Request::Upload => (sum_up(&mut reader, length)?, Vec::new()),
            Request::Download => {
                let content = unique_content(length);
                (Sum::of(&content), content)
            }
        };
        writer.write_all(&reply(who, client, sum, &content))?;
    }
    Ok(())
}

fn sum_up(reader: &mut impl Read, mut length: usize) -> std::io::Result<u32> {
    let mut sum = Sum::default();
    let mut buffer = [0; 16384];
    while length > 0 {
        let part = length.min(buffer.len());
        let got = reader.read(&mut buffer[..part])?;
        if got == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        sum.add(&buffer[..got]);
        length -= got;
    }
    Ok(sum.finish())
}

fn reply(who: &str, client: SocketAddr, sum: u32, content: &[u8]) -> Vec<u8> {
    let greeting = Greeting {
        who: who.to_owned(),
        client: without_scope(client),
        sum,
    };
    let mut reply = greeting.line().into_bytes();
    reply.extend_from_slice(content);
    reply
}

/// The address as it is on the wire: an IPv6 flow label or scope is the socket's own note.
fn without_scope(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

struct UdpServer {
    socket: UdpSocket,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpServer {
    fn start(netns: &Netns, address: SocketAddr, who: &str) -> Result<Self> {
        let socket = netns
            .run(|| UdpSocket::bind(address))
            .with_context(|| format!("listening on udp {address}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (serving, stopping, who) = (socket.try_clone()?, Arc::clone(&stop), who.to_owned());
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; MAX_DATAGRAM];
            while !stopping.load(Ordering::Relaxed) {
                // An error is the end of the wait, or an ICMP error for an earlier reply.
                let Ok((length, client)) = serving.recv_from(&mut buffer) else {
                    continue;
                };
                let content = &buffer[..length];
                let reply = reply(&who, client, Sum::of(content), content);
                if content.starts_with(LATE_WORD.as_bytes()) {
                    send_late(&serving, reply, client);
                } else {
                    let _ = serving.send_to(&reply, client);
                }
            }
        });
        Ok(Self {
            socket,
            stop,
            thread: Some(thread),
        })
    }
}

/// Others are answered meanwhile.
fn send_late(socket: &UdpSocket, reply: Vec<u8>, client: SocketAddr) {
    let Ok(socket) = socket.try_clone() else {
        return;
    };
    thread::spawn(move || {
        thread::sleep(LATE);
        let _ = socket.send_to(&reply, client);
    });
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Says that the socket is not connected, and wakes the receiver all the same.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
