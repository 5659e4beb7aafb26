//! Where a packet is seen: the device, the direction, and the programs that are there.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use nix::net::if_::{if_indextoname, if_nametoindex};
use proxy_common::{
    abi::{Device, DeviceFlags, DeviceKind, Dir, IfIndex},
    edge::hook::Hook,
};

use super::Question;
use crate::{
    condition::View,
    datapath::{Layer, Wanted},
    node::{Way, ways},
    state::Place,
};

/// From where a packet comes, as its asker says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum From {
    /// In by this device.
    Device(String),
    /// A pod with this address.
    Pod(IpAddr),
    /// A process of this node.
    Node,
}

/// Where it is seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub ifindex: IfIndex,
    pub flags: DeviceFlags,
    pub mac: [u8; 6],
    pub dir: Dir,
    /// The programs that see it there, in their order.
    pub layers: Vec<Layer>,
    /// Why a program that is wanted there does not.
    pub lost: Vec<String>,
    pub from: &'static str,
}

/// The name of a device; its index where it is gone.
pub fn name(ifindex: IfIndex) -> String {
    if_indextoname(ifindex.0).map_or_else(
        |_| format!("device {ifindex}"),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Finds it. `wanted`: the programs that the agent wants at devices.
pub fn place(place: &Place, view: &View, wanted: &[Wanted], question: &Question) -> Result<Seen> {
    ensure_here(wanted)?;
    let (ifindex, dir) = device(view, question)?;
    let device = match view.maps.devices.get(&ifindex, 0) {
        Ok(device) => device,
        Err(_) => bail!(
            "the datapath is at no hook of {}: {}",
            name(ifindex),
            behind(view, ifindex)
        ),
    };
    let from = match (dir, device.flags) {
        (Dir::Out, _) => "a process of this node",
        (Dir::In, flags) if flags.is(DeviceKind::Workload) => "a pod",
        _ => "outside",
    };
    let mut seen = Seen {
        ifindex,
        flags: device.flags,
        mac: device.mac,
        dir,
        layers: Vec::new(),
        lost: Vec::new(),
        from,
    };
    let tc = Hook::ALL
        .into_iter()
        .find(|hook| hook.index == Hook::of_device(device.flags, dir).index);
    let tc = tc.context("the device's hook has no name")?;
    let is_uplink = device.flags.is(DeviceKind::Uplink);
    let xdp = (dir == Dir::In && is_uplink).then_some(Hook::XDP_UPLINK);
    if wanted.is_empty() {
        // No agent has left its word: what is there is what such a device has.
        seen.layers.push(Layer::Tc);
        return Ok(seen);
    }
    let here: Vec<Wanted> = wanted
        .iter()
        .filter(|one| one.ifindex == ifindex)
        .cloned()
        .collect();
    for (one, lost) in here.iter().zip(place.pins().lost(&here)?) {
        let is_of = |hook: Option<Hook>| {
            hook.is_some_and(|hook| hook.programs().any(|program| program == one.hook))
        };
        let layer = match (is_of(xdp), is_of(Some(tc))) {
            (true, _) => Layer::Xdp,
            (_, true) => Layer::Tc,
            _ => continue,
        };
        match lost {
            None => seen.layers.push(layer),
            Some(why) => seen.lost.push(format!("{}: {why}", one.hook)),
        }
    }
    seen.layers.sort_by_key(|layer| *layer == Layer::Tc);
    Ok(seen)
}

/// Is this process in the network namespace of the agent? Its devices tell.
fn ensure_here(wanted: &[Wanted]) -> Result<()> {
    let is_here = |one: &Wanted| name(one.ifindex) == one.device;
    ensure!(
        wanted.is_empty() || wanted.iter().any(is_here),
        "none of the agent's devices is in this network namespace: run this command in the agent's, or by \
         `nsenter --net=/proc/PID/ns/net` with the PID that `proxy-agent status` shows"
    );
    Ok(())
}

/// The device, and which way the packet crosses it.
fn device(view: &View, question: &Question) -> Result<(IfIndex, Dir)> {
    let source = question.source.ip();
    let destination = question.destination.ip();
    let to = |addr: IpAddr| -> Result<Option<Way>> { Ok(ways(&[(None, addr)])?.remove(0)) };
    match &question.from {
        Some(From::Device(name)) => {
            let ifindex = if_nametoindex(name.as_str())
                .with_context(|| format!("there is no device {name}"))?;
            Ok((IfIndex(ifindex), Dir::In))
        }
        Some(From::Pod(pod)) => {
            let way = to(*pod)?.with_context(|| {
                format!("this node has no route to {pod}: is the pod on this node?")
            })?;
            ensure!(
                !way.is_local,
                "{pod} is an address of this node, not of a pod"
            );
            Ok((pods_device(view, &way, *pod)?, Dir::In))
        }
        Some(From::Node) => out(source, destination),
        None => {
            let Some(way) = to(source)? else {
                bail!("this node has no route to {source}: name the device by --in")
            };
            if way.is_local {
                return out(source, destination);
            }
            // A bridge of pods, whose ports have the hooks.
            if view.maps.devices.get(&way.ifindex, 0).is_err() {
                return Ok((pods_device(view, &way, source)?, Dir::In));
            }
            Ok((way.ifindex, Dir::In))
        }
    }
}

/// The device by which the stack sends what a process of this node sends.
fn out(source: IpAddr, destination: IpAddr) -> Result<(IfIndex, Dir)> {
    let way = ways(&[(Some(source), destination)])?.remove(0);
    let way = way.with_context(|| {
        format!(
            "this node has no route from {source} to {destination}: a process gets \"no route\" before any program sees a packet"
        )
    })?;
    Ok((way.ifindex, Dir::Out))
}

/// A pod's device: the one that its route leads to, or a port of that.
fn pods_device(view: &View, way: &Way, pod: IpAddr) -> Result<IfIndex> {
    let is_pods = |device: &Device| device.flags.is(DeviceKind::Workload);
    if view
        .maps
        .devices
        .get(&way.ifindex, 0)
        .is_ok_and(|device| is_pods(&device))
    {
        return Ok(way.ifindex);
    }
    let ports: Vec<IfIndex> = ports(view, way.ifindex);
    match ports[..] {
        [port] => Ok(port),
        [] => bail!(
            "the route to {pod} is by {}, which is no pod's device: name the device by --in",
            name(way.ifindex)
        ),
        _ => bail!(
            "{pod} is behind {}, which has several pods: name the pod's port by --in: {}",
            name(way.ifindex),
            ports.into_iter().map(name).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Are there programs at such a device?
const fn is_hooked(flags: DeviceFlags) -> bool {
    flags.leads_out() || flags.is(DeviceKind::Workload) || flags.is(DeviceKind::Loopback)
}

/// The ports of a bridge that have hooks.
fn ports(view: &View, bridge: IfIndex) -> Vec<IfIndex> {
    let all = view.maps.devices.iter().flatten();
    let of_it = all.filter(|(_, device)| device.above == bridge && is_hooked(device.flags));
    let mut ports: Vec<IfIndex> = of_it.map(|(ifindex, _)| ifindex).collect();
    ports.sort_unstable();
    ports
}

/// Which devices are looked at in the place of one that is not.
fn behind(view: &View, ifindex: IfIndex) -> String {
    let ports = ports(view, ifindex);
    if ports.is_empty() {
        return "what comes by it is left to the stack (`proxy-agent doctor` says why)".to_owned();
    }
    let ports = ports.into_iter().map(name).collect::<Vec<_>>();
    format!("its ports have them: {}", ports.join(", "))
}
