//! The bytes of one file into objects and problems.
//!
//! In: YAML of any number of documents, or JSON values one after the other; each an object or a `List` of them. Out:
//! [`Contents`]. A file that does not parse is an error as a whole, for nobody can tell what it was going to say; an
//! object that is not valid is a problem of its own.

use std::{ffi::OsStr, fmt, path::Path};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    model::{EndpointSlice, Node, ObjectName, Service},
    source::convert::{self, Converted, FieldError, objects as k8s},
};

/// What one file says.
#[derive(Default, Debug)]
pub struct Contents {
    pub manifests: Vec<Manifest>,
    /// Objects that the file has, but not in a valid form.
    pub invalid: Vec<Key>,
    /// Each names the file, the object and what is wrong.
    pub problems: Vec<String>,
}

/// One valid object.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub place: Place,
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
pub struct Place(String);

/// Reads a file. `file` is its name for problems, `own_node` the Node that counts.
pub fn parse(file: &Path, bytes: &[u8], own_node: &str) -> Result<Contents, String> {
    let documents =
        documents(file, bytes).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut contents = Contents::default();
    for (i, document) in documents.into_iter().enumerate() {
        let place = Place(format!("{}#{}", file.display(), i + 1));
        contents.add(place, document, own_node);
    }
    Ok(contents)
}

fn documents(file: &Path, bytes: &[u8]) -> Result<Vec<Value>, String> {
    if file.extension() == Some(OsStr::new("json")) {
        return serde_json::Deserializer::from_slice(bytes)
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string());
    }
    let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let options = serde_saphyr::options! {
        // As in YAML 1.2: a port may be named `n` or `on`.
        strict_booleans: true,
        with_snippet: false,
        // A cluster's whole export may be one file. The limits on aliases stay: they are what keeps a small file small.
        budget: serde_saphyr::budget! {
            max_documents: 1_000_000,
            max_nodes: 100_000_000,
            max_events: 200_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())
}

impl Contents {
    fn add(&mut self, place: Place, mut value: Value, own_node: &str) {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
        match (version.as_str(), kind.as_str()) {
            ("v1", "Service") => {
                self.object(
                    place,
                    ObjectKind::Service,
                    value,
                    |object: &k8s::Service| Ok(served(convert::service(object)?, Object::Service)),
                );
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                self.object(
                    place,
                    ObjectKind::EndpointSlice,
                    value,
                    |object: &k8s::EndpointSlice| {
                        Ok(served(convert::endpoint_slice(object)?, Object::Slice))
                    },
                );
            }
            ("v1", "Node") => {
                if key(ObjectKind::Node, &value).is_some_and(|key| *key.name.name == *own_node) {
                    self.object(place, ObjectKind::Node, value, |object: &k8s::Node| {
                        Ok(Some(Object::Node(convert::node(object)?)))
                    });
                }
            }
            (_, list) if list.ends_with("List") => {
                let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) else {
                    self.problems
                        .push(format!("{place} {list}: items: is missing"));
                    return;
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
                    self.add(Place(format!("{place}.items[{i}]")), item, own_node);
                }
            }
            ("", _) | (_, "") => {
                let problem = "not a Kubernetes object: apiVersion or kind is missing";
                self.problems.push(format!("{place}: {problem}"));
            }
            _ => tracing::debug!("{place}: ignored, as every {version} {kind} is"),
        }
    }

    fn object<K: DeserializeOwned>(
        &mut self,
        place: Place,
        kind: ObjectKind,
        value: Value,
        convert: impl FnOnce(&K) -> Result<Option<Object>, FieldError>,
    ) {
        let key = key(kind, &value);
        let object = serde_path_to_error::deserialize(value)
            .map_err(|error| FieldError {
                field: error.path().to_string(),
                message: error.inner().to_string(),
            })
            .and_then(|k8s: K| convert(&k8s));
        match (object, key) {
            (Ok(object), Some(key)) => {
                if object.is_none() {
                    tracing::debug!("{place} {key}: not for this proxy");
                }
                self.manifests.push(Manifest { place, key, object });
            }
            (Err(error), Some(key)) => {
                self.problems.push(format!("{place} {key}: {error}"));
                self.invalid.push(key);
            }
            (Err(error), None) => self.problems.push(format!("{place} {kind}: {error}")),
            (Ok(_), None) => unreachable!("an object without a name is not valid"),
        }
    }
}

fn served<T>(converted: Converted<T>, object: impl FnOnce(T) -> Object) -> Option<Object> {
    match converted {
        Converted::Served(inner) => Some(object(inner)),
        Converted::Skipped(_) => None,
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

impl fmt::Display for Place {
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
