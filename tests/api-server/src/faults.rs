//! The script language of faults: one a line, `#` begins a comment.
//!
//! ```text
//! cut watch KIND after N events       ends each watch of that kind after N events
//! delay watch KIND DURATION           before each event
//! fail list|page|watch|patch KIND STATUS xN [retry-after SECONDS]   a page is what comes behind a list's first one
//! slow list KIND DURATION per page
//! reorder KIND                        lists backwards
//! duplicate KIND                      every watch event twice
//! malformed KIND/NAMESPACE/NAME       an object whose spec is a text
//! gone                                forgets the history: open watches end with 410
//! silence                             open watches stay open and say nothing more, as where a host is gone without a word
//! refuse for DURATION                 requests get no answer
//! hold patch KIND xN                  N requests are read and not done until `heal`, as where they are late on their way
//! heal                                ends all of the above, but a silence goes on
//! ```
//!
//! KIND is a plural (`services`); DURATION is `200ms` or `2s`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::resource::Resource;
use super::status::Refusal;

/// A line of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    Cut(Resource, usize),
    Delay(Resource, Duration),
    Fail {
        verb: Verb,
        resource: Resource,
        code: u16,
        times: usize,
        retry_after: Option<u64>,
    },
    Slow(Resource, Duration),
    Reorder(Resource),
    Duplicate(Resource),
    Malformed(Resource, String, String),
    Gone,
    Silence,
    Refuse(Duration),
    Hold(Resource, usize),
    Heal,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// The first page of a list.
    List,
    /// Every other one.
    Page,
    Watch,
    /// Of an object or of a part of it.
    Patch,
}

/// Reads a script; an error names the line.
pub fn parse(script: &str) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for (number, line) in script.lines().enumerate() {
        let text = line.split('#').next().unwrap_or_default();
        let words: Vec<_> = text.split_whitespace().collect();
        if !words.is_empty() {
            let fault = parse_line(&words);
            faults.push(fault.with_context(|| format!("line {}: {:?}", number + 1, text.trim()))?);
        }
    }
    Ok(faults)
}

fn parse_line(words: &[&str]) -> Result<Fault> {
    Ok(match *words {
        ["cut", "watch", kind, "after", count, "events" | "event"] => Fault::Cut(
            resource(kind)?,
            count.parse().context("the number of events")?,
        ),
        ["delay", "watch", kind, time] => Fault::Delay(resource(kind)?, duration(time)?),
        ["fail", verb, kind, code, times, ref rest @ ..] => Fault::Fail {
            verb: match verb {
                "list" => Verb::List,
                "page" => Verb::Page,
                "watch" => Verb::Watch,
                "patch" => Verb::Patch,
                _ => bail!("{verb:?} is none of list, page, watch and patch"),
            },
            resource: resource(kind)?,
            code: code
                .parse()
                .ok()
                .filter(|code| (400..600).contains(code))
                .with_context(|| format!("{code:?} is no status between 400 and 599"))?,
            times: times
                .strip_prefix('x')
                .and_then(|times| times.parse().ok())
                .with_context(|| format!("{times:?} is no count like x2"))?,
            retry_after: match *rest {
                [] => None,
                ["retry-after", seconds] => {
                    Some(seconds.parse().context("the seconds of retry-after")?)
                }
                _ => bail!("after the count comes nothing, or retry-after SECONDS"),
            },
        },
        ["slow", "list", kind, time, "per", "page"] => {
            Fault::Slow(resource(kind)?, duration(time)?)
        }
        ["reorder", kind] => Fault::Reorder(resource(kind)?),
        ["duplicate", kind] => Fault::Duplicate(resource(kind)?),
        ["malformed", object] => match object.split('/').collect::<Vec<_>>()[..] {
            [kind, namespace, name] => {
                Fault::Malformed(resource(kind)?, namespace.into(), name.into())
            }
            _ => bail!("{object:?} is not KIND/NAMESPACE/NAME"),
        },
        ["gone"] => Fault::Gone,
        ["silence"] => Fault::Silence,
        ["refuse", "for", time] => Fault::Refuse(duration(time)?),
        ["hold", "patch", kind, times] => Fault::Hold(
            resource(kind)?,
            times
                .strip_prefix('x')
                .and_then(|times| times.parse().ok())
                .with_context(|| format!("{times:?} is no count like x2"))?,
        ),
        ["heal"] => Fault::Heal,
        _ => bail!("no such fault, or a word is missing"),
    })
}

fn resource(plural: &str) -> Result<Resource> {
    Resource::from_plural(plural).with_context(|| format!("{plural:?} is no kind that is served"))
}

