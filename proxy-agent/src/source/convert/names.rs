//! Names as the API server admits them (k8s.io/apimachinery, `pkg/util/validation`): they end up in logs, on terminals, in
//! metrics and in Events.

use super::{FieldError, Result};

/// A label of DNS (RFC 1123): what namespaces and ports are named by, and Services. (A Service's has to begin with a letter
/// before Kubernetes 1.34; nothing here needs that.)
pub fn label(field: &str, name: &str) -> Result<()> {
    require(
        field,
        name,
        is_label(name),
        "a DNS label (a-z, 0-9 and -, at most 63)",
    )
}

/// Labels with dots between them: what slices and nodes are named by.
pub fn subdomain(field: &str, name: &str) -> Result<()> {
    let good = name.len() <= 253 && name.split('.').all(is_part);
    require(
        field,
        name,
        good,
        "a DNS name (a-z, 0-9, - and ., at most 253)",
    )
}

fn require(field: &str, name: &str, is_good: bool, what: &str) -> Result<()> {
    if is_good {
        return Ok(());
    }
    /// Of a name that may be as long as a file.
    const SHOWN: usize = 64;
    let shown: String = name.chars().take(SHOWN).collect();
    let more = if shown.len() < name.len() { "..." } else { "" };
    Err(FieldError::new(
        field,
        format!("{shown:?}{more} is not {what}"),
    ))
}

fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_part(name)
}

fn is_part(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let outer = |byte: Option<&u8>| byte.is_some_and(|&byte| inner(byte) && byte != b'-');
    let bytes = name.as_bytes();
    outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(|&byte| inner(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_an_api_server_admits() {
        let long = |length| "a".repeat(length);
        for (name, as_label, as_subdomain) in [
            ("web", true, true),
            ("9web-2", true, true),
            ("a.b-c.9", false, true),
            (&*long(63), true, true),
            (&*long(64), false, true),
            (&*long(254), false, false),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("a..b", false, false),
            ("a.-b", false, false),
            ("A", false, false),
            ("a_b", false, false),
            ("a b", false, false),
            ("a/b", false, false),
            ("a\nb", false, false),
            ("a\u{1b}[2J", false, false),
            ("a\u{202e}b", false, false),
            ("caf\u{e9}", false, false),
        ] {
            assert_eq!(label("f", name).is_ok(), as_label, "{name:?}");
            assert_eq!(subdomain("f", name).is_ok(), as_subdomain, "{name:?}");
        }
    }

    #[test]
    fn a_refusal_shows_no_control_character_and_no_whole_file() {
        let error = label("metadata.name", &format!("a\n\u{1b}{}", "b".repeat(1000)));
        let text = error.unwrap_err().to_string();
        assert!(
            text.starts_with("metadata.name: \"a\\n\\u{1b}bbb"),
            "{text}"
        );
        assert!(
            text.len() < 200 && !text.contains(char::is_control),
            "{text}"
        );
    }
}
