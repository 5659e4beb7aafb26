//! A dump of the rules -> the edit that takes kube-proxy's out.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::owned;

/// An edit of all tables of one dump.
#[derive(Default, Debug)]
pub struct Plan {
    /// What `iptables-restore --noflush` takes; empty where there is nothing to do.
    pub restore: String,
    /// Of the tables that are edited.
    pub tables: Vec<Edited>,
}

#[derive(PartialEq, Eq, Debug)]
pub struct Edited {
    pub name: String,
    /// Rules of built-in chains that lead into kube-proxy's.
    pub jumps: usize,
    /// Chains of kube-proxy that go.
    pub chains: usize,
    /// Chains of kube-proxy that stay, as chains of others lead there.
    pub kept: Vec<String>,
}

/// One table of a dump, its lines borrowed.
#[derive(Default)]
struct Table<'a> {
    name: &'a str,
    /// Chains with a policy: the kernel calls those.
    built_in: BTreeSet<&'a str>,
    /// kube-proxy's chains.
    owned: BTreeSet<&'a str>,
    rules: Vec<Rule<'a>>,
}

struct Rule<'a> {
    chain: &'a str,
    /// The line after `-A `.
    text: &'a str,
    /// The chain that it jumps or goes to, or another target.
    target: Option<&'a str>,
}

/// What to feed to `iptables-restore --noflush` so that the chains of kube-proxy and the way into them are gone. `dump`
/// is what `iptables-save` (or `ip6tables-save`) prints, without counters.
pub fn plan(dump: &str) -> Plan {
    let mut plan = Plan::default();
    for table in tables(dump) {
        table.edit(&mut plan);
    }
    plan
}

fn tables(dump: &str) -> Vec<Table<'_>> {
    let mut tables: Vec<Table<'_>> = Vec::new();
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table {
                name,
                ..Table::default()
            });
        }
        let Some(table) = tables.last_mut() else {
            continue;
        };
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else {
                continue;
            };
            if policy != "-" {
                table.built_in.insert(name);
            } else if owned::is_chain(name) {
                table.owned.insert(name);
            }
        } else if let Some(text) = line.strip_prefix("-A ") {
            table.rules.extend(rule(text));
        }
    }
    tables
}

fn rule(text: &str) -> Option<Rule<'_>> {
    let words = words(text);
    let jump = words.iter().position(|word| ["-j", "-g"].contains(word));
    Some(Rule {
        chain: words.first()?,
        text,
        target: jump.and_then(|at| words.get(at + 1).copied()),
    })
}

/// Splits at blanks, but not within double quotes, where a backslash takes the next character as it is. Quotes stay: no
/// chain's name and no option has any.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut start) = (Vec::new(), None);
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b' ' if !quoted => {
                words.extend(start.take().map(|start| &text[start..at]));
                continue;
            }
            _ => {}
        }
        start.get_or_insert(at);
    }
    words.extend(start.map(|start| &text[start..]));
    words
}

impl<'a> Table<'a> {
    fn edit(&self, plan: &mut Plan) {
        let kept = self.kept();
        let gone: Vec<_> = self.owned.difference(&kept).collect();
        // The way in from the kernel goes also where a chain stays for its other users, but for masquerading.
        let jumps: Vec<_> = self
            .rules
            .iter()
            .filter(|rule| self.built_in.contains(rule.chain))
            .filter(|rule| {
                rule.target.is_some_and(|to| {
                    self.owned.contains(to) && !(to == owned::MASQUERADING && kept.contains(to))
                })
            })
            .collect();
        if gone.is_empty() && jumps.is_empty() {
            return;
        }
        let text = &mut plan.restore;
        // Writing to a String cannot fail. With --noflush, declaring a chain empties it.
        let _ = writeln!(text, "*{}", self.name);
        for chain in &gone {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for jump in &jumps {
            let _ = writeln!(text, "-D {}", jump.text);
        }
        for chain in &gone {
            let _ = writeln!(text, "-X {chain}");
        }
        let _ = writeln!(text, "COMMIT");
        plan.tables.push(Edited {
            name: self.name.to_owned(),
            jumps: jumps.len(),
            chains: gone.len(),
            kept: kept.iter().map(ToString::to_string).collect(),
        });
    }

    /// kube-proxy's chains that a chain of somebody else leads to, and what they lead to in turn.
    fn kept(&self) -> BTreeSet<&'a str> {
        let mut kept = BTreeSet::new();
        loop {
            let before = kept.len();
            for rule in &self.rules {
                let others =
                    !self.built_in.contains(rule.chain) && !self.owned.contains(rule.chain);
                if others || kept.contains(rule.chain) {
                    kept.extend(rule.target.and_then(|to| self.owned.get(to)));
                }
            }
            if kept.contains(owned::MARKING) {
                kept.extend(self.owned.get(owned::MASQUERADING));
            }
            if kept.len() == before {
                return kept;
            }
        }
    }
}
