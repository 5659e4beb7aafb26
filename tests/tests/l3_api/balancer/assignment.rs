//! What MetalLB's end-to-end tests ask of assignment (e2etest/l2tests/assignment.go, l2.go, loadbalancer_class.go, bgptests/bgp.go),
//! each row named after its test.

use anyhow::{Result, ensure};
use api_server::resource::Resource;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use testbed::patience::eventually;

use super::rig::{DEFAULT, POOLS, Rig, pool, pool_row};

const PREFERS: &str = "PreferDualStack";
const REQUIRES: &str = "RequireDualStack";

pub fn rows() -> Vec<Trial> {
    let single = || vec![("singleip-pool", pool(&["192.168.10.7/32"]))];
    let mut rows = vec![
        pool_row(
            "changing the service type to clusterIP frees the ip for another service",
            single(),
            |rig| {
                freed(rig, |rig| {
                    rig.patch("singleip", &json!({"spec": {"type": "ClusterIP"}}))
                })
            },
        ),
        pool_row(
            "deleting the service frees the ip for another service",
            single(),
            |rig| {
                freed(rig, |rig| {
                    rig.delete(Resource::Services, DEFAULT, "singleip")
                })
            },
        ),
        pool_row(
            "should preserve the same external ip after controller restart",
            vec![("reset", pool(&["192.168.10.100/32", "192.168.20.200/32"]))],
            restarts,
        ),
        pool_row(
            "should reconsider services when sharing the ip and conditions change",
            single(),
            sharing_changes,
        ),
        pool_row("removes all pools", two_pools(), |rig| {
            rig.service("svc", json!({}))?;
            rig.await_has("svc", &["192.168.5.0"])?;
            rig.delete_pool("test-ns-pool-2")?;
            rig.delete_pool("test-ns-pool-1")?;
            rig.await_has("svc", &[])
        }),
        pool_row(
            "reallocates svc after deleting a pool",
            two_pools(),
            |rig| {
                rig.service("svc", json!({}))?;
                rig.await_has("svc", &["192.168.5.0"])?;
                rig.delete_pool("test-ns-pool-1")?;
                rig.await_has("svc", &["192.168.10.0"])
            },
        ),
        pool_row(
            "pool status DUALSTACK",
            vec![(
                "status-pool",
                pool(&["192.168.10.0/30", "fc00:f853:ccd:e799::/126"]),
            )],
            status,
        ),
        pool_row(
            "a service with loadbalancer class should not get an ip",
            single(),
            |rig| {
                rig.service("lbclass", json!({"spec": {"loadBalancerClass": "foo"}}))?;
                rig.service("without", json!({}))?;
                rig.await_has("without", &["192.168.10.7"])?;
                rig.await_has("lbclass", &[])
            },
        ),
        pool_row(
            "should work with mixed protocol services",
            single(),
            |rig| {
                let ports = json!([{"name": "tcp", "port": 80}, {"name": "udp", "port": 81, "protocol": "UDP"}]);
                rig.service("mixed", json!({"spec": {"ports": ports}}))?;
                rig.await_has("mixed", &["192.168.10.7"])
            },
        ),
        pool_row(
            "a service should work with two protocols on one port",
            single(),
            |rig| {
                let shared = |protocol| {
                    json!({
                        "metadata": {"annotations": {"metallb.io/allow-shared-ip": "foo"}},
                        "spec": {"ports": [{"port": 80, "protocol": protocol}]},
                    })
                };
                rig.service("tcp", shared("TCP"))?;
                rig.service("udp", shared("UDP"))?;
                rig.await_has("tcp", &["192.168.10.7"])?;
                rig.await_has("udp", &["192.168.10.7"])
            },
        ),
    ];
    for (family, ip) in [("IPV4", "192.168.10.3"), ("IPV6", "fc00:f853:ccd:e799::3")] {
        let pools = || {
            vec![(
                "both",
                pool(&["192.168.10.0/24", "fc00:f853:ccd:e799::/116"]),
            )]
        };
        rows.push(pool_row(&format!("different services sharing the same ip: {family}"), pools(), move |rig| {
            for (name, port) in [("svca", 80), ("svcb", 81)] {
                rig.service(name, json!({
                    "metadata": {"annotations": {"metallb.io/allow-shared-ip": "foo"}},
                    "spec": {"loadBalancerIP": ip, "ipFamilies": [of(ip)], "clusterIP": cluster_ip(ip, port), "ports": [{"port": port}]},
                }))?;
            }
            rig.await_has("svca", &[ip])?;
            rig.await_has("svcb", &[ip])
        }));
        rows.push(pool_row(
            &format!("request {family} via custom annotation"),
            pools(),
            move |rig| {
                rig.service(
                    "svc",
                    json!({
                        "metadata": {"annotations": {"metallb.io/loadBalancerIPs": ip}},
                        "spec": {"ipFamilies": [of(ip)], "clusterIP": cluster_ip(ip, 9)},
                    }),
                )?;
                rig.await_has("svc", &[ip])
            },
        ));
        for auto in [true, false] {
            rows.push(pool_row(
                &format!("requesting a specific address pool: {family}, autoAssign {auto}"),
                vec![],
                move |rig| specific_pool(rig, ip, auto),
            ));
        }
    }
    rows.push(pool_row(
        "request Dual Stack via custom annotation",
        vec![("both", pool(&["192.168.10.0/24", "fc00:f853:ccd:e799::/116"]))],
        |rig| {
            let asks = json!({
                "metadata": {"annotations": {"metallb.universe.tf/loadBalancerIPs": "192.168.10.9,fc00:f853:ccd:e799::9"}},
                "spec": {"ipFamilyPolicy": REQUIRES},
            });
            rig.service("svc", asks)?;
            rig.await_has("svc", &["192.168.10.9", "fc00:f853:ccd:e799::9"])
        },
    ));
    for (mode, addresses) in [
        (
            "address range",
            [
                "192.168.10.5-192.168.10.9",
                "fc00:f853:ccd:e799::5-fc00:f853:ccd:e799::9",
            ],
        ),
        (
            "network prefix",
            ["192.168.10.5/32", "fc00:f853:ccd:e799::5/128"],
        ),
    ] {
        rows.push(pool_row(
            &format!("AddressPool defined by {mode}"),
            vec![("l2-test", pool(&addresses))],
            |rig| {
                rig.service("dual", json!({"spec": {"ipFamilyPolicy": REQUIRES}}))?;
                rig.await_has("dual", &["192.168.10.5", "fc00:f853:ccd:e799::5"])
            },
        ));
    }
    rows.extend(selected());
    rows.extend(dual_stack());
    rows
}

