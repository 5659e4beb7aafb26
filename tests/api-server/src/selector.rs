//! Label and field selectors, as in `k8s.io/apimachinery/pkg/labels` and `pkg/fields`.

use serde_json::Value;

use super::status::Refusal;

/// Both selectors of a request; an object has to meet every requirement.
#[derive(Clone, Default, Debug)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Selector {
    pub fn parse(labels: &str, fields: &str) -> Result<Self, Refusal> {
        let selector = Self {
            labels: requirements(labels, "labelSelector")?,
            fields: requirements(fields, "fieldSelector")?,
        };
        let unknown = selector.fields.iter().find(|one| {
            !matches!(one, Requirement::In(key, _) | Requirement::NotIn(key, _)
                if matches!(key.as_str(), "metadata.name" | "metadata.namespace"))
        });
        match unknown {
            Some(one) => Err(Refusal::new(
                400,
                format!(
                    "fieldSelector {one:?}: only metadata.name and metadata.namespace with a value are selected by"
                ),
            )),
            None => Ok(selector),
        }
    }

    pub fn matches(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        self.labels
            .iter()
            .all(|one| one.holds(|key| metadata["labels"][key].as_str()))
            && self
                .fields
                .iter()
                .all(|one| one.holds(|key| metadata[key.trim_start_matches("metadata.")].as_str()))
    }
}

impl Requirement {
    fn holds<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Exists(key) => value_of(key).is_some(),
            Self::Absent(key) => value_of(key).is_none(),
            Self::In(key, values) => {
                value_of(key).is_some_and(|value| values.iter().any(|one| one == value))
            }
            // An object without the key meets it, too.
            Self::NotIn(key, values) => {
                !value_of(key).is_some_and(|value| values.iter().any(|one| one == value))
            }
        }
    }
}

fn requirements(text: &str, parameter: &str) -> Result<Vec<Requirement>, Refusal> {
    split_outside_brackets(text)
        .into_iter()
        .map(str::trim)
        .filter(|one| !one.is_empty())
        .map(|one| {
            requirement(one)
                .ok_or_else(|| Refusal::new(400, format!("{parameter}: cannot read {one:?}")))
        })
        .collect()
}

fn requirement(text: &str) -> Option<Requirement> {
    let one = |key: &str, value: &str| (key.trim().to_owned(), vec![value.trim().to_owned()]);
    if let Some((key, value)) = text.split_once("!=") {
        let (key, values) = one(key, value);
        return Some(Requirement::NotIn(key, values));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        let (key, values) = one(key, value);
        return Some(Requirement::In(key, values));
    }
    if let Some(list) = text.strip_suffix(')') {
        let (head, values) = list.split_once('(')?;
        let values = values.split(',').map(|one| one.trim().to_owned()).collect();
        let (key, operator) = head.trim().split_once(' ')?;
        return match operator.trim() {
            "in" => Some(Requirement::In(key.to_owned(), values)),
            "notin" => Some(Requirement::NotIn(key.to_owned(), values)),
            _ => None,
        };
    }
    let (key, make): (_, fn(String) -> Requirement) = match text.strip_prefix('!') {
        Some(key) => (key.trim(), Requirement::Absent),
        None => (text, Requirement::Exists),
    };
    (!key.is_empty() && !key.contains([' ', '(', '!'])).then(|| make(key.to_owned()))
}

fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(labels: &str, fields: &str) -> bool {
        let object = json!({"metadata": {"name": "web", "labels": {"app": "web", "k8s.io/x": ""}}});
        Selector::parse(labels, fields).unwrap().matches(&object)
    }

    #[test]
    fn label_requirements_are_all_to_be_met() {
        for yes in [
            "",
            "app",
            "app=web",
            "app==web,k8s.io/x",
            "!other",
            "app in (a, web),app",
            "no notin (a)",
            "no!=a",
        ] {
            assert!(selects(yes, ""), "{yes}");
        }
        for no in [
            "!app",
            "app!=web",
            "app=a",
            "app,other",
            "app notin (web)",
            "no in (a,b)",
        ] {
            assert!(!selects(no, ""), "{no}");
        }
    }

    #[test]
    fn fields_are_the_name_and_the_namespace() {
        assert!(selects("", "metadata.name=web"));
        assert!(!selects("", "metadata.name=other"));
        assert_eq!(Selector::parse("", "spec.type=x").unwrap_err().code, 400);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in ["a b", "a of (b)", "!"] {
            assert_eq!(Selector::parse(bad, "").unwrap_err().code, 400, "{bad}");
        }
    }
}
