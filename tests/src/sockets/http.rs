//! A web server as small as they come, for people to `curl`, and its client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::listener::Listener;
use crate::address::Family;
use crate::netns::Netns;
use crate::topology::Host;

const PATIENCE: Duration = Duration::from_secs(4);

/// Answers every request with `<name> saw <client address>`. Dropped, it takes no more connections; those that it has
/// are served to their end.
pub struct HttpServer {
    _listeners: Vec<Listener>,
}

impl HttpServer {
    /// `name` is what it calls itself.
    pub fn start(host: &Host, name: &str, port: u16) -> Result<Self> {
        let serve = |family| {
            let name = name.to_owned();
            let at = SocketAddr::new(host.ip.of(family), port);
            Listener::start(&host.netns, at, move |stream, client| {
                // An error here is the client's end of the connection, and the client reports it.
                let _ = answer_request(stream, client, &name);
            })
        };
        Ok(Self {
            _listeners: Family::BOTH.map(serve).into_iter().collect::<Result<_>>()?,
        })
    }
}

fn answer_request(stream: TcpStream, client: SocketAddr, name: &str) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut headers = BufReader::new(stream).lines();
    while headers
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let body = format!("{name} saw {client}\n");
    write!(
        writer,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The body of `http://<target>/`, fetched from `netns`.
pub fn get(netns: &Netns, target: SocketAddr) -> Result<String> {
    netns.run(|| get_here(target))
}

/// The same from the namespace that the thread is in.
pub fn get_here(target: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)
        .with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
    )?;
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .with_context(|| format!("reading from {target}"))?;
    let (head, body) = response
        .split_once("\r\n\r\n")
        .context("the response has no body")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "not a success: {head}");
    Ok(body.to_owned())
}
