//! Every answer of every story is held against the OpenAPI document: a status or a form that is not
//! described fails the story that met it.

use std::sync::LazyLock;

use serde_json::Value;
use tollgate::control::openapi_json;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(&openapi_json().unwrap()).unwrap());

/// Fails where the answer to a described call is not described. A path that a route may claim, and
/// methods beyond those described, are nobody's promise.
pub(super) fn hold((method, path): &(String, String), answer: &reqwest::Response) {
    let Some(operation) = described(&method.to_lowercase(), path) else { return };
    let status = answer.status().as_str().to_owned();
    let responses = &operation["responses"];
    let known =
        responses.get(&status).unwrap_or_else(|| panic!("{method} {path} answers {status}, undescribed"));
    let known = match known["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(),
        None => known,
    };
    let kind = answer.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap());
    let kind = kind.split(';').next().unwrap();
    let content = known["content"].as_object();
    assert!(
        content.map_or(kind.is_empty(), |content| content.contains_key(kind)),
        "{method} {path} answers {status} as {kind:?}, undescribed"
    );
}

fn described(method: &str, path: &str) -> Option<&'static Value> {
    let fits = |template: &str| {
        template != "/"
            && template.split('/').count() == path.split('/').count()
            && template.split('/').zip(path.split('/')).all(|(one, two)| one == two || one.starts_with('{'))
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let exact = paths.get(path).filter(|_| path != "/");
    let found = exact.or_else(|| paths.iter().find(|(template, _)| fits(template)).map(|(_, item)| item));
    found.and_then(|item| item.get(method))
}
