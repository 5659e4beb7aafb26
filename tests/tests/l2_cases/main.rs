//! What a service proxy must also do, one behaviour to a test: on a routed cluster of two nodes with ten outside
//! clients, once with native XDP on the uplinks and once with TC.

mod balanced;
mod broken;
mod commands;
mod crowd;
mod doctor;
mod explain;
mod flood;
mod forged;
mod fragments;
mod frames;
mod held;
mod inject;
mod lifecycle;
mod moved;
mod mtu;
mod no_endpoints;
mod odd_packets;
mod policies;
mod ports;
mod room;
mod sctp;
mod serving;
mod sockets;
mod source_ports;
mod sources;
mod spread;
mod status;
mod tunnels;
mod untouched;
mod upgrade;
mod world;
mod xdp_alone;

use std::process::ExitCode;

use testbed::agent::Uplink;
use testbed::runner;
use world::World;

fn main() -> ExitCode {
    let mut rows = Vec::new();
    for uplink in [Uplink::Xdp, Uplink::Tc] {
        let world = World::new(uplink);
        rows.extend(no_endpoints::rows(&world));
        rows.extend(held::rows(&world));
        rows.extend(ports::rows(&world));
        rows.extend(policies::rows(&world));
        rows.extend(spread::rows(&world));
        rows.extend(balanced::rows(&world));
        rows.extend(source_ports::rows(&world));
        rows.extend(sctp::rows(&world));
        rows.extend(untouched::rows(&world));
        rows.extend(xdp_alone::rows(&world, uplink));
        rows.extend(odd_packets::rows(&world));
        rows.extend(serving::rows(&world));
        rows.extend(doctor::rows(&world, uplink));
        rows.extend(lifecycle::rows(&world));
        rows.extend(commands::rows(&world));
        rows.extend(mtu::rows(&world));
        rows.extend(frames::rows(&world));
        rows.extend(sources::rows(&world));
        rows.extend(forged::rows(&world));
        rows.extend(forged::rows_of_agents(&world));
        rows.extend(sockets::rows(&world));
        rows.extend(broken::rows(&world));
        rows.extend(broken::rows_of_agents(&world));
        rows.extend(moved::rows(&world));
        rows.extend(fragments::rows(&world));
        rows.extend(sources::rows_of_agents(&world));
        drop(world);
        rows.extend(frames::rows_of_vlans(uplink));
        rows.extend(forged::rows_of_strict_agents(uplink));
        rows.extend(sources::rows_of_loopback(uplink));
        rows.extend(moved::rows_of_takeovers(uplink));
        rows.extend(moved::rows_of_starts(uplink));
        rows.extend(mtu::rows_of_other_plans(uplink));
        rows.extend(lifecycle::rows_without_agent(uplink));
        rows.extend(commands::rows_of_own_clusters(uplink));
        rows.extend(status::rows(uplink));
        rows.extend(explain::rows(uplink));
        rows.extend(flood::rows(uplink));
        rows.extend(crowd::rows(uplink));
        rows.extend(room::rows(uplink));
        rows.extend(balanced::rows_with_room(uplink));
        rows.extend(upgrade::rows(uplink));
        rows.extend(tunnels::rows(uplink));
    }
    let rules = World::of_rules();
    rows.extend(frames::rows(&rules));
    rows.extend(sources::rows(&rules));
    rows.extend(forged::rows(&rules));
    rows.extend(sockets::rows(&rules));
    rows.extend(broken::rows(&rules));
    rows.extend(moved::rows(&rules));
    rows.extend(fragments::rows(&rules));
    rows.extend(tunnels::rows_of_rules());
    runner::main(rows)
}
