//! Who asked for what, as an API server's authorizer sees it.

use hyper::Request;
use hyper::header::USER_AGENT;

use super::query::Query;
use super::resource::{Resource, Target};

/// One sort of request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Asked {
    /// The client's `User-Agent`; empty for none.
    pub client: String,
    /// As RBAC calls it.
    pub verb: String,
    /// Empty for the core group.
    pub group: String,
    /// In the plural; a whole path for what is no resource.
    pub resource: String,
}

impl Asked {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let path = request.uri().path();
        let target = Target::parse(path);
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let verb = match (request.method().as_str(), &target) {
            ("GET", Some(_)) if query.is_ok_and(|query| query.watch) => "watch",
            ("GET", Some(target)) if target.name.is_none() => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", _) => "delete",
            _ => "get",
        };
        let client = request.headers().get(USER_AGENT);
        let name = match &target {
            // RBAC names a part of an object after both.
            Some(Target {
                resource,
                subresource: Some(part),
                ..
            }) => format!("{}/{}", resource.plural(), part.name()),
            Some(target) => target.resource.plural().to_owned(),
            None => path.to_owned(),
        };
        let resource = target.map(|target| target.resource);
        Self {
            client: client
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            verb: verb.to_owned(),
            group: resource.map_or("", Resource::group).to_owned(),
            resource: name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, path: &str) -> (String, String, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(())
            .unwrap();
        let Asked {
            verb,
            group,
            resource,
            ..
        } = Asked::of(&request);
        (verb, group, resource)
    }

    #[test]
    fn requests_are_told_in_the_words_of_rbac() {
        for (method, path, [verb, group, resource]) in [
            (
                "GET",
                "/api/v1/services?limit=500",
                ["list", "", "services"],
            ),
            ("GET", "/api/v1/nodes?watch=true", ["watch", "", "nodes"]),
            ("GET", "/api/v1/nodes/n1", ["get", "", "nodes"]),
            (
                "PATCH",
                "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/b",
                ["patch", "discovery.k8s.io", "endpointslices"],
            ),
            ("GET", "/api", ["get", "", "/api"]),
        ] {
            assert_eq!(
                asked(method, path),
                (verb.to_owned(), group.to_owned(), resource.to_owned())
            );
        }
    }
}
