//! `proxy-agent explain`: what the datapath would do with a packet, step by step, and why.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use proxy_common::reason::Outcome;

use super::{
    output::{Format, print},
    table::Table,
};
use crate::{
    explain::{self, Explanation, From, Line, Question, Segment, Verdict},
    model::Protocol,
    state::Place,
};

/// Of a source that names none: an ephemeral port.
const SOURCE_PORT: u16 = 40_000;

const EXAMPLES: &str = "\
Examples:
  A client outside asks a node port:
    proxy-agent explain tcp 203.0.113.7 192.168.1.10:30080
  A pod asks a ClusterIP, over UDP, from a port:
    proxy-agent explain udp 10.244.1.5:40000 10.96.0.10:53
  The same of IPv6, and of a process of the node:
    proxy-agent explain tcp fd00:10:244::5 '[fd00:10:96::a]:53'
    proxy-agent explain tcp 192.168.1.10 10.96.0.1:443 --node
  By a device that the routes do not tell, as a document:
    proxy-agent explain tcp 203.0.113.7 198.51.100.1:80 --in eth1 -o json

Nothing is sent, and no table is changed. The last line is the answer.";

#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "See --help for examples.")]
pub struct Args {
    #[arg(value_enum, ignore_case = true, value_name = "PROTO")]
    protocol: Proto,
    /// The client: an address, with a port or without
    #[arg(value_name = "SRC[:PORT]")]
    source: Source,
    /// Whom it asks
    #[arg(value_name = "DST:PORT")]
    destination: SocketAddr,
    /// The packet comes in by this device; without a word, as the client's address tells
    #[arg(long = "in", value_name = "DEVICE", group = "place")]
    device: Option<String>,
    /// It comes from the pod with this address, whatever its own source is
    #[arg(long, value_name = "ADDRESS", group = "place")]
    pod: Option<IpAddr>,
    /// It comes from a process of this node
    #[arg(long, group = "place")]
    node: bool,
    /// What a TCP packet is of its connection: one in its middle, or the one that opens it. Without a word, what goes on with a connection
    /// that is known, else what opens one
    #[arg(long, value_enum)]
    segment: Option<Kind>,
    /// Its length in bytes, from the IP header on: to learn what is too big
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(28..=3000))]
    size: Option<u16>,
    /// Every field as a document
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Proto {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    Syn,
    Ack,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Source(SocketAddr);

impl FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let bare = || IpAddr::from_str(text).map(|addr| SocketAddr::new(addr, SOURCE_PORT));
        SocketAddr::from_str(text).or_else(|_| bare()).map(Self).map_err(|_| {
            anyhow!("an address is wanted, or an address and a port, as 10.0.0.1:40000 or [fd00::1]:40000")
        })
    }
}

pub fn explain(args: &Args, object: &[u8]) -> Result<()> {
    let from = match (&args.device, args.pod, args.node) {
        (Some(device), ..) => Some(From::Device(device.clone())),
        (_, Some(pod), _) => Some(From::Pod(pod)),
        (.., true) => Some(From::Node),
        _ => None,
    };
    let question = Question {
        protocol: match args.protocol {
            Proto::Tcp => Protocol::Tcp,
            Proto::Udp => Protocol::Udp,
            Proto::Sctp => Protocol::Sctp,
        },
        source: args.source.0,
        destination: args.destination,
        segment: args.segment.map(|kind| match kind {
            Kind::Syn => Segment::Syn,
            Kind::Ack => Segment::Ack,
        }),
        size: args.size,
        from,
    };
    let explanation = explain::explain(&args.place, object, &question)?;
    print(&match args.output {
        None | Some(Format::Wide) => text(&explanation),
        Some(Format::Json) => serde_json::to_string_pretty(&explanation)? + "\n",
        Some(Format::Yaml) => serde_saphyr::to_string(&explanation)?,
    })?;
    Ok(())
}

fn text(explanation: &Explanation) -> String {
    let Explanation {
        packet,
        notes,
        steps,
        verdict,
        answer,
        ..
    } = explanation;
    let segment = packet
        .segment
        .map_or_else(String::new, |kind| format!(", {kind}"));
    let mut text = format!(
        "{} {} -> {}{segment}, {} bytes: {} by {}, from {}\n",
        packet.protocol,
        packet.ends.source,
        packet.ends.destination,
        packet.size,
        packet.direction,
        packet.device,
        packet.from
    );
    for note in notes {
        text += &format!("  note: {note}\n");
    }
    let mut hook = "";
    let mut table = Table::without_header();
    for line in steps {
        let Line {
            hook: at,
            step,
            text: says,
            ..
        } = line;
        if *at != hook {
            text += &table.text();
            table = Table::without_header();
            text += &format!("\n{at}\n");
            hook = at;
        }
        table.row(vec![format!("  {step}"), says.clone()]);
    }
    text += &table.text();
    if verdict.outcome != Outcome::Translate.text() {
        let Verdict {
            outcome,
            reason,
            meaning,
            ..
        } = verdict;
        text += &format!("\n{reason} ({outcome}): {meaning}\n");
    }
    text + &format!("\n{answer}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_address_with_or_without_a_port() {
        for (text, source) in [
            ("10.0.0.1", "10.0.0.1:40000"),
            ("10.0.0.1:7", "10.0.0.1:7"),
            ("fd00::1", "[fd00::1]:40000"),
            ("[fd00::1]:7", "[fd00::1]:7"),
        ] {
            let expected = Source(source.parse().unwrap());
            assert_eq!(text.parse::<Source>().unwrap(), expected);
        }
        for text in ["", "10.0.0", "10.0.0.1:", "host:80", "[fd00::1]"] {
            text.parse::<Source>().unwrap_err();
        }
    }
}
