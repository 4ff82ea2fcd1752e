//! What a user's plan, level and `access_rtype` open.

use serde_json::json;

use crate::wire::Wire;
use crate::world::{Person, World};

async fn status(world: &World, person: &Person, body: serde_json::Value) -> u16 {
    world.post("/v1/chat/completions").bearer(&person.key).json(&body).send().await.status
}

#[tokio::test]
async fn an_r_type_outside_the_users_list_is_403() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for (r_type, expected) in [("bpe", 200), ("tot", 200), ("secret", 403), ("BPE", 403), ("", 403)] {
        assert_eq!(
            status(&world, &ann, json!({"model": "m", "r_type": r_type})).await,
            expected,
            "{r_type:?}"
        );
    }
    let refused =
        world.post("/v1/chat/completions").bearer(&ann.key).json(&json!({"r_type": "x"})).send().await;
    assert_eq!(refused.json()["error"]["code"], "r_type_not_allowed");
    assert_eq!(status(&world, &ann, json!({"model": "m", "r_type": ["bpe"]})).await, 400);
    world.change("ann", json!({"access_rtype": ["secret"]})).await;
    assert_eq!(status(&world, &ann, json!({"model": "m", "r_type": "secret"})).await, 200, "at once");
    assert_eq!(status(&world, &ann, json!({"model": "m", "r_type": "bpe"})).await, 403);
    assert_eq!(world.left(&ann).await, 7);
}

#[tokio::test]
async fn a_route_may_fix_the_r_type() {
    let world = World::with(|setup| {
        setup.add(
            "[[routes]]\nprefix = \"/open\"\nupstream = \"model\"\nr_type = \"bpe\"\n\
             [[routes]]\nprefix = \"/closed\"\nupstream = \"model\"\nr_type = \"secret\"",
        );
    })
    .await;
    let ann = world.user("ann").await;
    let ask = |path: &str, body: serde_json::Value| world.post(path).bearer(&ann.key).json(&body).send();
    assert_eq!(ask("/open/v1/chat/completions", json!({"model": "m"})).await.status, 200);
    assert_eq!(ask("/closed/v1/chat/completions", json!({"model": "m"})).await.status, 403);
    assert_eq!(ask("/closed/v1/chat/completions", json!({"model": "m", "r_type": "bpe"})).await.status, 403);
}

#[tokio::test]
async fn research_is_marked_by_model_or_by_field() {
    let world = World::with(|setup| {
        setup.only_route(
            "prefix = \"/v1\"\ncharge = [\"POST /v1/chat/completions\"]\nresearch_models = [\"*-research\"]",
        );
    })
    .await;
    let ann = world.user("ann").await;
    for body in [
        json!({"model": "gpt-research"}),
        json!({"model": "gpt", "research_model": true}),
        json!({"model": "gpt", "research_model": false}),
        json!({"model": "gpt"}),
    ] {
        assert_eq!(status(&world, &ann, body).await, 200);
    }
    let rows = world.rows_when(4).await;
    let marks: Vec<_> = rows.iter().rev().map(|row| row["research_model"].as_bool()).collect();
    assert_eq!(marks, [Some(true), Some(true), Some(false), Some(false)]);
}

#[tokio::test]
async fn a_plan_names_the_models_and_the_scopes_it_opens() {
    let world = World::with(|setup| {
        setup.add("[plans.free]\nmodels = [\"small-*\"]\nscopes = [\"chat\"]");
        setup.add(
            "[[routes]]\nprefix = \"/v1\"\nupstream = \"model\"\nscope = \"chat\"\ncharge = [\"POST /v1/chat/completions\"]\n\
             [[routes]]\nprefix = \"/lab\"\nupstream = \"model\"\nscope = \"lab\"",
        );
    })
    .await;
    let ann = world.user("ann").await;
    assert_eq!(status(&world, &ann, json!({"model": "small-1"})).await, 200);
    let refused =
        world.post("/v1/chat/completions").bearer(&ann.key).json(&json!({"model": "large"})).send().await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
    let closed = world.post("/lab/x").bearer(&ann.key).json(&json!({"model": "small-1"})).send().await;
    assert_eq!((closed.status, closed.header("x-tollgate-denied-by")), (403, "route_not_allowed"));
    assert_eq!(world.upstream.hits(), 1);
    assert_eq!(world.left(&ann).await, 9);
}

#[tokio::test]
async fn a_level_may_have_terms_of_its_own() {
    let world = World::with(|setup| setup.add("[plans.free.levels.advanced]\nconversation_limit = 50")).await;
    let ann = world.user("ann").await;
    assert_eq!(world.left(&ann).await, 10);
    world.change("ann", json!({"level": "advanced"})).await;
    let answer = world.chat(&ann).send().await;
    assert_eq!(answer.header("x-ratelimit-limit-requests"), "50");
    assert_eq!(world.left(&ann).await, 49);
}

#[tokio::test]
async fn fields_cannot_be_hidden_from_the_gate_and_shown_to_the_app() {
    let world = World::with(|setup| {
        setup.add(
            "[[routes]]\nprefix = \"/v1\"\nupstream = \"model\"\ncharge = [\"POST /v1/chat/completions\"]\n\
             [[routes]]\nprefix = \"/app\"\nupstream = \"model\"\ndialect = \"plain\"\n\
             charge = [\"POST /app/ask\"]",
        );
    })
    .await;
    let ann = world.user("ann").await;
    let secret = "{\"r_type\":\"secret\"}";
    let utf_16: Vec<u8> = secret.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let bodies: [&[u8]; 4] = [
        b"\xef\xbb\xbf{\"r_type\":\"secret\"}",
        &utf_16,
        b" {\"r_type\":\"secret\",\"x\":NaN}",
        b"{'r_type':'secret'}",
    ];
    for body in bodies {
        let ask = world.post("/app/ask").bearer(&ann.key).header("content-type", "text/plain");
        let answer = ask.body(body.to_vec()).send().await;
        assert_eq!(answer.status, 400, "{}: {}", String::from_utf8_lossy(body), answer.text());
    }
    let words = world.post("/app/ask").bearer(&ann.key).header("content-type", "text/plain");
    assert_eq!(words.body("just words").send().await.status, 200);
    // As multipart it passes unread, so it must look like multipart from its first byte that counts.
    let hits = world.upstream.hits();
    for pieces in [[" ", "{\"r_type\":\"secret\"}"], ["\r\n", "\u{feff}{\"r_type\":\"secret\"}"]] {
        let pieces = pieces.map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len()));
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\n\
             content-type: multipart/form-data; boundary=x\r\ntransfer-encoding: chunked\r\n\r\n",
            ann.key
        );
        let mut wire = Wire::connect(world.addr).await;
        for part in [&head, &pieces[0], &pieces[1], "0\r\n\r\n"] {
            wire.send(part).await;
        }
        let answer = wire.answer().await;
        assert_eq!(answer.status(), 400, "{}", String::from_utf8_lossy(&answer.body));
    }
    assert_eq!(world.upstream.hits(), hits);
}
