//! Requests to the API server, from whatever namespace it is reached from.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::resource::Resource;
use testbed::netns::Netns;

/// An answer comes at once, unless a fault is in force.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
pub struct Client<'a> {
    netns: Option<&'a Netns>,
    server: SocketAddr,
}

/// An answer whose head is read; its body follows.
pub struct Answer {
    pub code: u16,
    /// The status line and the headers, in lower case.
    pub head: String,
    pub body: BufReader<TcpStream>,
}

impl<'a> Client<'a> {
    /// A client in the namespace of its threads.
    pub fn here(server: SocketAddr) -> Self {
        Self {
            netns: None,
            server,
        }
    }

    pub fn inside(netns: &'a Netns, server: SocketAddr) -> Self {
        Self {
            netns: Some(netns),
            server,
        }
    }

    /// Sends a request of HTTP/1.0, whose answer ends with its connection and is not in chunks.
    pub fn send(self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let connect = || TcpStream::connect(self.server);
        let connected = match self.netns {
            Some(netns) => netns.run(connect),
            None => connect(),
        };
        let mut stream = connected.with_context(|| format!("connecting to {}", self.server))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut body = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(
                body.read_line(&mut head)? > 0,
                "the answer to {method} {path} ends in its head: {head:?}"
            );
        }
        let code = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok(Answer {
            code,
            head: head.to_lowercase(),
            body,
        })
    }

    /// The status and the document that answer a request.
    pub fn call(self, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
        let mut answer = self.send(method, path, &body.to_string())?;
        let mut text = String::new();
        answer.body.read_to_string(&mut text)?;
        Ok((answer.code, serde_json::from_str(&text)?))
    }

    /// Creates or replaces an object.
    pub fn apply(self, object: &Value) -> Result<()> {
        let (all, one) = paths(object)?;
        if self.ask("PUT", &one, object, &[200, 404])? == 404 {
            self.ask("POST", &all, object, &[201])?;
        }
        Ok(())
    }

    pub fn create(self, object: &Value) -> Result<()> {
        let (all, _) = paths(object)?;
        self.ask("POST", &all, object, &[201]).map(drop)
    }

    pub fn replace(self, object: &Value) -> Result<()> {
        let (_, one) = paths(object)?;
        self.ask("PUT", &one, object, &[200]).map(drop)
    }

    /// Merges a change into an object (RFC 7396).
    pub fn patch(self, resource: Resource, name: &str, change: &Value) -> Result<()> {
        let path = format!("{}/{name}", resource.path("default"));
        self.ask("PATCH", &path, change, &[200]).map(drop)
    }

    pub fn delete(self, resource: Resource, name: &str) -> Result<()> {
        let path = format!("{}/{name}", resource.path("default"));
        self.ask("DELETE", &path, &Value::Null, &[200]).map(drop)
    }

    fn ask(self, method: &str, path: &str, body: &Value, good: &[u16]) -> Result<u16> {
        let (code, answer) = self.call(method, path, body)?;
        ensure!(good.contains(&code), "{method} {path}: {code}: {answer}");
        Ok(code)
    }
}

/// Where the objects of its kind are, and where it is itself.
fn paths(object: &Value) -> Result<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]);
    let resource = Resource::from_kind(&kind)
        .with_context(|| format!("{kind:?} is no kind that is served"))?;
    let all = resource.path(&text(&object["metadata"]["namespace"]));
    let one = format!("{all}/{}", text(&object["metadata"]["name"]));
    Ok((all, one))
}
