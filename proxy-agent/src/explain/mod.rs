//! What the datapath would do with a packet, and why.
//!
//! In: a [`Question`]. Out: an [`Explanation`], whose last word is one line. The programs decide: they are run on a packet that is made for
//! the question, over the tables of the datapath that runs, without a trace ([`proxy_common::explain`]). What is here says where such a
//! packet is seen, and puts into words what the programs asked.
//!
//! | file | subject |
//! |---|---|
//! | `packet` | the packet, made and read |
//! | `place` | which device it comes by, and which programs see it there |
//! | `tell` | the steps of a run in words |
//! | `answer` | the one line |

mod answer;
mod packet;
mod place;
mod tell;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use proxy_common::{
    abi::{Dir, IfIndex, Tuple, names},
    addr::{Be16, Ip4, Ip6, V4, V6},
    edge::{Edge, hook::Hook, verdict::Action},
    reason::Reason,
};
use serde::Serialize;

pub use self::{packet::Segment, place::From, tell::Line};
use self::{
    packet::{Crafted, Shown},
    place::Seen,
    tell::{Facts, Scene},
};
use crate::{
    condition::{Agent, View},
    datapath::{DryRun, DryRuns, Layer},
    model::Protocol,
    node::{Way, ways},
    state::{Names, Place},
    version,
};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// `None`: one of a connection that is known, if there is one, else the one that opens it.
    pub segment: Option<Segment>,
    pub size: Option<u16>,
    /// `None`: as the source's address tells.
    pub from: Option<From>,
}

/// All of the answer.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub packet: Packet,
    /// What is to be known of the answer: it may be about a datapath without an agent.
    pub notes: Vec<String>,
    pub steps: Vec<Line>,
    pub verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// The ends that it leaves with, where it is translated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<Ends>,
    /// The way from there on, as the kernel's routing has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<Onward>,
    /// The one line.
    pub answer: String,
}

/// The packet, and where it is seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Packet {
    pub protocol: String,
    #[serde(flatten)]
    pub ends: Ends,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<&'static str>,
    /// Bytes in layer 3.
    pub size: usize,
    pub device: String,
    /// `in` or `out`.
    pub direction: &'static str,
    pub from: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Ends {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// What becomes of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// `translate`, `pass` or `drop`.
    pub outcome: &'static str,
    pub reason: &'static str,
    pub text: String,
    pub meaning: &'static str,
    pub advice: &'static str,
}

/// Where the kernel sends it then.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Onward {
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// What the kernel knows of the next hop, in its word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<String>,
}

/// Asks. `object` is this binary's.
pub fn explain(place: &Place, object: &[u8], question: &Question) -> Result<Explanation> {
    let Question {
        source,
        destination,
        ..
    } = question;
    ensure!(
        source.is_ipv4() == destination.is_ipv4(),
        "{} and {} are not of one family",
        source.ip(),
        destination.ip()
    );
    let (agent, word) = Agent::look(place)?;
    let mut runs = DryRuns::open(object, &place.pins())?;
    let mut notes: Vec<String> = agent.trouble.into_iter().collect();
    if let Some(theirs) = word.as_ref().and_then(|word| word.object.as_deref()) {
        let ours = version::of_object(object);
        ensure!(
            theirs == ours,
            "the agent's programs are of another build ({theirs}) than this command's ({ours}): ask by the binary of the agent that runs"
        );
    } else {
        notes.push(
            "whether the agent's programs are of this command's build is not known".to_owned(),
        );
    }
    let view = View::read(place, None)?;
    let names = Names::read(&place.names())?;
    let wanted = word.map(|word| word.hooks).unwrap_or_default();
    let seen = place::place(place, &view, &wanted, question)?;
    let scene = Scene {
        view: &view,
        names: &names,
        config: view.maps.config.get(&0, 0).context(names::CONFIG)?,
        protocol: question.protocol,
        device: &place::name,
    };
    let segments: &[Segment] = match (question.protocol, question.segment) {
        (Protocol::Tcp, None) => &[Segment::Ack, Segment::Syn],
        (_, Some(Segment::Ack)) => &[Segment::Ack],
        _ => &[Segment::Syn],
    };
    for (index, segment) in segments.iter().enumerate() {
        let packet = Crafted {
            protocol: question.protocol,
            source: *source,
            destination: *destination,
            segment: *segment,
            mac: seen.mac,
            size: question.size,
        };
        let asked = ask(&mut runs, &scene, &seen, &packet)?;
        let is_last = index + 1 == segments.len();
        if is_last || asked.facts.is_known {
            return asked.explained(&view, &names, &seen, &packet, notes);
        }
    }
    unreachable!("there is a last segment")
}

