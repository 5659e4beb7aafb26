//! A TCP or SCTP socket that is served by threads until its handle is dropped.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
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

pub(super) struct Listener {
    socket: TcpListener,
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
                    // Shutting the socket down makes accept fail: the end.
                    Err(_) => break,
                }
            }
        });
        Ok(Self {
            socket,
            acceptor: Some(acceptor),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
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
    Ok(socket.into())
}
