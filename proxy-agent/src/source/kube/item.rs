//! One object as an API server sent it, valid or not.
//!
//! Nearly all are valid, and those are read in one go. Only where that fails, the object is taken apart to find out its name
//! and the field that is wrong.

use std::borrow::Cow;

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use crate::{
    model::ObjectName,
    source::convert::{
        FieldError,
        objects::{EndpointSlice, Metadata, Node, Service},
    },
};

/// A kind of object that is listed.
pub trait Listed: DeserializeOwned {
    const KIND: &'static str;
    /// Empty for the core group.
    const GROUP: &'static str;
    const VERSION: &'static str = "v1";
    /// As in a URL.
    const PLURAL: &'static str;

    fn metadata(&mut self) -> &mut Metadata;
}

impl Listed for Service {
    const KIND: &'static str = "Service";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "services";

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

impl Listed for EndpointSlice {
    const KIND: &'static str = "EndpointSlice";
    const GROUP: &'static str = "discovery.k8s.io";
    const PLURAL: &'static str = "endpointslices";

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

impl Listed for Node {
    const KIND: &'static str = "Node";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "nodes";

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

/// An object of kind `K`. One that is not valid has a name still, and does not spoil the list that it is in.
#[derive(Clone, Debug)]
pub struct Item<K> {
    /// Name, namespace and version only.
    meta: ObjectMeta,
    pub object: Result<Box<K>, FieldError>,
}

impl<K> Item<K> {
    /// Namespace (empty for what has none) and name.
    pub fn name(&self) -> ObjectName {
        ObjectName::new(
            self.meta.namespace.as_deref().unwrap_or_default(),
            self.meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl<K> Item<K> {
    /// Its resourceVersion.
    pub fn version(&self) -> &str {
        self.meta.resource_version.as_deref().unwrap_or_default()
    }
}

impl<K: Listed> Item<K> {
    fn valid(mut object: K) -> Self {
        let Metadata {
            name,
            namespace,
            resource_version,
            ..
        } = object.metadata();
        Self {
            meta: ObjectMeta {
                name: name.clone(),
                namespace: namespace.clone(),
                resource_version: resource_version.take(),
                ..ObjectMeta::default()
            },
            object: Ok(Box::new(object)),
        }
    }

    /// Takes JSON apart that is no `K`, or of which that is not known yet.
    fn examined(text: &str) -> serde_json::Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let mut meta = ObjectMeta::default();
        if let Some(metadata) = value.get("metadata").and_then(Value::as_object) {
            let text = |field: &str| Some(metadata.get(field)?.as_str()?.to_owned());
            meta.name = text("name");
            meta.namespace = text("namespace");
            meta.resource_version = text("resourceVersion");
        }
        let object = serde_path_to_error::deserialize(value)
            .map(Box::new)
            .map_err(|error| FieldError {
                field: error.path().to_string(),
                message: error.inner().to_string(),
            });
        Ok(Self { meta, object })
    }
}

impl<'de, K: Listed> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str(text.get()) {
            Ok(object) => Ok(Self::valid(object)),
            Err(_) => Self::examined(text.get()).map_err(serde::de::Error::custom),
        }
    }
}

impl<K: Listed> Resource for Item<K> {
    type DynamicType = ();
    // Of no effect on lists over all namespaces.
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        K::KIND.into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        K::GROUP.into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        K::VERSION.into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        K::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_is_not_valid_has_a_name_and_says_which_field_is_wrong() {
        let value = json!({
            "metadata": {"namespace": "a", "name": "b", "resourceVersion": "7", "managedFields": 3},
            "spec": {"ports": [{"port": "eighty"}]},
        });
        let item: Item<Service> = serde_json::from_value(value).unwrap();
        assert_eq!(item.name(), ObjectName::new("a", "b"));
        assert_eq!(item.meta().resource_version.as_deref(), Some("7"));
        let error = item.object.unwrap_err();
        assert_eq!(error.field, "spec.ports[0].port");
    }

    #[test]
    fn what_else_manages_its_fields_does_not_matter() {
        let value = json!({
            "metadata": {"name": "b", "managedFields": [{"fieldsV1": {"f:spec": {}}}]},
            "spec": {"ports": [{"port": 80}]},
        });
        let item: Item<Service> = serde_json::from_value(value).unwrap();
        let service = item.object.unwrap();
        assert_eq!(service.spec.unwrap().ports.unwrap()[0].port, 80);
    }
}
