//! A document as pieces: code spans, lines of shell, links.

/// What names something.
#[derive(PartialEq, Debug)]
pub enum Piece {
    /// Between backticks; on one line, however it was broken.
    Code(String),
    /// A command line of a block of shell, without its comment.
    Shell(String),
    /// Where a link leads.
    Link(String),
}

/// The pieces of a text, each with the number of its line.
pub fn pieces(text: &str) -> Vec<(usize, Piece)> {
    let mut pieces = Vec::new();
    // The text without its blocks, line by line the same.
    let mut prose = String::new();
    let mut block: Option<&str> = None;
    let mut begun = String::new();
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        prose.push('\n');
        match (block, trimmed.strip_prefix("```")) {
            (None, Some(language)) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (Some("sh"), None) => {
                begun.push_str(without_comment(trimmed));
                match begun.strip_suffix('\\') {
                    Some(more) => begun = format!("{} ", more.trim_end()),
                    None => pieces.push((number + 1, Piece::Shell(std::mem::take(&mut begun)))),
                }
            }
            (Some(_), None) => {}
            (None, None) => {
                prose.pop();
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    let line_of = |at: usize| prose[..at].matches('\n').count() + 1;
    let mut at = 0;
    while let Some(from) = prose[at..].find('`').map(|from| at + from) {
        let Some(length) = prose[from + 1..].find('`') else {
            break;
        };
        let span = &prose[from + 1..from + 1 + length];
        let words: Vec<_> = span.split_whitespace().collect();
        pieces.push((line_of(from), Piece::Code(words.join(" "))));
        at = from + length + 2;
    }
    for (from, _) in prose.match_indices("](") {
        if let Some(length) = prose[from..].find(')') {
            let target = prose[from + 2..from + length].to_owned();
            pieces.push((line_of(from), Piece::Link(target)));
        }
    }
    pieces
}

fn without_comment(line: &str) -> &str {
    let comment = line
        .match_indices('#')
        .find(|(at, _)| *at == 0 || line[..*at].ends_with(' '));
    line[..comment.map_or(line.len(), |(at, _)| at)].trim_end()
}

#[test]
fn spans_lines_and_links_are_found_with_their_lines() {
    let text =
        "a `b\nc` [d](e.md#f)\n\n```sh\ng --h \\\n  i    # j\n```\n\n```text\n`k`\n```\n`l`\n";
    let expected = [
        (6, Piece::Shell("g --h i".to_owned())),
        (1, Piece::Code("b c".to_owned())),
        (12, Piece::Code("l".to_owned())),
        (2, Piece::Link("e.md#f".to_owned())),
    ];
    assert_eq!(pieces(text), expected);
}
