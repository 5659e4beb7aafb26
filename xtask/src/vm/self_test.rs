//! The suite's own test: failures are planted, each in a real machine, and have to be reported as what they are.

use std::time::Duration;

use super::{
    console::Limits,
    initramfs::{MEASURING, Payload},
    matrix::Matrix,
    outcome::Said,
    payload::Level,
    succeeded,
    verifier::Budget,
};
use crate::{shell::say, test::summary::Summary};

/// Enough for a boot on a busy machine, and not for a test's patience.
const SILENCE: Duration = Duration::from_secs(45);

/// A few rows that check whole packets.
const ROWS: &str = "node_port_to_a_local_backend";

struct Case {
    name: &'static str,
    plant: Plant,
    /// What a complaint has to say; nothing where the run has to be right.
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
pub fn run(matrix: &mut Matrix, series: &str) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    for Case {
        name,
        plant,
        expected,
    } in &CASES
    {
        say("Planting", name);
        let wrong = attempt(matrix, series, plant, expected)?;
        match &wrong {
            None => println!("test self-test: {name} ... ok"),
            Some(wrong) => println!("test self-test: {name} ... FAILED: {wrong}"),
        }
        summary.count(wrong.is_none());
    }
    Ok(summary)
}

/// Boots a machine with the plant in it. What was not recognised is returned.
fn attempt(
    matrix: &mut Matrix,
    series: &str,
    plant: &Plant,
    expected: &[&str],
) -> anyhow::Result<Option<String>> {
    let payload = payload(matrix, plant)?;
    let limits = Limits {
        stall: SILENCE,
        ..Limits::default()
    };
    let mut budget = Budget::open()?;
    if matches!(plant, Plant::Budget) {
        budget.halve();
    }
    let mut judge = |series: &str, kernel: &str, said: &mut Said| {
        budget
            .check(series, kernel, &said.report)
            .unwrap_or_default()
    };
    // A machine's words are shown as those of a planted run.
    let print = |line: &str| println!("  | {line}");
    let run = matrix.boot(series, &payload, &limits, print, &mut judge)?;
    Ok(match expected {
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
    let mut payload = build.suites(&[Level::L1], Some(ROWS))?;
    let only = |payload: &mut Payload, name| payload.suites.retain(|suite| suite.name() == name);
    match plant {
        Plant::Nothing | Plant::Budget => {}
        Plant::Checksum => {
            only(&mut payload, "l1_tables");
            // Also in the guest's half, `tests/tests/l1_tables/node.rs`.
            payload.variable("PORTSIDE_PLANT", "checksum");
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
