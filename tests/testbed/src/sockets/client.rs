//! Clients: a request to a target, and what came back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::libc;

use super::Protocol;
use super::wording::{Greeting, LATE_WORD, Request, Sum};
use crate::answer::Answer;
use crate::netns::Netns;
use crate::patience::patient;

/// Longer than a lost SYN takes to be sent again, so that a slow answer and none are told apart.
const PATIENCE: Duration = Duration::from_secs(4);

/// A request that is about to be made from a namespace.
#[derive(Clone, Copy)]
pub struct Dial<'a> {
    netns: &'a Netns,
    protocol: Protocol,
    target: SocketAddr,
    source: Option<SocketAddr>,
    patience: Duration,
}

impl<'a> Dial<'a> {
    pub fn new(netns: &'a Netns, protocol: Protocol, target: impl Into<SocketAddr>) -> Self {
        Self {
            netns,
            protocol,
            target: target.into(),
            source: None,
            patience: patient(PATIENCE),
        }
    }

    /// Uses this source port, also when another socket of the host has it.
    pub fn from_port(self, source_port: u16) -> Self {
        self.from(any_address(self.target, source_port))
    }

    /// Uses this source, also when another socket of the host has it; port 0 for any.
    pub fn from(self, source: SocketAddr) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    /// Waits no longer than this for each step.
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Opens a connection (or a connected UDP socket), sends content that no other request has, and compares the echo.
    pub fn ask(self) -> Answer {
        self.ask_for(&unique_content(64))
    }

    /// The same with content of the caller's.
    pub fn ask_for(self, content: &[u8]) -> Answer {
        match self.open() {
            Ok(mut conversation) => conversation.echo(content),
            Err(answer) => answer,
        }
    }

    /// Opens a connection that stays; failing to is an answer, too.
    pub fn open(self) -> Result<Conversation, Answer> {
        self.netns
            .run(|| self.connect())
            .map_err(|error| Answer::from_error(&error))
    }

    fn connect(self) -> io::Result<Conversation> {
        let socket = self.protocol.socket(self.target)?;
        if let Some(source) = self.source {
            socket.set_reuse_address(true)?;
            socket.bind(&source.into())?;
        }
        socket.connect_timeout(&self.target.into(), self.patience)?;
        socket.set_read_timeout(Some(self.patience))?;
        socket.set_write_timeout(Some(self.patience))?;
        Ok(match self.protocol {
            Protocol::Tcp => {
                let stream = TcpStream::from(socket);
                stream.set_nodelay(true)?;
                Conversation::Stream(BufReader::new(stream))
            }
            Protocol::Sctp => Conversation::Stream(BufReader::new(TcpStream::from(socket))),
            Protocol::Udp => Conversation::Udp(socket.into()),
        })
    }
}

fn any_address(target: SocketAddr, port: u16) -> SocketAddr {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(any, port)
}

/// A connection to an echo server, or a connected UDP socket.
pub enum Conversation {
    /// TCP or SCTP.
    Stream(BufReader<TcpStream>),
    Udp(UdpSocket),
}

impl Conversation {
    /// One more request on the same connection.
    pub fn ask(&mut self) -> Answer {
        self.echo(&unique_content(64))
    }

    /// Sends `content`, and wants it back.
    pub fn echo(&mut self, content: &[u8]) -> Answer {
        self.exchange(Request::Echo, content)
    }

    /// A request that is answered after a pause in which nothing is sent.
    pub fn ask_late(&mut self) -> Answer {
        let content = [LATE_WORD.as_bytes(), &unique_content(64)].concat();
        self.exchange(Request::Late, &content)
    }

    /// The port that it is made from.
    pub fn port(&self) -> io::Result<u16> {
        let own = match self {
            Self::Stream(stream) => stream.get_ref().local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        };
        Ok(own?.port())
    }

