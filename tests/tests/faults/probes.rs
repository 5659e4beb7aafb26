//! Slow and malformed HTTP at the agent's listeners.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::patience::patient;

use crate::site::{Site, Way, is_long, lone_row};

/// What a kubelet waits for, by default.
const KUBELET: Duration = Duration::from_secs(1);

/// A request may take five seconds.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

pub fn rows() -> Vec<Trial> {
    vec![
        lone_row(
            "malformed requests cost nobody an answer",
            Way::Filters,
            malformed,
        ),
        lone_row("slow clients cost nobody an answer", Way::Filters, slow),
    ]
}

const REQUESTS: [&[u8]; 9] = [
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /livez HTTP/9.9\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    &[0xff; 70_000],
];

fn connect(site: &Site, port: u16) -> Result<TcpStream> {
    let at = SocketAddr::from((site.node().host.ip.v4, port));
    let client = &site.cluster.topology.client().netns;
    let stream = client.run(|| TcpStream::connect_timeout(&at, patient(Duration::from_secs(2))))?;
    stream.set_read_timeout(Some(patient(Duration::from_secs(2))))?;
    stream.set_write_timeout(Some(patient(Duration::from_secs(2))))?;
    Ok(stream)
}

/// A probe of the node itself is answered in time.
fn answers_in_time(site: &Site) -> Result<()> {
    for path in ["/livez", "/healthz", "/readyz"] {
        let began = Instant::now();
        let (status, body) = site.probe(path).with_context(|| path.to_owned())?;
        ensure!(status == 200, "{path}: {status} {body}");
        let took = began.elapsed();
        ensure!(took < patient(KUBELET), "{path} took {took:?}");
    }
    Ok(())
}

fn malformed(site: &Site) -> Result<()> {
    site.start_agent()?;
    for (number, request) in REQUESTS.iter().enumerate() {
        let mut stream = connect(site, 10256)?;
        // The agent may have closed it by then.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        ensure!(
            !text.contains("HTTP/1.1 5"),
            "request {number} is an error of the agent's: {text}"
        );
        answers_in_time(site)?;
    }
    site.follows()
}

fn slow(site: &Site) -> Result<()> {
    site.start_agent()?;
    let mut open = Vec::new();
    for number in 0..if is_long() { 400 } else { 150 } {
        // Some are not taken any more; that is one of the ways to defend oneself.
        let Ok(mut stream) = connect(site, 10256) else {
            break;
        };
        let part: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /livez HT",
            _ => b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        };
        let _ = stream.write_all(part);
        open.push(stream);
        if number % 25 == 0 {
            answers_in_time(site).with_context(|| format!("with {number} slow clients"))?;
        }
    }
    for _ in 0..5 {
        answers_in_time(site).with_context(|| format!("with {} slow clients", open.len()))?;
        for stream in &mut open {
            let _ = stream.write(b"x");
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    // None is held for ever, whatever it goes on sending.
    for stream in &mut open {
        stream.set_read_timeout(Some(patient(ENDED_WITHIN)))?;
        while !is_ended(stream)? {}
    }
    site.follows()
}

/// Has the agent ended this connection? An answer, or a part of one, may come first.
fn is_ended(stream: &mut TcpStream) -> Result<bool> {
    let mut some = [0; 1024];
    match stream.read(&mut some) {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(true),
        Err(error) => Err(error).context("a slow connection is still open"),
    }
}
