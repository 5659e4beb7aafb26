//! An object, and how it reads: it is sent more often than it is written.

use std::ops::Deref;

use hyper::body::Bytes;
use serde_json::Value;

/// An object in one version.
#[derive(Debug)]
pub struct Object {
    value: Value,
    text: Bytes,
}

impl Object {
    pub fn new(value: Value) -> Self {
        Self {
            text: value.to_string().into(),
            value,
        }
    }

    /// As JSON.
    pub fn text(&self) -> &Bytes {
        &self.text
    }
}

impl Deref for Object {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}