/// What the programs at a device said.
struct Asked {
    steps: Vec<Line>,
    facts: Facts,
    /// What the last program did; `None` where none sees the packet.
    action: Option<Action>,
    ifindex: IfIndex,
    /// As the packet left.
    bytes: Vec<u8>,
    size: usize,
}

/// Runs the packet through the hooks of the device, one after the other.
fn ask(runs: &mut DryRuns, scene: &Scene<'_>, seen: &Seen, packet: &Crafted) -> Result<Asked> {
    let bytes = packet.bytes()?;
    let mut asked = Asked {
        steps: Vec::new(),
        facts: Facts::default(),
        action: None,
        ifindex: seen.ifindex,
        size: bytes.len() - 14,
        bytes,
    };
    for &layer in &seen.layers {
        let (hook, edge) = match layer {
            Layer::Xdp => (Hook::XDP_UPLINK, Hook::XDP_UPLINK.edge),
            Layer::Tc => {
                let index = Hook::of_device(seen.flags, seen.dir).index;
                let named = Hook::ALL.into_iter().find(|hook| hook.index == index);
                let hook = named.context("the device's hook has no name")?;
                (hook, Edge::of_device(seen.flags, seen.dir))
            }
        };
        let runs = runs.run(layer, seen.dir, seen.ifindex, &asked.bytes)?;
        let Shown::Transport {
            source,
            destination,
            ..
        } = Shown::of(&asked.bytes)?
        else {
            break;
        };
        let Some(last) = runs.last() else { break };
        let (lines, facts) = match (source.ip(), destination.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let tuple = tuple::<Ip4>(src.into(), dst.into(), source, destination);
                tell::tell::<V4>(scene, hook, edge, last, tuple)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let tuple = tuple::<Ip6>(src.into(), dst.into(), source, destination);
                tell::tell::<V6>(scene, hook, edge, last, tuple)
            }
            _ => break,
        };
        let is_done = asked.take(hook, &runs, last, lines, facts);
        if is_done {
            break;
        }
    }
    Ok(asked)
}

fn tuple<A>(src: A, dst: A, source: SocketAddr, destination: SocketAddr) -> Tuple<A> {
    Tuple {
        src,
        dst,
        sport: Be16::new(source.port()),
        dport: Be16::new(destination.port()),
    }
}

impl Asked {
    /// Takes in what a hook did; whether the packet goes no further there.
    fn take(
        &mut self,
        hook: Hook,
        runs: &[DryRun],
        last: &DryRun,
        lines: Vec<Line>,
        facts: Facts,
    ) -> bool {
        if runs.len() > 1 {
            self.steps.push(Line {
                hook: hook.name,
                path: "fast",
                step: "fast path",
                text: "leaves the packet to the slow path, untouched".to_owned(),
            });
        }
        self.steps.extend(lines);
        let action = last.told.action();
        let is_passed = matches!(action, Some(Action::Pass | Action::Translated));
        let translated = action == Some(Action::Translated);
        // What an earlier hook translated is of no service to the next one.
        let was_translated = self.action == Some(Action::Translated);
        self.bytes.clone_from(&last.packet);
        if !(was_translated && action == Some(Action::Pass)) {
            self.facts = facts;
            self.action = action;
            self.ifindex = match action {
                Some(Action::Redirect | Action::Neighbour | Action::Receive) => {
                    last.told.end.ifindex
                }
                _ => self.ifindex,
            };
        }
        let reason = self.facts.reason.unwrap_or(Reason::Translated);
        let done = match action {
            Some(Action::Pass) => format!("on to the next layer, untouched ({})", reason.text()),
            Some(Action::Translated) => "on to the next layer, translated".to_owned(),
            Some(Action::Drop) => format!("dropped ({})", reason.text()),
            Some(_) if self.is_answer() => {
                format!("ends here, and is answered ({})", reason.text())
            }
            Some(Action::Transmit) => "out by the device that it came by".to_owned(),
            Some(Action::Redirect) => format!("out by {}", place::name(self.ifindex)),
            Some(Action::Neighbour) => format!(
                "out by {}, whose next hop the kernel resolves",
                place::name(self.ifindex)
            ),
            Some(Action::Receive) => format!("received again by {}", place::name(self.ifindex)),
            Some(Action::Fragment | Action::Slow) | None => "undecided".to_owned(),
        };
        self.steps.push(Line {
            hook: hook.name,
            path: match runs.len() {
                1 => "fast",
                _ => "slow",
            },
            step: "verdict",
            text: done,
        });
        !is_passed || translated && hook.is_xdp() && self.facts.is_reply
    }

