//! What of the services is left out for want of room.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::serve::Status;

/// So many services have lines of their own.
const NAMED: usize = 100;

pub struct LeftOut(pub Arc<Status>);

impl fmt::Debug for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeftOut").finish_non_exhaustive()
    }
}

impl Collector for LeftOut {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let all = self.0.unserved();
        ConstGauge::new(all.len() as i64).encode(encoder.encode_descriptor(
            "portside_services_left_out",
            "Services that there is no room for, or not for all of them",
            None,
            MetricType::Gauge,
        )?)?;
        let mut family = encoder.encode_descriptor(
            "portside_service_left_out",
            "What of a service there is no room for; of the first hundred of them",
            None,
            MetricType::Gauge,
        )?;
        for one in all.iter().take(NAMED) {
            for (what, count) in [
                ("ports", one.ports),
                ("addresses", one.addresses),
                ("ranges", one.ranges),
                ("endpoints", one.endpoints),
                ("lists", one.lists),
            ] {
                if count > 0 {
                    let labels = [
                        ("service_namespace", &*one.namespace),
                        ("service_name", &*one.service),
                        ("what", what),
                    ];
                    ConstGauge::new(i64::from(count)).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;
    use crate::{model::ObjectName, plan, serve::Unserved};

    #[test]
    fn each_service_says_what_it_lacks() {
        let left_out = plan::LeftOut {
            ports: 489,
            ..plan::LeftOut::default()
        };
        let name = ObjectName::new("tenant", "greedy");
        let status = Arc::new(Status::default());
        status.set_unserved(Arc::new(vec![Unserved::new(&name, &left_out)]));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(LeftOut(status)));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        for line in [
            "portside_services_left_out 1",
            "portside_service_left_out{service_namespace=\"tenant\",service_name=\"greedy\",what=\"ports\"} 489",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        assert!(!text.contains("what=\"endpoints\""), "{text}");
    }
}
