//! Lists what the agent asks an API server for. The ClusterRole in `deploy/` grants exactly this; a test compares the two.

/// A sort of objects, and what is done with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// In the plural, as in a URL.
    pub resource: &'static str,
    pub verbs: &'static [&'static str],
}

const FOLLOW: &[&str] = &["list", "watch"];

/// All of it.
pub const ACCESS: [Access; 4] = [
    Access {
        group: "",
        resource: "services",
        verbs: FOLLOW,
    },
    Access {
        group: "discovery.k8s.io",
        resource: "endpointslices",
        verbs: FOLLOW,
    },
    // Only the own one, by its name; RBAC cannot say that of a list.
    Access {
        group: "",
        resource: "nodes",
        verbs: FOLLOW,
    },
    // On Services that are not served as their objects say; `--events=false` does without.
    Access {
        group: "",
        resource: "events",
        verbs: &["create", "patch"],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_cluster_role_grants_what_is_asked_for_and_no_more() {
        let rbac = include_str!("../../../deploy/base/rbac.yaml");
        let documents: Vec<Value> = serde_saphyr::from_multiple(rbac).unwrap();
        let texts = |value: &Value| -> Vec<String> {
            let all = value.as_array().unwrap().iter();
            all.map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let mut granted = BTreeSet::new();
        for rule in documents[0]["rules"].as_array().unwrap() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        granted.insert((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
        let mut asked = BTreeSet::new();
        for access in ACCESS {
            for verb in access.verbs {
                let verb = (*verb).to_owned();
                asked.insert((access.group.to_owned(), access.resource.to_owned(), verb));
            }
        }
        assert_eq!(granted, asked);
    }
}