    /// Is what came out an answer to the packet?
    fn is_answer(&self) -> bool {
        self.facts.reason.is_some_and(Reason::is_drop) && self.action != Some(Action::Drop)
    }

    /// Does the packet go on translated?
    fn is_translated(&self) -> bool {
        let is_sent = matches!(
            self.action,
            Some(
                Action::Translated
                    | Action::Transmit
                    | Action::Redirect
                    | Action::Neighbour
                    | Action::Receive
            )
        );
        is_sent && !self.is_answer()
    }

    fn explained(
        self,
        view: &View,
        names: &Names,
        seen: &Seen,
        packet: &Crafted,
        notes: Vec<String>,
    ) -> Result<Explanation> {
        let is_translated = self.is_translated();
        let rewritten = match (is_translated, Shown::of(&self.bytes)) {
            (
                true,
                Ok(Shown::Transport {
                    source,
                    destination,
                    ..
                }),
            ) => Some(Ends {
                source,
                destination,
            }),
            _ => None,
        };
        let way = match &rewritten {
            // What leaves by the hook's device is on its way.
            Some(_) if seen.dir == Dir::Out && self.action == Some(Action::Translated) => None,
            Some(ends) if self.action != Some(Action::Receive) => {
                Some(ways(&[(None, ends.destination.ip())])?.remove(0))
            }
            _ => None,
        };
        let mut steps = self.steps.clone();
        let mut more = |step, text| {
            let (hook, path) = steps
                .last()
                .map_or(("-", "slow"), |line| (line.hook, line.path));
            let line = Line {
                hook,
                path,
                step,
                text,
            };
            steps.push(line);
        };
        if let Some(ends) = &rewritten {
            more(
                "rewrite",
                format!(
                    "{} -> {} becomes {} -> {}",
                    packet.source, packet.destination, ends.source, ends.destination
                ),
            );
        }
        if let Some(way) = &way {
            more("next hop", answer::next_hop(way.as_ref()));
        }
        if self.is_answer() {
            more("answer", answer::reply(&self.bytes));
        }
        let reason = match is_translated {
            true => Reason::Translated,
            false => self.facts.reason.unwrap_or(Reason::NotService),
        };
        let words = reason.words();
        let answer = answer::line(&answer::Asked {
            view,
            names,
            seen,
            packet,
            facts: &self.facts,
            is_seen: self.action.is_some(),
            reason,
            rewritten: rewritten.as_ref(),
            way: way.as_ref(),
        });
        let text = self
            .steps
            .iter()
            .rev()
            .find(|line| line.step == "verdict")
            .map_or_else(|| "no program sees it".to_owned(), |line| line.text.clone());
        Ok(Explanation {
            api_version: "portside/v1",
            kind: "Explanation",
            packet: Packet {
                protocol: packet.protocol.to_string(),
                ends: Ends {
                    source: packet.source,
                    destination: packet.destination,
                },
                segment: (packet.protocol == Protocol::Tcp).then_some(match packet.segment {
                    Segment::Syn => "SYN",
                    Segment::Ack => "ACK",
                }),
                size: self.size,
                device: place::name(seen.ifindex),
                direction: match seen.dir {
                    Dir::In => "in",
                    Dir::Out => "out",
                },
                from: seen.from,
            },
            notes,
            steps,
            verdict: Verdict {
                outcome: reason.outcome().text(),
                reason: reason.text(),
                text,
                meaning: words.meaning,
                advice: words.advice,
            },
            service: self.facts.service.map(|service| names.text(service)),
            backend: self.facts.backend.map(|backend| backend.0),
            endpoint: self.facts.endpoint,
            rewritten,
            way: way.flatten().map(|way: Way| Onward {
                device: place::name(way.ifindex),
                gateway: way.gateway,
                neighbour: way.neighbour,
            }),
            answer,
        })
    }
}
