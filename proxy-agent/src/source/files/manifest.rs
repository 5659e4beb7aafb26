//! The bytes of one file into objects and problems.
//!
//! In: YAML of any number of documents, or JSON values one after the other; each an object or a `List` of them. Out:
//! [`Contents`]. A document that does not parse, and an object that is not valid, is a problem of its own.

use std::{ffi::OsStr, fmt, path::Path};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::yaml;
use crate::{
    model::{EndpointSlice, Node, ObjectName, Service},
    source::convert::{self, Converted, FieldError, objects as k8s},
};

/// What one file says.
#[derive(Debug)]
pub struct Contents {
    pub manifests: Vec<Manifest>,
    /// Objects that the file has, but not in a valid form, each with what is wrong.
    pub invalid: Vec<(Key, String)>,
    /// Each names the file, the object and what is wrong.
    pub problems: Vec<String>,
    /// The same of objects that are valid and of no use here, though somebody may believe so.
    pub notes: Vec<String>,
    /// Could every document be read? If not, nobody can tell what the file was going to say.
    pub is_whole: bool,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            manifests: Vec::new(),
            invalid: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
            is_whole: true,
        }
    }
}

/// One valid object.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub position: Position,
    pub key: Key,
    /// `None` for one that is not for this proxy. Its name is taken all the same.
    pub object: Option<Object>,
}

/// What makes two manifests the same object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    pub kind: ObjectKind,
    pub name: ObjectName,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ObjectKind {
    Node,
    Service,
    EndpointSlice,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    Node(Node),
    Service(Service),
    Slice(EndpointSlice),
}

/// Where an object stands: `dir/svc.yaml#2`, or in a list `dir/svc.yaml#2.items[0]`. Documents count from 1, those that
/// are empty do not count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position(String);

/// Reads a file. `file` is its name for problems, `own_node` the Node that counts.
pub fn parse(file: &Path, bytes: &[u8], own_node: &str) -> Contents {
    let mut contents = Contents::default();
    let mut add = |i: usize, document: Result<Value, String>| {
        let position = Position(format!("{}#{}", file.display(), i + 1));
        match document {
            Ok(value) => contents.add(position, value, own_node),
            Err(error) => {
                contents.problems.push(format!("{position}: {error}"));
                contents.is_whole = false;
            }
        }
    };
    if file.extension() == Some(OsStr::new("json")) {
        // Behind an error nobody can tell where the next value begins.
        let values = serde_json::Deserializer::from_slice(bytes).into_iter();
        let values = values.map(|value| value.map_err(|error| error.to_string()));
        values.enumerate().for_each(|(i, value)| add(i, value));
    } else {
        let documents = yaml::documents(bytes);
        documents.enumerate().for_each(|(i, value)| add(i, value));
    }
    contents
}

impl Contents {
    fn add(&mut self, position: Position, mut value: Value, own_node: &str) {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
        match (version.as_str(), kind.as_str()) {
            ("v1", "Service") => {
                self.object(
                    position,
                    ObjectKind::Service,
                    value,
                    |object: &k8s::Service| Ok(convert::service(object)?.map(Object::Service)),
                );
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                self.object(
                    position,
                    ObjectKind::EndpointSlice,
                    value,
                    |object: &k8s::EndpointSlice| {
                        Ok(convert::endpoint_slice(object)?.map(Object::Slice))
                    },
                );
            }
            ("v1", "Node") => {
                if key(ObjectKind::Node, &value).is_some_and(|key| *key.name.name == *own_node) {
                    self.object(position, ObjectKind::Node, value, |object: &k8s::Node| {
                        Ok(Converted::Served(Object::Node(convert::node(object)?)))
                    });
                }
            }
            (_, list) if list.ends_with("List") => {
                let items = match value.get_mut("items").map(Value::take) {
                    Some(Value::Array(items)) => items,
                    // As to an API server: one without items.
                    None | Some(Value::Null) => Vec::new(),
                    Some(_) => {
                        self.problems
                            .push(format!("{position} {list}: items: is not a list"));
                        return;
                    }
                };
                let item_kind = list.trim_end_matches("List");
                for (i, mut item) in items.into_iter().enumerate() {
                    if let Value::Object(fields) = &mut item
                        && !item_kind.is_empty()
                    {
                        // A list of one kind need not repeat it in its items.
                        fields.entry("apiVersion").or_insert(version.clone().into());
                        fields.entry("kind").or_insert(item_kind.into());
                    }
                    self.add(Position(format!("{position}.items[{i}]")), item, own_node);
                }
            }
            ("", _) | (_, "") => {
                let problem = match value {
                    Value::Array(_) => "not a Kubernetes object: a list has kind List, and items",
                    _ => "not a Kubernetes object: apiVersion or kind is missing",
                };
                self.problems.push(format!("{position}: {problem}"));
            }
            _ => match instead(&version, &kind) {
                Some(instead) => {
                    let name = named(&value, &kind);
                    self.notes.push(format!(
                        "{position} {name}: apiVersion: {version} is not read: {instead}"
                    ));
                }
                None => tracing::debug!("{position}: ignored, as every {version} {kind} is"),
            },
        }
    }

