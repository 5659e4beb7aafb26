//! The kinds of objects that are served, and how their paths are read.

/// A served resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Resource {
    Services,
    EndpointSlices,
    Nodes,
    Namespaces,
    Events,
}

impl Resource {
    pub const ALL: [Self; 5] = [
        Self::Services,
        Self::EndpointSlices,
        Self::Nodes,
        Self::Namespaces,
        Self::Events,
    ];

    /// The plural, as it stands in paths and in fault scripts.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Nodes => "nodes",
            Self::Namespaces => "namespaces",
            Self::Events => "events",
        }
    }

    pub fn kind(self) -> &'static str {
        match self {
            Self::Services => "Service",
            Self::EndpointSlices => "EndpointSlice",
            Self::Nodes => "Node",
            Self::Namespaces => "Namespace",
            Self::Events => "Event",
        }
    }

    pub fn group_version(self) -> &'static str {
        match self {
            Self::EndpointSlices => "discovery.k8s.io/v1",
            _ => "v1",
        }
    }

    pub fn namespaced(self) -> bool {
        matches!(self, Self::Services | Self::EndpointSlices | Self::Events)
    }

    pub fn from_kind(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.kind() == kind)
    }

    /// The path of all objects of this kind, or of those in a namespace where it has some.
    pub fn path(self, namespace: &str) -> String {
        let group = match self.group_version() {
            "v1" => "api/v1",
            _ => "apis/discovery.k8s.io/v1",
        };
        if self.namespaced() {
            format!("/{group}/namespaces/{namespace}/{}", self.plural())
        } else {
            format!("/{group}/{}", self.plural())
        }
    }

    pub fn from_plural(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.plural() == plural)
    }
}

/// What a path below `/api/v1` or `/apis/discovery.k8s.io/v1` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub resource: Resource,
    pub namespace: Option<String>,
    pub name: Option<String>,
}

impl Target {
    /// Nothing for a path that names no served resource.
    pub fn parse(path: &str) -> Option<Self> {
        let (group_version, rest) = path
            .strip_prefix("/api/v1/")
            .map(|rest| ("v1", rest))
            .or_else(|| {
                path.strip_prefix("/apis/discovery.k8s.io/v1/")
                    .map(|rest| ("discovery.k8s.io/v1", rest))
            })?;
        let parts: Vec<_> = rest.trim_end_matches('/').split('/').collect();
        let (namespace, plural, name) = match parts[..] {
            ["namespaces", namespace, plural] => (Some(namespace), plural, None),
            ["namespaces", namespace, plural, name] => (Some(namespace), plural, Some(name)),
            [plural] => (None, plural, None),
            [plural, name] => (None, plural, Some(name)),
            _ => return None,
        };
        let resource = Resource::from_plural(plural)?;
        let placed = resource.namespaced() || namespace.is_none();
        let named = !resource.namespaced() || namespace.is_some() || name.is_none();
        (resource.group_version() == group_version && placed && named).then(|| Self {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        })
    }
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
    }
}
