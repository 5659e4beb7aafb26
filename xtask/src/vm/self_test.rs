//! The suite's own test: plants failures, each in a real machine, and checks that each is reported as what it is.

use std::{sync::Arc, time::Duration};

use vm_protocol::variable;

use super::{
    console::Limits,
    fleet::{Job, Ran},
    initramfs::{MEASURING, Payload},
    matrix::{self, Matrix},
    payload::{Level, Share},
    succeeded,
    verifier::Budget,
};
use crate::test::summary::Summary;

/// Enough for a boot on a busy machine, and not for a test's patience.
const SILENCE: Duration = Duration::from_secs(45);

/// A few rows that check whole packets.
const ROWS: &str = "node_port_to_a_local_backend";

struct Case {
    name: &'static str,
    plant: Plant,
    /// What the complaint must contain; empty if the run must be right.
    expected: &'static [&'static str],
}

enum Plant {
    Nothing,
    /// A program's packets come back with another transport checksum.
    Checksum,
    /// An object with a program that reads a packet without a look at its end.
    Refusal,
    Panic,
    Hang,
    /// The figures of the last run are taken to be half of what they were.
    Budget,
}

const CASES: [Case; 6] = [
    Case {
        name: "a sound suite passes",
        plant: Plant::Nothing,
        expected: &[],
    },
    Case {
        name: "a wrong checksum is named",
        plant: Plant::Checksum,
        expected: &["tests failed: ", "checksum"],
    },
    Case {
        name: "a program that the verifier refuses is named",
        plant: Plant::Refusal,
        expected: &["program reads_unchecked", "the kernel refuses it"],
    },
    Case {
        name: "a kernel panic is told as one",
        plant: Plant::Panic,
        expected: &["kernel panic: sysrq triggered crash"],
    },
    Case {
        name: "a silent console is a stall",
        plant: Plant::Hang,
        expected: &["stalled"],
    },
    Case {
        name: "a program that outgrew its budget is named",
        plant: Plant::Budget,
        expected: &["xdp_uplink grew by more than"],
    },
];

/// Runs all cases on one kernel, as tests with a name.
pub fn run(matrix: &Matrix, series: &str) -> anyhow::Result<Summary> {
    let kernel = matrix.kernel(series)?;
    let mut jobs = Vec::new();
    for Case { name, plant, .. } in &CASES {
        jobs.push(Job {
            name: (*name).to_owned(),
            kernel: Arc::clone(&kernel),
            payload: payload(matrix, plant)?,
            limits: Limits {
                stall: SILENCE,
                ..Limits::default()
            },
        });
    }
    let mut summary = Summary::default();
    matrix.boot(
        &jobs,
        // A machine's words are shown as those of a planted run.
        |job, line| println!("  ({}) {line}", job.name),
        |number, ran| {
            let (case, job) = (&CASES[number], &jobs[number]);
            let wrong = ran
                .and_then(|ran| unrecognised(case, job, series, ran))
                .unwrap_or_else(|error| Some(format!("{error:#}")));
            match &wrong {
                None => println!("test self-test: {} ... ok", case.name),
                Some(wrong) => println!("test self-test: {} ... FAILED: {wrong}", case.name),
            }
            summary.count(&format!("self-test: {}", case.name), wrong.as_deref());
        },
    )?;
    Ok(summary)
}

/// Says how the report of a planted failure is wrong; `None` if it is right.
fn unrecognised(case: &Case, job: &Job, series: &str, ran: Ran) -> anyhow::Result<Option<String>> {
    let mut budget = Budget::open()?;
    if matches!(case.plant, Plant::Budget) {
        budget.halve();
    }
    let run = matrix::judged(job, ran, |said| {
        budget.check(series, &job.kernel.version, &said.report)
    });
    Ok(match case.expected {
        [] if succeeded(&run.summary) && run.complaints.is_empty() => None,
        [] => Some(format!("complaints: {:?}", run.complaints)),
        _ if succeeded(&run.summary) => Some("the run passes".to_owned()),
        words => {
            let says_it = |complaint: &String| words.iter().all(|word| complaint.contains(word));
            (!run.complaints.iter().any(says_it))
                .then(|| format!("no complaint says {words:?}: {:?}", run.complaints))
        }
    })
}

/// With the plant, and no more suites than show it.
fn payload(matrix: &Matrix, plant: &Plant) -> anyhow::Result<Payload> {
    let build = &matrix.build;
    let mut payload = build.suites(&[Level::L1], Share::All, Some(ROWS), false)?;
    let only = |payload: &mut Payload, name| payload.suites.retain(|suite| suite.name() == name);
    match plant {
        Plant::Nothing | Plant::Budget => {}
        Plant::Checksum => {
            only(&mut payload, "l1_tables");
            payload.variable(variable::PLANT, "checksum");
        }
        Plant::Refusal => {
            only(&mut payload, MEASURING);
            payload.object = build.refused_object()?;
        }
        Plant::Panic => payload.suites = vec![build.plant("panic")?],
        Plant::Hang => payload.suites = vec![build.plant("hang")?],
    }
    Ok(payload)
}
