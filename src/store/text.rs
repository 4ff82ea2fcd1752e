//! Text columns: what they can hold, and JSON in them.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Encode, Type};

/// A value whose column is the text of its JSON, with both engines.
pub(super) struct Json<T>(pub(super) T);

/// PostgreSQL cannot store NUL: it becomes U+FFFD, with both engines, so that one such character from
/// a client is neither an error nor keeps a whole batch from being written.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

// === impl Json ===

impl<DB: Database, T> Type<DB> for Json<T>
where
    String: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <String as Type<DB>>::type_info()
    }

    fn compatible(ty: &DB::TypeInfo) -> bool {
        <String as Type<DB>>::compatible(ty)
    }
}

impl<'r, DB: Database, T: DeserializeOwned> Decode<'r, DB> for Json<T>
where
    String: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
        let text = <String as Decode<'r, DB>>::decode(value)?;
        Ok(Self(serde_json::from_str(&text)?))
    }
}

impl<'q, DB: Database> Encode<'q, DB> for Json<&[String]>
where
    String: Encode<'q, DB>,
{
    fn encode_by_ref(&self, buf: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <String as Encode<'q, DB>>::encode(serde_json::to_string(self.0)?, buf)
    }
}

impl<'q, DB: Database> Encode<'q, DB> for Json<&Value>
where
    String: Encode<'q, DB>,
{
    fn encode_by_ref(&self, buf: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <String as Encode<'q, DB>>::encode(self.0.to_string(), buf)
    }
}

impl From<Json<Self>> for Vec<String> {
    fn from(json: Json<Self>) -> Self {
        json.0
    }
}

impl From<Json<Self>> for Value {
    fn from(json: Json<Self>) -> Self {
        json.0
    }
}
