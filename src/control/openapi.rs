//! The OpenAPI document: what callers of the control plane are told about it.
//!
//! Each handler says what it does, takes and answers, beside its own code. Everything else is known
//! already and is filled in here: who may call and how they show it from the matrix
//! ([`super::rights`]), and from what a call is made of the refusals that every such call may meet.
//! A handler names only the refusals that are its own ([`refused`]).

use std::collections::{BTreeMap, BTreeSet};

use utoipa::OpenApi;
use utoipa::openapi::path::{HttpMethod, Operation, ParameterIn};
use utoipa::openapi::{
    Components, Content, HeaderBuilder, Info, InfoBuilder, LicenseBuilder, ObjectBuilder, Ref, RefOr, Schema,
    Server, Type,
};

use super::paths::Listed;

mod access;
mod handlers;
pub(super) mod refused;
pub(super) mod words;

use handlers::Handlers;
use refused::Refusal;

/// What stands above everything else.
const ABOUT: &str = "\
The control plane of Tollgate: accounts, keys, limits, and the log of what was said. The data plane, which \
forwards conversations, speaks the API of the upstream behind it and is not described here.

**Sessions.** Log in to get an access token, and send it as `Authorization: Bearer …`. Users, staff and admins \
have tables and tokens of their own: a token of one never opens what is another's. Apps show a key (`pe-…`) as a \
bearer token or as `x-api-key`.

**Refusals** are problem details (RFC 9457). Act on `code`, never on the text. A path that does not know a method \
answers 405 and names those it knows in `Allow`.

**Every answer** carries `X-Request-Id`, and under `/api/v1` how the rate of your address stands: \
`X-RateLimit-Limit`, `X-RateLimit-Remaining`, `X-RateLimit-Reset`, `RateLimit-Policy` and `RateLimit`.

**Bodies** name only the fields described: any other field is refused, never ignored. Where a field may be left \
out, `null` is the same as leaving it out, unless it is said to clear it.";

/// The document, with a line break at its end. The same bytes for the same build.
///
/// # Errors
///
/// When a part of it has no JSON, which a test rules out.
pub fn openapi_json() -> serde_json::Result<String> {
    let mut text = document().to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

fn document() -> utoipa::openapi::OpenApi {
    let mut document = Handlers::openapi();
    document.info = info();
    document.servers = Some(vec![Server::new("/")]);
    let mut components = document.components.take().unwrap_or_default();
    access::describe(&mut components);
    for listed in super::listed() {
        if let Some(operation) = operation(&mut document, &listed) {
            complete(operation, &listed, &mut components);
        }
    }
    document.components = Some(components);
    document
}

fn info() -> Info {
    let license = LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).identifier(Some("MIT")).build();
    InfoBuilder::new()
        .title("Tollgate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license))
        .build()
}

fn operation<'d>(document: &'d mut utoipa::openapi::OpenApi, listed: &Listed) -> Option<&'d mut Operation> {
    let item = document.paths.paths.get_mut(listed.path)?;
    match method(listed.method)? {
        HttpMethod::Get => item.get.as_mut(),
        HttpMethod::Post => item.post.as_mut(),
        HttpMethod::Put => item.put.as_mut(),
        _ => item.delete.as_mut(),
    }
}

fn method(name: &str) -> Option<HttpMethod> {
    match name {
        "GET" => Some(HttpMethod::Get),
        "POST" => Some(HttpMethod::Post),
        "PUT" => Some(HttpMethod::Put),
        "DELETE" => Some(HttpMethod::Delete),
        _ => None,
    }
}

/// Adds what the handler need not say.
fn complete(operation: &mut Operation, listed: &Listed, components: &mut Components) {
    operation.security = Some(access::security(listed));
    operation.summary = operation.summary.take().map(|text| text.trim_end_matches('.').to_owned());
    let said = operation.description.take().unwrap_or_default();
    let who = format!("May be called by: {}.", access::callers(listed));
    operation.description = Some(format!("{}\n\n{who}", said.trim()).trim().to_owned());
    refuse(operation, listed, components);
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.content.values_mut().for_each(never_null);
    }
    if has_parameter(operation, "limit") {
        tell_of_pages(operation);
    }
}

