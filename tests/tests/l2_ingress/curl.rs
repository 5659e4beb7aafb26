//! Requests by the real curl.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use testbed::topology::Host;

/// Longer than anything takes on a busy machine.
const LIMIT: &str = "60";

/// Before what curl tells of an answer.
const MARK: &str = "#told ";

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// `1.1` or `2`.
    pub version: String,
    /// The client's own address and port.
    pub client: SocketAddr,
    fields: BTreeMap<String, String>,
}

impl Reply {
    /// One of what the application tells.
    pub fn field(&self, name: &str) -> Result<&str> {
        let field = self.fields.get(name).map(String::as_str);
        field.with_context(|| format!("no {name} in {self:?}"))
    }

    /// The client as the controller saw it.
    pub fn real(&self) -> Result<IpAddr> {
        let real = self.field("real")?;
        real.parse().with_context(|| format!("an address: {real}"))
    }

    /// Whom the application saw.
    pub fn peer(&self) -> Result<IpAddr> {
        let peer = self.field("peer")?;
        let peer: SocketAddr = peer
            .parse()
            .with_context(|| format!("an address: {peer}"))?;
        Ok(peer.ip())
    }
}

/// Requests from a host, all by one run of curl.
#[derive(Clone)]
pub struct Curl<'a> {
    from: &'a Host,
    name: &'a str,
    to: SocketAddr,
    trust: Option<&'a Path>,
    more: Vec<String>,
}

impl<'a> Curl<'a> {
    /// For this name at this address.
    pub fn new(from: &'a Host, name: &'a str, to: SocketAddr) -> Self {
        Self {
            from,
            name,
            to,
            trust: None,
            more: Vec::new(),
        }
    }

    /// Over TLS, if the server has this certificate.
    pub fn trusting(self, certificate: &'a Path) -> Self {
        Self {
            trust: Some(certificate),
            ..self
        }
    }

    pub fn with(mut self, more: &[&str]) -> Self {
        self.more.extend(more.iter().map(ToString::to_string));
        self
    }

    pub fn get(&self, path: &str) -> Result<Reply> {
        let [reply] = self.get_all([path])?;
        Ok(reply)
    }

    /// All of these, one after the other, by one connection if the server lets it be.
    pub fn get_all<const N: usize>(&self, paths: [&str; N]) -> Result<[Reply; N]> {
        let Self { name, to, .. } = self;
        let ip = match to.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let port = to.port();
        let told =
            format!("{MARK}%{{http_code}} %{{http_version}} %{{local_ip}} %{{local_port}}\\n");
        let mut command = self.from.netns.command("curl")?;
        command.args(["-q", "-sS", "-g", "--noproxy", "*", "--max-time", LIMIT]);
        command.args(["--resolve", &format!("{name}:{port}:{ip}"), "-w", &told]);
        let scheme = match self.trust {
            Some(certificate) => {
                command.arg("--cacert").arg(certificate);
                "https"
            }
            None => "http",
        };
        command.args(&self.more);
        command.args(paths.map(|path| format!("{scheme}://{name}:{port}{path}")));
        let output = command.output().context("running curl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let from = &self.from.name;
        ensure!(
            output.status.success(),
            "{scheme}://{name} at {to} from {from}: {said}"
        );
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text)?
            .try_into()
            .ok()
            .with_context(|| format!("not {N} answers of {to}: {text}"))
    }
}

fn parse(text: &str) -> Result<Vec<Reply>> {
    let mut replies = Vec::new();
    let mut fields = BTreeMap::new();
    for line in text.lines() {
        let Some((body, told)) = line.split_once(MARK) else {
            let words = line.split(' ').filter_map(|word| word.split_once('='));
            fields.extend(words.map(|(name, value)| (name.to_owned(), value.to_owned())));
            continue;
        };
        ensure!(body.is_empty(), "not a line of its own: {line}");
        let told: Vec<_> = told.split(' ').collect();
        let [status, version, ip, port] = told[..] else {
            anyhow::bail!("curl told {told:?}");
        };
        replies.push(Reply {
            status: status.parse()?,
            version: version.to_owned(),
            client: SocketAddr::new(ip.parse()?, port.parse()?),
            fields: std::mem::take(&mut fields),
        });
    }
    Ok(replies)
}