fn of(ip: &str) -> &'static str {
    if ip.contains(':') { "IPv6" } else { "IPv4" }
}

fn cluster_ip(ip: &str, number: u16) -> String {
    if ip.contains(':') {
        format!("fd00:10:96::{number}")
    } else {
        format!("10.96.1.{number}")
    }
}

fn two_pools() -> Vec<(&'static str, Value)> {
    let mut first = pool(&["192.168.5.0/32"]);
    first["serviceAllocation"] = json!({"priority": 20, "namespaces": [DEFAULT]});
    vec![
        ("test-ns-pool-1", first),
        ("test-ns-pool-2", pool(&["192.168.10.0/32"])),
    ]
}

fn freed(rig: &Rig, free: impl Fn(&Rig) -> Result<()>) -> Result<()> {
    rig.service("singleip", json!({}))?;
    rig.await_has("singleip", &["192.168.10.7"])?;
    rig.service("singleip1", json!({}))?;
    rig.await_refused(
        "singleip1",
        "no free address of IPv4 in IPAddressPool singleip-pool",
    )?;
    free(rig)?;
    rig.await_has("singleip1", &["192.168.10.7"])
}

fn restarts(rig: &Rig) -> Result<()> {
    rig.service("service-a", json!({}))?;
    rig.await_has("service-a", &["192.168.10.100"])?;
    rig.service("service-b", json!({}))?;
    rig.await_has("service-b", &["192.168.20.200"])?;
    for name in ["service-c", "service-d"] {
        rig.service(name, json!({}))?;
        rig.await_refused(name, "no free address")?;
    }
    for turn in 0..3 {
        // It gives its Lease up, so that nobody waits.
        rig.controllers().clear();
        rig.start(&[])?;
        rig.await_round(&format!("mark-{turn}"))?;
        for (name, has) in [
            ("service-a", &["192.168.10.100"][..]),
            ("service-b", &["192.168.20.200"]),
            ("service-c", &[]),
            ("service-d", &[]),
        ] {
            ensure!(rig.has(name)? == has, "{name} has {:?}", rig.has(name)?);
        }
    }
    Ok(())
}

