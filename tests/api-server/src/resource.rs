//! The kinds of objects that are served, and how their paths are read.

/// A served resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Resource {
    Services,
    EndpointSlices,
    Nodes,
    Namespaces,
    Events,
    Pods,
    Deployments,
    ReplicaSets,
    HorizontalPodAutoscalers,
    ApiServices,
    Leases,
    /// MetalLB's: a custom resource.
    IpAddressPools,
    /// Events by their newer name.
    NewEvents,
}

/// How a resource is named, and where it is.
struct Naming {
    plural: &'static str,
    kind: &'static str,
    /// `v1` for the core group.
    group_version: &'static str,
    namespaced: bool,
    short: &'static [&'static str],
    /// Those behind `kubectl get all`.
    categories: &'static [&'static str],
    subresources: &'static [Subresource],
}

/// A part of an object with a path of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subresource {
    Status,
    /// The number of replicas, as an `autoscaling/v1` Scale.
    Scale,
}

impl Subresource {
    pub const ALL: [Self; 2] = [Self::Status, Self::Scale];

    /// As it stands in paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
        }
    }
}

impl Resource {
    pub const ALL: [Self; 13] = [
        Self::Services,
        Self::EndpointSlices,
        Self::Nodes,
        Self::Namespaces,
        Self::Events,
        Self::Pods,
        Self::Deployments,
        Self::ReplicaSets,
        Self::HorizontalPodAutoscalers,
        Self::ApiServices,
        Self::Leases,
        Self::IpAddressPools,
        Self::NewEvents,
    ];

    fn naming(self) -> Naming {
        let plain = Naming {
            plural: "",
            kind: "",
            group_version: "v1",
            namespaced: true,
            short: &[],
            categories: &[],
            subresources: &[Subresource::Status],
        };
        match self {
            Self::Services => Naming {
                plural: "services",
                kind: "Service",
                short: &["svc"],
                categories: &["all"],
                ..plain
            },
            Self::EndpointSlices => Naming {
                plural: "endpointslices",
                kind: "EndpointSlice",
                group_version: "discovery.k8s.io/v1",
                subresources: &[],
                ..plain
            },
            Self::Nodes => Naming {
                plural: "nodes",
                kind: "Node",
                namespaced: false,
                short: &["no"],
                ..plain
            },
            Self::Namespaces => Naming {
                plural: "namespaces",
                kind: "Namespace",
                namespaced: false,
                short: &["ns"],
                ..plain
            },
            Self::Events => Naming {
                plural: "events",
                kind: "Event",
                short: &["ev"],
                subresources: &[],
                ..plain
            },
            Self::Pods => Naming {
                plural: "pods",
                kind: "Pod",
                short: &["po"],
                categories: &["all"],
                ..plain
            },
            Self::Deployments => Naming {
                plural: "deployments",
                kind: "Deployment",
                group_version: "apps/v1",
                short: &["deploy"],
                categories: &["all"],
                subresources: &Subresource::ALL,
                ..plain
            },
            Self::ReplicaSets => Naming {
                plural: "replicasets",
                kind: "ReplicaSet",
                group_version: "apps/v1",
                short: &["rs"],
                categories: &["all"],
                subresources: &Subresource::ALL,
                ..plain
            },
            Self::HorizontalPodAutoscalers => Naming {
                plural: "horizontalpodautoscalers",
                kind: "HorizontalPodAutoscaler",
                group_version: "autoscaling/v2",
                short: &["hpa"],
                categories: &["all"],
                ..plain
            },
            Self::ApiServices => Naming {
                plural: "apiservices",
                kind: "APIService",
                group_version: "apiregistration.k8s.io/v1",
                namespaced: false,
                ..plain
            },
            Self::Leases => Naming {
                plural: "leases",
                kind: "Lease",
                group_version: "coordination.k8s.io/v1",
                subresources: &[],
                ..plain
            },
            Self::IpAddressPools => Naming {
                plural: "ipaddresspools",
                kind: "IPAddressPool",
                group_version: "metallb.io/v1beta1",
                ..plain
            },
            Self::NewEvents => Naming {
                plural: "events",
                kind: "Event",
                group_version: "events.k8s.io/v1",
                subresources: &[],
                ..plain
            },
        }
    }

