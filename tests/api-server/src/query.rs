//! The parameters of a list or a watch (`metav1.ListOptions`).

use std::time::Duration;

use serde_json::Value;

use super::resource::Target;
use super::selector::Selector;
use super::status::Refusal;
use super::store::Key;

#[derive(Default)]
pub struct Query {
    pub watch: bool,
    pub limit: Option<usize>,
    pub timeout: Option<Duration>,
    pub bookmarks: bool,
    pub initial_events: bool,
    /// For a deletion, in seconds.
    pub grace: Option<u64>,
    continue_token: String,
    version: String,
    version_match: String,
    selects_all: bool,
    selector: Selector,
}

impl Query {
    pub fn parse(query: &str) -> Result<Self, Refusal> {
        let mut parsed = Self::default();
        let (mut labels, mut fields) = (String::new(), String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let yes = matches!(&*value, "true" | "1");
            match &*name {
                "watch" => parsed.watch = yes,
                "limit" => {
                    parsed.limit = Some(number(&name, &value)? as usize).filter(|one| *one > 0)
                }
                "timeoutSeconds" => {
                    parsed.timeout = Some(Duration::from_secs(number(&name, &value)?))
                }
                "allowWatchBookmarks" => parsed.bookmarks = yes,
                "sendInitialEvents" => parsed.initial_events = yes,
                "gracePeriodSeconds" => parsed.grace = Some(number(&name, &value)?),
                "continue" => parsed.continue_token = value.into_owned(),
                "resourceVersion" => parsed.version = value.into_owned(),
                "resourceVersionMatch" => parsed.version_match = value.into_owned(),
                "labelSelector" => labels = value.into_owned(),
                "fieldSelector" => fields = value.into_owned(),
                _ => {}
            }
        }
        if parsed.initial_events && parsed.version_match != "NotOlderThan" {
            return Err(Refusal::new(
                422,
                "sendInitialEvents: resourceVersionMatch has to be NotOlderThan",
            ));
        }
        parsed.selects_all = labels.is_empty() && fields.is_empty();
        parsed.selector = Selector::parse(&labels, &fields)?;
        Ok(parsed)
    }

    pub fn continue_token(&self) -> Option<&str> {
        (!self.continue_token.is_empty()).then_some(self.continue_token.as_str())
    }

    /// The version of resourceVersion; nothing for none and for 0, which is any.
    pub fn since(&self) -> Result<Option<u64>, Refusal> {
        match self.version.as_str() {
            "" | "0" => Ok(None),
            version => number("resourceVersion", version).map(Some),
        }
    }

    /// The version that a list has to be of, where `Exact` asks for one. One of the future is refused.
    pub fn exact_version(&self, last: u64) -> Result<Option<u64>, Refusal> {
        let version = self.since()?;
        if version.is_some_and(|version| version > last) {
            return Err(Refusal::new(500, "Too large resource version"));
        }
        match self.version_match.as_str() {
            "Exact" => Ok(version),
            "" | "NotOlderThan" => Ok(None),
            other => Err(Refusal::new(
                422,
                format!("resourceVersionMatch: {other:?} is unknown"),
            )),
        }
    }

    pub fn selects_all(&self) -> bool {
        self.selects_all
    }

    pub fn fits(&self, target: &Target, key: &Key, object: &Value) -> bool {
        target
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == key.0)
            && target.name.as_ref().is_none_or(|name| *name == key.1)
            && self.selector.matches(object)
    }
}

fn number(name: &str, value: &str) -> Result<u64, Refusal> {
    value
        .parse()
        .map_err(|_| Refusal::new(400, format!("{name}: {value:?} is no number")))
}
