//! Bodies in protobuf: `kubectl create` sends them, and does not try JSON where they are refused. Of each kind the fields that
//! the command fills in are read, into the same JSON. Field numbers are those of the API's `generated.proto`.

use serde_json::{Map, Value, json};

use super::status::Refusal;

/// What every body begins with (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`).
const MAGIC: &[u8] = b"k8s\0";

enum Kind {
    Text,
    Number,
    Switch,
    /// A map of texts.
    Labels,
    Message(&'static [Field]),
    Messages(&'static [Field]),
}

/// A field's number, its name and what it is.
type Field = (u64, &'static str, Kind);

const META: &[Field] = &[
    (1, "name", Kind::Text),
    (3, "namespace", Kind::Text),
    (11, "labels", Kind::Labels),
    (12, "annotations", Kind::Labels),
];

const CONTAINER: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "image", Kind::Text),
    (
        6,
        "ports",
        Kind::Messages(&[
            (1, "name", Kind::Text),
            (3, "containerPort", Kind::Number),
            (4, "protocol", Kind::Text),
        ]),
    ),
];

const POD: &[Field] = &[
    (2, "containers", Kind::Messages(CONTAINER)),
    (4, "terminationGracePeriodSeconds", Kind::Number),
];

const DEPLOYMENT: &[Field] = &[
    (1, "metadata", Kind::Message(META)),
    (
        2,
        "spec",
        Kind::Message(&[
            (1, "replicas", Kind::Number),
            (
                2,
                "selector",
                Kind::Message(&[(1, "matchLabels", Kind::Labels)]),
            ),
            (
                3,
                "template",
                Kind::Message(&[
                    (1, "metadata", Kind::Message(META)),
                    (2, "spec", Kind::Message(POD)),
                ]),
            ),
            (7, "paused", Kind::Switch),
        ]),
    ),
];

const NAMESPACE: &[Field] = &[(1, "metadata", Kind::Message(META))];

/// The object in a body.
pub fn read(body: &[u8]) -> Result<Value, Refusal> {
    object(body)
        .ok_or_else(|| Refusal::new(400, "the body: no protobuf of a kind that is read here"))
}

fn object(body: &[u8]) -> Option<Value> {
    let (mut kind, mut version, mut raw) = (String::new(), String::new(), None);
    for (number, value) in fields(body.strip_prefix(MAGIC)?)? {
        match (number, value) {
            (1, Wire::Bytes(types)) => {
                for (number, value) in fields(types)? {
                    match (number, value) {
                        (1, Wire::Bytes(text)) => version = text_of(text)?,
                        (2, Wire::Bytes(text)) => kind = text_of(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(object)) => raw = Some(object),
            _ => {}
        }
    }
    let schema = match (version.as_str(), kind.as_str()) {
        ("apps/v1", "Deployment") => DEPLOYMENT,
        ("v1", "Namespace") => NAMESPACE,
        _ => return None,
    };
    let mut object = message(raw?, schema)?;
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    Some(object)
}

fn message(bytes: &[u8], schema: &[Field]) -> Option<Value> {
    let mut read = Map::new();
    for (number, value) in fields(bytes)? {
        let Some((_, name, kind)) = schema.iter().find(|(one, ..)| *one == number) else {
            continue;
        };
        let name = (*name).to_owned();
        match (kind, value) {
            // An empty text is one that was not given.
            (Kind::Text, Wire::Bytes([])) => {}
            (Kind::Text, Wire::Bytes(text)) => drop(read.insert(name, text_of(text)?.into())),
            (Kind::Number, Wire::Number(number)) => drop(read.insert(name, number.into())),
            (Kind::Switch, Wire::Number(number)) => drop(read.insert(name, (number != 0).into())),
            (Kind::Message(schema), Wire::Bytes(inner)) => {
                drop(read.insert(name, message(inner, schema)?));
            }
            (Kind::Messages(schema), Wire::Bytes(inner)) => {
                let all = read.entry(name).or_insert_with(|| json!([]));
                all.as_array_mut()?.push(message(inner, schema)?);
            }
            (Kind::Labels, Wire::Bytes(pair)) => {
                let (mut key, mut value) = (String::new(), String::new());
                for (number, part) in fields(pair)? {
                    match (number, part) {
                        (1, Wire::Bytes(text)) => key = text_of(text)?,
                        (2, Wire::Bytes(text)) => value = text_of(text)?,
                        _ => return None,
                    }
                }
                let labels = read.entry(name).or_insert_with(|| json!({}));
                labels.as_object_mut()?.insert(key, value.into());
            }
            _ => return None,
        }
    }
    Some(Value::Object(read))
}

/// A field as it is on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Wire<'_>)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Wire::Bytes(value)
            }
            _ => return None,
        };
        all.push((tag >> 3, value));
    }
    Some(all)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn text_of(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, inner: &[u8]) -> Vec<u8> {
        let mut all = vec![number << 3 | 2, u8::try_from(inner.len()).unwrap()];
        all.extend(inner);
        all
    }

    #[test]
    fn a_deployment_reads_as_its_json() {
        let labels = field(1, &[field(1, b"app"), field(2, b"web")].concat());
        let spec = [vec![1 << 3, 2], field(2, &labels)].concat();
        let object = [field(1, &field(1, b"web")), field(2, &spec)].concat();
        let types = [field(1, b"apps/v1"), field(2, b"Deployment")].concat();
        let body = [MAGIC, &field(1, &types), &field(2, &object)].concat();
        assert_eq!(
            read(&body).unwrap(),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}}})
        );
    }

    #[test]
    fn a_body_that_is_cut_off_is_refused() {
        let body = [MAGIC, &field(1, b"\x0a\x20short")].concat();
        assert_eq!(read(&body).unwrap_err().code, 400);
        assert_eq!(read(b"k8s").unwrap_err().code, 400);
    }
}
