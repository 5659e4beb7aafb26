//! Runs the suites on each kernel: chooses the machines, and judges what they print.

use std::{collections::BTreeMap, sync::Arc, thread};

use anyhow::{Context as _, bail};

use super::{
    console::Limits,
    fleet::{self, Event, Job, Ran},
    initramfs,
    kernels::{self, Kernel},
    machine::{self, Accelerator},
    outcome::Said,
    payload::{Build, Level, Share},
    prompt,
};
use crate::{
    setup::runtime,
    shell::{self, say},
    test::summary::Summary,
};

/// What the machines of all kernels get.
pub struct Matrix {
    pub build: Build,
    /// The kernels, by the names that the user gave.
    kernels: BTreeMap<String, anyhow::Result<Arc<Kernel>>>,
    accelerator: Accelerator,
}

/// The outcome of one machine.
pub struct Run {
    pub summary: Summary,
    /// A sentence for each thing that is wrong.
    pub complaints: Vec<String>,
}

impl Matrix {
    /// Builds what machines are given. Meanwhile, gets these kernels and finds out with the first of them how machines run:
    /// that is mostly waiting.
    pub fn prepare(series: &[String]) -> anyhow::Result<Self> {
        runtime::ensure(&runtime::VM)?;
        runtime::ensure(&runtime::TESTS)?;
        let ((kernels, accelerator), build) = thread::scope(|scope| {
            let getting = scope.spawn(|| {
                let got = |series: &String| (series.clone(), kernels::get(series).map(Arc::new));
                let kernels: BTreeMap<_, _> = series.iter().map(got).collect();
                let first = series
                    .iter()
                    .find_map(|series| kernels[series].as_ref().ok());
                let accelerator = first.map(|kernel| machine::probe(kernel));
                (kernels, accelerator.unwrap_or(Accelerator::Tcg))
            });
            let build = Build::all();
            (
                getting.join().expect("getting kernels does not panic"),
                build,
            )
        });
        Ok(Self {
            build: build?,
            kernels,
            accelerator,
        })
    }

    /// One of the kernels.
    pub fn kernel(&self, series: &str) -> anyhow::Result<Arc<Kernel>> {
        match self.kernels.get(series) {
            Some(Ok(kernel)) => Ok(Arc::clone(kernel)),
            Some(Err(error)) => bail!("the kernel {series}: {error:#}"),
            None => bail!("the kernel {series} was not asked for"),
        }
    }

    /// Runs the suites on all kernels; `judge` says what is wrong with a machine that ended well by itself.
    pub fn run(
        &self,
        chosen: &[String],
        levels: &[Level],
        filter: Option<&str>,
        mut judge: impl FnMut(&str, &str, &mut Said) -> Vec<String>,
    ) -> anyhow::Result<Summary> {
        let mut total = Summary::default();
        let mut levels = levels.to_vec();
        if let Some(reason) = machine::no_wire()
            && levels.contains(&Level::Nic)
        {
            levels.retain(|level| *level != Level::Nic);
            total.skip("virtio", reason);
        }
        let mut kernels = Vec::new();
        for series in chosen {
            match self.kernel(series) {
                Ok(kernel) => kernels.push((series.as_str(), kernel)),
                Err(error) => {
                    say("Failed", format!("{error:#}"));
                    total.fail(series, &format!("{error:#}"));
                }
            }
        }
        let shares = shares(
            fleet::room(self.accelerator),
            kernels.len(),
            &levels,
            filter,
        );
        let mut jobs = Vec::new();
        let mut series_of = Vec::new();
        // What is of one kernel is of the first one: the oldest, as a rule, whose machine has the fewest other rows.
        let first = kernels.first().map(|(series, _)| *series);
        for (series, kernel) in kernels {
            for share in shares {
                jobs.push(Job {
                    name: share.name(&kernel.version),
                    payload: self
                        .build
                        .suites(&levels, *share, filter, first == Some(series))?,
                    kernel: Arc::clone(&kernel),
                    limits: Limits::default(),
                });
                series_of.push(series);
            }
        }
        let several = jobs.len() > 1;
        self.boot(
            &jobs,
            |job, line| match several {
                true => println!("{} | {line}", job.name),
                false => println!("{line}"),
            },
            |number, ran| match ran {
                Ok(ran) => {
                    let job = &jobs[number];
                    let run = judged(job, ran, |said| {
                        judge(series_of[number], &job.kernel.version, said)
                    });
                    total.add(run.summary.on(&job.kernel.version));
                }
                Err(error) => {
                    say("Failed", format!("{error:#}"));
                    total.fail(&jobs[number].name, &format!("{error:#}"));
                }
            },
        )?;
        Ok(total)
    }

