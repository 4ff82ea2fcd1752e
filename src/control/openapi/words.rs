//! The words of the API: what a name, an address or a password may be, described once for every body,
//! answer and parameter that has one. None of them is ever made; they stand for text that the handlers
//! check where they read it.

use std::borrow::Cow;

use serde_json::json;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{
    AnyOfBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{RefOr, Required};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::clock::Timestamp;
use crate::control::register::KINDS;
use crate::control::staff::accounts::LEVELS;
use crate::control::usage::GROUPS;
use crate::control::violations::{MAX_EMAIL, MAX_TEXT};
use crate::store::admins;

/// Makes a type of each line, for `value_type` and parameters.
macro_rules! words {
    ($($(#[doc = $about:literal])* $name:ident = $schema:expr;)*) => {$(
        $(#[doc = $about])*
        pub(in crate::control) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let about = [$($about),*].concat();
                let schema: ObjectBuilder = $schema;
                schema.description(Some(about.trim())).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )*};
}

words! {
    /// The name of an account: 3 to 30 letters, digits or underscores.
    Username = text(3, 30, "^[A-Za-z0-9_]{3,30}$", "ann_lee");
    /// An e-mail address in visible ASCII, without quoting; at most 64 characters before the `@`.
    Email = text(
        5,
        MAX_EMAIL,
        "^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\\.)+[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$",
        "ann@example.com",
    );
    /// A password somebody chooses: at least 8 characters and one digit, at most 72 bytes of UTF-8.
    NewPassword = text(8, 72, "^[^\\u0000]*[0-9][^\\u0000]*$", "correct-horse-7").format(Some(password()));
    /// The password there is.
    Password = string().format(Some(password())).examples(["correct-horse-7"]);
    /// Free text, kept as it is given.
    Text = text(0, MAX_TEXT, "^[^\\u0000]*$", "Reads a lot.");
    /// Text that says something: more than blanks.
    FilledText = text(1, MAX_TEXT, "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$", "Ann Lee");
    /// What kind of account it is.
    AccountKind = string().enum_values(Some(KINDS)).examples(["Personal"]);
    /// How far staff may go.
    StaffLevel = string().enum_values(Some(LEVELS)).examples(["support"]);
    /// What an admin may do.
    AdminRole = string().enum_values(Some(admins::ROLES)).examples(["auditor"]);
    /// The name of a plan in the configuration.
    PlanName = text(1, 64, "^[^\\u0000]+$", "free");
    /// A word of visible ASCII.
    Word = text(1, 64, "^[!-~]{1,64}$", "advanced");
    /// A number of conversations or credits.
    Amount = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(0))
        .maximum(Some(1_000_000))
        .examples([50]);
    /// The name of a key: letters, digits, dots, underscores or hyphens.
    KeyName = text(1, 64, "^[A-Za-z0-9._-]{1,64}$", "laptop");
    /// A refresh token, as a login answers it.
    RefreshToken = text(47, 47, "^tgr_[0-9A-Za-z]{43}$", "tgr_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg");
    /// The token of a letter.
    MailToken = text(20, 20, "^[2-9A-HJ-NP-Za-km-z]{20}$", "7hKpWx3mRt9cVbN2qZsD");
    /// Six digits of an authenticator app.
    TotpCode = string().examples(["492039"]);
    /// One of the codes told when the second factor was enabled; each is good once.
    RecoveryCode = string().examples(["7hKpW-x3mRt"]);
    /// A method of HTTP.
    MethodName = text(1, 64, "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "POST");
    /// A path, from its first slash.
    UrlPath = text(1, MAX_TEXT, "^/[^\\u0000]*$", "/v1/chat/completions");
    /// A number that names a row, as text.
    RowNumber = text(1, 19, "^[0-9]{1,19}$", "17");
    /// The name of a message log entry.
    EntryName = string().format(Some(SchemaFormat::Custom("uuid".to_owned())));
    /// The name of a session.
    SessionName = text(32, 32, "^[0-9a-f]{32}$", "0190f3a2c4d07e51a3b2c1d0e9f80716");
    /// Yes or no.
    Flag = string().enum_values(Some(["true", "false", "1", "0"])).default(Some(json!("false")));
    /// What sums are of.
    Grouping = string().enum_values(Some(GROUPS.map(|(name, _)| name))).default(Some(json!("day")));
    /// What is looked for, exactly.
    SearchWord = text(1, 256, "^[^\\u0000]+$", "ann_lee");
    /// A day since 1970-01-01.
    Date = string().format(Some(SchemaFormat::KnownFormat(KnownFormat::Date))).examples(["2026-10-01"]);
    /// An instant of RFC 3339.
    Instant = string().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples(["2026-10-01T00:00:00Z"]);
}

/// `limit` and `offset` of a list that comes in pages.
pub(in crate::control) enum Pages {}

/// An IPv4 or IPv6 address.
pub(in crate::control) enum Address {}

/// A network, or the address of one machine.
pub(in crate::control) enum Network {}

const IPV4_NETWORK: &str = r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])/(3[0-2]|[12]?[0-9])$";
/// Written out, or with its end left out.
const IPV6_NETWORK: &str = r"^(([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|([0-9A-Fa-f]{1,4}:){1,7}:|::)/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$";

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn text(least: usize, most: usize, pattern: &str, example: &str) -> ObjectBuilder {
    let least = (least > 0).then_some(least);
    string().min_length(least).max_length(Some(most)).pattern(Some(pattern)).examples([example])
}

fn password() -> SchemaFormat {
    SchemaFormat::KnownFormat(KnownFormat::Password)
}

fn formatted(format: KnownFormat) -> ObjectBuilder {
    string().format(Some(SchemaFormat::KnownFormat(format)))
}

// === impl Address ===

impl PartialSchema for Address {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new()
            .item(formatted(KnownFormat::Ipv4))
            .item(formatted(KnownFormat::Ipv6))
            .description(Some("An IPv4 or IPv6 address."))
            .examples(["203.0.113.9"])
            .into()
    }
}

impl ToSchema for Address {}

// === impl Network ===

impl PartialSchema for Network {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new()
            .item(formatted(KnownFormat::Ipv4))
            .item(formatted(KnownFormat::Ipv6))
            .item(string().pattern(Some(IPV4_NETWORK)))
            .item(string().pattern(Some(IPV6_NETWORK)))
            .description(Some("A network in CIDR, or the address of one machine."))
            .examples(["203.0.113.0/24"])
            .into()
    }
}

impl ToSchema for Network {}

// === impl Timestamp ===

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        formatted(KnownFormat::DateTime)
            .description(Some("RFC 3339, in UTC with `Z`."))
            .examples(["2026-10-01T09:30:00Z"])
            .into()
    }
}

impl ToSchema for Timestamp {}

// === impl Pages ===

impl IntoParams for Pages {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let number = |name: &str, (least, most): (i64, Option<i64>), default: i64, about: &str| {
            let schema = ObjectBuilder::new()
                .schema_type(SchemaType::new(Type::Integer))
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                .minimum(Some(least))
                .maximum(most)
                .default(Some(json!(default)));
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(about))
                .schema(Some(schema))
                .build()
        };
        vec![
            number("limit", (1, Some(1000)), 100, "How many entries a page has."),
            number("offset", (0, Some(i64::MAX)), 0, "How many entries stand before it."),
        ]
    }
}