fn duration(text: &str) -> Result<Duration> {
    let parsed = match text.strip_suffix("ms") {
        Some(number) => number.parse().map(Duration::from_millis).ok(),
        None => text
            .strip_suffix('s')
            .and_then(|number| number.parse().map(Duration::from_secs).ok()),
    };
    parsed.with_context(|| format!("{text:?} is no duration like 200ms or 2s"))
}

/// The faults that last.
#[derive(Default)]
pub struct Active {
    faults: Vec<Fault>,
    refused_until: Option<Instant>,
    silences: u64,
    held: usize,
}

impl Active {
    pub fn add(&mut self, fault: Fault) {
        match fault {
            Fault::Heal => {
                *self = Self {
                    silences: self.silences,
                    ..Self::default()
                }
            }
            Fault::Silence => self.silences += 1,
            Fault::Refuse(time) => self.refused_until = Some(Instant::now() + time),
            lasting => self.faults.push(lasting),
        }
    }

    pub fn refuses(&self) -> bool {
        self.refused_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// How often silence fell: on the watches that are from before the last time.
    pub fn silences(&self) -> u64 {
        self.silences
    }

    /// The failure of this request, if one is due: it counts as used.
    pub fn take_failure(&mut self, of: Verb, on: Resource) -> Option<Refusal> {
        self.faults.iter_mut().find_map(|fault| match fault {
            Fault::Fail {
                verb,
                resource,
                code,
                times,
                retry_after,
            } if *verb == of && *resource == on && *times > 0 => {
                *times -= 1;
                let refusal = Refusal::new(*code, "a fault of the script");
                Some(Refusal {
                    retry_after: *retry_after,
                    ..refusal
                })
            }
            _ => None,
        })
    }

    /// Is this request to be held up? It counts as held then.
    pub fn holds(&mut self, on: Resource) -> bool {
        let is_held = self.faults.iter_mut().any(|fault| match fault {
            Fault::Hold(resource, times) if *resource == on && *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        });
        self.held += usize::from(is_held);
        is_held
    }

    /// How many requests are held up.
    pub fn held(&self) -> usize {
        self.held
    }

    pub fn cut(&self, on: Resource) -> Option<usize> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Cut(resource, count) if *resource == on => Some(*count),
            _ => None,
        })
    }

    pub fn delay(&self, on: Resource) -> Option<Duration> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Delay(resource, time) if *resource == on => Some(*time),
            _ => None,
        })
    }

    pub fn page_delay(&self, on: Resource) -> Option<Duration> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Slow(resource, time) if *resource == on => Some(*time),
            _ => None,
        })
    }

    pub fn reorders(&self, on: Resource) -> bool {
        self.faults.contains(&Fault::Reorder(on))
    }

    pub fn duplicates(&self, on: Resource) -> bool {
        self.faults.contains(&Fault::Duplicate(on))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_read() {
        let script = "cut watch services after 3 events # a comment\n\ndelay watch endpointslices 200ms\n\
            fail list services 503 x2 retry-after 1\nslow list nodes 50ms per page\nreorder endpointslices\n\
            duplicate services\nmalformed services/default/bad\ngone\nsilence\nrefuse for 2s\nhold patch services x1\nheal";
        let faults = parse(script).unwrap();
        assert_eq!(faults.len(), 12);
        assert_eq!(faults[0], Fault::Cut(Resource::Services, 3));
        assert_eq!(faults[9], Fault::Refuse(Duration::from_secs(2)));
    }

    #[test]
    fn an_error_names_the_line_and_the_word() {
        for (script, line, word) in [
            (
                "gone\ncut watch widgets after 1 events",
                "line 2",
                "widgets",
            ),
            ("refuse for 2h", "line 1", "2h"),
            ("fail get services 503 x1", "line 1", "get"),
            ("fail list services 200 x1", "line 1", "200"),
            ("fail list services 503 2", "line 1", "x2"),
            ("malformed services/bad", "line 1", "KIND/NAMESPACE/NAME"),
            ("explode", "line 1", "no such fault"),
        ] {
            let error = format!("{:#}", parse(script).unwrap_err());
            assert!(error.contains(line) && error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_failure_is_used_up_and_heal_ends_all() {
        let mut active = Active::default();
        for fault in parse("fail list services 429 x1 retry-after 3\nreorder nodes").unwrap() {
            active.add(fault);
        }
        assert_eq!(active.take_failure(Verb::Watch, Resource::Services), None);
        let failure = active.take_failure(Verb::List, Resource::Services).unwrap();
        assert_eq!((failure.code, failure.retry_after), (429, Some(3)));
        assert_eq!(active.take_failure(Verb::List, Resource::Services), None);
        assert!(active.reorders(Resource::Nodes));
        active.add(Fault::Heal);
        assert!(!active.reorders(Resource::Nodes));
    }
}
