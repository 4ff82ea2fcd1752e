//! The documentation that the binary serves of itself.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::world::World;

const PAGES: [(&str, &str); 8] = [
    ("/docs", "text/html; charset=utf-8"),
    ("/docs/swagger-ui.css", "text/css; charset=utf-8"),
    ("/docs/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("/docs/start.js", "text/javascript; charset=utf-8"),
    ("/redoc", "text/html; charset=utf-8"),
    ("/redoc/redoc.standalone.js", "text/javascript; charset=utf-8"),
    ("/redoc/start.js", "text/javascript; charset=utf-8"),
    ("/openapi.json", "application/json"),
];

#[tokio::test]
async fn the_documentation_comes_from_the_binary_and_is_not_sent_twice() {
    let world = World::start().await;
    for (path, kind) in PAGES {
        let reply = world.get(path).send().await;
        assert_eq!((reply.status, reply.header("content-type")), (200, kind), "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("cache-control"), "no-cache", "{path}");
        let policy = reply.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("http"),
            "{path}"
        );
        assert!(!reply.text().contains("cdn.redoc.ly"), "{path}");
        let again = world.get(path).header("if-none-match", reply.header("etag")).send().await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        let other = world.get(path).header("if-none-match", "\"another\"").send().await;
        assert_eq!(other.status, 200, "{path}");
    }
    let document = world.get("/openapi.json").send().await.text();
    assert_eq!(document, tollgate::control::openapi_json().unwrap());
    for missing in ["/docs/", "/docs/index.html", "/docs/../etc", "/redoc/x.js", "/redoc/start.js/x"] {
        assert_eq!(world.get(missing).send().await.status, 404, "{missing}");
    }
}

#[tokio::test]
async fn an_operator_may_serve_none_of_it() {
    let world = World::with(|setup| setup.add("[server]\ndocs = false")).await;
    for (path, _) in PAGES {
        assert_eq!(world.get(path).send().await.status, 404, "{path}");
    }
    assert_eq!(world.get("/health").send().await.status, 200);
}

#[tokio::test]
async fn both_listeners_serve_it() {
    let world = World::with(|setup| setup.add("[server]\nadmin_listen = [\"127.0.0.1:0\"]")).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let there = client.get(format!("http://{}/docs", world.admin_addr().unwrap())).send().await.unwrap();
    assert_eq!((there.status().as_u16(), world.get("/docs").send().await.status), (200, 200));
}

/// What others wrote is what they published, and says under which terms.
#[test]
fn files_of_others_are_as_they_came() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/vendor");
    let text = std::fs::read_to_string(folder.join("VENDOR.toml")).unwrap();
    let vendor: toml::Table = text.parse().unwrap();
    let files = vendor["file"].as_array().unwrap();
    let mut named = vec!["VENDOR.toml".to_owned()];
    for file in files {
        let said = |key: &str| file[key].as_str().unwrap();
        let bytes = std::fs::read(folder.join(said("name"))).unwrap();
        let digest = <[u8; 32]>::from(Sha256::digest(&bytes)).map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(digest, said("sha256"), "{}", said("name"));
        for key in ["project", "version", "source", "licence"] {
            assert!(!said(key).is_empty(), "{} has no {key}", said("name"));
        }
        named.push(said("name").to_owned());
        for licence in file["licence_files"].as_array().unwrap() {
            named.push(licence.as_str().unwrap().to_owned());
        }
    }
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(named.contains(&name), "{name} stands in no entry of VENDOR.toml");
    }
}
