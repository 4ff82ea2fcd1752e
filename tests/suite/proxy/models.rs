//! A plan that lists models holds wherever a call names one: in the path, the query, JSON, a form, an event.

use serde_json::json;

use crate::upstream::Answer;
use crate::wire::Wire;
use crate::world::{Person, World};

const SMALL: &str = "Content-Disposition: form-data; name=\"model\"\r\n\r\nsmall-1";
const DEAR: &str = "Content-Disposition: form-data; name=\"model\"\r\n\r\ndear";
const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF";

/// Ann's plan opens `small-*`; `/v1` and `/openai` are a model's, `/app` is an app's of which nothing is charged.
async fn narrowed() -> (World, Person) {
    let world = World::with(|setup| {
        setup.add("[plans.free]\nmodels = [\"small-*\", \"models/small-*\"]\nconversation_limit = 1000");
        setup.add("[limits]\nmax_body_size = \"64KiB\"");
        setup.add(
            "[[routes]]\nprefix = \"/\"\nupstream = \"model\"\nwebsocket = true\nallow = [\"*\"]\n\
             charge = [\"POST /v1/chat/completions\"]\n\
             [[routes]]\nprefix = \"/app\"\nupstream = \"model\"\ndialect = \"plain\"\ncharge = []",
        );
    })
    .await;
    let ann = world.user("ann").await;
    (world, ann)
}

fn form(parts: &[&str]) -> String {
    let parts: String = parts.iter().flat_map(|part| ["--xYz\r\n", part, "\r\n"]).collect();
    parts + "--xYz--\r\n"
}

async fn ask(world: &World, ann: &Person, path: &str, label: &str, body: &str) -> (u16, String) {
    let call = world.post(path).bearer(&ann.key);
    let call = if label.is_empty() { call } else { call.header("content-type", label) };
    let answer = call.body(body.to_owned()).send().await;
    (answer.status, answer.header("x-tollgate-denied-by").to_owned())
}

