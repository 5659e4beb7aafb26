//! One object as an API server sent it, valid or not.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::{model::ObjectName, source::convert::FieldError};

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

impl<'de, K: DeserializeOwned> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
        let mut meta = ObjectMeta::default();
        if let Some(metadata) = metadata {
            // Often the larger half of an object, and of no use here.
            metadata.remove("managedFields");
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

impl<K: Resource<DynamicType = ()>> Resource for Item<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(_: &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        K::plural(&())
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
    use k8s_openapi::api::core::v1::Service;
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
        assert_eq!(service.metadata.managed_fields, None);
        assert_eq!(service.spec.unwrap().ports.unwrap()[0].port, 80);
    }
}
