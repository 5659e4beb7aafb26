//! Ingress controllers, the real nginx and HAProxy, behind every way in that docs/ingress.md tells: its manifests are those of the rows.

mod addresses;
mod app;
mod certificates;
mod controller;
mod curl;
mod grpc;
mod load;
mod process;
mod proxied;
mod quic;
mod recipe;
mod rolling;
mod routing;
mod site;
mod websocket;

use std::process::ExitCode;

use testbed::agent::Uplink;
use testbed::runner;

use controller::Kind;
use site::Place;

fn main() -> ExitCode {
    let mut rows = Vec::new();
    for uplink in [Uplink::Xdp, Uplink::Tc] {
        let place = Place::new(Kind::Nginx, uplink);
        rows.extend(routing::rows(&place));
        rows.extend(grpc::rows(&place));
        rows.extend(websocket::rows(&place));
        rows.extend(addresses::rows(&place));
        rows.extend(proxied::rows(&place));
        rows.extend(quic::rows(&place));
        rows.extend(rolling::rows(uplink));
    }
    let place = Place::new(Kind::Haproxy, Uplink::Xdp);
    rows.extend(routing::rows(&place));
    rows.extend(grpc::rows(&place));
    rows.extend(websocket::rows(&place));
    rows.extend(addresses::rows(&place));
    runner::main(rows)
}
