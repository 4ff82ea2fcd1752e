//! What clients send: JSON bodies, read whole, bounded, and held to their rules.
//!
//! A form is read in two steps. Its serde shape takes every field as optional and refuses unknown
//! ones; [`Form::check`] then makes the typed thing of it. Whatever is wrong in either step is
//! gathered in [`Violations`], so that a client learns all of it at once.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::Control;
use super::problem::Problem;
use super::violations::{Violations, without_values};

/// Something a client may send as a body.
pub(super) trait Form: DeserializeOwned {
    /// What it is once its rules hold.
    type Checked;
    /// Most bytes of the body.
    const MAX_SIZE: usize = 64 * 1024;
    /// Whether no body at all is as good as `{}`.
    const MAY_BE_LEFT_OUT: bool = false;

    /// Holds every field to its rule. `None` only with a violation noted.
    fn check(self, control: &Control, found: &mut Violations) -> Option<Self::Checked>;
}

/// A body that kept its rules.
pub(super) struct Body<F: Form>(pub(super) F::Checked);

/// A form inside another. Only a JSON object is one: what serde derives for a struct takes an array of its
/// fields in their order as well.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

struct ObjectVisitor<T>(PhantomData<T>);

/// Longest time for a whole body to come in.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Most violations told at once.
const MAX_VIOLATIONS: usize = 32;

// === impl Body ===

impl<F: Form> FromRequest<Arc<Control>> for Body<F> {
    type Rejection = Problem;

    async fn from_request(request: Request, control: &Arc<Control>) -> Result<Self, Problem> {
        let left_out = F::MAY_BE_LEFT_OUT && request.body().is_end_stream();
        if !left_out && !says_json(request.headers()) {
            return Err(Problem::NotJson);
        }
        let bytes =
            if left_out { Bytes::from_static(b"{}") } else { read(request.into_body(), F::MAX_SIZE).await? };
        let (form, mut found) = shape::<F>(&bytes)?;
        let checked = form.and_then(|form| form.check(control, &mut found));
        match checked {
            Some(checked) if found.is_empty() => Ok(Self(checked)),
            _ => Err(Problem::Invalid(found)),
        }
    }
}

// === impl Object ===

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

async fn read(body: axum::body::Body, most: usize) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > most as u64 {
        return Err(Problem::TooLarge(most));
    }
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await;
    match collected.map_err(|_| Problem::BodyTimeout)? {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge(most)),
        Err(error) => Err(Problem::of_body(&*error)),
    }
}

/// The form, as far as the body has its shape, and what has not.
///
/// serde stops at the first mistake. The field it stopped at is noted and taken out, and the rest is
/// read again, until nothing is left to complain of.
fn shape<F: Form>(bytes: &[u8]) -> Result<(Option<F>, Violations), Problem> {
    let first = match serde_json::from_slice::<Object<F>>(bytes) {
        Ok(Object(form)) => return Ok((Some(form), Violations::default())),
        Err(error) => error,
    };
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Problem::MalformedJson { line: error.line(), column: error.column() })?;
    let mut found = Violations::default();
    let Value::Object(mut fields) = value else {
        found.note(&[], "Input should be a JSON object", "model_type");
        return Ok((None, found));
    };
    while found.len() < MAX_VIOLATIONS {
        match serde_path_to_error::deserialize::<_, F>(Value::Object(fields.clone())) {
            Ok(form) => {
                if found.is_empty() {
                    // Only a field given twice is refused in the text and not in the tree.
                    found.note(&[], &without_values(&first.to_string()), "value_error");
                }
                return Ok((Some(form), found));
            }
            Err(error) => {
                if !found.note_shape(&error, &mut fields) {
                    return Ok((None, found));
                }
            }
        }
    }
    Ok((None, found))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{HeaderMap, HeaderValue};
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::{Control, Form, Object, Problem, Violations, read, says_json, shape};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Letter {
        to: Option<String>,
        copies: Option<u8>,
        seal: Option<Object<Seal>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Seal {
        wax: Option<bool>,
    }

    impl Form for Letter {
        type Checked = Self;

        fn check(self, _: &Control, _: &mut Violations) -> Option<Self> {
            Some(self)
        }
    }

    fn wrong_with(body: &str) -> Value {
        shape::<Letter>(body.as_bytes()).unwrap().1.into_value()
    }

    #[test]
    fn a_body_of_the_right_shape_has_no_violations() {
        let (letter, found) = shape::<Letter>(br#"{"to":"ann","copies":2,"seal":{"wax":true}}"#).unwrap();
        let letter = letter.unwrap();
        assert_eq!(
            (letter.to.as_deref(), letter.copies, letter.seal.unwrap().0.wax),
            (Some("ann"), Some(2), Some(true))
        );
        assert!(found.is_empty());
    }

    #[test]
    fn every_unknown_and_misshapen_field_is_told_at_once() {
        let told = wrong_with(r#"{"to":7,"copies":300,"is_admin":true,"seal":{"lead":1}}"#);
        let expected = json!([
            {"loc": ["body", "copies"], "msg": "Input should be a whole number", "type": "type_error"},
            {"loc": ["body", "is_admin"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"},
            {"loc": ["body", "seal", "lead"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"},
            {"loc": ["body", "to"], "msg": "Input should be a string", "type": "type_error"},
        ]);
        assert_eq!(told, expected);
    }

    #[test]
    fn what_was_sent_is_not_repeated() {
        let told = wrong_with(r#"{"copies":"hunter2hunter2"}"#);
        assert!(!told.to_string().contains("hunter2"), "{told}");
    }

    #[test]
    fn a_field_given_twice_and_what_is_no_object_are_refused() {
        assert_eq!(wrong_with(r#"{"to":"ann","to":"bob"}"#)[0]["loc"], json!(["body"]));
        for body in ["[]", "7", "null", "\"x\"", r#"["ann",2,null]"#] {
            assert_eq!(wrong_with(body)[0]["loc"], json!(["body"]), "{body}");
        }
        assert_eq!(wrong_with(r#"{"seal":[true]}"#)[0]["loc"], json!(["body", "seal"]));
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for body in ["", "{", "{'to':1}", "{\"to\":\"\u{1}\"}", &"[".repeat(10_000)] {
            let outcome = shape::<Letter>(body.as_bytes());
            assert!(matches!(outcome, Err(Problem::MalformedJson { .. })), "{body:.20}");
        }
    }

    #[test]
    fn only_json_is_json() {
        let given = |value: &'static str| {
            HeaderMap::from_iter([(super::CONTENT_TYPE, HeaderValue::from_static(value))])
        };
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(says_json(&given(json)), "{json}");
        }
        for other in ["text/plain", "application/x-www-form-urlencoded", "text/json", ""] {
            assert!(!says_json(&given(other)), "{other}");
        }
        assert!(!says_json(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        assert_eq!(read(Body::from("1234"), 4).await.unwrap(), "1234");
        assert!(matches!(read(Body::from("12345"), 4).await, Err(Problem::TooLarge(4))));
        let parts = futures_util::stream::iter(["123", "45"].map(Ok::<_, std::io::Error>));
        assert!(matches!(read(Body::from_stream(parts), 4).await, Err(Problem::TooLarge(4))));
    }
}