/// Replaces the names of refusals by responses, one for each status.
fn refuse(operation: &mut Operation, listed: &Listed, components: &mut Components) {
    let named: Vec<String> = operation.responses.responses.keys().cloned().collect();
    let mut refusals: BTreeSet<Refusal> = met_by_all(operation, listed).into_iter().collect();
    for name in named {
        if let Some(refusal) = Refusal::named(&name) {
            operation.responses.responses.remove(&name);
            refusals.insert(refusal);
        }
    }
    let mut by_status: BTreeMap<u16, Vec<Refusal>> = BTreeMap::new();
    for refusal in refusals {
        by_status.entry(refusal.status()).or_default().push(refusal);
    }
    for (status, refusals) in by_status {
        let (name, response) = refused::response(status, &refusals);
        components.responses.entry(name.clone()).or_insert(RefOr::T(response));
        let reference = RefOr::Ref(Ref::from_response_name(name));
        operation.responses.responses.entry(status.to_string()).or_insert(reference);
    }
}

/// What every call of this kind may meet. A path that is not open to all may be missing from the listener
/// that was asked, or switched off.
fn met_by_all(operation: &Operation, listed: &Listed) -> Vec<Refusal> {
    let mut met = vec![Refusal::Internal];
    if listed.path.starts_with("/api/v1/") {
        met.extend([Refusal::TooFast, Refusal::AddressNotAllowed, Refusal::Unavailable]);
    }
    if !super::open_paths().into_list().iter().any(|open| open.path == listed.path) {
        met.push(Refusal::NoSuchPath);
    }
    if listed.is_slow {
        met.push(Refusal::SlowReadsBusy);
    }
    met.extend(access::refusals(listed));
    if operation.request_body.is_some() {
        met.extend([
            Refusal::MalformedJson,
            Refusal::BrokenBody,
            Refusal::BodyTimeout,
            Refusal::TooLarge,
            Refusal::NotJson,
            Refusal::Invalid,
        ]);
    }
    let parameters = operation.parameters.iter().flatten();
    let mut queries = parameters
        .filter(|one| matches!(one, RefOr::T(one) if matches!(one.parameter_in, ParameterIn::Query)));
    if queries.next().is_some() {
        met.push(Refusal::Invalid);
    }
    met
}

/// A body that may be left out is not for that reason `null`.
fn never_null(content: &mut RefOr<Content>) {
    let RefOr::T(content) = content else { return };
    if let Some(RefOr::T(Schema::OneOf(either))) = &content.schema {
        content.schema = either.items.iter().find(|item| matches!(item, RefOr::Ref(_))).cloned();
    }
}

fn has_parameter(operation: &Operation, name: &str) -> bool {
    operation.parameters.iter().flatten().any(|one| matches!(one, RefOr::T(one) if one.name == name))
}

/// A page of a list says how long the list is and where the next page begins.
fn tell_of_pages(operation: &mut Operation) {
    let Some(RefOr::T(page)) = operation.responses.responses.get_mut("200") else { return };
    let is_list = |content: &RefOr<Content>| {
        matches!(content, RefOr::T(Content { schema: Some(RefOr::T(Schema::Array(_))), .. }))
    };
    if !page.content.values().any(is_list) {
        return;
    }
    let headers = [
        ("X-Total-Count", Type::Integer, "How many entries there are on all pages."),
        ("Link", Type::String, "Where the next page is, `rel=\"next\"` (RFC 8288); not on the last page."),
    ];
    for (name, kind, about) in headers {
        let schema = ObjectBuilder::new().schema_type(kind).build();
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(about)).build();
        page.headers.insert(name.to_owned(), RefOr::T(header));
    }
}
