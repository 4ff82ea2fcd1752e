//! What the OpenAPI document promises, held against what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};
use tollgate::control::{Listed, listed, openapi_json};

fn document() -> Value {
    serde_json::from_str(&openapi_json().unwrap()).unwrap()
}

/// What `$ref` leads to, however often.
fn resolved<'d>(document: &'d Value, node: &'d Value) -> &'d Value {
    let Some(reference) = node["$ref"].as_str() else { return node };
    let found = document.pointer(reference.trim_start_matches('#'));
    resolved(document, found.unwrap_or_else(|| panic!("{reference} leads nowhere")))
}

fn operation<'d>(document: &'d Value, path: &Listed) -> &'d Value {
    &document["paths"][path.path][path.method.to_lowercase()]
}

fn members(node: &Value) -> &Map<String, Value> {
    node.as_object().unwrap_or_else(|| panic!("no object: {node}"))
}

#[test]
fn the_document_is_the_committed_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi.json");
    let committed = std::fs::read_to_string(&file).unwrap();
    let same = committed == openapi_json().unwrap();
    assert!(same, "the API is described otherwise; if that is meant: tollgate openapi > tests/openapi.json");
}

#[test]
fn every_path_is_described_under_the_name_of_its_handler_and_nothing_else_is() {
    let document = document();
    let mut described = BTreeMap::new();
    for (path, item) in members(&document["paths"]) {
        for (method, operation) in members(item) {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            described.insert((method.to_uppercase(), path.clone()), id);
        }
    }
    let there: BTreeMap<_, _> = listed()
        .iter()
        .map(|path| ((path.method.to_owned(), path.path.to_owned()), path.handler.to_owned()))
        .collect();
    assert_eq!(described, there);
    let names: BTreeSet<_> = described.values().collect();
    assert_eq!(names.len(), described.len(), "two operations have one name");
}

#[test]
fn every_operation_says_what_it_does_what_it_answers_and_how_it_fails() {
    let document = document();
    let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    for path in listed() {
        let operation = operation(&document, &path);
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{path:?}");
        let about = operation["description"].as_str().unwrap();
        assert!(!about.is_empty() && !about.starts_with("May be called by"), "{path:?}");
        let [tag] = operation["tags"].as_array().unwrap().as_slice() else { panic!("{path:?}") };
        assert!(tags.contains(&tag), "{path:?}: {tag}");
        let mut errors = 0;
        for (status, response) in members(&operation["responses"]) {
            let response = resolved(&document, response);
            assert!(!response["description"].as_str().unwrap().is_empty(), "{path:?} {status}");
            if status == "304" {
                continue;
            }
            let (kind, content) = members(&response["content"]).iter().next().unwrap();
            let schema = resolved(&document, &content["schema"]);
            let item = resolved(&document, &schema["items"]);
            let shown = [&content["example"], &content["examples"], &schema["example"], &item["example"]];
            assert!(shown.iter().any(|example| !example.is_null()), "{path:?} {status} has no example");
            if status.starts_with(['4', '5']) && kind == "application/problem+json" {
                assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem", "{path:?} {status}");
                errors += 1;
            }
        }
        assert!(errors > 0, "{path:?}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(document: &Value, node: &Value) {
        resolved(document, node);
        match node {
            Value::Object(members) => members.values().for_each(|member| walk(document, member)),
            Value::Array(items) => items.iter().for_each(|item| walk(document, item)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
}

#[test]
fn an_example_has_what_its_schema_requires() {
    let document = document();
    for (name, schema) in members(&document["components"]["schemas"]) {
        let Some(example) = schema["example"].as_object() else { continue };
        let parts = schema["allOf"].as_array().cloned().unwrap_or_else(|| vec![schema.clone()]);
        for part in &parts {
            let required = resolved(&document, part)["required"].as_array().cloned().unwrap_or_default();
            for field in required {
                assert!(example.contains_key(field.as_str().unwrap()), "{name} shows no {field}");
            }
        }
    }
}

#[test]
fn a_body_names_the_fields_of_its_row_describes_them_and_shows_them() {
    let document = document();
    let describes = |property: &Value| {
        let either = [property, &property["oneOf"][0], &property["items"]];
        either
            .iter()
            .any(|one| one["description"].is_string() || resolved(&document, one)["description"].is_string())
    };
    for path in listed() {
        let body = &operation(&document, &path)["requestBody"];
        let fields: BTreeSet<_> = path.action.row().fields.iter().map(|field| (*field).to_owned()).collect();
        if !body.is_null() {
            let schema = resolved(&document, &body["content"]["application/json"]["schema"]);
            let properties = members(&schema["properties"]);
            assert_eq!(properties.keys().cloned().collect::<BTreeSet<_>>(), fields, "{path:?}");
            assert_eq!(schema["additionalProperties"], false, "{path:?}");
            for (name, property) in properties {
                assert!(describes(property), "{path:?}: {name} is not described");
            }
            let example = members(&schema["example"]);
            assert!(example.keys().all(|name| properties.contains_key(name)), "{path:?}");
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            assert!(required.iter().all(|name| example.contains_key(name.as_str().unwrap())), "{path:?}");
        }
    }
}
