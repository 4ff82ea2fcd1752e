//! What an admin may ask about.

use std::net::IpAddr;

use http::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Question, Who};
use crate::control::Control;
use crate::control::forms::Form;
use crate::control::openapi::words;
use crate::control::violations::Violations;
use crate::credential::key::PlainKey;
use crate::store::keys::DEFAULT;

/// A request that nobody has sent: exactly one of `key` and `username`, the rest as far as it matters.
#[derive(Deserialize, ToSchema)]
#[schema(as = Question, example = json!({
    "username": "ann_lee", "address": "203.0.113.9", "method": "POST", "path": "/v1/chat/completions", "model": "gpt-4o",
}))]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct ExplainForm {
    /// The key itself.
    #[schema(value_type = Option<String>)]
    key: Option<SecretString>,
    /// Whose key, instead of the key itself.
    #[schema(value_type = Option<String>)]
    username: Option<String>,
    /// Which of their keys; `default` where it is left out.
    #[schema(value_type = Option<words::FilledText>)]
    key_name: Option<String>,
    /// From where.
    #[schema(value_type = Option<words::Address>)]
    address: Option<String>,
    /// The `Host` of the request.
    #[schema(value_type = Option<words::Text>)]
    host: Option<String>,
    /// `POST` where it is left out.
    #[schema(value_type = Option<words::MethodName>)]
    method: Option<String>,
    /// Of the data plane.
    #[schema(value_type = Option<words::UrlPath>)]
    path: Option<String>,
    #[schema(value_type = Option<words::Text>)]
    model: Option<String>,
    #[schema(value_type = Option<words::Text>)]
    r_type: Option<String>,
}

/// Longest name of a method, in bytes.
const MAX_METHOD: usize = 64;

// === impl ExplainForm ===

impl Form for ExplainForm {
    type Checked = Question;

    fn check(self, _: &Control, found: &mut Violations) -> Option<Question> {
        let key_name = found.filled("key_name", self.key_name).unwrap_or_else(|| DEFAULT.to_owned());
        let who = match (self.key, self.username) {
            (Some(key), None) => Some(Who::Key(PlainKey::parse(key.expose_secret()).ok())),
            (None, Some(username)) => Some(Who::User { username, key_name }),
            _ => {
                found.refuse("key", "Give either a key or a username");
                None
            }
        };
        let address: Option<IpAddr> = self.address.and_then(|text| {
            let parsed = text.parse();
            if parsed.is_err() {
                found.refuse("address", "Input should be an address such as 203.0.113.9");
            }
            parsed.ok()
        });
        let method = self
            .method
            .map_or(Some(Method::POST), |text| text.parse().ok().filter(|_| text.len() <= MAX_METHOD));
        if method.is_none() {
            found.refuse("method", "Input should be a method such as POST");
        }
        let path = found.text("path", self.path);
        if path.as_deref().is_some_and(|path| !path.starts_with('/')) {
            found.refuse("path", "Input should begin with a slash");
        }
        let path = path.map(|path| path.split(['?', '#']).next().unwrap_or_default().to_owned());
        let host = found.text("host", self.host).unwrap_or_default();
        let model = found.text("model", self.model);
        let r_type = found.text("r_type", self.r_type);
        Some(Question { who: who?, address, host, method: method?, path, model, r_type })
    }
}
