//! A TCP or SCTP socket that is served by threads until its handle is dropped.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::SockRef;

use super::Protocol;
use crate::netns::Netns;

/// A connection that says nothing for so long is given up, in case its client went away without a word.
const IDLE: Duration = Duration::from_secs(120);

/// A backlog that a burst of test connections does not fill.
const BACKLOG: i32 = 1024;

/// How often the acceptor of SCTP looks whether it is to end: not every kernel wakes it when its socket is shut down
/// (5.10 does not, 6.12 does).
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Listener {
    socket: TcpListener,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on `address` in `netns` and gives each connection to `serve` on a thread of its own.
    pub(super) fn start<F>(
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

impl Drop for Listener {
    fn drop(&mut self) {
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
