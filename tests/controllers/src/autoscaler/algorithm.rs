//! How many replicas a HorizontalPodAutoscaler asks for (`pkg/controller/podautoscaler`, `autoscaling/v2`). Pure.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::quantity;

/// `--horizontal-pod-autoscaler-tolerance`, in thousandths.
const TOLERANCE: i64 = 100;

/// What a metric shall be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The whole value, in thousandths.
    Value(i64),
    /// The value for each replica, in thousandths.
    AverageValue(i64),
}

impl Target {
    pub fn read(target: &Value) -> Result<Self> {
        match target["type"].as_str().unwrap_or_default() {
            "Value" => Ok(Self::Value(quantity::milli(&target["value"])?)),
            "AverageValue" => Ok(Self::AverageValue(quantity::milli(
                &target["averageValue"],
            )?)),
            other => bail!("target.type: {other:?} is not supported here"),
        }
    }

    /// The replicas that bring a metric of `now` thousandths to the target.
    pub fn replicas(self, now: i64, replicas: u64, ready: u64) -> u64 {
        let (base, of) = match self {
            Self::Value(target) => (ready, target),
            Self::AverageValue(target) => (replicas, target * replicas.max(1) as i64),
        };
        let of = of.max(1);
        let is_close = (now - of).abs() * 1000 <= TOLERANCE * of;
        if is_close && replicas > 0 {
            return replicas;
        }
        let wanted = base.max(1) as i64 * now;
        u64::try_from((wanted + of - 1) / of).unwrap_or(0)
    }
}