    fn object<K: DeserializeOwned>(
        &mut self,
        position: Position,
        kind: ObjectKind,
        value: Value,
        convert: impl FnOnce(&K) -> Result<Converted<Object>, FieldError>,
    ) {
        let key = key(kind, &value);
        let object = serde_path_to_error::deserialize(value)
            .map_err(|error| FieldError {
                field: error.path().to_string(),
                message: error.inner().to_string(),
            })
            .and_then(|k8s: K| convert(&k8s));
        match (object, key) {
            (Ok(converted), Some(key)) => {
                let object = match converted {
                    Converted::Served(object) => Some(object),
                    Converted::Skipped(skip) => {
                        if skip.is_surprising {
                            self.notes.push(format!("{position} {key}: {skip}"));
                        }
                        None
                    }
                };
                self.manifests.push(Manifest {
                    position,
                    key,
                    object,
                });
            }
            (Err(error), Some(key)) => {
                self.problems.push(format!("{position} {key}: {error}"));
                self.invalid.push((key, format!("{position}: {error}")));
            }
            (Err(error), None) => self.problems.push(format!("{position} {kind}: {error}")),
            (Ok(_), None) => unreachable!("an object without a name is not valid"),
        }
    }
}

/// What is read in place of objects of this version and kind, where their author may have meant that they are.
fn instead(version: &str, kind: &str) -> Option<&'static str> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    // Other people's kinds may have the same names.
    if !group.is_empty() && group.contains('.') && !group.ends_with(".k8s.io") {
        return None;
    }
    match kind {
        "Endpoints" => Some("endpoints are read from EndpointSlices (discovery.k8s.io/v1)"),
        "EndpointSlice" => Some("EndpointSlices are read as discovery.k8s.io/v1"),
        "Service" => Some("Services are read as v1"),
        "Node" => Some("Nodes are read as v1"),
        _ => None,
    }
}

/// The kind, and the name as far as there is one.
fn named(value: &Value, kind: &str) -> String {
    let text = |field: &str| value.get("metadata")?.get(field)?.as_str();
    match text("name") {
        Some(name) => format!("{kind} {}/{name}", text("namespace").unwrap_or("default")),
        None => kind.to_owned(),
    }
}

/// The identity of an object, be it valid or not.
fn key(kind: ObjectKind, value: &Value) -> Option<Key> {
    let text = |field: &str| {
        let text = value.get("metadata")?.get(field)?.as_str()?;
        Some(text).filter(|text| !text.is_empty())
    };
    let namespace = match kind {
        ObjectKind::Node => "",
        ObjectKind::Service | ObjectKind::EndpointSlice => text("namespace").unwrap_or("default"),
    };
    Some(Key {
        kind,
        name: ObjectName::new(namespace, text("name")?),
    })
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ObjectKind::Node => write!(f, "Node {}", self.name.name),
            kind => write!(f, "{kind} {}", self.name),
        }
    }
}
