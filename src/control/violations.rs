//! What is wrong with a request, told all at once, and the rules that several forms share.

use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use utoipa::ToSchema;

use crate::credential::password::Password;

/// Everything that is wrong with a request, as the seed's clients expect to read it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Violations(Vec<Violation>);

/// One thing that is wrong, and where.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Violation {
    /// The way to it: `body` or `query`, then names and positions.
    loc: Vec<Place>,
    /// The rule it breaks.
    msg: String,
    /// The kind of rule.
    #[serde(rename = "type")]
    kind: &'static str,
}

/// A step on the way to a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
enum Place {
    Name(String),
    Index(usize),
}

/// Most characters of free text.
pub(super) const MAX_TEXT: usize = 1000;
/// Most characters of an e-mail address (RFC 5321, section 4.5.3.1.3).
pub(super) const MAX_EMAIL: usize = 254;
/// Most characters of a field name repeated to the client.
const MAX_NAME_SHOWN: usize = 64;

// === impl Violations ===

impl Violations {
    /// One violation of a single query parameter.
    pub(super) fn of_query(parameter: &str, message: &str) -> Self {
        let loc = vec![Place::Name("query".to_owned()), Place::Name(parameter.to_owned())];
        Self(vec![Violation { loc, msg: message.to_owned(), kind: "value_error" }])
    }

    /// Notes that a field of the body breaks its rule; `field` may be a path, such as `limits.reset`.
    pub(super) fn refuse(&mut self, field: &str, message: &str) {
        let path: Vec<&str> = field.split('.').collect();
        self.note(&path, message, "value_error");
    }

    /// Notes that one entry of a list breaks its rule.
    pub(super) fn refuse_at(&mut self, field: &str, at: usize, message: &str) {
        self.note(&[field], message, "value_error");
        if let Some(violation) = self.0.last_mut() {
            violation.loc.push(Place::Index(at));
        }
    }

    /// The field's value, or a note that it is missing.
    pub(super) fn required<T>(&mut self, field: &'static str, given: Option<T>) -> Option<T> {
        if given.is_none() && !self.mentions(field) {
            self.note(&[field], "Field required", "missing");
        }
        given
    }

    /// Free text, kept as given: at most 1,000 characters, none of them NUL (which PostgreSQL
    /// cannot keep).
    pub(super) fn text(&mut self, field: &'static str, given: Option<String>) -> Option<String> {
        let text = given?;
        if text.contains('\0') {
            self.refuse(field, "String must not contain a NUL character");
        } else if text.chars().nth(MAX_TEXT).is_some() {
            self.refuse(field, "String should have at most 1000 characters");
        }
        Some(text)
    }

    /// Text as [`Self::text`] that says something.
    pub(super) fn filled(&mut self, field: &'static str, given: Option<String>) -> Option<String> {
        let text = self.text(field, given)?;
        if text.trim().is_empty() {
            self.refuse(field, "String should not be empty");
        }
        Some(text)
    }

    /// An e-mail address, by its form.
    pub(super) fn email(&mut self, field: &'static str, given: Option<String>) -> Option<String> {
        let email = given?;
        if !is_email(&email) {
            self.refuse(field, "Value is not a valid e-mail address");
        }
        Some(email)
    }

    /// A password somebody chooses.
    pub(super) fn new_password(&mut self, field: &'static str, given: SecretString) -> Option<Password> {
        Password::check(given).inspect_err(|rule| self.refuse(field, &rule.to_string())).ok()
    }

