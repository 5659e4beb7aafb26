//! The node that most tests play on: one service with all kinds of frontends, an uplink, a tunnel and two pods.

use super::{
    check::check,
    frame::{Frame, see},
    net::Net,
    packet::Buffer,
    tables::World,
};
use proxy_common::{
    abi::{
        Backend, BackendFlags, BackendId, Config, Device, DeviceFlags, DeviceKind, Extent,
        FrontendKey, FrontendKind, FrontendRef, Generation, IfIndex, Link, LocalAddr, Macs, SCTP,
        Service, ServiceId, Slot, Sources, TCP, Tuple, UDP, gate,
    },
    addr::{Addr, Be16, V4, V6},
    edge::{
        hook::Hook,
        verdict::{Action, Verdict},
    },
    tables::Fib,
};

pub const LO: IfIndex = IfIndex::LOOPBACK;
pub const UPLINK: IfIndex = IfIndex(2);
pub const TUNNEL: IfIndex = IfIndex(3);
pub const VETH_A: IfIndex = IfIndex(4);
pub const VETH_B: IfIndex = IfIndex(5);

/// Numbers for [`Net::addr`].
pub const CLIENT: u16 = 1;
pub const NODE: u16 = 10;
pub const TUNNEL_ADDR: u16 = 11;
pub const POD_A: u16 = 20;
pub const POD_B: u16 = 21;
pub const REMOTE: u16 = 30;
pub const REMOTE_TUNNEL: u16 = 31;
pub const CLUSTER_IP: u16 = 100;
pub const EXTERNAL_IP: u16 = 110;
pub const LB_IP: u16 = 120;

pub const SERVICE: ServiceId = ServiceId(7);
pub const SERVICE_PORT: u16 = 80;
pub const NODE_PORT: u16 = 30_080;
pub const BACKEND_PORT: u16 = 8080;

/// The id of the backend with this address number.
pub fn backend_id(number: u16) -> BackendId {
    BackendId(number.into())
}

impl World {
    /// The node, with one endpoint of the service: the backend whose id and address number are `backend`.
    pub fn with_backend(backend: u16) -> Self {
        Self::with_backends(&[backend])
    }

    pub fn with_backends(backends: &[u16]) -> Self {
        let mut world = Self::empty();
        world.config = Some(Config::for_hz(100, 1));
        for (ifindex, kind) in [
            (LO, DeviceKind::Loopback),
            (UPLINK, DeviceKind::Uplink),
            (TUNNEL, DeviceKind::Tunnel),
            (VETH_A, DeviceKind::Workload),
            (VETH_B, DeviceKind::Workload),
        ] {
            let addr = if ifindex == TUNNEL { TUNNEL_ADDR } else { NODE };
            world.devices.insert(
                ifindex,
                Device {
                    addr4: V4::addr(addr),
                    addr6: V6::addr(addr),
                    mtu: 1500,
                    flags: DeviceFlags::new(kind, Link::Ethernet, Sources::All),
                    mac: mac(ifindex),
                    ..Device::default()
                },
            );
        }
        world.family::<V4>();
        world.family::<V6>();
        world.serve(SERVICE, CLUSTER_IP, backends);
        world
    }

    /// Local addresses and routes.
    fn family<F: Net>(&mut self) {
        let maps = F::maps_mut(self);
        for n in [NODE, TUNNEL_ADDR] {
            maps.local.insert(F::addr(n), LocalAddr::NODE_PORTS);
        }
        maps.local.insert(F::loopback(), LocalAddr::NODE_PORTS);
        for (n, ifindex) in [
            (CLIENT, UPLINK),
            (REMOTE, UPLINK),
            (REMOTE_TUNNEL, TUNNEL),
            (POD_A, VETH_A),
            (POD_B, VETH_B),
        ] {
            maps.routes.insert(F::addr(n), hop(ifindex));
        }
    }

    /// Gives a service all kinds of frontends, `cluster_ip` onwards, and endpoints by their address numbers.
    pub fn serve(&mut self, service: ServiceId, cluster_ip: u16, backends: &[u16]) {
        let extent = Extent {
            base: Slot(self.slots.len() as u32),
            len: backends.len() as u32,
        };
        self.slots.extend(backends.iter().map(|n| backend_id(*n)));
        self.services.insert(
            service,
            Service {
                internal: extent,
                external: extent,
                short_circuit: extent,
                ..Service::default()
            },
        );
        self.serve_family::<V4>(service, cluster_ip, backends);
        self.serve_family::<V6>(service, cluster_ip, backends);
    }

