//! One hostile object of each kind, beside a service that is to go on.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use libtest_mimic::Trial;

use crate::site::{Site, Way, lone_row};

pub fn rows() -> Vec<Trial> {
    vec![lone_row(
        "a hostile object of each kind costs itself",
        Way::Filters,
        hostile,
    )]
}

/// A name and a file; `{ip}` is the address of the service that is to go on.
const FILES: [(&str, &str); 12] = [
    ("no YAML", "\u{0}\u{1}: ]["),
    (
        "a bomb of aliases",
        "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f]\n",
    ),
    (
        "another's address",
        "{kind: Service, apiVersion: v1, metadata: {name: thief, namespace: default}, spec: {clusterIP: {ip}, ports: [{port: 80, name: t}]}}",
    ),
    (
        "a name with escapes",
        "{kind: Service, apiVersion: v1, metadata: {name: \"a\\u001b[31m\\nready: 1\", namespace: default}, spec: {clusterIP: 10.96.77.1, ports: [{port: 80}]}}",
    ),
    (
        "a port out of range",
        "{kind: Service, apiVersion: v1, metadata: {name: far, namespace: default}, spec: {clusterIP: 10.96.77.2, ports: [{port: 80000}]}}",
    ),
    (
        "no address at all",
        "{kind: Service, apiVersion: v1, metadata: {name: none, namespace: default}, spec: {ports: [{port: 80}]}}",
    ),
    (
        "loopback endpoints",
        "{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: lo, namespace: default, labels: {kubernetes.io/service-name: lo}}, addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [127.0.0.1]}]}",
    ),
    (
        "a slice of nobody",
        "{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: nobody, namespace: default}, addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [10.1.2.3]}]}",
    ),
    (
        "a slice of another type",
        "{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: fqdn, namespace: default, labels: {kubernetes.io/service-name: lo}}, addressType: FQDN, ports: [{port: 80}], endpoints: [{addresses: [example.com]}]}",
    ),
    (
        "a negative affinity",
        "{kind: Service, apiVersion: v1, metadata: {name: sticky, namespace: default}, spec: {clusterIP: 10.96.77.3, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: -5}}, ports: [{port: 80}]}}",
    ),
    (
        "ranges that are none",
        "{kind: Service, apiVersion: v1, metadata: {name: ranges, namespace: default}, spec: {type: LoadBalancer, clusterIP: 10.96.77.4, loadBalancerSourceRanges: [\"999.0.0.0/8\", \"10.0.0.0/99\"], ports: [{port: 80}]}}",
    ),
    (
        "a kind that nobody knows",
        "{kind: Gateway, apiVersion: v9, metadata: {name: g}}",
    ),
];

fn hostile(site: &Site) -> Result<()> {
    site.start_agent()?;
    site.is_served()?;
    let ip = site.vip.ip.v4.to_string();
    let dir = site.cluster.manifests.dir();
    for (name, text) in FILES {
        let file = dir.join(format!("hostile-{}.yaml", name.replace([' ', '\''], "-")));
        let ((), tally) = site.under_traffic(|| {
            fs::write(&file, text.replace("{ip}", &ip))?;
            thread::sleep(Duration::from_millis(300));
            site.answers_probes([200, 200, 200])
        })?;
        tally.nothing_is_lost().context(name)?;
    }
    site.follows().context("beside all of them")?;
    // A forged line would have come in a line of its own.
    let agents = site.cluster.agents();
    let forged = agents[0]
        .lines()
        .into_iter()
        .find(|line| line.starts_with("ready: 1"));
    anyhow::ensure!(forged.is_none(), "{forged:?}");
    Ok(())
}
