//! Counting what happens in a while, and what it costs.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::cpu::Pinned;
use super::median;

/// Rounds of all ways in turn; the median counts.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

/// A figure per second and the CPU time for each.
pub struct Rate {
    pub per_second: f64,
    /// CPU time for each, in microseconds.
    pub cpu: f64,
}

impl Rate {
    /// Counts for a round, and divides.
    pub fn of(cpu: &Pinned, count: impl FnOnce(Instant) -> Result<u64>) -> Result<Self> {
        let (began, before) = (Instant::now(), cpu.spent()?);
        let counted = count(began + ROUND)?;
        let elapsed = began.elapsed();
        let spent = cpu.spent()? - before;
        ensure!(counted > 0, "nothing arrived");
        Ok(Self {
            per_second: counted as f64 / elapsed.as_secs_f64(),
            cpu: spent.as_secs_f64() * 1e6 / counted as f64,
        })
    }

    fn median(rates: &[Self]) -> Self {
        let of =
            |figure: fn(&Self) -> f64| median(&mut rates.iter().map(figure).collect::<Vec<_>>());
        Self {
            per_second: of(|rate| rate.per_second),
            cpu: of(|rate| rate.cpu),
        }
    }
}

/// Measures `count` things in turn, several rounds; gives the median of each.
pub fn in_turn(count: usize, mut measure: impl FnMut(usize) -> Result<Rate>) -> Result<Vec<Rate>> {
    let mut rates: Vec<Vec<Rate>> = (0..count).map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (number, rates) in rates.iter_mut().enumerate() {
            rates.push(measure(number)?);
        }
    }
    Ok(rates.iter().map(|rates| Rate::median(rates)).collect())
}
