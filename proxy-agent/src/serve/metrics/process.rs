//! Memory and processor time of the agent, from /proc (proc_pid_stat(5), proc_pid_status(5)).

use std::{fmt, fs, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// /proc counts in these, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

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
        if let Some(bytes) = resident_bytes(&read("status")) {
            ConstGauge::new(bytes).encode(encoder.encode_descriptor(
                "process_resident_memory_bytes",
                "Resident memory of the agent",
                None,
                MetricType::Gauge,
            )?)?;
        }
        if let Some(seconds) = cpu_seconds(&read("stat")) {
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

fn read(file: &str) -> String {
    fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default()
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Fields 14 and 15; the name in field 2 may hold spaces and ends at the last parenthesis.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name_and_place() {
        let status = "Name:\tproxy-agent\nVmRSS:\t    2048 kB\nThreads:\t2\n";
        assert_eq!(resident_bytes(status), Some(2 << 20));
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes(&read("status")).is_some_and(|bytes| bytes > 0));
        assert!(cpu_seconds(&read("stat")).is_some());
    }
}
