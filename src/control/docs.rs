//! The API's own documentation: the OpenAPI document, Swagger UI and ReDoc, all of them built in.
//!
//! The pages load nothing from anywhere else, and their policy forbids it. What they need is put
//! together once, with its digest as `ETag`.

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use super::openapi::{openapi_json, refused};
use super::paths::Path;
use super::problem::Problem;

/// A file as it is served.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: Bytes,
    etag: HeaderValue,
}

/// Both pages set styles on elements; ReDoc searches in a worker made of a blob.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);
/// Kept, and asked for again each time: another build has other pages.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const JSON: &str = "application/json";

const REDOC: &str = include_str!("../../assets/vendor/redoc.standalone.js");
/// ReDoc's maker has a picture of theirs loaded from a host of theirs. It is replaced by an empty one
/// where the file is served; the file itself stays as it came.
const REDOC_LOGO: &str = "https://cdn.redoc.ly/redoc/logo-mini.svg";
const EMPTY_PICTURE: &str = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let swagger = |name| swagger_file(name).unwrap_or_default();
    vec![
        Asset::new("/openapi.json", JSON, openapi_json().unwrap_or_default().into()),
        Asset::new("/docs", HTML, Bytes::from_static(include_bytes!("../../assets/docs/swagger.html"))),
        Asset::new(
            "/docs/start.js",
            SCRIPT,
            Bytes::from_static(include_bytes!("../../assets/docs/swagger.js")),
        ),
        Asset::new("/docs/swagger-ui-bundle.js", SCRIPT, swagger("swagger-ui-bundle.js")),
        Asset::new("/docs/swagger-ui.css", STYLE, swagger("swagger-ui.css")),
        Asset::new("/redoc", HTML, Bytes::from_static(include_bytes!("../../assets/docs/redoc.html"))),
        Asset::new(
            "/redoc/start.js",
            SCRIPT,
            Bytes::from_static(include_bytes!("../../assets/docs/redoc.js")),
        ),
        Asset::new("/redoc/redoc.standalone.js", SCRIPT, REDOC.replace(REDOC_LOGO, EMPTY_PICTURE).into()),
    ]
});

/// Serves this document.
///
/// OpenAPI 3.1, as `tollgate openapi` prints it.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "About",
    responses(
        (status = 200, description = "The document.", body = Object, example = json!({"openapi": "3.1.0"})),
        (status = 304, description = "The document that was asked about is the latest."),
    ),
)]
pub(super) async fn openapi_document(headers: HeaderMap) -> Result<Response, Problem> {
    serve("/openapi.json", &headers)
}

/// Serves Swagger UI.
///
/// To read about the calls and to try them.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "About",
    responses(
        (status = 200, description = "A page.", body = String, content_type = "text/html", example = "<!doctype html>…"),
        (status = 304, description = "The page that was asked about is the latest."),
    ),
)]
pub(super) async fn swagger_ui(headers: HeaderMap) -> Result<Response, Problem> {
    serve("/docs", &headers)
}

/// Serves what Swagger UI needs.
///
/// Scripts and a style sheet, built in.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    tag = "About",
    params(("file" = String, Path, description = "A name that the page knows.", example = "swagger-ui.css")),
    responses(
        (status = 200, description = "The file.", content(
            (String = "text/javascript", example = "\"use strict\";"),
            (String = "text/css", example = ".swagger-ui{}"),
        )),
        (status = 304, description = "The file that was asked about is the latest."),
        refused::NoSuchPath,
    ),
)]
pub(super) async fn swagger_ui_file(
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    serve(&format!("/docs/{file}"), &headers)
}

/// Serves ReDoc.
///
/// To read about the calls.
#[utoipa::path(
    get,
    path = "/redoc",
    tag = "About",
    responses(
        (status = 200, description = "A page.", body = String, content_type = "text/html", example = "<!doctype html>…"),
        (status = 304, description = "The page that was asked about is the latest."),
    ),
)]
pub(super) async fn redoc(headers: HeaderMap) -> Result<Response, Problem> {
    serve("/redoc", &headers)
}

/// Serves what ReDoc needs.
///
/// Scripts, built in.
#[utoipa::path(
    get,
    path = "/redoc/{file}",
    tag = "About",
    params(("file" = String, Path, description = "A name that the page knows.", example = "start.js")),
    responses(
        (status = 200, description = "The file.", body = String, content_type = "text/javascript", example = "\"use strict\";"),
        (status = 304, description = "The file that was asked about is the latest."),
        refused::NoSuchPath,
    ),
)]
pub(super) async fn redoc_file(Path(file): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    serve(&format!("/redoc/{file}"), &headers)
}

fn serve(path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let asset = ASSETS.iter().find(|asset| asset.path == path).ok_or(Problem::NoSuchPath)?;
    let common = [(ETAG, asset.etag.clone()), (CACHE_CONTROL, ASK_AGAIN), (CONTENT_SECURITY_POLICY, POLICY)];
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let mut known = known.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    if known.any(|tag| tag == "*" || asset.etag == tag) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    Ok((common, [(CONTENT_TYPE, asset.content_type)], asset.bytes.clone()).into_response())
}

fn swagger_file(name: &str) -> Option<Bytes> {
    let config = utoipa_swagger_ui::Config::from("/openapi.json");
    let file = utoipa_swagger_ui::serve(name, Arc::new(config)).ok()??;
    Some(file.bytes.into_owned().into())
}

// === impl Asset ===

impl Asset {
    fn new(path: &'static str, content_type: &'static str, bytes: Bytes) -> Self {
        let digest = Sha256::digest(&bytes).iter().take(16).fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        let etag = HeaderValue::try_from(format!("\"{digest}\""));
        Self { path, content_type, bytes, etag: etag.unwrap_or(HeaderValue::from_static("\"\"")) }
    }
}

#[cfg(test)]
mod tests {
    use super::{ASSETS, REDOC, REDOC_LOGO};

    #[test]
    fn every_file_is_there_and_none_names_another_host_to_load_from() {
        for asset in ASSETS.iter() {
            assert!(asset.bytes.len() > 50, "{} is empty", asset.path);
        }
        assert_eq!(REDOC.matches(REDOC_LOGO).count(), 1, "ReDoc loads its picture from elsewhere now");
    }
}
