//! One hostile object of each kind, beside a service that is to go on.

use std::fs;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::patience::eventually;

use crate::site::{Site, Way, lone_row};

pub fn rows() -> Vec<Trial> {
    vec![lone_row(
        "a hostile object of each kind costs itself",
        Way::Filters,
        hostile,
    )]
}

struct Object {
    name: &'static str,
    /// `{ip}` is the address of the service that is to go on.
    text: &'static str,
    /// What the agent says of it in one line, once it has read it. Of some there is nothing to say: they have been read when it says
    /// something of the next.
    said: &'static [&'static str],
}

const OBJECTS: [Object; 12] = [
    Object {
        name: "no YAML",
        text: "\u{0}\u{1}: ][",
        said: &["ERROR", "no-YAML.yaml#1", "unexpected character"],
    },
    Object {
        name: "a bomb of aliases",
        text: "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f]\n",
        said: &["ERROR", "a-bomb-of-aliases.yaml#1", "limit exceeded"],
    },
    Object {
        name: "another's address",
        text: "{kind: Service, apiVersion: v1, metadata: {name: thief, namespace: default}, spec: {clusterIP: {ip}, ports: [{port: 80, name: t}]}}",
        said: &[
            "WARN",
            "default/thief is not served at {ip} port 80/TCP",
            "default/kept",
        ],
    },
    Object {
        name: "a name with escapes",
        text: "{kind: Service, apiVersion: v1, metadata: {name: \"a\\u001b[31m\\nready: 1\", namespace: default}, spec: {clusterIP: 10.96.77.1, ports: [{port: 80}]}}",
        said: &["ERROR", "a-name-with-escapes.yaml#1", "is not a DNS label"],
    },
    Object {
        name: "a port out of range",
        text: "{kind: Service, apiVersion: v1, metadata: {name: far, namespace: default}, spec: {clusterIP: 10.96.77.2, ports: [{port: 80000}]}}",
        said: &["ERROR", "default/far", "80000 is not a port"],
    },
    Object {
        name: "no address at all",
        text: "{kind: Service, apiVersion: v1, metadata: {name: none, namespace: default}, spec: {ports: [{port: 80}]}}",
        said: &[],
    },
    Object {
        name: "a kind that nobody knows",
        text: "{kind: Gateway, apiVersion: v9, metadata: {name: g}}",
        said: &[],
    },
    Object {
        name: "loopback endpoints",
        text: "{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: lo, namespace: default, labels: {kubernetes.io/service-name: lo}}, addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [127.0.0.1]}]}",
        said: &["WARN", "default/lo: endpoint 127.0.0.1 is not used"],
    },
    Object {
        name: "a slice of nobody",
        text: "{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: nobody, namespace: default}, addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [10.1.2.3]}]}",
        said: &["WARN", "default/nobody", "says whose it is"],
    },
    Object {
        name: "a slice of another type",
        text: "{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: fqdn, namespace: default, labels: {kubernetes.io/service-name: lo}}, addressType: FQDN, ports: [{port: 80}], endpoints: [{addresses: [example.com]}]}",
        said: &["WARN", "default/fqdn", "its addresses are names"],
    },
    Object {
        name: "a negative affinity",
        text: "{kind: Service, apiVersion: v1, metadata: {name: sticky, namespace: default}, spec: {clusterIP: 10.96.77.3, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: -5}}, ports: [{port: 80}]}}",
        said: &["ERROR", "default/sticky", "-5 is not a timeout"],
    },
    Object {
        name: "ranges that are none",
        text: "{kind: Service, apiVersion: v1, metadata: {name: ranges, namespace: default}, spec: {type: LoadBalancer, clusterIP: 10.96.77.4, loadBalancerSourceRanges: [\"999.0.0.0/8\", \"10.0.0.0/99\"], ports: [{port: 80}]}}",
        said: &["ERROR", "default/ranges", "is not an address range"],
    },
];

/// Services of which something is told, by the reason; of three a field is refused, and one has a name that is none.
const TOLD: [(&str, f64); 2] = [("FieldRefused", 3.0), ("AddressTaken", 1.0)];

fn hostile(site: &Site) -> Result<()> {
    site.start_agent()?;
    site.is_served()?;
    let ip = site.vip.ip.v4.to_string();
    let dir = site.cluster.manifests.dir();
    let mut files = Vec::new();
    for object in &OBJECTS {
        let Object { name, text, said } = object;
        let file = dir.join(format!("hostile-{}.yaml", name.replace([' ', '\''], "-")));
        let ((), tally) = site.under_traffic(|| {
            fs::write(&file, text.replace("{ip}", &ip))?;
            let said: Vec<_> = said.iter().map(|word| word.replace("{ip}", &ip)).collect();
            let said: Vec<_> = said.iter().map(String::as_str).collect();
            if !said.is_empty() {
                site.await_said(&said)?;
            }
            site.answers_probes([200, 200, 200])
        })?;
        files.push(file);
        tally.nothing_is_lost().context(*name)?;
    }
    site.follows().context("beside all of them")?;
    are_told(site, |told| told)?;
    // A forged line would have come in a line of its own.
    let forged = {
        let agents = site.cluster.agents();
        let mut lines = agents[0].lines().into_iter();
        lines.find(|line| line.starts_with("ready: 1"))
    };
    ensure!(forged.is_none(), "{forged:?}");
    files.iter().try_for_each(fs::remove_file)?;
    are_told(site, |_| 0.0)?;
    site.follows().context("after all of them")
}

/// The metric has so many services of which something is told.
fn are_told(site: &Site, wanted: impl Fn(f64) -> f64) -> Result<()> {
    eventually("what is told of services", || {
        for (reason, told) in TOLD {
            let name = format!("portside_noticed_services{{reason=\"{reason}\"}}");
            let (found, wanted) = (site.metric(&name)?, wanted(told));
            ensure!(
                found == wanted,
                "{found} services with {reason}, not {wanted}"
            );
        }
        Ok(())
    })
}
