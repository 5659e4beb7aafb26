//! Lists as people read them: `meta.k8s.io/v1` Tables, with the columns that a real server has
//! (`pkg/printers/internalversion/printers.go`).

use serde_json::{Value, json};

use super::resource::Resource;
use super::scale::selector;

/// Does a client that accepts these types want a Table?
pub fn is_wanted(accept: &str) -> bool {
    accept.split(',').any(|one| {
        one.contains("as=Table") && one.contains("g=meta.k8s.io") && one.contains("v=v1;")
    })
}

/// A column: its name, its format, and whether it is for `-o wide` alone.
type Column = (&'static str, &'static str, bool);

const NAME: Column = ("Name", "name", false);
const AGE: Column = ("Age", "", false);

fn columns(resource: Resource) -> Vec<Column> {
    let between: &[Column] = match resource {
        Resource::Services => &[
            ("Type", "", false),
            ("Cluster-IP", "", false),
            ("External-IP", "", false),
            ("Port(s)", "", false),
        ],
        Resource::EndpointSlices => &[
            ("AddressType", "", false),
            ("Ports", "", false),
            ("Endpoints", "", false),
        ],
        Resource::Pods => &[
            ("Ready", "", false),
            ("Status", "", false),
            ("Restarts", "", false),
        ],
        Resource::Deployments => &[
            ("Ready", "", false),
            ("Up-to-date", "", false),
            ("Available", "", false),
        ],
        Resource::ReplicaSets => &[
            ("Desired", "", false),
            ("Current", "", false),
            ("Ready", "", false),
        ],
        Resource::HorizontalPodAutoscalers => &[
            ("Reference", "", false),
            ("Targets", "", false),
            ("MinPods", "", false),
            ("MaxPods", "", false),
            ("Replicas", "", false),
        ],
        Resource::Nodes => &[("Status", "", false)],
        Resource::Namespaces => &[("Status", "", false)],
        Resource::Events
        | Resource::ApiServices
        | Resource::Leases
        | Resource::IpAddressPools
        | Resource::NewEvents => &[],
    };
    let wide: &[Column] = match resource {
        Resource::Services => &[("Selector", "", true)],
        Resource::Pods => &[("IP", "", true), ("Node", "", true)],
        Resource::Deployments => &[("Selector", "", true)],
        _ => &[],
    };
    let mut all = vec![NAME];
    all.extend(between);
    all.push(AGE);
    all.extend(wide);
    all
}

/// A Table of objects of one kind.
pub fn of<'a>(
    resource: Resource,
    objects: impl Iterator<Item = &'a Value>,
    metadata: &Value,
) -> Value {
    let columns: Vec<_> = columns(resource)
        .into_iter()
        .map(|(name, format, wide)| {
            json!({"name": name, "type": "string", "format": format, "description": name,
                "priority": u8::from(wide)})
        })
        .collect();
    let rows: Vec<_> = objects
        .map(|object| {
            // kubectl asks for the name and the namespace of what a row shows.
            let partial = json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            });
            json!({"cells": cells(resource, object), "object": partial})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn cells(resource: Resource, object: &Value) -> Vec<String> {
    let mut cells = vec![text(&object["metadata"]["name"])];
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_u64().unwrap_or(0).to_string();
    match resource {
        Resource::Services => cells.extend([
            text(&spec["type"]),
            or_none(text(&spec["clusterIP"])),
            external(object),
            or_none(joined(&spec["ports"], service_port)),
        ]),
        Resource::EndpointSlices => {
            let addresses = |one: &Value| joined(&one["addresses"], text);
            cells.extend([
                text(&object["addressType"]),
                or_unset(joined(&object["ports"], |port| number(&port["port"]))),
                or_unset(joined(&object["endpoints"], addresses)),
            ]);
        }
        Resource::Pods => {
            let containers = spec["containers"].as_array().map_or(0, Vec::len);
            let ready = if is_ready(object) { containers } else { 0 };
            let deleted = !object["metadata"]["deletionTimestamp"].is_null();
            let phase = if deleted {
                "Terminating".into()
            } else {
                text(&status["phase"])
            };
            cells.extend([format!("{ready}/{containers}"), phase, "0".to_owned()]);
        }
        Resource::Deployments => {
            let ready = number(&status["readyReplicas"]);
            cells.extend([
                format!("{ready}/{}", number(&spec["replicas"])),
                number(&status["updatedReplicas"]),
                number(&status["availableReplicas"]),
            ]);
        }
        Resource::ReplicaSets => cells.extend([
            number(&spec["replicas"]),
            number(&status["replicas"]),
            number(&status["readyReplicas"]),
        ]),
        Resource::HorizontalPodAutoscalers => {
            let target = &spec["scaleTargetRef"];
            cells.extend([
                format!("{}/{}", text(&target["kind"]), text(&target["name"])),
                targets(object),
                number(&spec["minReplicas"]),
                number(&spec["maxReplicas"]),
                number(&status["currentReplicas"]),
            ]);
        }
        Resource::Nodes => cells.push("Ready".to_owned()),
        Resource::Namespaces => cells.push(text(&status["phase"])),
        Resource::Events
        | Resource::ApiServices
        | Resource::Leases
        | Resource::IpAddressPools
        | Resource::NewEvents => {}
    }
    cells.push(age(object));
    match resource {
        Resource::Services => cells.push(or_none(selector(&spec["selector"]))),
        Resource::Pods => cells.extend([
            or_none(text(&status["podIP"])),
            or_none(text(&spec["nodeName"])),
        ]),
        Resource::Deployments => cells.push(selector(&spec["selector"]["matchLabels"])),
        _ => {}
    }
    cells
}

/// Does a Pod's condition say that it is ready?
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn joined(list: &Value, one: impl Fn(&Value) -> String) -> String {
    let all = list.as_array().into_iter().flatten();
    all.map(one).collect::<Vec<_>>().join(",")
}

fn or_none(text: String) -> String {
    if text.is_empty() {
        "<none>".to_owned()
    } else {
        text
    }
}

fn or_unset(text: String) -> String {
    if text.is_empty() {
        "<unset>".to_owned()
    } else {
        text
    }
}

fn service_port(port: &Value) -> String {
    let (number, node_port) = (
        port["port"].as_u64().unwrap_or(0),
        port["nodePort"].as_u64(),
    );
    let node_port = node_port.map_or(String::new(), |port| format!(":{port}"));
    format!("{number}{node_port}/{}", text(&port["protocol"]))
}

/// What comes from outside: external addresses and those of load balancers.
fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let mut all = joined(&spec["externalIPs"], text);
    if spec["type"] == "LoadBalancer" {
        let ingress = &service["status"]["loadBalancer"]["ingress"];
        let given = joined(ingress, |one| match &one["ip"] {
            Value::Null => text(&one["hostname"]),
            ip => text(ip),
        });
        if given.is_empty() && all.is_empty() {
            return "<pending>".to_owned();
        }
        all = [given, all]
            .into_iter()
            .filter(|one| !one.is_empty())
            .collect::<Vec<_>>()
            .join(",");
    }
    or_none(all)
}

