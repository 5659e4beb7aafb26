//! A web server as small as they come, for people to `curl`, and its client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Protocol;
use super::listener::Listener;
use crate::address::Family;
use crate::netns::Netns;
use crate::patience::patient;
use crate::topology::Host;

/// An agent with a hundred thousand endpoints has much to tell in its metrics.
const PATIENCE: Duration = Duration::from_secs(10);

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
            Listener::start(&host.netns, Protocol::Tcp, at, move |stream, client| {
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
    get_here_within(PATIENCE, target)
}

/// The same with other patience for each step.
pub fn get_here_within(patience: Duration, target: SocketAddr) -> Result<String> {
    let response = fetch_here(patience, target, "/")?;
    ensure!(response.status == 200, "not a success: {}", response.head);
    Ok(response.body)
}

/// Whatever a server answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    pub body: String,
}

impl Response {
    /// A header's value; its name in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The answer to `GET http://<target><path>` from `netns`.
pub fn fetch(netns: &Netns, target: SocketAddr, path: &str) -> Result<Response> {
    fetch_within(PATIENCE, netns, target, path)
}

/// The same with other patience for each step.
pub fn fetch_within(
    patience: Duration,
    netns: &Netns,
    target: SocketAddr,
    path: &str,
) -> Result<Response> {
    netns.run(|| fetch_here(patience, target, path))
}

fn fetch_here(patience: Duration, target: SocketAddr, path: &str) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&target, patient(patience))
        .with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(patient(patience)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .with_context(|| format!("writing to {target}"))?;
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .with_context(|| format!("reading from {target}"))?;
    let (head, body) = response
        .split_once("\r\n\r\n")
        .context("the response has no body")?;
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .with_context(|| format!("no status line: {head}"))?;
    Ok(Response {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