#[tokio::test]
async fn a_path_names_a_model() {
    let (world, ann) = narrowed().await;
    let json = "application/json";
    for (path, body, status, code) in [
        ("/openai/deployments/dear/chat/completions", "{}", 404, "model_not_found"),
        ("/openai/deployments/small-1/chat/completions", "{}", 200, ""),
        ("/openai/deployments/small-1/chat/completions", r#"{"model":"small-1"}"#, 200, ""),
        ("/openai/deployments/small-1/chat/completions", r#"{"model":"dear"}"#, 404, "model_not_found"),
        ("/openai/deployments/small-1/chat/completions", r#"{"model":"small-2"}"#, 400, "model_conflict"),
        ("/OPENAI/Deployments/dear/images/generations", r#"{"model":"small-1"}"#, 404, "model_not_found"),
        ("/openai/deployments/small-1/engines/small-2/completions", "{}", 400, "model_conflict"),
        ("/v1/engines/dear/completions", r#"{"model":"small-1"}"#, 404, "model_not_found"),
        ("/v1beta/models/dear:generateContent", "{}", 404, "model_not_found"),
        ("/v1beta/models/dear%3AgenerateContent", "{}", 404, "model_not_found"),
        ("/v1beta/models/small-1:generateContent", "{}", 200, ""),
        ("/v1beta/models/small-1:countTokens", r#"{"model":"models/small-1"}"#, 200, ""),
        ("/v1beta/models/small-1:batchGenerateContent", "{}", 403, "batch_not_allowed"),
        ("/app/v1beta/models/dear:generateContent", "{}", 404, "model_not_found"),
        (
            "/v1/batches",
            r#"{"input_file_id":"f","endpoint":"/v1/chat/completions"}"#,
            403,
            "batch_not_allowed",
        ),
        ("/v1/messages/batches", r#"{"requests":[]}"#, 403, "batch_not_allowed"),
        ("/v1/chat/completions?model=dear", r#"{"model":"small-1"}"#, 404, "model_not_found"),
        ("/app/listen?Model=dear", "", 404, "model_not_found"),
        ("/app/listen?model=small-1&model=small-2", "", 400, "model_conflict"),
        ("/v1/images/generations", "{}", 400, "model_missing"),
        ("/v1/files", "{}", 200, ""),
    ] {
        let expected = (status, code.to_owned());
        assert_eq!(ask(&world, &ann, path, json, body).await, expected, "{path} {body}");
    }
    let got = world.get("/v1/models/dear").bearer(&ann.key).send().await;
    assert_eq!(got.status, 404);
    let got = world.get("/app/models/dear").bearer(&ann.key).send().await;
    assert_eq!(got.status, 200, "an app's own path");
    let rows = world.rows_when(5).await;
    assert!(
        rows.iter().any(|row| row["model"] == "small-1" && row["call"] == "chat.completions"),
        "{rows:?}"
    );
}

#[tokio::test]
async fn no_spelling_and_no_label_hides_a_model() {
    let (world, ann) = narrowed().await;
    for path in ["/v1/chat/completions", "/v1/anything", "/app/answer"] {
        let any = path != "/v1/chat/completions";
        for (label, body, status, code) in [
            ("application/json", r#"{"model":"small-1","MODEL":"dear"}"#, 400, "duplicate_field"),
            ("application/json", r#"{"Model":"small-1"}"#, 400, "misspelled_field"),
            ("application/json", r#"{"model":"small-1","mod\u0065l":"dear"}"#, 400, "duplicate_field"),
            ("application/json", r#"{"model":"small-1","\u004dodel":"dear"}"#, 400, "duplicate_field"),
            ("application/json", r#"{"model":"small-1,dear"}"#, 404, "model_not_found"),
            ("application/json", r#"{"model":"small-1","fallbacks":["dear"]}"#, 404, "model_not_found"),
            ("application/json", r#"{"model":"small-1","tools":[{"model":"dear"}]}"#, 404, "model_not_found"),
            (
                "application/json; charset=utf-7",
                r#"{"model":"small-1","+AG0-odel":"dear"}"#,
                415,
                "charset_not_utf8",
            ),
            ("application/json;a=b;Charset='UTF-16'", r#"{"model":"small-1"}"#, 415, "charset_not_utf8"),
            (
                "application/json; charset=utf-8; charset=latin1",
                r#"{"model":"small-1"}"#,
                415,
                "charset_not_utf8",
            ),
            ("application/json; charset=\"utf-8\"", r#"{"model":"small-1"}"#, 200, ""),
            ("application/octet-stream", r#"{"model":"dear"}"#, 404, "model_not_found"),
            ("application/x-ndjson", " \n{\"model\":\"dear\"}", 404, "model_not_found"),
            ("image/png", r#"{"model":"dear"}"#, 404, "model_not_found"),
            ("text/plain", r#"{"model":"dear"}"#, 404, "model_not_found"),
            ("", r#"{"model":"dear"}"#, 404, "model_not_found"),
            ("application/vnd.api+json", r#"{"model":"dear"}"#, 404, "model_not_found"),
            ("application/octet-stream", r#"{"model":"small-1"}"#, 200, ""),
            ("text/plain", "// {\n{\"model\":\"dear\"}", 400, "invalid_request"),
            ("text/plain", r#"[{"model":"dear"}]"#, 400, "invalid_request"),
            (
                "application/x-www-form-urlencoded",
                "a=b&Model=dear",
                if any { 404 } else { 400 },
                if any { "model_not_found" } else { "invalid_request" },
            ),
        ] {
            let expected = (status, code.to_owned());
            assert_eq!(ask(&world, &ann, path, label, body).await, expected, "{path} {label} {body}");
        }
    }
    let list = r#"[{"model":"dear"}]"#;
    assert_eq!(ask(&world, &ann, "/app/answer", "application/octet-stream", list).await.0, 400);
    let two = world.post("/app/answer").bearer(&ann.key).header("content-type", "text/plain");
    let two = two.header("content-type", "application/json").body("{\"model\":\"dear\"}").send().await;
    assert_eq!((two.status, two.header("x-tollgate-denied-by")), (415, "charset_not_utf8"));
    let coded = world.post("/app/answer").bearer(&ann.key).header("content-encoding", "identity");
    let coded = coded.header("content-encoding", "gzip").body("x").send().await;
    assert_eq!((coded.status, coded.header("x-tollgate-denied-by")), (415, "encoded_body"));
    assert_eq!(ask(&world, &ann, "/app/answer", "text/plain", "just words").await.0, 200);
    let large = "x".repeat(200_000);
    assert_eq!(ask(&world, &ann, "/app/upload", "application/octet-stream", &large).await.0, 200);
    assert_eq!(world.upstream.last().body, large);
    let padded = format!("{{\"a\":\"{large}\",\"model\":\"dear\"}}");
    assert_eq!(ask(&world, &ann, "/app/upload", "application/octet-stream", &padded).await.0, 413);
}

#[tokio::test]
async fn a_form_names_a_model_once_before_what_is_large() {
    let (world, ann) = narrowed().await;
    let label = "multipart/form-data; boundary=xYz";
    let large = format!("{FILE}{}", "\r\n--xY".repeat(20_000));
    let session = "Content-Disposition: form-data; name=\"session\"\r\n\r\n{\"model\":\"dear\"}";
    for path in ["/v1/audio/transcriptions", "/v1/images/edits", "/app/upload"] {
        let runs = path != "/app/upload";
        for (body, status, code) in [
            (form(&[DEAR, FILE]), 404, "model_not_found"),
            (form(&[FILE, DEAR]), 404, "model_not_found"),
            (form(&[SMALL, FILE]), 200, ""),
            (form(&[FILE, SMALL]), 200, ""),
            (form(&[SMALL, &large]), 200, ""),
            (form(&[SMALL, DEAR]), 400, "duplicate_field"),
            (form(&[SMALL, &large, DEAR]), 400, "duplicate_field"),
            (form(&[&large, SMALL]), 400, "late_field"),
            (form(&[SMALL, &DEAR.replace("model", "Model")]), 400, "misspelled_field"),
            (form(&[SMALL, &large, &DEAR.replace("model", "model[]")]), 400, "misspelled_field"),
            (form(&[SMALL, session]), 404, "model_not_found"),
            (form(&[FILE]), if runs { 400 } else { 200 }, if runs { "model_missing" } else { "" }),
            (form(&[SMALL]).replace("\r\n", "\n"), 400, "ambiguous_form"),
            (format!("{{\"model\":\"dear\"}}\r\n{}", form(&[SMALL])), 400, "ambiguous_form"),
            ("{\"model\":\"dear\"}".to_owned(), 400, "ambiguous_form"),
        ] {
            let expected = (status, code.to_owned());
            let start: String = body.chars().take(120).collect();
            assert_eq!(ask(&world, &ann, path, label, &body).await, expected, "{path} {start}");
            if status == 200 {
                assert_eq!(world.upstream.last().body, body, "the form goes on byte for byte");
            }
        }
        let two =
            ask(&world, &ann, path, "multipart/form-data; boundary=xYz; boundary=a", &form(&[SMALL])).await;
        assert_eq!(two, (400, "ambiguous_form".to_owned()));
    }
    let refused = world.post("/v1/images/edits").bearer(&ann.key).header("content-type", label);
    let refused = refused.body(form(&[SMALL, DEAR])).send().await.json();
    assert_eq!(refused["error"]["param"], "model");
    assert_eq!(refused["error"]["message"], "The request body names \"model\" twice; send it once.");
}

#[tokio::test]
async fn a_websocket_opens_for_a_model_of_the_plan_only() {
    let (world, ann) = narrowed().await;
    for (target, status) in [
        ("/v1/realtime?model=dear", 404),
        ("/v1/realtime?model=small-1&model=dear", 404),
        ("/openai/realtime?api-version=1&deployment=dear", 404),
        // Its events name one; each that runs none is refused.
        ("/v1/realtime", 101),
        ("/v1/realtime?model=small-1", 101),
    ] {
        world.upstream.on(target.split('?').next().unwrap(), Answer::echo_tunnel());
        let mut wire = Wire::connect(world.addr).await;
        wire.send(format!(
            "GET {target} HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            ann.key
        ))
        .await;
        assert_eq!(wire.head().await.status, status, "{target}");
    }
}

#[tokio::test]
async fn where_no_rule_depends_on_it_nothing_is_refused_for_its_form() {
    let world = World::with(|setup| {
        setup.add(
            "[plans.free.levels.rich]\nmodels = [\"*\"]\n\
             [[routes]]\nprefix = \"/v1\"\nupstream = \"model\"\nallow = [\"*\"]\ncharge = [\"POST /v1/chat/completions\"]\n\
             [[routes]]\nprefix = \"/app\"\nupstream = \"model\"\ndialect = \"plain\"\ncharge = []",
        );
    })
    .await;
    let ann = world.user("ann").await;
    for level in ["", "rich"] {
        if !level.is_empty() {
            world.change("ann", json!({"level": level})).await;
        }
        for (path, label, body) in [
            ("/app/free", "multipart/form-data; boundary=xYz", form(&[SMALL, DEAR]).replace("\r\n", "\n")),
            ("/app/free", "application/octet-stream", "{\\rtf1 a model}".to_owned()),
            ("/app/free", "application/octet-stream; charset=utf-7", "a".repeat(100)),
            ("/v1/audio/transcriptions", "multipart/form-data; boundary=xYz", form(&[FILE])),
            ("/v1/batches", "application/json", "{\"input_file_id\":\"f\"}".to_owned()),
            ("/app/free", "application/json", "{\"Model\":\"dear\",\"fallbacks\":[\"x\"]}".to_owned()),
        ] {
            assert_eq!(ask(&world, &ann, path, label, &body).await.0, 200, "{path} {label} {body}");
            assert_eq!(world.upstream.last().body, body);
        }
        let hidden =
            ask(&world, &ann, "/app/free", "application/octet-stream", "{\"R_TYPE\":\"secret\"}").await;
        assert_eq!(hidden, (403, "r_type_not_allowed".to_owned()));
    }
}
