//! What a Service of type LoadBalancer asks for.
//!
//! In: the Service as an API server or a manifest has it. Out: a [`Demand`], in which nothing of Kubernetes is left, or why
//! the Service is none of the controller's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::object::{Service, ServiceSpec};
use crate::{
    model::{Family, Protocol},
    source::convert::FieldError,
};

/// MetalLB's prefix of annotations, and the one that it had before.
const PREFIXES: [&str; 2] = ["metallb.io", "metallb.universe.tf"];
const ADDRESSES: &str = "loadBalancerIPs";
const POOL: &str = "address-pool";
const SHARING: &str = "allow-shared-ip";
/// Where the controller, and MetalLB's, notes the pool of the addresses.
pub const FROM_POOL: &str = "metallb.io/ip-allocated-from-pool";

#[derive(Clone, PartialEq, Debug)]
pub struct Demand {
    /// Seconds since the epoch: who came first is served first.
    pub created: i64,
    pub labels: BTreeMap<String, String>,
    pub families: Families,
    /// The addresses that it has to have; empty for any.
    pub addresses: Vec<IpAddr>,
    /// The pool that they have to be of.
    pub pool: Option<Arc<str>>,
    pub sharing: Option<Sharing>,
    pub ports: BTreeSet<(Protocol, u16)>,
    /// The addresses that its status has, and the pool that it says they are of.
    pub held: Vec<IpAddr>,
    pub held_from: Option<Arc<str>>,
    /// What is wrong with it: it gets nothing, and keeps what it has.
    pub problem: Option<FieldError>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    One(Family),
    /// Both where that is possible, else one, this one before the other.
    Prefer(Family),
    /// Both or nothing; this one is named first.
    Both(Family),
}

/// Who may share an address: Services with equal values and different ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sharing {
    pub key: String,
    /// The selector where only endpoints of the receiving node serve (`externalTrafficPolicy: Local`): such Services have
    /// to have the same endpoints. Of others, it is no matter.
    pub endpoints: Option<BTreeMap<String, String>>,
}

impl Families {
    pub const fn first(self) -> Family {
        match self {
            Self::One(family) | Self::Prefer(family) | Self::Both(family) => family,
        }
    }
}

pub const fn other(family: Family) -> Family {
    match family {
        Family::Ipv4 => Family::Ipv6,
        Family::Ipv6 => Family::Ipv4,
    }
}

/// Which Services are the controller's, by `spec.loadBalancerClass`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Classes {
    pub named: BTreeSet<String>,
    /// Services without a class, too.
    pub without: bool,
}

impl Classes {
    pub fn have(&self, class: Option<&str>) -> bool {
        match class {
            Some(class) => self.named.contains(class),
            None => self.without,
        }
    }
}

impl Demand {
    /// `None` for a Service that asks for nothing here: of another type, or of another class.
    pub fn of(service: &Service, classes: &Classes) -> Option<Self> {
        let metadata = &service.metadata;
        let spec = service.spec.as_ref()?;
        let class = spec
            .load_balancer_class
            .as_deref()
            .filter(|class| !class.is_empty());
        if spec.type_.as_deref() != Some("LoadBalancer") || !classes.have(class) {
            return None;
        }
        let mut problem = None;
        let mut checked = |result: Result<(), FieldError>| {
            if let Err(error) = result {
                problem.get_or_insert(error);
            }
        };
        let annotations = metadata.annotations.clone().unwrap_or_default();
        let (families, result) = families(spec);
        checked(result);
        let (addresses, result) = addresses(spec, &annotations);
        checked(result.and_then(|()| fit(&addresses, families, &annotations)));
        let text =
            |name: &str| Some(annotation(&annotations, name)?.1).filter(|text| !text.is_empty());
        Some(Self {
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.as_second()),
            labels: metadata.labels.clone().unwrap_or_default(),
            families,
            addresses,
            pool: text(POOL).map(Arc::from),
            sharing: text(SHARING).map(|key| Sharing {
                key: key.to_owned(),
                endpoints: (spec.external_traffic_policy.as_deref() == Some("Local"))
                    .then(|| spec.selector.clone().unwrap_or_default()),
            }),
            ports: ports(spec),
            held: service.addresses(),
            held_from: annotations
                .get(FROM_POOL)
                .map(|pool| Arc::from(pool.as_str())),
            problem,
        })
    }
}