    /// One of the given words.
    pub(super) fn one_of(
        &mut self,
        field: &'static str,
        given: Option<String>,
        known: &[&str],
    ) -> Option<String> {
        let word = given?;
        if !known.contains(&word.as_str()) {
            self.refuse(field, &format!("Input should be one of: {}", known.join(", ")));
        }
        Some(word)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The `detail` of a 422.
    pub(super) fn into_value(self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn mentions(&self, field: &str) -> bool {
        self.0.iter().any(|one| matches!(one.loc.get(1), Some(Place::Name(name)) if name == field))
    }

    /// Notes anything wrong at a path below the body.
    pub(super) fn note(&mut self, path: &[&str], message: &str, kind: &'static str) {
        let places = path.iter().map(|name| Place::Name(name.chars().take(MAX_NAME_SHOWN).collect()));
        let loc = [Place::Name("body".to_owned())].into_iter().chain(places).collect();
        self.0.push(Violation { loc, msg: message.to_owned(), kind });
    }

    /// Notes what serde stopped at and takes it out of `fields`; `false` when that did not help.
    pub(super) fn note_shape(
        &mut self,
        error: &serde_path_to_error::Error<serde_json::Error>,
        fields: &mut Map<String, Value>,
    ) -> bool {
        let text = error.inner().to_string();
        let unknown = text.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let mut loc = vec![Place::Name("body".to_owned())];
        loc.extend(error.path().iter().filter_map(|segment| match segment {
            Segment::Map { key } => Some(Place::Name(key.clone())),
            Segment::Seq { index } => Some(Place::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        }));
        if let Some(name) = unknown
            && loc.last() != Some(&Place::Name(name.to_owned()))
        {
            loc.push(Place::Name(name.to_owned()));
        }
        let Some(Place::Name(top)) = loc.get(1).cloned() else {
            self.note(&[], &without_values(&text), "value_error");
            return false;
        };
        for place in &mut loc {
            if let Place::Name(name) = place
                && name.chars().count() > MAX_NAME_SHOWN
            {
                *name = name.chars().take(MAX_NAME_SHOWN).collect();
            }
        }
        let (msg, kind) = match unknown {
            Some(_) => ("Extra inputs are not permitted".to_owned(), "extra_forbidden"),
            None => (without_values(&text), "type_error"),
        };
        self.0.push(Violation { loc, msg, kind });
        fields.remove(&top).is_some()
    }
}

/// `local@domain.tld` in visible ASCII: what mail servers take without quoting. Whether it reaches
/// somebody, only a letter can tell.
#[must_use]
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let in_local = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let may_stand = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let dots_fit = |part: &str| !part.starts_with('.') && !part.ends_with('.') && !part.contains("..");
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(may_stand)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= MAX_EMAIL
        && (1..=64).contains(&local.len())
        && local.chars().all(in_local)
        && dots_fit(local)
        && domain.contains('.')
        && domain.split('.').all(is_label)
}

/// serde's text in words of JSON, and without what was sent, which may be a password.
pub(super) fn without_values(text: &str) -> String {
    let text = text.split(" at line ").next().unwrap_or(text);
    let Some((_, expected)) = text.split_once(", expected ") else { return text.to_owned() };
    let wanted = match expected {
        "u8" | "u16" | "u32" | "u64" | "i64" => "a whole number",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    format!("Input should be {wanted}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Violations, is_email};

    #[test]
    fn an_e_mail_address_has_a_form() {
        for good in ["a@b.co", "ann.o'neil+x@mail.example.org", "A_1@x-y.example"] {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@example.com", "x".repeat(65));
        for bad in [
            "",
            "ann",
            "@b.co",
            "a@b",
            "a@.co",
            "a@b..co",
            "a b@c.de",
            "a@b.co\n",
            ".a@b.co",
            "a..b@c.de",
            "a@-b.co",
            &long,
        ] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }

    #[test]
    fn rules_note_the_field_they_are_broken_by() {
        let mut found = Violations::default();
        assert_eq!(found.text("name", Some("<b>as given</b>".into())).as_deref(), Some("<b>as given</b>"));
        assert!(found.is_empty());
        found.text("name", Some("x".repeat(1001)));
        found.text("about_me", Some("\0".into()));
        found.filled("hobbies", Some("  ".into()));
        found.required::<String>("email", None);
        found.one_of("type", Some("Robot".into()), &["Personal", "Business"]);
        found.refuse("limits.reset", "too much");
        let told = found.into_value();
        let at = |n: usize| told[n]["loc"].clone();
        assert_eq!(at(0), json!(["body", "name"]));
        assert_eq!(at(1), json!(["body", "about_me"]));
        assert_eq!(at(2), json!(["body", "hobbies"]));
        assert_eq!(told[3], json!({"loc": ["body", "email"], "msg": "Field required", "type": "missing"}));
        assert_eq!(told[4]["msg"], "Input should be one of: Personal, Business");
        assert_eq!(at(5), json!(["body", "limits", "reset"]));
    }
}
