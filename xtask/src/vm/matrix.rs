//! Kernel after kernel: boot, listen, judge.

use std::time::Instant;

use anyhow::Context as _;

use super::{
    console::{self, Limits},
    initramfs::{self, Payload},
    kernels,
    machine::{self, Accelerator},
    outcome::Said,
    payload::{Build, Level},
};
use crate::{
    setup::runtime,
    shell::{self, say},
    test::summary::Summary,
};

/// What all kernels are given.
pub struct Matrix {
    pub build: Build,
    accelerator: Option<Accelerator>,
}

/// What became of one kernel.
pub struct Run {
    pub summary: Summary,
    /// A sentence for each thing that is wrong.
    pub complaints: Vec<String>,
}

impl Matrix {
    pub fn prepare() -> anyhow::Result<Self> {
        runtime::ensure(&runtime::VM)?;
        runtime::ensure(&runtime::TESTS)?;
        Ok(Self {
            build: Build::all()?,
            accelerator: None,
        })
    }

    /// Boots one kernel after the other with the suites; `judge` says what is wrong with a run that ended well by itself.
    pub fn run(
        &mut self,
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
            total.skip(format!("virtio: {reason}"));
        }
        for series in chosen {
            let payload = self.build.suites(&levels, filter)?;
            let print = |line: &str| println!("{line}");
            match self.boot(series, &payload, &Limits::default(), print, &mut judge) {
                Ok(run) => total.add(run.summary),
                Err(error) => {
                    say("Failed", format!("{error:#}"));
                    total.fail();
                }
            }
        }
        Ok(total)
    }

    /// Gives a prompt on this terminal, until the user leaves it.
    pub fn prompt(&mut self, series: &str) -> anyhow::Result<()> {
        let busybox = shell::find("busybox").context("busybox is not installed")?;
        let kernel = kernels::get(series).with_context(|| format!("the kernel {series}"))?;
        let image = initramfs::pack(&kernel, &self.build.prompt(&busybox)?)?;
        say(
            "Booting",
            format!("{}: `exit` powers it off", kernel.version),
        );
        // Emulation always comes up; a prompt needs no speed.
        shell::run(&mut machine::qemu(Accelerator::Tcg, &kernel, &image, None))
    }

    /// Boots one kernel. Whatever is complained about counts as a failure.
    pub fn boot(
        &mut self,
        series: &str,
        payload: &Payload,
        limits: &Limits,
        mut on_line: impl FnMut(&str),
        judge: &mut impl FnMut(&str, &str, &mut Said) -> Vec<String>,
    ) -> anyhow::Result<Run> {
        let kernel = kernels::get(series).with_context(|| format!("the kernel {series}"))?;
        let version = &kernel.version;
        let image = initramfs::pack(&kernel, payload)
            .with_context(|| format!("packing the initramfs for {version}"))?;
        let accelerator = *self
            .accelerator
            .get_or_insert_with(|| machine::probe(&kernel, &image));
        let names: Vec<_> = payload.suites.iter().map(|suite| suite.name()).collect();
        say("Booting", format!("{version}: {}", names.join(", ")));
        let start = Instant::now();
        let mut said = Said::of(payload.measures());
        let wire = payload.wire.as_deref();
        let mut command = machine::qemu(accelerator, &kernel, &image, wire);
        let ending = console::watch(&mut command, limits, |line| {
            on_line(line);
            said.read(line);
        })?;
        let took = start.elapsed().as_secs();
        let complaints = match said.complaint(&ending, version) {
            Some(complaint) => {
                if said.summary.failed() == 0 {
                    said.summary.fail();
                }
                vec![complaint]
            }
            None => {
                let complaints = judge(series, version, &mut said);
                complaints.iter().for_each(|_| said.summary.fail());
                complaints
            }
        };
        for complaint in &complaints {
            say("Failed", format!("{version}: {complaint}"));
        }
        let release = said.release.as_deref().unwrap_or("an unknown kernel");
        say(
            "Finished",
            format!("{release} (its own uname): {} in {took} s", said.summary),
        );
        Ok(Run {
            summary: said.summary.on(version),
            complaints,
        })
    }
}