/// The annotation by its new name or its old one, with the name that it has.
fn annotation<'a>(all: &'a BTreeMap<String, String>, name: &str) -> Option<(String, &'a str)> {
    PREFIXES.into_iter().find_map(|prefix| {
        let key = format!("{prefix}/{name}");
        let value = all.get(&key)?;
        Some((key, value.as_str()))
    })
}

/// Those of the cluster IPs: an API server has decided. A manifest has none, and says what it would have.
fn families(spec: &ServiceSpec) -> (Families, Result<(), FieldError>) {
    let policy = spec.ip_family_policy.as_deref().unwrap_or("SingleStack");
    let parsed = spec.cluster_ips();
    let of_clusters: Vec<Family> = parsed.into_iter().map(Family::of).collect();
    let named = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::Ipv4),
            "IPv6" => Some(Family::Ipv6),
            _ => None,
        });
    let named: Vec<Family> = named.collect();
    let first = named
        .first()
        .or(of_clusters.first())
        .copied()
        .unwrap_or(Family::Ipv4);
    let has_both = match of_clusters.len() {
        0 => named.len() > 1 || policy != "SingleStack",
        count => count > 1,
    };
    match (policy, has_both) {
        ("RequireDualStack", true) => (Families::Both(first), Ok(())),
        ("RequireDualStack", false) => {
            let error = FieldError {
                field: "spec.clusterIPs".to_owned(),
                message: "has one address, and spec.ipFamilyPolicy RequireDualStack wants two"
                    .to_owned(),
            };
            (Families::Both(first), Err(error))
        }
        ("PreferDualStack", true) => (Families::Prefer(first), Ok(())),
        (_, true) => (Families::Both(first), Ok(())),
        (_, false) => (
            Families::One(of_clusters.first().copied().unwrap_or(first)),
            Ok(()),
        ),
    }
}

/// Those that are asked for by annotation or by `spec.loadBalancerIP`.
fn addresses(
    spec: &ServiceSpec,
    annotations: &BTreeMap<String, String>,
) -> (Vec<IpAddr>, Result<(), FieldError>) {
    let by_annotation = annotation(annotations, ADDRESSES).filter(|(_, text)| !text.is_empty());
    let by_field = spec
        .load_balancer_ip
        .as_deref()
        .filter(|text| !text.is_empty());
    let (field, text) = match (by_annotation, by_field) {
        (None, None) => return (Vec::new(), Ok(())),
        (Some((key, _)), Some(_)) => {
            let error = FieldError {
                field: "spec.loadBalancerIP".to_owned(),
                message: format!("is there beside the annotation {key}: one of them has to go"),
            };
            return (Vec::new(), Err(error));
        }
        (Some((key, text)), None) => (format!("metadata.annotations[{key}]"), text),
        (None, Some(text)) => ("spec.loadBalancerIP".to_owned(), text),
    };
    let mut addresses = Vec::new();
    for text in text.split(',').map(str::trim) {
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => {
                let message = format!("{text:?} is not an IP address");
                return (Vec::new(), Err(FieldError { field, message }));
            }
        }
    }
    (addresses, Ok(()))
}

/// Are the addresses that are asked for of the families of the Service, one of each?
fn fit(
    addresses: &[IpAddr],
    families: Families,
    annotations: &BTreeMap<String, String>,
) -> Result<(), FieldError> {
    if addresses.is_empty() {
        return Ok(());
    }
    let mut found: Vec<Family> = addresses
        .iter()
        .map(|address| Family::of(*address))
        .collect();
    found.sort();
    let wanted = match families {
        Families::One(family) => vec![family],
        Families::Prefer(_) | Families::Both(_) => vec![Family::Ipv4, Family::Ipv6],
    };
    if found == wanted {
        return Ok(());
    }
    let names = |all: &[Family]| {
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        all.join(" and ")
    };
    Err(FieldError {
        field: annotation(annotations, ADDRESSES).map_or_else(
            || "spec.loadBalancerIP".to_owned(),
            |(key, _)| format!("metadata.annotations[{key}]"),
        ),
        message: format!(
            "asks for {}, and the Service has {}",
            names(&found),
            names(&wanted)
        ),
    })
}

fn ports(spec: &ServiceSpec) -> BTreeSet<(Protocol, u16)> {
    let ports = spec.ports.iter().flatten();
    let known = ports.filter_map(|port| {
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return None,
        };
        Some((protocol, u16::try_from(port.port).ok()?))
    });
    known.collect()
}
