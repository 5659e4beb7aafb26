//! The rules, one by one.

use serde_json::{Value, json};

use super::*;
use crate::balancer::{crd::IPAddressPoolSpec, demand::Classes, object::Service, pool::Namespaces};

fn service(change: Value) -> Demand {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]},
    });
    merge(&mut object, &change);
    let object: Service = serde_json::from_value(object).unwrap();
    let classes = Classes {
        without: true,
        ..Classes::default()
    };
    Demand::of(&object, &classes).expect("it is for the controller")
}

fn merge(object: &mut Value, change: &Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (key, change) in change {
                merge(object.entry(key).or_insert(Value::Null), change);
            }
        }
        (object, change) => *object = change.clone(),
    }
}

fn name(text: &str) -> ObjectName {
    ObjectName::new("default", text)
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// An allocator with these pools.
fn with(pools: &[(&str, Value)]) -> Allocator {
    let mut all = Allocator::default();
    set(&mut all, pools);
    all
}

fn set(all: &mut Allocator, pools: &[(&str, Value)]) {
    let one = |(name, spec): &(&str, Value)| {
        let spec: IPAddressPoolSpec = serde_json::from_value(spec.clone()).unwrap();
        (
            Arc::from(*name),
            Pool::of(&spec, &Namespaces::new()).unwrap(),
        )
    };
    all.set_pools(pools.iter().map(one).collect(), BTreeSet::new());
}

fn pool(addresses: &[&str]) -> Value {
    json!({"addresses": addresses})
}

/// The addresses of one Service after all is settled.
fn has(all: &mut Allocator, service: &str) -> Vec<IpAddr> {
    match all.settle().remove(&name(service)) {
        Some(Outcome::Given(given)) => given.addresses,
        Some(Outcome::Refused { .. }) | None => Vec::new(),
    }
}

fn why(all: &mut Allocator, service: &str) -> String {
    match all.settle().remove(&name(service)) {
        Some(Outcome::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn shared(key: &str, change: Value) -> Demand {
    let mut all = json!({"metadata": {"annotations": {"metallb.io/allow-shared-ip": key}}});
    merge(&mut all, &change);
    service(all)
}

const DUAL: [&str; 2] = ["10.96.0.1", "fd00::1"];

#[test]
fn addresses_are_given_in_order_and_oldest_first() {
    let mut all = with(&[("a", pool(&["192.0.2.0/30"]))]);
    let at = |second: u32| json!({"metadata": {"creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")}});
    all.set(&name("young"), service(at(9)));
    all.set(&name("old"), service(at(1)));
    assert_eq!(has(&mut all, "old"), ips(&["192.0.2.0"]));
    assert_eq!(has(&mut all, "young"), ips(&["192.0.2.1"]));
}

#[test]
fn addresses_that_old_devices_drop_are_left_out_where_the_pool_says_so() {
    let spec = json!({"addresses": ["192.0.2.255/32", "192.0.3.0/31"], "avoidBuggyIPs": true});
    let mut all = with(&[("a", spec)]);
    all.set(&name("one"), service(json!({})));
    all.set(&name("two"), service(json!({})));
    assert_eq!(has(&mut all, "one"), ips(&["192.0.3.1"]));
    assert_eq!(
        why(&mut all, "two"),
        "no free address of IPv4 in IPAddressPool a"
    );
    let asks = json!({"spec": {"loadBalancerIP": "192.0.2.255"}});
    all.set(&name("two"), service(asks));
    assert_eq!(why(&mut all, "two"), "192.0.2.255 is in no IPAddressPool");
}

#[test]
fn a_pool_that_assigns_nothing_by_itself_has_to_be_asked_for() {
    let mut all = with(&[(
        "a",
        json!({"addresses": ["192.0.2.1/32"], "autoAssign": false}),
    )]);
    all.set(&name("web"), service(json!({})));
    assert!(why(&mut all, "web").contains("spec.autoAssign"));
    for prefix in ["metallb.io", "metallb.universe.tf"] {
        let asks = json!({"metadata": {"annotations": {format!("{prefix}/address-pool"): "a"}}});
        all.set(&name("web"), service(asks));
        assert_eq!(has(&mut all, "web"), ips(&["192.0.2.1"]));
        all.remove(&name("web"), vec![]);
    }
    let asks = json!({"metadata": {"annotations": {"metallb.io/address-pool": "b"}}});
    all.set(&name("web"), service(asks));
    assert_eq!(why(&mut all, "web"), "there is no IPAddressPool b");
}

#[test]
fn what_is_asked_for_has_to_be_right() {
    let mut all = with(&[
        ("a", pool(&["192.0.2.0/24", "2001:db8::/64"])),
        ("b", pool(&["198.51.100.0/24"])),
    ]);
    for (change, words) in [
        (
            json!({"spec": {"loadBalancerIP": "192.0.2"}}),
            "spec.loadBalancerIP: \"192.0.2\" is not an IP address",
        ),
        (
            json!({"spec": {"loadBalancerIP": "2001:db8::1"}}),
            "spec.loadBalancerIP: asks for IPv6, and the Service has IPv4",
        ),
        (
            json!({"spec": {"loadBalancerIP": "203.0.113.1"}}),
            "203.0.113.1 is in no IPAddressPool",
        ),
        (
            json!({"metadata": {"annotations": {"metallb.io/loadBalancerIPs": "192.0.2.1"}}, "spec": {"loadBalancerIP": "192.0.2.1"}}),
            "spec.loadBalancerIP: is there beside the annotation metallb.io/loadBalancerIPs",
        ),
        (
            json!({"metadata": {"annotations": {"metallb.universe.tf/loadBalancerIPs": "192.0.2.1, x"}}}),
            "metadata.annotations[metallb.universe.tf/loadBalancerIPs]: \"x\"",
        ),
        (
            json!({"metadata": {"annotations": {"metallb.io/loadBalancerIPs": "192.0.2.1", "metallb.io/address-pool": "b"}}}),
            "192.0.2.1 is of IPAddressPool a, not of b",
        ),
        (
            json!({"metadata": {"annotations": {"metallb.io/loadBalancerIPs": "198.51.100.1,2001:db8::1"}}, "spec": {"clusterIPs": DUAL, "ipFamilyPolicy": "PreferDualStack"}}),
            "no IPAddressPool has all of 198.51.100.1, 2001:db8::1",
        ),
        (
            json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}),
            "spec.clusterIPs: has one address, and spec.ipFamilyPolicy RequireDualStack wants two",
        ),
    ] {
        all.set(&name("web"), service(change));
        let why = why(&mut all, "web");
        assert!(why.contains(words), "{why}, not {words}");
    }
    let both = json!({"metadata": {"annotations": {"metallb.io/loadBalancerIPs": " 2001:db8::7, 192.0.2.7"}}, "spec": {"clusterIPs": DUAL, "ipFamilyPolicy": "RequireDualStack"}});
    all.set(&name("web"), service(both));
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.7", "2001:db8::7"]));
}

#[test]
fn a_service_whose_object_goes_wrong_keeps_its_address() {
    let mut all = with(&[("a", pool(&["192.0.2.0/24"]))]);
    all.set(&name("web"), service(json!({})));
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.0"]));
    all.set(
        &name("web"),
        service(json!({"spec": {"loadBalancerIP": "nonsense"}})),
    );
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.0"]));
    all.set(
        &name("web"),
        service(json!({"spec": {"loadBalancerIP": "192.0.2.9"}})),
    );
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.9"]));
}

#[test]
fn an_address_is_shared_by_equal_keys_with_different_ports() {
    let udp = json!({"spec": {"ports": [{"port": 80, "protocol": "UDP"}]}});
    let local = |app: &str, port: u16| json!({"spec": {"externalTrafficPolicy": "Local", "selector": {"app": app}, "ports": [{"port": port}]}});
    for (one, two, words) in [
        (
            service(json!({})),
            service(udp.clone()),
            "this Service shares none",
        ),
        (
            shared("k", json!({})),
            service(udp.clone()),
            "this Service shares none",
        ),
        (
            service(json!({})),
            shared("k", udp.clone()),
            "which shares none",
        ),
        (
            shared("k", json!({})),
            shared("l", udp.clone()),
            "is another one",
        ),
        (
            shared("k", json!({})),
            shared("k", json!({})),
            "with port 80/TCP, too",
        ),
        (
            shared("k", json!({})),
            shared("k", local("x", 81)),
            "endpoints are other ones",
        ),
        (
            shared("k", local("x", 80)),
            shared("k", local("y", 81)),
            "endpoints are other ones",
        ),
        (shared("k", json!({})), shared("k", udp.clone()), ""),
        (shared("k", local("x", 80)), shared("k", local("x", 81)), ""),
    ] {
        let mut all = with(&[("a", pool(&["192.0.2.1/32"]))]);
        all.set(&name("one"), one);
        all.settle();
        let mut two = two;
        two.addresses = ips(&["192.0.2.1"]);
        all.set(&name("two"), two);
        if words.is_empty() {
            assert_eq!(has(&mut all, "two"), ips(&["192.0.2.1"]));
        } else {
            let why = why(&mut all, "two");
            assert!(
                why.starts_with("192.0.2.1 is in use by Service default/one")
                    && why.contains(words),
                "{why}"
            );
        }
        assert_eq!(has(&mut all, "one"), ips(&["192.0.2.1"]));
    }
}

#[test]
fn of_two_that_cannot_share_any_more_the_one_goes_that_changed() {
    let on = |port: u16| shared("k", json!({"spec": {"ports": [{"port": port}]}}));
    for changed in ["one", "two"] {
        let mut all = with(&[("a", pool(&["192.0.2.1/32"]))]);
        all.set(&name("one"), on(1));
        all.set(&name("two"), on(2));
        assert_eq!(has(&mut all, "two"), ips(&["192.0.2.1"]));
        all.set(&name(changed), on(if changed == "one" { 2 } else { 1 }));
        let lost = match all.settle().remove(&name(changed)) {
            Some(Outcome::Refused { lost, .. }) => lost.unwrap_or_default(),
            other => panic!("{other:?}"),
        };
        assert!(lost.starts_with("192.0.2.1 is in use by"), "{lost}");
        let other = if changed == "one" { "two" } else { "one" };
        assert_eq!(has(&mut all, other), ips(&["192.0.2.1"]));
    }
}

#[test]
fn two_families_come_from_one_pool_and_the_services_first_one_is_named_first() {
    let pools = [
        ("four", pool(&["192.0.2.0/24"])),
        ("six", pool(&["2001:db8::/64"])),
        ("two", pool(&["198.51.100.0/24", "2001:db8:1::/64"])),
    ];
    let six_first = json!({"spec": {"clusterIPs": ["fd00::1", "10.96.0.1"], "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack"}});
    let mut all = with(&pools);
    all.set(&name("web"), service(six_first.clone()));
    assert_eq!(has(&mut all, "web"), ips(&["2001:db8:1::", "198.51.100.0"]));
    let mut all = with(&pools[..2]);
    all.set(&name("web"), service(six_first));
    assert_eq!(has(&mut all, "web"), ips(&["2001:db8::"]));
    let required = json!({"spec": {"clusterIPs": DUAL, "ipFamilyPolicy": "RequireDualStack"}});
    all.set(&name("web"), service(required));
    assert!(why(&mut all, "web").contains("no free address of both families in one pool"));
}

#[test]
fn a_service_that_prefers_two_gets_the_second_when_its_pool_has_it() {
    let prefers = json!({"spec": {"clusterIPs": DUAL, "ipFamilyPolicy": "PreferDualStack"}});
    let mut all = with(&[("a", pool(&["192.0.2.7/32"]))]);
    all.set(&name("web"), service(prefers));
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.7"]));
    set(
        &mut all,
        &[
            ("a", pool(&["192.0.2.7/32"])),
            ("b", pool(&["198.51.100.0/24", "2001:db8:1::/64"])),
        ],
    );
    assert_eq!(
        has(&mut all, "web"),
        ips(&["192.0.2.7"]),
        "it does not go elsewhere"
    );
    set(&mut all, &[("a", pool(&["192.0.2.0/24", "2001:db8::/64"]))]);
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.7", "2001:db8::"]));
    // Its pool loses a family: where nobody has both, it keeps the other.
    set(&mut all, &[("a", pool(&["2001:db8::/64"]))]);
    assert_eq!(has(&mut all, "web"), ips(&["2001:db8::"]));
}

#[test]
fn a_service_that_gives_up_a_family_keeps_the_other_address() {
    let families = |policy: &str, count: usize| json!({"spec": {"clusterIPs": DUAL[..count], "ipFamilyPolicy": policy}});
    let mut all = with(&[("a", pool(&["192.0.2.0/24", "2001:db8::/64"]))]);
    all.set(&name("first"), service(families("RequireDualStack", 2)));
    all.set(&name("web"), service(families("RequireDualStack", 2)));
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.1", "2001:db8::1"]));
    all.remove(&name("first"), vec![]);
    all.set(&name("web"), service(families("SingleStack", 1)));
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.1"]));
    all.set(&name("web"), service(families("RequireDualStack", 2)));
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.1", "2001:db8::"]));
}

#[test]
fn what_the_status_says_is_kept_by_the_next_controller() {
    let held = |address: &str| json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
    let mut all = with(&[("a", pool(&["192.0.2.0/24"]))]);
    all.set(&name("new"), service(json!({})));
    all.set(&name("old"), service(held("192.0.2.0")));
    all.set(&name("lost"), service(held("203.0.113.1")));
    assert_eq!(has(&mut all, "old"), ips(&["192.0.2.0"]));
    assert_eq!(has(&mut all, "lost"), ips(&["192.0.2.1"]));
    assert_eq!(has(&mut all, "new"), ips(&["192.0.2.2"]));
}

#[test]
fn addresses_of_a_pool_that_cannot_be_read_stay() {
    let mut object = service(json!({}));
    object.held = ips(&["192.0.2.9"]);
    object.held_from = Some("broken".into());
    let mut all = Allocator::default();
    all.set_pools(BTreeMap::new(), BTreeSet::from(["broken".into()]));
    all.set(&name("web"), object.clone());
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.9"]));
    all.set_pools(BTreeMap::new(), BTreeSet::new());
    assert!(why(&mut all, "web").contains("there is no IPAddressPool"));
}

#[test]
fn addresses_of_other_load_balancers_are_not_given() {
    let mut all = with(&[("a", pool(&["192.0.2.0/31"]))]);
    all.remove(&name("theirs"), ips(&["192.0.2.0"]));
    all.set(&name("web"), service(json!({})));
    assert_eq!(has(&mut all, "web"), ips(&["192.0.2.1"]));
    all.set(&name("more"), shared("k", json!({})));
    assert!(why(&mut all, "more").contains("no free address"));
    all.remove(&name("theirs"), vec![]);
    assert_eq!(has(&mut all, "more"), ips(&["192.0.2.0"]));
}

#[test]
fn counts_are_of_addresses_not_of_services() {
    let mut all = with(&[("a", pool(&["192.0.2.0/30", "2001:db8::/64"]))]);
    all.set(&name("one"), shared("k", json!({})));
    all.set(
        &name("two"),
        shared("k", json!({"spec": {"ports": [{"port": 81}]}})),
    );
    all.settle();
    let counts = all.counts()["a"];
    assert_eq!((counts.assigned_ipv4, counts.available_ipv4), (1, 3));
    assert_eq!((counts.assigned_ipv6, counts.available_ipv6), (0, i64::MAX));
}