fn sharing_changes(rig: &Rig) -> Result<()> {
    const IP: &[&str] = &["192.168.10.7"];
    for (name, port) in [("changesharing", 80), ("changesharing1", 81)] {
        rig.service(
            name,
            json!({
                "metadata": {"annotations": {"metallb.io/allow-shared-ip": "share"}},
                "spec": {"ports": [{"port": port}], "selector": {"app": "one"}},
            }),
        )?;
        rig.await_has(name, IP)?;
    }
    let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
    rig.patch("changesharing1", &local)?;
    rig.await_refused("changesharing1", "it lost what it had")?;
    rig.await_has("changesharing", IP)?;
    rig.patch("changesharing", &local)?;
    rig.await_has("changesharing", IP)?;
    rig.await_has("changesharing1", IP)?;
    let other = json!({"spec": {"selector": {"app": null, "foo": "bar"}}});
    rig.patch("changesharing", &other)?;
    rig.await_has("changesharing", &[])?;
    rig.patch("changesharing1", &other)?;
    rig.await_has("changesharing", IP)?;
    rig.await_has("changesharing1", IP)
}

fn status(rig: &Rig) -> Result<()> {
    let is = |assigned: i64, available: i64| {
        let wanted = json!({
            "assignedIPv4": assigned, "assignedIPv6": assigned, "availableIPv4": available, "availableIPv6": available,
        });
        eventually(
            &format!("{assigned} assigned, {available} available"),
            || {
                let object = rig.get(Resource::IpAddressPools, POOLS, "status-pool")?;
                ensure!(object["status"] == wanted, "{}", object["status"]);
                Ok(())
            },
        )
    };
    is(0, 4)?;
    rig.service("status-svc", json!({"spec": {"ipFamilyPolicy": REQUIRES}}))?;
    is(1, 3)?;
    rig.pools(&[(
        "status-pool",
        pool(&["192.168.10.0/29", "fc00:f853:ccd:e799::/125"]),
    )])?;
    is(1, 7)?;
    rig.delete(Resource::Services, DEFAULT, "status-svc")?;
    is(0, 8)?;
    let path = format!(
        "{}/status-pool/status",
        Resource::IpAddressPools.path(POOLS)
    );
    let five = json!({"status": {"assignedIPv4": 5, "assignedIPv6": 5, "availableIPv4": 5, "availableIPv6": 5}});
    let (code, answer) = rig.api().call("PATCH", &path, &five)?;
    ensure!(code == 200, "{answer}");
    is(0, 8)
}

fn specific_pool(rig: &Rig, ip: &str, auto: bool) -> Result<()> {
    let (stem, last) = ip.split_at(ip.len() - 1);
    let mut given = Vec::new();
    for number in 1..=2 {
        let address = format!("{stem}{}", last.parse::<u8>()? + number);
        let name = format!("test-addresspool{number}");
        let spec = json!({"addresses": [format!("{address}-{address}")], "autoAssign": auto});
        rig.pools(&[(&name, spec)])?;
        let service = format!("test-service{number}");
        rig.service(
            &service,
            json!({
                "metadata": {"annotations": {"metallb.io/address-pool": name}},
                "spec": {"ipFamilies": [of(ip)], "clusterIP": cluster_ip(ip, number.into())},
            }),
        )?;
        given.push((service, name, address));
        for (service, name, address) in &given {
            rig.await_has(service, &[address])?;
            let object = rig.get(Resource::Services, DEFAULT, service)?;
            ensure!(
                object["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"] == **name,
                "{object}"
            );
        }
    }
    Ok(())
}