    /// The plural, as it stands in paths and in fault scripts.
    pub fn plural(self) -> &'static str {
        self.naming().plural
    }

    pub fn kind(self) -> &'static str {
        self.naming().kind
    }

    pub fn group_version(self) -> &'static str {
        self.naming().group_version
    }

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        let group = self.group_version().split_once('/');
        group.map_or("", |(group, _)| group)
    }

    pub fn namespaced(self) -> bool {
        self.naming().namespaced
    }

    pub fn short_names(self) -> &'static [&'static str] {
        self.naming().short
    }

    pub fn categories(self) -> &'static [&'static str] {
        self.naming().categories
    }

    /// Is its kind one that somebody has defined?
    pub fn is_custom(self) -> bool {
        self == Self::IpAddressPools
    }

    pub fn subresources(self) -> &'static [Subresource] {
        self.naming().subresources
    }

    pub fn from_kind(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.kind() == kind)
    }

    /// The path of all objects of this kind, or of those in a namespace where it has some.
    pub fn path(self, namespace: &str) -> String {
        let root = root(self.group_version());
        if self.namespaced() {
            format!("/{root}/namespaces/{namespace}/{}", self.plural())
        } else {
            format!("/{root}/{}", self.plural())
        }
    }

    pub fn from_plural(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.plural() == plural)
    }
}

/// Where a group's version is served, without the first slash.
pub fn root(group_version: &str) -> String {
    match group_version {
        "v1" => "api/v1".to_owned(),
        group_version => format!("apis/{group_version}"),
    }
}

/// What a path below a group's version names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub resource: Resource,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<Subresource>,
}

impl Target {
    /// Nothing for a path that names no served resource.
    pub fn parse(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?.trim_end_matches('/');
        let parts: Vec<_> = path.split('/').collect();
        let (group_version, rest) = match parts[..] {
            ["api", "v1", ..] => ("v1".to_owned(), &parts[2..]),
            ["apis", group, version, ..] => (format!("{group}/{version}"), &parts[3..]),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !is_subresource(rest) => {
                (Some(*namespace), rest)
            }
            rest => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some(*name), None),
            [plural, name, subresource] => (plural, Some(*name), Some(*subresource)),
            _ => return None,
        };
        let resource = Resource::ALL
            .into_iter()
            .find(|one| one.plural() == *plural && one.group_version() == group_version)?;
        let placed = resource.namespaced() || namespace.is_none();
        let named = !resource.namespaced() || namespace.is_some() || name.is_none();
        let subresource = match subresource {
            None => None,
            Some(asked) => Some(
                *resource
                    .subresources()
                    .iter()
                    .find(|one| one.name() == asked)?,
            ),
        };
        (placed && named).then(|| Self {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource,
        })
    }
}

/// `/api/v1/namespaces/NAME/status` is of the namespace, not of a kind called "status".
fn is_subresource(rest: &[&str]) -> bool {
    Subresource::ALL.iter().any(|one| rest == [one.name()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_list_or_an_object() {
        let target = Target::parse("/api/v1/namespaces/default/services/web").unwrap();
        assert_eq!(target.resource, Resource::Services);
        assert_eq!(target.namespace.as_deref(), Some("default"));
        assert_eq!(target.name.as_deref(), Some("web"));
        let all = Target::parse("/apis/discovery.k8s.io/v1/endpointslices").unwrap();
        assert_eq!((all.namespace, all.name), (None, None));
        let namespace = Target::parse("/api/v1/namespaces/default").unwrap();
        assert_eq!(namespace.resource, Resource::Namespaces);
    }

    #[test]
    fn a_path_of_another_group_or_scope_names_nothing() {
        assert_eq!(Target::parse("/api/v1/endpointslices"), None);
        assert_eq!(Target::parse("/api/v1/services/web"), None);
        assert_eq!(Target::parse("/api/v1/namespaces/a/nodes/b"), None);
        assert_eq!(Target::parse("/api/v1/namespaces/a/services/b/scale"), None);
    }

    #[test]
    fn a_path_may_name_a_part_of_an_object() {
        let scale = "/apis/apps/v1/namespaces/default/deployments/web/scale";
        let scale = Target::parse(scale).unwrap();
        assert_eq!(scale.resource, Resource::Deployments);
        assert_eq!(scale.subresource, Some(Subresource::Scale));
        let namespace = Target::parse("/api/v1/namespaces/default/status").unwrap();
        assert_eq!(namespace.resource, Resource::Namespaces);
        assert_eq!(namespace.subresource, Some(Subresource::Status));
    }
}
