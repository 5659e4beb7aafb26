//! A TCP or SCTP socket that is served by threads until its handle is dropped.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::Protocol;
use crate::netns::Netns;
use crate::one_cpu::OneCpu;

/// A connection that says nothing for so long is given up, in case its client went away without a word.
/// Longer than any row on a busy machine.
const IDLE: Duration = Duration::from_secs(1200);

/// How long a socket that is dropped waits for its acceptor.
const DRAIN: Duration = Duration::from_secs(5);

/// A backlog that a burst of test connections does not fill.
const BACKLOG: i32 = 1024;

/// How often the acceptor of SCTP looks whether it is to end: not every kernel wakes it when its socket is shut down
/// (5.10 does not, 6.12 does).
const LOOK: Duration = Duration::from_millis(100);

pub struct Listener {
    socket: TcpListener,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on `address` in `netns` and gives each connection to `serve` on a thread of its own.
    pub fn start<F>(
        netns: &Netns,
        protocol: Protocol,
        address: SocketAddr,
        serve: F,
    ) -> Result<Self>
    where
        F: Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
    {
        let socket = netns
            .run(|| listen(protocol, address))
            .with_context(|| format!("listening on {protocol} {address}"))?;
        let accepting = socket.try_clone()?;
        let serve = Arc::new(serve);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let acceptor = thread::spawn(move || {
            // Its own threads stay with it, where those clients are that ask without a pause.
            let _on = OneCpu::stay();
            loop {
                match accepting.accept() {
                    Ok((stream, client)) => {
                        let serve = Arc::clone(&serve);
                        let _ = stream.set_read_timeout(Some(IDLE));
                        thread::spawn(move || serve(stream, client));
                    }
                    // The client took its connection back before it was accepted.
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error)
                        if error.kind() == ErrorKind::WouldBlock
                            && !stopping.load(Ordering::Relaxed) => {}
                    // Shutting the socket down makes accept fail: the end.
                    Err(_) => break,
                }
            }
        });
        Ok(Self {
            socket,
            stop,
            acceptor: Some(acceptor),
        })
    }
}

impl Listener {
    /// Waits until every connection that is established has been accepted: to shut the socket down resets the others.
    fn drain(&self) {
        let deadline = Instant::now() + DRAIN;
        let is_readable = || {
            let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut socket, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        };
        while is_readable() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.drain();
        self.stop.store(true, Ordering::Relaxed);
        let _ = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn listen(protocol: Protocol, address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = protocol.socket(address)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    if protocol == Protocol::Sctp {
        socket.set_read_timeout(Some(LOOK))?;
    }
    Ok(socket.into())
}
