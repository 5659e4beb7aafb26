//! The router between the clients and the nodes, and the links that leave it.

use anyhow::Result;

use super::tunnel::{self, End, Keeper, Remote, Tunnel};
use super::{BELOW, DEFAULT_MTU, Host, Joined, Node, Plan, Segments, segment_of};
use crate::address::{self, Mac, Pair, SERVICE_RANGE_V4, SERVICE_RANGE_V6};
use crate::ethtool;
use crate::netns::Netns;
use crate::pass::XdpPass;
use crate::run::Run;

const NEIGHBOUR: u8 = 200;
const CLIENTS: &str = "clients";

/// A node's end of a tunnel to the router.
const TO_ROUTER: &str = "up";

pub struct Router {
    pub netns: Netns,
    /// The Ethernet address of all the router's bridges.
    pub mac: Mac,
}

impl Router {
    pub(super) fn create(run: &Run, plan: &Plan) -> Result<Self> {
        let netns = Netns::create(run.netns_name("router"))?;
        let router = Self {
            netns,
            mac: Mac::fresh(),
        };
        enable_routing(&router.netns)?;
        let segments = match plan.segments {
            Segments::Shared => 0..=0,
            Segments::PerNode => 1..=plan.nodes,
            Segments::Behind(_) => BELOW + 1..=BELOW + plan.nodes,
        };
        let segment = |number| router.bridge(&bridge_of(number), address::on_segment(number, 1));
        let clients = router.bridge(CLIENTS, address::CLIENT_GATEWAY);
        let bridges: String = segments.map(segment).chain([clients]).collect();
        router.netns.ip(&bridges)?;
        Ok(router)
    }

    /// What makes a bridge.
    fn bridge(&self, name: &str, Pair { v4, v6 }: Pair) -> String {
        let mac = self.mac;
        format!(
            "link add {name} address {mac} type bridge mcast_snooping 0\n\
             addr add {v4}/24 dev {name}\n\
             addr add {v6}/64 dev {name} nodad\n\
             link set {name} up\n"
        )
    }

    pub(super) fn attach_client(&self, run: &Run, plan: &Plan, number: u8) -> Result<Host> {
        let name = format!("client{number}");
        let client = self.attach(
            run,
            &name,
            address::client(number),
            Some(address::CLIENT_GATEWAY),
            CLIENTS,
        )?;
        if plan.router_mtu_towards_clients != DEFAULT_MTU {
            self.narrow(&name, CLIENTS, plan.router_mtu_towards_clients)?;
        }
        Ok(client)
    }

    pub(super) fn attach_neighbour(&self, run: &Run, plan: &Plan) -> Result<Host> {
        let segment = segment_of(plan, 1);
        let ip = address::on_segment(segment, NEIGHBOUR);
        self.attach(
            run,
            "neighbour",
            ip,
            Some(address::on_segment(segment, 1)),
            &bridge_of(segment),
        )
    }

    /// A node with its address and default route, and what these live as long as.
    pub(super) fn attach_node(
        &self,
        run: &Run,
        plan: &Plan,
        number: u8,
    ) -> Result<(Host, Option<Keeper>)> {
        let name = format!("node{number}");
        let segment = segment_of(plan, number);
        let ip = below(plan, number);
        let gateway = match plan.segments {
            Segments::Shared | Segments::PerNode => Some(address::on_segment(segment, 1)),
            Segments::Behind(_) => None,
        };
        let mut node = self.attach(run, &name, ip, gateway, &bridge_of(segment))?;
        if plan.wire_like_uplinks {
            ethtool::set(&self.netns, &name, ethtool::SET_TX_CHECKSUM, false)?;
            ethtool::set(&self.netns, &name, ethtool::SET_FLAGS, false)?;
            node.far_end = Some(XdpPass::attach(&self.netns, &name)?);
        }
        if let Some((_, mtu)) = plan
            .router_mtu_towards
            .filter(|(towards, _)| *towards == number)
        {
            self.narrow(&name, &bridge_of(segment), mtu)?;
        }
        let keeper = match plan.segments {
            Segments::Shared | Segments::PerNode => None,
            Segments::Behind(tunnel) => self.put_behind(tunnel, &mut node, plan, number)?,
        };
        Ok((node, keeper))
    }