/// Of each metric what it is and what it shall be.
fn targets(autoscaler: &Value) -> String {
    let current = autoscaler["status"]["currentMetrics"].as_array();
    let wanted = autoscaler["spec"]["metrics"]
        .as_array()
        .into_iter()
        .flatten();
    let all: Vec<_> = wanted
        .enumerate()
        .map(|(index, metric)| {
            let source = match metric["type"].as_str().unwrap_or_default() {
                "Resource" => "resource",
                "Object" => "object",
                "External" => "external",
                "Pods" => "pods",
                _ => "",
            };
            let target = &metric[source]["target"];
            let now = current
                .and_then(|all| all.get(index))
                .map(|one| &one[source]["current"]);
            let pair = |field: &str| {
                let value = |of: &Value| match &of[field] {
                    Value::Number(number) => number.to_string(),
                    other => text(other),
                };
                let now = now.map(value).filter(|one| !one.is_empty());
                (now.unwrap_or_else(|| "<unknown>".to_owned()), value(target))
            };
            match target["type"].as_str().unwrap_or_default() {
                "Utilization" => {
                    let (now, target) = pair("averageUtilization");
                    let now = if now == "<unknown>" { now } else { now + "%" };
                    format!("{}: {now}/{target}%", text(&metric["resource"]["name"]))
                }
                "AverageValue" => {
                    let (now, target) = pair("averageValue");
                    format!("{now}/{target} (avg)")
                }
                _ => {
                    let (now, target) = pair("value");
                    format!("{now}/{target}")
                }
            }
        })
        .collect();
    or_none(all.join(", "))
}

fn age(object: &Value) -> String {
    let made = object["metadata"]["creationTimestamp"].as_str();
    let made = made.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    made.map_or("<unknown>".to_owned(), |made| {
        format!(
            "{}s",
            jiff::Timestamp::now().duration_since(made).as_secs().max(0)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_as_kubectl_shows_it() {
        let service = json!({
            "metadata": {"name": "web"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1",
                "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}]},
            "status": {"loadBalancer": {}},
        });
        let row = cells(Resource::Services, &service);
        assert_eq!(
            row[..5],
            [
                "web",
                "LoadBalancer",
                "10.96.0.1",
                "<pending>",
                "80:30000/TCP"
            ]
        );
    }

    #[test]
    fn an_autoscaler_reads_as_kubectl_shows_it() {
        let autoscaler = json!({
            "metadata": {"name": "web"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5,
                "metrics": [{"type": "Object", "object": {"target": {"type": "AverageValue", "averageValue": "100"}}}]},
            "status": {"currentReplicas": 2,
                "currentMetrics": [{"type": "Object", "object": {"current": {"averageValue": "42500m"}}}]},
        });
        let row = cells(Resource::HorizontalPodAutoscalers, &autoscaler);
        assert_eq!(
            row[1..6],
            ["Deployment/web", "42500m/100 (avg)", "1", "5", "2"]
        );
    }

    #[test]
    fn a_table_is_for_who_asks_for_it() {
        assert!(is_wanted(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        ));
        assert!(!is_wanted("application/json"));
    }
}
