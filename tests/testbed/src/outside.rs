//! A client on the far side of a virtual machine's NIC.
//!
//! Tests in the machine ask it, over that NIC, to make requests, and learn what came back. Each question is a line
//! (`tcp 198.51.100.10:30001`), each answer one in the words of [`Answer`].

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::address::{Family, Pair};
use crate::answer::Answer;
use crate::netns::Netns;
use crate::patience::patient;
use crate::sockets::Protocol;
use crate::sockets::client::Dial;

/// The client's addresses; both links are /24 and /64.
pub const CLIENT: Pair = Pair::new([198, 51, 100, 1], [0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 1]);
/// The machine's.
pub const MACHINE: Pair = Pair::new([198, 51, 100, 10], [0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 10]);

const PORT: u16 = 7000;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Answers questions from now on, by requests from `netns`.
pub fn serve(netns: &'static Netns) -> Result<()> {
    let address = SocketAddr::new(CLIENT.of(Family::V4), PORT);
    let listener = netns
        .run(|| TcpListener::bind(address))
        .with_context(|| format!("listening on {address}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                if let Err(error) = answer(netns, stream) {
                    eprintln!("the outside client: {error:#}");
                }
            });
        }
    });
    Ok(())
}

fn answer(netns: &Netns, stream: TcpStream) -> Result<()> {
    let mut replies = stream.try_clone()?;
    for question in BufReader::new(stream).lines() {
        let question = question?;
        let (protocol, target) =
            parse_question(&question).with_context(|| format!("the question {question:?}"))?;
        let answer = Dial::new(netns, protocol, target).ask();
        writeln!(replies, "{}", line(&answer))?;
    }
    Ok(())
}

fn parse_question(question: &str) -> Result<(Protocol, SocketAddr)> {
    let (protocol, target) = question.split_once(' ').context("it has two words")?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => bail!("{other} is no protocol"),
    };
    Ok((protocol, target.parse()?))
}

fn line(answer: &Answer) -> String {
    match answer {
        Answer::Ok { who, client } => format!("ok {who} {client}"),
        Answer::Refused => "refused".to_owned(),
        Answer::Timeout => "timeout".to_owned(),
        Answer::Failed(how) => format!("failed {how}"),
    }
}

fn parse_line(line: &str) -> Result<Answer> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    Ok(match word {
        "ok" => {
            let (who, client) = rest
                .split_once(' ')
                .context("who answered, and whom it saw")?;
            Answer::Ok {
                who: who.to_owned(),
                client: client.parse()?,
            }
        }
        "refused" => Answer::Refused,
        "timeout" => Answer::Timeout,
        "failed" => Answer::Failed(rest.to_owned()),
        other => bail!("{other:?} is no answer"),
    })
}

/// Lets the client make one request; its question goes out of `netns`, where the NIC is.
pub fn ask(netns: &Netns, protocol: Protocol, target: SocketAddr) -> Result<Answer> {
    let address = SocketAddr::new(CLIENT.of(Family::V4), PORT);
    let limit = patient(PATIENCE);
    let mut stream = netns
        .run(|| TcpStream::connect_timeout(&address, limit))
        .with_context(|| format!("reaching the outside client at {address}"))?;
    stream.set_read_timeout(Some(limit))?;
    let word = format!("{protocol:?}").to_lowercase();
    writeln!(stream, "{word} {target}")?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .context("waiting for the outside client's answer")?;
    ensure!(!answer.is_empty(), "the outside client hung up");
    parse_line(answer.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_questions_come_as_they_were_sent() {
        for answer in [
            Answer::Ok {
                who: "p1:8080".to_owned(),
                client: "[2001:db8:64::1]:4242".parse().unwrap(),
            },
            Answer::Refused,
            Answer::Timeout,
            Answer::Failed("no route to host".to_owned()),
        ] {
            assert_eq!(parse_line(&line(&answer)).unwrap(), answer);
        }
        assert_eq!(
            parse_question("udp 198.51.100.10:30001").unwrap(),
            (Protocol::Udp, "198.51.100.10:30001".parse().unwrap())
        );
        parse_question("udp").unwrap_err();
        parse_line("maybe").unwrap_err();
    }
}