    /// Lays a tunnel over the node's link, which gets the node's addresses and its default route.
    fn put_behind(
        &self,
        tunnel: Tunnel,
        node: &mut Host,
        plan: &Plan,
        number: u8,
    ) -> Result<Option<Keeper>> {
        let segment = segment_of(plan, number);
        let (below, name) = (bridge_of(segment), format!("{TO_ROUTER}{number}"));
        let ends = [
            End {
                netns: &self.netns,
                name: &name,
                below: &below,
                outer: address::on_segment(segment, 1),
                mtu: tunnel::MTU,
            },
            End {
                netns: &node.netns,
                name: TO_ROUTER,
                below: "eth0",
                outer: node.ip,
                mtu: plan.overlay_mtu.min(tunnel::MTU),
            },
        ];
        let keeper = tunnel.lay(&ends, Remote::Fixed, number)?;
        let own = address::on_segment(number, 10 + number);
        let [v4, v6] = tunnel.devices(&name);
        self.netns.ip(&format!(
            "route add {}/32 dev {v4}\nroute add {}/128 dev {v6}\n",
            own.v4, own.v6
        ))?;
        let [v4, v6] = tunnel.devices(TO_ROUTER);
        node.netns.ip(&format!(
            "addr add {}/32 dev {v4}\n\
             addr add {}/128 dev {v6} nodad\n\
             route add 0.0.0.0/0 dev {v4}\n\
             route add ::/0 dev {v6}\n",
            own.v4, own.v6
        ))?;
        node.ip = own;
        Ok(keeper)
    }

    /// Sets the MTU of a port and its bridge, and not that of the other end.
    fn narrow(&self, port: &str, bridge: &str, mtu: u16) -> Result<()> {
        self.netns.ip(&format!(
            "link set {port} mtu {mtu}\nlink set {bridge} mtu {mtu}\n"
        ))
    }

    /// A new namespace whose `eth0` is a veth to a port of `bridge`; the port is named after the host.
    fn attach(
        &self,
        run: &Run,
        name: &str,
        ip: Pair,
        gateway: Option<Pair>,
        bridge: &str,
    ) -> Result<Host> {
        let host = Host {
            name: name.to_owned(),
            netns: Netns::create(run.netns_name(name))?,
            ip,
            mac: Mac::fresh(),
            gateway_mac: self.mac,
            far_end: None,
        };
        let (inside, mac) = (host.netns.name(), host.mac);
        self.netns.ip(&format!(
            "link add {name} mtu {DEFAULT_MTU} type veth peer name eth0 address {mac} mtu {DEFAULT_MTU} netns {inside}\n\
             link set {name} master {bridge} up\n"
        ))?;
        let default_routes = gateway.map_or_else(String::new, |Pair { v4, v6 }| {
            format!("route add default via {v4}\nroute add default via {v6}\n")
        });
        host.netns.ip(&format!(
            "link set eth0 up\n\
             addr add {}/24 dev eth0\n\
             addr add {}/64 dev eth0 nodad\n\
             {default_routes}",
            ip.v4, ip.v6
        ))?;
        Ok(host)
    }

    /// Routes to every node's pods, and to the services by way of the first node.
    pub(super) fn route_to_pods(&self, nodes: &[Node], plan: &Plan) -> Result<()> {
        let first = nodes[0].host.ip;
        let mut routes = format!(
            "route add {SERVICE_RANGE_V4} via {}\n\
             route add {SERVICE_RANGE_V6} via {}\n",
            first.v4, first.v6
        );
        if plan.joined == Joined::Routed {
            nodes
                .iter()
                .for_each(|node| routes.push_str(&node.route_to_its_pods()));
        }
        self.netns.ip(&routes)
    }
}

/// The addresses of a node's link.
pub(super) fn below(plan: &Plan, number: u8) -> Pair {
    address::on_segment(segment_of(plan, number), 10 + number)
}

fn bridge_of(segment: u8) -> String {
    format!("seg{segment}")
}

/// Forwarding on, strict reverse-path filtering, no redirects.
pub(super) fn enable_routing(netns: &Netns) -> Result<()> {
    netns.sysctl("net/ipv4/ip_forward", "1")?;
    for scope in ["all", "default"] {
        netns.sysctl(&format!("net/ipv6/conf/{scope}/forwarding"), "1")?;
        netns.sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "1")?;
        netns.sysctl(&format!("net/ipv4/conf/{scope}/send_redirects"), "0")?;
    }
    Ok(())
}
