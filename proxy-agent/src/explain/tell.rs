//! One run in words: each question that the programs asked, and its answer, in the order of the packet's way.
//!
//! In: the record of a run, and the names of what it speaks of. Out: [`Line`]s, and the [`Facts`] that decide. The one rule: nothing is
//! decided here. What a line says follows from what the run recorded.

use std::net::SocketAddr;

use proxy_common::{
    abi::{
        Backend, BackendId, Config, Flow, FrontendKind, FrontendRef, IfIndex, LocalAddr, RangeKey,
        Route, Service, ServiceFlags, ServiceId, Share, Slot, Tuple, flow_state, gate,
    },
    addr::{Addr, Be16, Family},
    edge::{Client, Edge, hook::Hook},
    explain::{Step, trace::FibTold},
    reason::Reason,
    service::select,
    tables::Table,
};
use serde::Serialize;

use crate::{
    condition::{View, place_of},
    datapath::{DryPath, DryRun, MapAddr},
    model::Protocol,
    state::Names,
};

/// Candidates that a line names one by one.
const NAMED: usize = 8;

/// One step, in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub hook: &'static str,
    /// `fast` or `slow`.
    pub path: &'static str,
    /// Which step: the same word for the same question.
    pub step: &'static str,
    pub text: String,
}

/// What a run found, as far as the answer depends on it.
#[derive(Clone, Default, Debug)]
pub struct Facts {
    /// Is the packet one of a connection that is known?
    pub is_known: bool,
    /// A reply of a known connection, and so restored.
    pub is_reply: bool,
    pub frontend: Option<FrontendRef>,
    /// The frontend that was found is the rest of a ClusterIP.
    pub is_rest: bool,
    /// Its port is a NodePort's, and its address one of this node on which NodePorts are not served.
    pub is_not_served: bool,
    /// Its port is a NodePort's, and its address none of this node.
    pub is_elsewhere: bool,
    pub service: Option<ServiceId>,
    pub backend: Option<BackendId>,
    pub endpoint: Option<SocketAddr>,
    pub reason: Option<Reason>,
    /// The route to the backend: what the kernel said.
    pub route: Option<Option<FibTold>>,
    pub route_to: Option<std::net::IpAddr>,
}

/// What is spoken of.
pub struct Scene<'a> {
    pub view: &'a View,
    pub names: &'a Names,
    pub config: Config,
    pub protocol: Protocol,
    pub device: &'a dyn Fn(IfIndex) -> String,
}

pub struct Teller<'a, F: Family> {
    scene: &'a Scene<'a>,
    hook: Hook,
    edge: Edge,
    path: &'static str,
    now: proxy_common::abi::Jiffies,
    tuple: Tuple<F::Addr>,
    lines: Vec<Line>,
    facts: Facts,
    kind: Option<FrontendKind>,
    /// Of the service that was found.
    flags: ServiceFlags,
    is_looked_for: bool,
    /// Affinity names a backend, and whether it holds is not said yet.
    sticky: bool,
    held: Option<(BackendId, SocketAddr)>,
    ports: usize,
}

/// The record of a run in words. `tuple`: as the packet came.
pub fn tell<F>(
    scene: &Scene<'_>,
    hook: Hook,
    edge: Edge,
    run: &DryRun,
    tuple: Tuple<F::Addr>,
) -> (Vec<Line>, Facts)
where
    F: Family,
    F::Addr: MapAddr,
{
    let mut teller = Teller::<F> {
        scene,
        hook,
        edge,
        path: match run.path {
            DryPath::Fast => "fast",
            DryPath::Slow => "slow",
        },
        now: run.told.end.now,
        tuple,
        lines: Vec::new(),
        facts: Facts::default(),
        kind: None,
        flags: ServiceFlags::empty(),
        is_looked_for: false,
        sticky: false,
        held: None,
        ports: 0,
    };
    let steps: Vec<_> = run.told.steps::<F>().collect();
    teller.gate(&steps);
    for step in &steps {
        teller.step(step);
    }
    teller.end(run);
    (teller.lines, teller.facts)
}