    /// Gives a prompt, until the user leaves it.
    pub fn prompt(&self, series: &str) -> anyhow::Result<()> {
        let busybox = shell::find("busybox").context("busybox is not installed")?;
        let kernel = self.kernel(series)?;
        let image = initramfs::pack(&kernel, &self.build.prompt(&busybox)?, "prompt")?;
        say(
            "Booting",
            format!("{}: `exit` powers it off", kernel.version),
        );
        prompt::run(&mut machine::qemu(
            self.accelerator,
            &kernel,
            Some(&image.path),
            None,
        ))
    }

    /// Runs these machines, as many at once as there is room for.
    pub fn boot(
        &self,
        jobs: &[Job],
        mut on_line: impl FnMut(&Job, &str),
        mut on_end: impl FnMut(usize, anyhow::Result<Ran>),
    ) -> anyhow::Result<()> {
        fleet::run(jobs, self.accelerator, |number, event| {
            let job = &jobs[number];
            match event {
                Event::Booting => {
                    let suites = &job.payload.suites;
                    let names: Vec<_> = suites.iter().map(|suite| suite.name()).collect();
                    say("Booting", format!("{}: {}", job.name, names.join(", ")));
                }
                Event::Line(line) => on_line(job, &line),
                Event::Ended(ran) => on_end(number, ran.map(|ran| *ran)),
            }
        });
        Ok(())
    }
}

/// What is wrong with a machine's run, and its sum; each complaint counts as a failure.
pub fn judged(job: &Job, ran: Ran, judge: impl FnOnce(&mut Said) -> Vec<String>) -> Run {
    let Ran {
        mut said,
        ending,
        seconds,
    } = ran;
    // Failed tests are in the sum already.
    let untold = match said.complaint(&ending, &job.kernel.version) {
        Some(complaint) => vec![complaint],
        None if said.summary.failed() > 0 => Vec::new(),
        None => judge(&mut said),
    };
    let failed = said.failed_tests();
    for complaint in &untold {
        said.summary.fail("the machine", complaint);
    }
    let complaints: Vec<_> = untold.into_iter().chain(failed).collect();
    for complaint in &complaints {
        say("Failed", format!("{}: {complaint}", job.name));
    }
    let sum = &said.summary;
    say("Finished", format!("{}: {sum} in {seconds} s", job.name));
    Run {
        summary: said.summary,
        complaints,
    }
}

/// One machine for each kernel; two where processors would be idle otherwise, and there is enough to share.
fn shares(room: usize, kernels: usize, levels: &[Level], filter: Option<&str>) -> &'static [Share] {
    if room > kernels && levels.contains(&Level::L2) && filter.is_none() {
        &[Share::First, Share::Second]
    } else {
        &[Share::All]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_shared_by_two_machines_only_where_one_would_leave_processors_idle() {
        let all = [Level::L1, Level::L2, Level::Nic];
        let count =
            |room, kernels, levels: &[Level], filter| shares(room, kernels, levels, filter).len();
        assert_eq!(count(2, 1, &all, None), 2);
        assert_eq!(count(2, 2, &all, None), 1);
        assert_eq!(count(8, 4, &all, None), 2);
        assert_eq!(count(1, 1, &all, None), 1);
        assert_eq!(count(2, 1, &[Level::L1], None), 1);
        assert_eq!(count(2, 1, &all, Some("doctor")), 1);
    }
}