/// Pools for some: three services get the addresses in this order, each before the next comes.
fn selected() -> Vec<Trial> {
    let of_pool = |address: &str, to: Value| {
        let mut spec = pool(&[address]);
        spec["serviceAllocation"] = to;
        spec
    };
    let by_name = |priority| json!({"priority": priority, "namespaces": [DEFAULT]});
    let by_label = |priority| json!({"priority": priority, "serviceSelectors": [{"matchLabels": {"test": "e2e"}}]});
    let by_namespace_label =
        json!({"priority": 10, "namespaceSelectors": [{"matchLabels": {"first-ns": "true"}}]});
    let none = || json!({"namespaces": [DEFAULT]});
    let table = [
        ("with namespace", by_name(20), by_name(10), Some(none())),
        (
            "with only priority",
            json!({"priority": 20}),
            json!({"priority": 10}),
            None,
        ),
        (
            "with namespace and namespace labels",
            by_name(20),
            by_namespace_label,
            Some(none()),
        ),
        (
            "with service label",
            by_label(20),
            by_label(10),
            Some(none()),
        ),
        (
            "with namespace and service label",
            by_name(20),
            by_label(10),
            Some(none()),
        ),
    ];
    let mut rows: Vec<_> = table
        .into_iter()
        .map(|(name, low, high, last)| {
            let mut pools = vec![
                ("test-pool-1", of_pool("192.168.5.0/32", low)),
                ("test-pool-2", of_pool("192.168.10.0/32", high)),
            ];
            pools.extend(last.map(|last| ("ns-ip-pool", of_pool("192.168.20.0/32", last))));
            let count = pools.len();
            pool_row(
                &format!("service allocation in address pools: {name}"),
                pools,
                move |rig| {
                    rig.namespace(DEFAULT, &json!({"first-ns": "true"}))?;
                    rig.await_round("mark")?;
                    let wanted = ["192.168.10.0", "192.168.5.0", "192.168.20.0"];
                    for (n, wanted) in wanted.into_iter().take(count).enumerate() {
                        let service = format!("svc-{n}");
                        rig.service(&service, json!({"metadata": {"labels": {"test": "e2e"}}}))?;
                        rig.await_has(&service, &[wanted])?;
                    }
                    Ok(())
                },
            )
        })
        .collect();
    let second = |priority: u8, labels: Value| json!({"priority": priority, "namespaceSelectors": [{"matchLabels": labels}]});
    rows.push(pool_row(
        "service allocation in address pools: with namespace with labels",
        vec![
            (
                "first",
                of_pool("192.168.20.0/32", second(10, json!({"first-ns": "true"}))),
            ),
            (
                "second",
                of_pool("192.168.30.0/32", second(10, json!({"second-ns": "true"}))),
            ),
            ("none", pool(&["192.168.40.0/32"])),
            (
                "higher",
                of_pool(
                    "192.168.50.0/32",
                    second(5, json!({"second-ns": "true", "newLabel": "true"})),
                ),
            ),
        ],
        |rig| {
            rig.namespace(DEFAULT, &json!({"first-ns": "true"}))?;
            rig.namespace("test-namespace", &json!({"second-ns": "true"}))?;
            rig.await_round("mark")?;
            rig.service_in("test-namespace", "second-ns-service", json!({}))?;
            rig.await_has_in("test-namespace", "second-ns-service", &["192.168.30.0"])?;
            rig.service("default-ns-service", json!({}))?;
            rig.await_has("default-ns-service", &["192.168.20.0"])?;
            rig.service("default-ns-service2", json!({}))?;
            rig.await_has("default-ns-service2", &["192.168.40.0"])?;
            rig.namespace(
                "test-namespace",
                &json!({"second-ns": "true", "newLabel": "true"}),
            )?;
            rig.service_in("test-namespace", "second-ns-service2", json!({}))?;
            rig.await_has_in("test-namespace", "second-ns-service2", &["192.168.50.0"])
        },
    ));
    rows
}

