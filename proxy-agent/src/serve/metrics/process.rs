//! Memory and processor time of the agent, from /proc.

use std::{fmt, time::SystemTime};

use procfs::{process, ticks_per_second};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

#[derive(Debug)]
pub struct Process {
    started: f64,
}

impl Process {
    pub fn new(started: SystemTime) -> Self {
        let since = started.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            started: since.unwrap_or_default().as_secs_f64(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        ConstGauge::new(self.started).encode(encoder.encode_descriptor(
            "process_start_time_seconds",
            "When the agent started",
            None,
            MetricType::Gauge,
        )?)?;
        let usage = Usage::now();
        if let Some(bytes) = usage.resident_bytes {
            ConstGauge::new(bytes).encode(encoder.encode_descriptor(
                "process_resident_memory_bytes",
                "Resident memory of the agent",
                None,
                MetricType::Gauge,
            )?)?;
        }
        if let Some(seconds) = usage.cpu_seconds {
            ConstCounter::new(seconds).encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                "Processor time of the agent",
                None,
                MetricType::Counter,
            )?)?;
        }
        Ok(())
    }
}

/// What /proc says of this process now; nothing where it is not mounted.
#[derive(Default)]
struct Usage {
    resident_bytes: Option<i64>,
    cpu_seconds: Option<f64>,
}

impl Usage {
    fn now() -> Self {
        let Ok(process) = process::Process::myself() else {
            return Self::default();
        };
        let kib = process.status().ok().and_then(|status| status.vmrss);
        let ticks = process.stat().ok().map(|stat| stat.utime + stat.stime);
        Self {
            resident_bytes: kib.and_then(|kib| i64::try_from(kib * 1024).ok()),
            cpu_seconds: ticks.map(|ticks| ticks as f64 / ticks_per_second() as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_the_processor() {
        let usage = Usage::now();
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        let before = usage.cpu_seconds.unwrap();
        let began = std::time::Instant::now();
        while Usage::now().cpu_seconds.unwrap() <= before {
            assert!(began.elapsed().as_secs() < 60, "the time stands still");
        }
    }
}
