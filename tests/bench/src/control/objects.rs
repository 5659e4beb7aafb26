//! The cluster's objects, with all that an API server and its controllers write into them: a proxy has to read past it.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use api_server::ApiServer;
use api_server::resource::Resource;

pub const NAMESPACE: &str = "default";
/// The port of every service, and that of its endpoints.
pub const PORT: u16 = 80;
pub const TARGET_PORT: u16 = 8080;

const TIME: &str = "2026-01-02T03:04:05Z";

/// A service with its endpoints, which are numbered over all services.
pub struct Served {
    number: u32,
    pub endpoints: Vec<u32>,
}

impl Served {
    /// Service `number`, the endpoints of which are the next `endpoints` ones.
    pub fn new(number: u32, endpoints: u32) -> Self {
        let first = number * endpoints;
        Self {
            number,
            endpoints: (first..first + endpoints).collect(),
        }
    }

    /// Out of 10.96.0.0/12; the first address is left to the API server.
    pub fn cluster_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 2)) + self.number)
    }

    /// Writes both objects.
    pub fn put(&self, server: &ApiServer) {
        server.put(Resource::Services, NAMESPACE, &self.name(), self.service());
        self.put_slice(server);
    }

    /// Writes the endpoints.
    pub fn put_slice(&self, server: &ApiServer) {
        let name = format!("{}-x7k2p", self.name());
        server.put(Resource::EndpointSlices, NAMESPACE, &name, self.slice());
    }

    fn name(&self) -> String {
        format!("service-{}", self.number)
    }

    fn service(&self) -> Value {
        let (name, address) = (self.name(), self.cluster_ip().to_string());
        json!({
            "metadata": {
                "annotations": {"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": NAMESPACE},
                "creationTimestamp": TIME,
                "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm"},
                "managedFields": [managed("helm", "v1", &json!({
                    "f:metadata": {"f:annotations": {".": {}, "f:meta.helm.sh/release-name": {}},
                        "f:labels": {".": {}, "f:app.kubernetes.io/name": {}, "f:app.kubernetes.io/managed-by": {}}},
                    "f:spec": {"f:internalTrafficPolicy": {}, "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}":
                        {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}}},
                        "f:selector": {}, "f:sessionAffinity": {}, "f:type": {}},
                }))],
                "uid": format!("00000000-0000-4000-8001-{:012x}", self.number),
            },
            "spec": {
                "clusterIP": address, "clusterIPs": [address], "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": TARGET_PORT}],
                "selector": {"app.kubernetes.io/name": name}, "sessionAffinity": "None", "type": "ClusterIP",
            },
            "status": {"loadBalancer": {}},
        })
    }

    fn slice(&self) -> Value {
        let name = self.name();
        let endpoints: Vec<_> = self
            .endpoints
            .iter()
            .map(|&one| endpoint(&name, one))
            .collect();
        json!({
            "addressType": "IPv4",
            "endpoints": endpoints,
            "metadata": {
                "creationTimestamp": TIME, "generateName": format!("{name}-"), "generation": 3,
                "labels": {"app.kubernetes.io/name": name, "kubernetes.io/service-name": name,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "managedFields": [managed("kube-controller-manager", "discovery.k8s.io/v1", &json!({
                    "f:addressType": {}, "f:endpoints": {}, "f:metadata": {"f:annotations": {".": {},
                        "f:endpoints.kubernetes.io/last-change-trigger-time": {}}, "f:generateName": {},
                        "f:labels": {".": {}, "f:endpointslice.kubernetes.io/managed-by": {},
                        "f:kubernetes.io/service-name": {}}, "f:ownerReferences": {".": {}, "k:{\"uid\":\"0\"}": {}}},
                    "f:ports": {},
                }))],
                "ownerReferences": [{"apiVersion": "v1", "blockOwnerDeletion": true, "controller": true,
                    "kind": "Service", "name": name, "uid": format!("00000000-0000-4000-8001-{:012x}", self.number)}],
                "uid": format!("00000000-0000-4000-8002-{:012x}", self.number),
            },
            "ports": [{"name": "http", "port": TARGET_PORT, "protocol": "TCP"}],
        })
    }
}

/// Out of 10.128.0.0/9.
pub fn endpoint_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 1)) + number)
}

fn endpoint(service: &str, number: u32) -> Value {
    json!({
        "addresses": [endpoint_ip(number).to_string()],
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": format!("worker-{}", number % 100),
        "targetRef": {"kind": "Pod", "name": format!("{service}-6d4cf56db6-{number:x}"), "namespace": NAMESPACE,
            "uid": format!("00000000-0000-4000-8003-{number:012x}")},
        "zone": format!("zone-{}", number % 3),
    })
}

fn managed(manager: &str, version: &str, fields: &Value) -> Value {
    json!({"apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields, "manager": manager,
        "operation": "Update", "time": TIME})
}
