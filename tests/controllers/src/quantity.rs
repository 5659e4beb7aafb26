//! Kubernetes' quantities, in thousandths (`k8s.io/apimachinery/pkg/api/resource`).

use anyhow::{Context as _, Result};
use serde_json::Value;

const SUFFIXES: [(&str, f64); 9] = [
    ("m", 1.0),
    ("Ki", 1024.0 * 1e3),
    ("Mi", 1024.0 * 1024.0 * 1e3),
    ("Gi", 1024.0 * 1024.0 * 1024.0 * 1e3),
    ("k", 1e6),
    ("M", 1e9),
    ("G", 1e12),
    ("n", 1e-6),
    ("u", 1e-3),
];

/// `1.5k`, `42500m`, `100` or a number, in thousandths; rounded up, as the API does.
pub fn milli(value: &Value) -> Result<i64> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let split = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (digits, factor) = split.unwrap_or((&text, 1e3));
    let number: f64 = digits
        .parse()
        .with_context(|| format!("{text:?} is no quantity"))?;
    Ok((number * factor).ceil() as i64)
}

/// Thousandths as text: whole where they are, else with the suffix `m`.
pub fn text(milli: i64) -> String {
    if milli % 1000 == 0 {
        (milli / 1000).to_string()
    } else {
        format!("{milli}m")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_read_as_the_api_reads_them() {
        for (written, thousandths) in [
            (json!("100"), 100_000),
            (json!("42500m"), 42_500),
            (json!("1.5k"), 1_500_000),
            (json!("1Ki"), 1_024_000),
            (json!("1500u"), 2),
            (json!(7), 7_000),
        ] {
            assert_eq!(milli(&written).unwrap(), thousandths, "{written}");
        }
        assert!(milli(&json!("many")).is_err());
        assert_eq!([text(42_500), text(3_000)], ["42500m", "3"]);
    }
}