    /// Ends a stream by a reset, at once: disconnected (connect(2)), where to close it would wait for a child that another
    /// thread has just forked.
    pub fn reset(self) -> io::Result<()> {
        let Self::Stream(stream) = self else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let nobody = libc::sockaddr {
            sa_family: libc::AF_UNSPEC as libc::sa_family_t,
            sa_data: [0; 14],
        };
        let length = size_of_val(&nobody) as libc::socklen_t;
        // SAFETY: the address is live and of the length that is given.
        match unsafe { libc::connect(stream.get_ref().as_raw_fd(), &raw const nobody, length) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn exchange(&mut self, request: Request, content: &[u8]) -> Answer {
        let exchanged = match self {
            Self::Stream(stream) => echo_over_stream(stream, request, content),
            Self::Udp(socket) => echo_over_udp(socket, content),
        };
        exchanged.unwrap_or_else(|error| Answer::from_error(&error))
    }

    /// Sends `content` in bulk over a stream, and wants its checksum back.
    pub fn upload(&mut self, content: &[u8]) -> Answer {
        self.transfer(Request::Upload, content.len(), |stream| {
            stream.get_mut().write_all(content)?;
            Ok(judge(&read_greeting(stream)?, content))
        })
    }

    /// Gets `length` bytes in bulk over a stream, and compares their checksum.
    pub fn download(&mut self, length: usize) -> Answer {
        self.transfer(Request::Download, length, |stream| {
            let line = read_greeting(stream)?;
            let mut content = vec![0; length];
            stream.read_exact(&mut content)?;
            Ok(judge(&line, &content))
        })
    }

    fn transfer(
        &mut self,
        request: Request,
        length: usize,
        rest: impl FnOnce(&mut BufReader<TcpStream>) -> io::Result<Answer>,
    ) -> Answer {
        let Self::Stream(stream) = self else {
            return Answer::Failed("a datagram is not for bulk".to_owned());
        };
        let asked = stream.get_mut().write_all(request.line(length).as_bytes());
        asked
            .and_then(|()| rest(stream))
            .unwrap_or_else(|error| Answer::from_error(&error))
    }
}

fn echo_over_stream(
    stream: &mut BufReader<TcpStream>,
    request: Request,
    content: &[u8],
) -> io::Result<Answer> {
    let mut message = request.line(content.len()).into_bytes();
    message.extend_from_slice(content);
    stream.get_mut().write_all(&message)?;
    let line = read_greeting(stream)?;
    let mut echo = vec![0; content.len()];
    stream.read_exact(&mut echo)?;
    Ok(judge_echo(&line, content, &echo))
}

fn read_greeting(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}

fn echo_over_udp(socket: &UdpSocket, content: &[u8]) -> io::Result<Answer> {
    socket.send(content)?;
    let mut buffer = vec![0; 65536];
    let length = socket.recv(&mut buffer)?;
    let reply = &buffer[..length];
    let split = reply
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(length, |at| at + 1);
    let (line, echo) = reply.split_at(split);
    Ok(judge_echo(&String::from_utf8_lossy(line), content, echo))
}

fn judge_echo(line: &str, content: &[u8], echo: &[u8]) -> Answer {
    if echo == content {
        judge(line, content)
    } else {
        Answer::Failed("the echo is not what was sent".to_owned())
    }
}

fn judge(line: &str, content: &[u8]) -> Answer {
    match Greeting::parse(line) {
        None => Answer::Failed(format!("not a reply: {line:?}")),
        Some(greeting) if greeting.sum != Sum::of(content) => {
            Answer::Failed("the content changed on its way".to_owned())
        }
        Some(greeting) => Answer::Ok {
            who: greeting.who,
            client: greeting.client,
        },
    }
}

/// Bytes without a short period, that differ from call to call: a mixed-up, stale or reordered answer shows.
pub fn unique_content(length: usize) -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut state = NEXT
        .fetch_add(1, Ordering::Relaxed)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..length)
        .map(|_| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        })
        .collect()
}
