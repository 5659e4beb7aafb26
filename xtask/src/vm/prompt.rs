//! Gives a prompt in a machine: on a terminal, or to commands from a pipe.

use std::{
    io::{self, BufRead, IsTerminal as _, Read, Write},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::console::Guard;
use crate::shell;

/// How the prompts of root end, bash's and busybox's.
const PROMPT: &[u8] = b"# ";
/// On a terminal, the end of the input.
const END: &[u8] = b"\x04";

/// Runs the machine until its user leaves it.
pub fn run(machine: &mut Command) -> anyhow::Result<()> {
    if io::stdin().is_terminal() {
        return shell::run(machine);
    }
    let name = machine.get_program().display().to_string();
    machine.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut machine = Guard::spawn(machine)?;
    let input = machine.0.stdin.take().context("stdin is piped")?;
    let output = machine.0.stdout.take().context("stdout is piped")?;
    give(io::stdin().lock(), input, output, io::stdout().lock())?;
    let status = machine.0.wait()?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}

/// Gives one line of `commands` at each prompt, then the end. A machine that has no prompt yet would lose what comes.
fn give(
    commands: impl BufRead,
    mut input: impl Write,
    mut output: impl Read,
    mut shown: impl Write,
) -> io::Result<()> {
    let mut commands = commands.split(b'\n');
    let mut tail = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let count = output.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        shown.write_all(&bytes[..count])?;
        shown.flush()?;
        tail.extend_from_slice(&bytes[..count]);
        if tail.ends_with(PROMPT) {
            tail.clear();
            match commands.next().transpose()? {
                Some(mut line) => {
                    line.push(b'\n');
                    input.write_all(&line)?;
                }
                None => input.write_all(END)?,
            }
            input.flush()?;
        } else {
            let excess = tail.len().saturating_sub(PROMPT.len());
            tail.drain(..excess);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prompt_gets_a_line_and_the_last_one_the_end() {
        let mut input = Vec::new();
        let mut shown = Vec::new();
        // Byte by byte: a prompt may come in parts.
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                let Some((first, rest)) = self.0.split_first() else {
                    return Ok(0);
                };
                to[0] = *first;
                self.0 = rest;
                Ok(1)
            }
        }
        let said = b"booted\nbash-5.2# 7.2.13\nbash-5.2# 7\nbash-5.2# exit\n";
        give(&b"uname -r\necho 7"[..], &mut input, Slow(said), &mut shown).unwrap();
        assert_eq!(input, b"uname -r\necho 7\n\x04");
        assert_eq!(shown, said);
    }
}