    fn serve_family<F: Net>(&mut self, service: ServiceId, cluster_ip: u16, backends: &[u16]) {
        let shift = cluster_ip - CLUSTER_IP;
        let port = Be16::new(SERVICE_PORT);
        let node_port = Be16::new(NODE_PORT + shift);
        for proto in [TCP, UDP, SCTP] {
            for (addr, kind) in [
                (cluster_ip, FrontendKind::ClusterIp),
                (EXTERNAL_IP + shift, FrontendKind::ExternalIp),
                (LB_IP + shift, FrontendKind::LoadBalancer),
            ] {
                let key = FrontendKey::new(F::addr(addr), port, proto);
                let value = FrontendRef::new(service, kind);
                F::maps_mut(self).frontends.insert(key, value);
                self.open_gate(gate::service_addr(&F::addr(addr)));
            }
            let key = FrontendKey::node_port(node_port, proto);
            let value = FrontendRef::new(service, FrontendKind::NodePort);
            F::maps_mut(self).frontends.insert(key, value);
            self.open_gate(gate::node_port(proto, node_port));
        }
        let whole = FrontendKey::whole_address(F::addr(cluster_ip));
        F::maps_mut(self)
            .frontends
            .insert(whole, FrontendRef::REFUSE);
        for n in backends {
            let local = match *n {
                NODE => BackendFlags::LOCAL | BackendFlags::HOST,
                POD_A | POD_B => BackendFlags::LOCAL,
                _ => BackendFlags::empty(),
            };
            F::maps_mut(self).backends.insert(
                backend_id(*n),
                Backend {
                    addr: F::addr(*n),
                    port: Be16::new(BACKEND_PORT),
                    flags: local | BackendFlags::SERVING | BackendFlags::CHOSEN,
                    generation: Generation::FIRST,
                    service,
                },
            );
            self.open_gate(gate::backend_addr(&F::addr(*n)));
            self.open_gate(gate::backend_port(Be16::new(BACKEND_PORT)));
        }
    }

    pub fn service_mut(&mut self) -> &mut Service {
        self.services.get_mut(&SERVICE).unwrap()
    }

    /// Takes the link header off a device's packets.
    pub fn bare(mut self, ifindex: IfIndex) -> Self {
        let device = self.devices.get_mut(&ifindex).unwrap();
        device.flags = device.flags.with_link(Link::None);
        device.mac = [0; 6];
        self
    }

    /// Lets a device take these sources.
    pub fn takes(&mut self, ifindex: IfIndex, sources: Sources) {
        let device = self.devices.get_mut(&ifindex).unwrap();
        device.flags = device.flags.with_sources(sources);
    }

    pub fn backend_mut<F: Net>(&mut self, id: u16) -> &mut Backend<F::Addr> {
        F::maps_mut(self).backends.get_mut(&backend_id(id)).unwrap()
    }

    /// Sends a packet that must be let through translated; gives its tuple from then on.
    pub fn sends<F: Net>(&self, hook: Hook, device: IfIndex, frame: &Frame<F>) -> Tuple<F::Addr> {
        let (_, packet) = self.plays(hook, device, frame);
        see::<F>(&packet).tuple
    }

    /// Sends a packet that must be translated, by whatever way; its checksums must be right then.
    pub fn plays<F: Net>(
        &self,
        hook: Hook,
        device: IfIndex,
        frame: &Frame<F>,
    ) -> (Verdict, Buffer) {
        let mut packet = frame.build();
        if self.devices[&device].flags.is_bare() {
            packet = packet.bare();
        }
        let verdict = self.run(hook, device, &mut packet);
        assert!(
            !matches!(verdict.action, Action::Pass | Action::Drop),
            "{verdict:?} for {frame:?}",
            frame = frame.tuple
        );
        assert_eq!(check(&packet.bytes), Ok(()));
        (verdict, packet)
    }
}

/// The MAC of a device.
pub fn mac(ifindex: IfIndex) -> [u8; 6] {
    [2, 0, 0, 0, 1, ifindex.0 as u8]
}

/// A resolved route by a device.
pub fn hop(ifindex: IfIndex) -> Fib {
    Fib::Hop {
        ifindex,
        macs: Macs::new([2, 0, 0, 0, 9, ifindex.0 as u8], mac(ifindex)),
        mtu: 1500,
    }
}

/// The tuple of a packet from `src` to `dst`, by address numbers.
pub fn tuple<F: Net>(src: (u16, u16), dst: (u16, u16)) -> Tuple<F::Addr> {
    assert!(F::addr(src.0) != F::Addr::ANY);
    Tuple {
        src: F::addr(src.0),
        dst: F::addr(dst.0),
        sport: Be16::new(src.1),
        dport: Be16::new(dst.1),
    }
}
