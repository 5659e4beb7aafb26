//! The bytes of a YAML file into its documents.
//!
//! A line that begins with `---` begins a document, wherever it stands (YAML 1.2, 9.1.2). So a document that is not valid
//! YAML, or not UTF-8, costs itself, and those around it are read. Scalars are taken as `kubectl` takes them where the two
//! versions of YAML differ: `0120` is octal, a number without a fraction is whole, and `on` is a name.

use std::borrow::Cow;

use serde_json::Value;

/// All documents in turn; those that are empty are left out.
pub fn documents(bytes: &[u8]) -> impl Iterator<Item = Result<Value, String>> {
    Chunks {
        rest: bytes,
        line: 0,
    }
    .flat_map(|chunk| match chunk.parse() {
        Ok(values) => values.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    })
}

const ADVICE: &str = ", set DuplicateKeyPolicy in Options if acceptable";

/// What stands between two lines that begin documents.
struct Chunk<'a> {
    bytes: &'a [u8],
    /// Lines of the file before it.
    line: usize,
}

struct Chunks<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut end = 0;
        let mut has_content = false;
        for line in self.rest.split_inclusive(|&byte| byte == b'\n') {
            // What only comments and directives come before belongs to them.
            if begins_document(line) && has_content {
                break;
            }
            has_content |= begins_document(line) || is_content(line);
            end += line.len();
        }
        let (bytes, rest) = self.rest.split_at(end);
        let chunk = Chunk {
            bytes,
            line: self.line,
        };
        self.rest = rest;
        self.line += bytes.iter().filter(|&&byte| byte == b'\n').count();
        Some(chunk)
    }
}

fn begins_document(line: &[u8]) -> bool {
    let after = line.strip_prefix(b"---");
    after.is_some_and(|after| after.first().is_none_or(u8::is_ascii_whitespace))
}

fn is_content(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    !line.is_empty() && !line.starts_with(b"#") && !line.starts_with(b"%")
}

impl Chunk<'_> {
    fn parse(&self) -> Result<Vec<Value>, String> {
        let text = self.text()?;
        let options = serde_saphyr::options! {
            // As in YAML 1.2: a port may be named `n` or `on`.
            strict_booleans: true,
            legacy_octal_numbers: true,
            with_snippet: false,
            // A cluster's whole export may be one document. The limits on aliases stay: they are what keeps a small file
            // small. Deeper than this no Kubernetes object is, and recursion needs its stack.
            budget: serde_saphyr::budget! {
                max_documents: 1_000_000,
                max_nodes: 8_000_000,
                max_events: 16_000_000,
                max_total_scalar_bytes: 1 << 30,
                max_depth: 100,
            },
        };
        let parsed = serde_saphyr::from_multiple_with_options::<Value>(&text, options);
        let mut values = parsed.map_err(|error| {
            // Advice to programmers is no help here.
            let text = error.to_string().replace(ADVICE, "");
            lines_moved(&text, self.line)
        })?;
        values.iter_mut().for_each(whole_numbers);
        Ok(values)
    }

    fn text(&self) -> Result<Cow<'_, str>, String> {
        match str::from_utf8(self.bytes) {
            Ok(text) => Ok(text.into()),
            Err(error) => {
                let good = &self.bytes[..error.valid_up_to()];
                let lines = good.iter().filter(|&&byte| byte == b'\n').count();
                let line = self.line + lines + 1;
                Err(format!(
                    "line {line} is not UTF-8, which manifests have to be"
                ))
            }
        }
    }
}

/// The message with its lines counted in the file, not in the document.
fn lines_moved(message: &str, by: usize) -> String {
    let mut moved = String::new();
    let mut rest = message;
    while let Some(at) = rest.find("line ") {
        let (before, after) = rest.split_at(at + "line ".len());
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = after.split_at(digits);
        moved.push_str(before);
        match number.parse::<usize>() {
            Ok(line) => moved.push_str(&(line + by).to_string()),
            Err(_) => moved.push_str(number),
        }
        rest = after;
    }
    moved + rest
}

/// JSON has one sort of numbers: to an API server, `80.0` is a port.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            /// Up to here a float has each whole number.
            const EXACT: f64 = (1_u64 << 53) as f64;
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.fract() == 0.0
                && float.abs() <= EXACT
            {
                *number = (float as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