/// How fast it may go in one direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    window: Duration,
    policies: Vec<Policy>,
    select: Select,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Select {
    Max,
    Min,
    Disabled,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Policy {
    amount: Amount,
    period: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Amount {
    Pods(u64),
    Percent(u64),
}

/// The direction of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Up,
    Down,
}

impl Rules {
    /// Those of `spec.behavior`, and the defaults of what it does not say
    /// (`pkg/apis/autoscaling/v2/defaults.go`).
    pub fn read(behavior: &Value, direction: Direction) -> Result<Self> {
        let given = match direction {
            Direction::Up => &behavior["scaleUp"],
            Direction::Down => &behavior["scaleDown"],
        };
        let window = match (given["stabilizationWindowSeconds"].as_u64(), direction) {
            (Some(seconds), _) => seconds,
            (None, Direction::Up) => 0,
            (None, Direction::Down) => 300,
        };
        let each = Duration::from_secs(15);
        let default = |amount| Policy {
            amount,
            period: each,
        };
        let policies = match (given["policies"].as_array(), direction) {
            (Some(given), _) => given.iter().map(Policy::read).collect::<Result<_>>()?,
            (None, Direction::Up) => {
                vec![default(Amount::Percent(100)), default(Amount::Pods(4))]
            }
            (None, Direction::Down) => vec![default(Amount::Percent(100))],
        };
        let select = match given["selectPolicy"].as_str() {
            None | Some("Max") => Select::Max,
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            Some(other) => bail!("selectPolicy: {other:?} is none"),
        };
        Ok(Self {
            window: Duration::from_secs(window),
            policies,
            select,
        })
    }
}

impl Policy {
    fn read(policy: &Value) -> Result<Self> {
        let value = policy["value"].as_u64().context("policies[].value")?;
        let period = policy["periodSeconds"].as_u64();
        let period = period.context("policies[].periodSeconds")?;
        let amount = match policy["type"].as_str().unwrap_or_default() {
            "Pods" => Amount::Pods(value),
            "Percent" => Amount::Percent(value),
            other => bail!("policies[].type: {other:?} is none"),
        };
        Ok(Self {
            amount,
            period: Duration::from_secs(period),
        })
    }
}

/// What one autoscaler recommended and did before.
#[derive(Clone, Default, Debug)]
pub struct History {
    recommended: Vec<(Instant, u64)>,
    /// Replicas before and after.
    changed: Vec<(Instant, u64, u64)>,
}

impl History {
    /// The replicas for a recommendation, within the rules of its direction.
    pub fn within(
        &mut self,
        now: Instant,
        current: u64,
        wanted: u64,
        up: &Rules,
        down: &Rules,
    ) -> u64 {
        self.recommended.push((now, wanted));
        let longest = up.window.max(down.window);
        self.recommended
            .retain(|(at, _)| now.duration_since(*at) <= longest);
        let since = |window: Duration| {
            let recent = self.recommended.iter();
            recent
                .filter(move |(at, _)| now.duration_since(*at) <= window)
                .map(|(_, replicas)| *replicas)
        };
        // Up only as far as everything in the window asks for, and down likewise.
        let lowest = since(up.window).min().unwrap_or(wanted);
        let highest = since(down.window).max().unwrap_or(wanted);
        let stable = if current < lowest {
            lowest
        } else if current > highest {
            highest
        } else {
            current
        };
        if stable > current {
            stable.min(self.limit(now, current, up, Direction::Up))
        } else if stable < current {
            stable.max(self.limit(now, current, down, Direction::Down))
        } else {
            current
        }
    }

    /// How far the policies let it go now.
    fn limit(&self, now: Instant, current: u64, rules: &Rules, direction: Direction) -> u64 {
        let limits = rules.policies.iter().map(|policy| {
            let recent = self
                .changed
                .iter()
                .filter(|(at, ..)| now.duration_since(*at) < policy.period);
            match direction {
                Direction::Up => {
                    let added: u64 = recent.map(|(_, from, to)| to.saturating_sub(*from)).sum();
                    let began = current - added.min(current);
                    match policy.amount {
                        Amount::Pods(pods) => began + pods,
                        Amount::Percent(percent) => (began * (100 + percent)).div_ceil(100),
                    }
                }
                Direction::Down => {
                    let removed: u64 = recent.map(|(_, from, to)| from.saturating_sub(*to)).sum();
                    let began = current + removed;
                    match policy.amount {
                        Amount::Pods(pods) => began.saturating_sub(pods),
                        Amount::Percent(percent) => began * 100_u64.saturating_sub(percent) / 100,
                    }
                }
            }
        });
        let limit = match (rules.select, direction) {
            (Select::Disabled, _) => None,
            (Select::Max, Direction::Up) | (Select::Min, Direction::Down) => limits.max(),
            (Select::Min, Direction::Up) | (Select::Max, Direction::Down) => limits.min(),
        };
        let limit = limit.unwrap_or(current);
        match direction {
            Direction::Up => limit.max(current),
            Direction::Down => limit.min(current),
        }
    }

    pub fn changed(&mut self, now: Instant, from: u64, to: u64) {
        self.changed.push((now, from, to));
        // No period is longer (`pkg/apis/autoscaling/validation`).
        let longest = Duration::from_secs(1800);
        self.changed
            .retain(|(at, ..)| now.duration_since(*at) <= longest);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(behavior: &Value) -> [Rules; 2] {
        [Direction::Up, Direction::Down].map(|one| Rules::read(behavior, one).unwrap())
    }

    #[test]
    fn replicas_follow_the_ratio_and_stay_within_the_tolerance() {
        let each = Target::AverageValue(100_000);
        assert_eq!(each.replicas(450_000, 1, 1), 5);
        assert_eq!(each.replicas(215_000, 2, 2), 2);
        assert_eq!(each.replicas(221_000, 2, 2), 3);
        assert_eq!(each.replicas(0, 5, 5), 0);
        let whole = Target::Value(10_000);
        assert_eq!(whole.replicas(25_000, 2, 2), 5);
        assert_eq!(whole.replicas(10_900, 2, 2), 2);
    }

    #[test]
    fn a_recommendation_to_go_down_waits_for_its_window() {
        let [up, down] = rules(&json!({"scaleDown": {"stabilizationWindowSeconds": 10}}));
        let (mut history, start) = (History::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(history.within(at(0), 5, 5, &up, &down), 5);
        assert_eq!(history.within(at(5), 5, 1, &up, &down), 5);
        assert_eq!(history.within(at(11), 5, 2, &up, &down), 2);
    }

    #[test]
    fn by_default_it_doubles_or_adds_four_in_fifteen_seconds() {
        let [up, down] = rules(&Value::Null);
        let (mut history, start) = (History::default(), Instant::now());
        assert_eq!(history.within(start, 1, 50, &up, &down), 5);
        history.changed(start, 1, 5);
        let soon = start + Duration::from_secs(5);
        assert_eq!(history.within(soon, 5, 50, &up, &down), 5);
        let later = start + Duration::from_secs(16);
        assert_eq!(history.within(later, 5, 50, &up, &down), 10);
    }

    #[test]
    fn a_direction_may_be_switched_off() {
        let [up, down] = rules(&json!({"scaleUp": {"selectPolicy": "Disabled"}}));
        let mut history = History::default();
        assert_eq!(history.within(Instant::now(), 1, 50, &up, &down), 1);
    }
}