fn dual_stack() -> Vec<Trial> {
    let four = || ("test-ns-ipv4-pool", pool(&["192.168.10.100/32"]));
    let six = || ("test-ns-ipv6-pool", pool(&["fc00:f853:0ccd:e799::/124"]));
    let dual = || {
        (
            "test-ns-dualstack-pool",
            pool(&["192.168.11.100/32", "fc00:f853:0ccd:e800::/124"]),
        )
    };
    let prefers = || json!({"spec": {"ipFamilyPolicy": PREFERS}});
    let of_namespace = |addresses: &[&str]| {
        let mut spec = pool(addresses);
        spec["serviceAllocation"] = json!({"namespaces": [DEFAULT]});
        spec
    };
    vec![
        pool_row(
            "PREFER DUALSTACK: should select dual-stack pool if available",
            vec![four(), six(), dual()],
            move |rig| {
                rig.service("svc", prefers())?;
                rig.await_has("svc", &["192.168.11.100", "fc00:f853:ccd:e800::"])
            },
        ),
        pool_row(
            "PREFER DUALSTACK: should prefer primary ip ipv4 family among single-stack pools by default",
            vec![six(), four()],
            move |rig| {
                rig.service("svc", prefers())?;
                rig.await_has("svc", &["192.168.10.100"])
            },
        ),
        pool_row(
            "PREFER DUALSTACK: should prefer primary ipv6 ip family among single-stack pools",
            vec![four(), six()],
            |rig| {
                let first = json!({"spec": {
                    "ipFamilyPolicy": PREFERS, "ipFamilies": ["IPv6", "IPv4"], "clusterIP": "fd00:10:96::9", "clusterIPs": ["fd00:10:96::9", "10.96.1.9"],
                }});
                rig.service("svc", first)?;
                rig.await_has("svc", &["fc00:f853:ccd:e799::"])
            },
        ),
        pool_row(
            "PREFER DUALSTACK: additional ip should be assigned when the assigned 1-stack pool becomes dual-stack",
            vec![("pool", of_namespace(&["192.168.10.100/32"]))],
            move |rig| {
                rig.service("svc", prefers())?;
                rig.await_has("svc", &["192.168.10.100"])?;
                rig.pools(&[(
                    "pool",
                    of_namespace(&["192.168.10.100/24", "fc00:f853:0ccd:e799::/124"]),
                )])?;
                rig.await_has("svc", &["192.168.10.100", "fc00:f853:ccd:e799::"])
            },
        ),
        pool_row(
            "PREFER DUALSTACK: single-stack pool should assign based on svc changes between PreferDualStack and RequireDualStack",
            vec![("pool", of_namespace(&["192.168.10.100/32"]))],
            move |rig| {
                rig.service("svc", prefers())?;
                rig.await_has("svc", &["192.168.10.100"])?;
                rig.patch("svc", &json!({"spec": {"ipFamilyPolicy": REQUIRES}}))?;
                rig.await_refused("svc", "no free address of both families in one pool")?;
                rig.patch("svc", &prefers())?;
                rig.await_has("svc", &["192.168.10.100"])
            },
        ),
        pool_row(
            "PREFER DUALSTACK: svc assigned from single-stack pool should not jump to dual-stack pool when it's available",
            vec![four()],
            move |rig| {
                rig.service("svc", prefers())?;
                rig.await_has("svc", &["192.168.10.100"])?;
                rig.pools(&[dual()])?;
                // The pool is in use now.
                rig.service("second", prefers())?;
                rig.await_has("second", &["192.168.11.100", "fc00:f853:ccd:e800::"])?;
                rig.await_has("svc", &["192.168.10.100"])
            },
        ),
        pool_row(
            "PREFER DUALSTACK: when current dualstack pool becomes single-stack, svc should pick another dualstack pool if possible",
            vec![(
                "edited",
                pool(&["192.168.10.100/32", "fc00:f853:0ccd:e799::/124"]),
            )],
            move |rig| {
                rig.service("svc", prefers())?;
                rig.await_has("svc", &["192.168.10.100", "fc00:f853:ccd:e799::"])?;
                rig.pools(&[dual()])?;
                rig.pools(&[("edited", pool(&["fc00:f853:0ccd:e799::/124"]))])?;
                rig.await_has("svc", &["192.168.11.100", "fc00:f853:ccd:e800::"])
            },
        ),
    ]
}
