//! Text of others, as it may stand in a log or on a terminal.
//!
//! The one rule: what an object says of itself never moves the cursor, begins a line, or turns what stands beside it around.
//! Characters that do are written as JSON escapes them (`\u001b`), so that documents stay what they are.

use std::{borrow::Cow, fmt};

/// `text` in one line.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            char if is_active(char) => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            char => out.push(char),
        }
    }
    out.into()
}

/// The same for each line of `text`.
pub fn plain_lines(text: &str) -> Cow<'_, str> {
    if !text.contains(|char| char != '\n' && is_active(char)) {
        return text.into();
    }
    let lines: Vec<_> = text.split('\n').map(plain).collect();
    lines.join("\n").into()
}

/// Does it do more than stand there? Controls (C0, DEL, C1), ends of lines and paragraphs, and what has no width, turns
/// the direction of writing or hides (Unicode's `Bidi_Control` and `Default_Ignorable_Code_Point`).
fn is_active(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Writes to `to` what is written to it, in one line.
pub struct Plain<W>(pub W);

impl<W: fmt::Write> fmt::Write for Plain<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&plain(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_active_is_escaped_and_the_rest_is_left() {
        for (text, shown) in [
            ("np-svc", "np-svc"),
            ("caf\u{e9} \u{65e5}\u{672c}", "caf\u{e9} \u{65e5}\u{672c}"),
            ("a\nb\tc\r", "a\\nb\\tc\\u000d"),
            ("\u{1b}[2J\u{9b}1m\u{7f}", "\\u001b[2J\\u009b1m\\u007f"),
            ("a\u{202e}b\u{2028}c\u{200b}", "a\\u202eb\\u2028c\\u200b"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(plain(text), shown, "{text:?}");
        }
    }

    #[test]
    fn lines_stay_lines_and_json_stays_json() {
        assert_eq!(plain_lines("a\u{1b}\nb\n"), "a\\u001b\nb\n");
        let text = serde_json::json!({"name": "a\u{7f}\u{202e}\u{e0041}"}).to_string();
        let shown = plain_lines(&text).into_owned();
        assert_ne!(shown, text);
        let same = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(same(&shown), same(&text));
    }
}