impl<F> Teller<'_, F>
where
    F: Family,
    F::Addr: MapAddr,
{
    fn say(&mut self, step: &'static str, text: String) {
        let line = Line {
            hook: self.hook.name,
            path: self.path,
            step,
            text,
        };
        // Asked again, for another reason, it has the same answer.
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    fn name(&self, service: ServiceId) -> String {
        self.scene.names.text(service)
    }

    fn device(&self, ifindex: IfIndex) -> String {
        (self.scene.device)(ifindex)
    }

    fn seconds(&self, jiffies: u32) -> u32 {
        jiffies / self.scene.view.hz.max(1)
    }

    fn protocol(&self) -> Protocol {
        self.scene.protocol
    }

    fn is_own(&self, key: &proxy_common::abi::FlowKey<F::Addr>) -> bool {
        key.tuple == self.tuple && key.dir() == self.edge.dir
    }

    /// The gate's bits are asked for one by one; what they say together is one line.
    fn gate(&mut self, steps: &[Step<F::Addr>]) {
        let is_open = |wanted: gate::Bit| {
            steps
                .iter()
                .any(|step| matches!(step, Step::Gate { bit, is_open: true } if *bit == wanted))
        };
        let Tuple {
            src,
            dst,
            sport,
            dport,
        } = self.tuple;
        let proto = self.protocol().number();
        let mut says = Vec::new();
        if is_open(gate::service_addr(&dst)) {
            says.push(format!("{} may be a service's address", dst.ip()));
        }
        if is_open(gate::node_port(proto, dport)) {
            says.push(format!("{} may be a NodePort", dport.get()));
        }
        if is_open(gate::backend_addr(&src)) && is_open(gate::backend_port(sport)) {
            says.push(format!("{} may be an endpoint", socket(src, sport)));
        }
        if says.is_empty() {
            says.push("neither end may be a service's".to_owned());
        }
        self.say("gate", says.join(", and "));
    }

    fn step(&mut self, step: &Step<F::Addr>) {
        match *step {
            Step::Flow { table, key, found } if self.is_own(&key) => self.flow(table, found),
            Step::Frontend { key, found } => {
                self.frontend(key.addr, key.port, key.proto, found);
            }
            Step::LocalAddr { addr, found } if addr == self.tuple.dst => self.local(found),
            Step::LocalAddr {
                addr,
                found: Some(_),
            } if addr == self.tuple.src && self.facts.frontend.is_some() => self.say(
                "source",
                format!("{} is an address of this node", addr.ip()),
            ),
            Step::Service { id, found } => self.service(id, found),
            Step::Ranges { key, is_in } => self.ranges(&key, is_in),
            Step::Affinity { found, .. } => {
                let waits = found.filter(|found| found.backend == BackendId::NONE);
                self.sticky = found.is_some() && waits.is_none();
                self.held = None;
                if let Some(found) = waits {
                    let waits = self.seconds(self.now.since(found.last_used));
                    self.say(
                        "hold",
                        format!("the client began {waits} s ago to wait for an endpoint"),
                    );
                } else if let Some(found) = found {
                    let idle = self.seconds(self.now.since(found.last_used));
                    self.say(
                        "affinity",
                        format!(
                            "the client was sent to backend {} {idle} s ago",
                            found.backend
                        ),
                    );
                } else {
                    self.say("affinity", "the client has no backend yet".to_owned());
                }
            }
            Step::SetAffinity if self.sticky => {
                self.sticky = false;
                if let Some((backend, endpoint)) = self.held {
                    self.facts.backend = Some(backend);
                    self.facts.endpoint = Some(endpoint);
                    self.say("choice", format!("by session affinity: backend {backend}"));
                    self.say("backend", format!("backend {backend} is {endpoint}"));
                }
            }
            Step::Slot { index, found } => self.slot(index, found),
            Step::Backend { id, found } => self.backend(id, found),
            Step::Fib { src, dst, found } => self.fib(src, dst, found),
            Step::Source {
                dst,
                found: Some(source),
            } => self.say(
                "source",
                format!(
                    "the kernel would take {} for its source to {}",
                    source.ip(),
                    dst.ip()
                ),
            ),
            Step::Socket { tuple, has: true } => self.say(
                "socket",
                format!(
                    "a process of this node has a connection for packets from {} to {}",
                    socket(tuple.src, tuple.sport),
                    socket(tuple.dst, tuple.dport)
                ),
            ),
            Step::Share { source, found } => self.share(source, found),
            Step::NextPort => self.ports += 1,
            Step::PutFlow {
                table: Table::Pending,
                key,
                stored: None,
            } => self.say(
                "port",
                format!(
                    "another connection has replies from {} to {}",
                    socket(key.tuple.src, key.tuple.sport),
                    socket(key.tuple.dst, key.tuple.dport)
                ),
            ),
            Step::Reason { reason, .. } => self.facts.reason = reason,
            Step::Refused(service) | Step::Dropped(service) => {
                self.facts.service = Some(service);
            }
            Step::Packet {
                backend, is_reply, ..
            } => {
                self.facts.backend = Some(backend);
                self.facts.is_reply = is_reply;
            }
            _ => {}
        }
    }

    fn flow(&mut self, table: Table, found: Option<Flow<F::Addr>>) {
        let Some(flow) = found else {
            if !self.facts.is_known && !self.is_looked_for {
                // Both tables are asked; what is in neither is said once.
                self.is_looked_for = true;
                self.say("flow", "no connection with this tuple is known".to_owned());
            }
            return;
        };
        self.lines.retain(|line| line.step != "flow");
        if flow.is_own() {
            self.say(
                "flow",
                "it answers a datagram that this node sent from that port: of no service"
                    .to_owned(),
            );
            return;
        }
        self.facts.is_known = true;
        self.facts.is_reply = flow.is_reply();
        self.facts.service = Some(flow.service);
        self.facts.backend = Some(flow.backend);
        let state = match table {
            _ if flow.is_reset() => "reset",
            _ if flow.is_closing() => "closing",
            Table::Connections | Table::Datagrams => "established",
            Table::Pending if flow.state & flow_state::ANSWERED != 0 => "answered",
            Table::Pending => "not answered yet",
        };
        let end = if flow.is_reply() {
            (flow.to.src, flow.to.sport)
        } else {
            (flow.to.dst, flow.to.dport)
        };
        let text = format!(
            "a {} of a connection that is {state}: {}, backend {}, seen {} s ago; it goes on as {} -> {}",
            if flow.is_reply() { "reply" } else { "packet" },
            self.name(flow.service),
            flow.backend,
            self.seconds(self.now.since(flow.last_seen)),
            socket(flow.to.src, flow.to.sport),
            socket(flow.to.dst, flow.to.dport),
        );
        if !flow.is_reply() {
            self.facts.endpoint = Some(socket(end.0, end.1));
        }
        self.say("flow", text);
    }

    fn frontend(&mut self, addr: F::Addr, port: Be16, proto: u16, found: Option<FrontendRef>) {
        let is_node_port = addr == F::Addr::ANY;
        let is_rest = proto == 0;
        let at = match (is_node_port, is_rest) {
            (true, _) => format!("node port {}/{}", port.get(), self.protocol()),
            (_, true) => format!("every other port of {}", addr.ip()),
            _ => format!("{}/{}", socket(addr, port), self.protocol()),
        };
        let Some(found) = found else {
            if !is_rest {
                self.say("frontend", format!("{at} is no service's"));
            }
            return;
        };
        self.facts.frontend = Some(found);
        self.facts.is_rest = is_rest;
        self.kind = Some(found.kind());
        let text = match found.kind() {
            FrontendKind::Refuse => format!(
                "{} is a ClusterIP, and no service has port {}/{} of it: refused",
                addr.ip(),
                self.tuple.dport.get(),
                self.protocol()
            ),
            kind => {
                let kind = match kind {
                    FrontendKind::ClusterIp => "the ClusterIP",
                    FrontendKind::NodePort => "the node port",
                    FrontendKind::ExternalIp => "an external IP",
                    _ => "a load balancer's address",
                };
                format!("{at} is {kind} of {}", self.name(found.service()))
            }
        };
        if found.kind() != FrontendKind::Refuse {
            self.facts.service = Some(found.service());
        }
        self.say("frontend", text);
    }

    fn local(&mut self, found: Option<LocalAddr>) {
        if self.facts.frontend.is_some() {
            return;
        }
        let addr = self.tuple.dst.ip();
        match found {
            None => {
                self.facts.is_elsewhere = true;
                self.say("frontend", format!("{addr} is no address of this node"));
            }
            Some(flags) if !flags.contains(LocalAddr::NODE_PORTS) => {
                self.facts.is_not_served = true;
                self.say(
                    "frontend",
                    format!(
                        "{addr} is an address of this node on which node ports are not served (--nodeport-addresses)"
                    ),
                );
            }
            Some(_) => self.say(
                "frontend",
                format!("{addr} is an address of this node on which node ports are served"),
            ),
        }
    }

    fn service(&mut self, id: ServiceId, found: Option<Service>) {
        let (Some(service), Some(kind), Some(client)) = (found, self.kind, self.edge.client())
        else {
            return;
        };
        let (extent, drops, _) = select::scope(&service, kind, client);
        let who = match client {
            Client::Outside => "from outside",
            Client::Pod => "from a pod",
            Client::Node => "from this node",
        };
        let scope = match (kind, client) {
            (FrontendKind::ClusterIp, _) => "internal traffic policy",
            (_, Client::Outside) => "external traffic policy",
            _ => "external address from within: every endpoint",
        };
        let policy = match drops {
            true => " (Local, and none of its endpoints is on this node)",
            false => "",
        };
        self.flags = service.flags;
        self.say("policy", format!("{who}: {scope}{policy}"));
        if !service.flags.contains(ServiceFlags::SOURCE_RANGES) {
            self.say("ranges", "no source ranges: every source may".to_owned());
        }
        if service.affinity != 0 {
            self.say(
                "affinity",
                format!("ClientIP for {} s", self.seconds(service.affinity)),
            );
        }
        if let Some(patience) = service.patience() {
            let seconds = self.seconds(patience);
            self.say(
                "hold",
                format!(
                    "without an endpoint, first packets of each client wait {seconds} s for one"
                ),
            );
        }
        self.candidates(id, extent.base, extent.len);
    }

    fn candidates(&mut self, id: ServiceId, base: Slot, len: u32) {
        let view = self.scene.view;
        let slots: Vec<BackendId> = (0..len)
            .filter_map(|place| view.maps.slots.get(&base.plus(place).0, 0).ok())
            .collect();
        let service = view.services.iter().find(|service| service.id == id);
        let mut ids = slots.clone();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            self.say("candidates", "none".to_owned());
            return;
        }
        let endpoint = |id: &BackendId| {
            let known = service.and_then(|service| {
                let mut all = service.backends.iter();
                all.find(|(backend, _)| backend == id)
            });
            known.map_or_else(
                || format!("backend {id}"),
                |(_, entry)| format!("{} ({})", entry.socket, place_of(entry.flags)),
            )
        };
        let mut named: Vec<_> = ids.iter().take(NAMED).map(endpoint).collect();
        if ids.len() > NAMED {
            named.push(format!("{} more", ids.len() - NAMED));
        }
        let slots = match slots.len() == ids.len() {
            true => String::new(),
            false => format!(", in {} slots", slots.len()),
        };
        self.say(
            "candidates",
            format!("{}{slots}: {}", ids.len(), named.join(", ")),
        );
    }

    fn ranges(&mut self, key: &RangeKey<F::Addr>, is_in: bool) {
        let service = self.scene.view.services.iter();
        let ranges: Vec<String> = service
            .filter(|service| service.id == key.service)
            .flat_map(|service| service.ranges.iter().map(ToString::to_string))
            .collect();
        self.say(
            "ranges",
            format!(
                "{} is {} of loadBalancerSourceRanges ({})",
                key.addr.ip(),
                if is_in { "in one" } else { "outside" },
                ranges.join(", ")
            ),
        );
    }

    fn slot(&mut self, index: Slot, found: Option<BackendId>) {
        if self.sticky {
            self.say(
                "affinity",
                "that backend takes this client no more, or it is too long ago".to_owned(),
            );
            self.sticky = false;
        }
        let hash = select::choice(self.flags, &self.tuple, self.scene.config.seed);
        let over = if self.flags.contains(ServiceFlags::BY_ADDRESS) {
            "the client's address"
        } else if self.flags.contains(ServiceFlags::BY_CLIENT) {
            "the client's address and port"
        } else {
            "addresses and ports"
        };
        let chosen = found.map_or_else(|| "nothing".to_owned(), |id| format!("backend {id}"));
        self.facts.backend = None;
        self.say(
            "choice",
            format!("by the hash of {over} ({hash:#010x}): slot {index}, {chosen}"),
        );
    }

    fn backend(&mut self, id: BackendId, found: Option<Backend<F::Addr>>) {
        if self.facts.is_known {
            return;
        }
        let Some(backend) = found else {
            return;
        };
        let endpoint = socket(backend.addr, backend.port);
        if self.sticky {
            self.held = Some((id, endpoint));
            return;
        }
        self.facts.backend = Some(id);
        self.facts.endpoint = Some(endpoint);
        self.say(
            "backend",
            format!("backend {id} is {endpoint}, {}", place_of(backend.flags)),
        );
    }

    fn fib(&mut self, src: F::Addr, dst: F::Addr, found: Option<FibTold>) {
        let way = match found {
            None => "the kernel has no route that forwards there".to_owned(),
            Some(found) if found.is_resolved == 0 => format!(
                "by {}; the next hop's neighbour entry is not resolved",
                self.device(found.ifindex)
            ),
            Some(found) => format!("by {}", self.device(found.ifindex)),
        };
        // Asked the other way round, it is whether the source may come in here.
        if dst == self.tuple.src && src == self.tuple.dst {
            self.say(
                "source check",
                format!("the way back to {}: {way}", dst.ip()),
            );
            return;
        }
        self.facts.route = Some(found);
        self.facts.route_to = Some(dst.ip());
        self.say("route", format!("to {}: {way}", dst.ip()));
    }

    fn share(&mut self, source: F::Addr, found: Option<Share>) {
        let open = found.map_or(0, |share| share.open);
        self.say(
            "share",
            format!(
                "{} has {open} connections that wait for an answer, of {} that it may have",
                source.ip(),
                self.scene.config.share
            ),
        );
    }

    fn end(&mut self, run: &DryRun) {
        if self.ports > 0 {
            self.say(
                "port",
                format!("{} other source ports were tried", self.ports),
            );
        }
        let end = &run.told.end;
        let is_translated = self.facts.reason == Some(Reason::Translated);
        if self.path == "slow" && is_translated {
            let device = self.device(end.hop_ifindex);
            let mtu = match end.hop_mtu {
                0 => String::new(),
                mtu => format!(", MTU {mtu}"),
            };
            let text = match Route::from_bits(end.hop_route as u8) {
                Route::Stack => "on to the stack, which routes it".to_owned(),
                Route::Receive => format!("received again by {device}"),
                Route::Forward if end.is_resolved == 0 => {
                    format!("out by {device}{mtu}; the kernel resolves the next hop")
                }
                Route::Forward => {
                    let mac = end.macs.dst().map(|byte| format!("{byte:02x}")).join(":");
                    match end.macs == proxy_common::abi::Macs::NONE {
                        true => format!("out by {device}{mtu}"),
                        false => format!("out by {device} to {mac}{mtu}"),
                    }
                }
            };
            self.say("way", text);
        }
        if self.facts.reason.is_none() {
            self.facts.reason = run.told.reason();
        }
    }
}

/// An end of a connection.
pub fn socket<A: MapAddr>(addr: A, port: Be16) -> SocketAddr {
    SocketAddr::new(addr.ip(), port.get())
}
