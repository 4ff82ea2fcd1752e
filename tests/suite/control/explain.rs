//! An admin asks which rule decides.

use serde_json::{Value, json};

use crate::world::World;

async fn explained(world: &World, question: Value) -> Value {
    let admin = world.admin().await;
    let reply = world.post("/api/v1/admin/explain").bearer(&admin).json(&question).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn verdict<'v>(told: &'v Value, step: &str) -> &'v str {
    let steps = told["steps"].as_array().unwrap();
    steps.iter().find(|one| one["step"] == step).map_or("absent", |one| one["verdict"].as_str().unwrap())
}

fn chat(who: &Value) -> Value {
    let mut question = json!({"address": "127.0.0.1", "path": "/v1/chat/completions", "model": "gpt-test"});
    question.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
    question
}

#[tokio::test]
async fn every_check_is_walked_and_nothing_is_charged() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for who in [
        json!({"key": ann.key}),
        json!({"username": "ann"}),
        json!({"username": "ann", "key_name": "default"}),
    ] {
        let told = explained(&world, chat(&who)).await;
        assert_eq!((&told["allowed"], &told["denied_by"]), (&json!(true), &Value::Null));
        let steps: Vec<_> =
            told["steps"].as_array().unwrap().iter().map(|step| step["step"].clone()).collect();
        let walk = [
            "route", "key", "active", "expiry", "address", "scope", "call", "rate", "r_type", "model", "day",
        ];
        assert_eq!(steps, walk);
        assert_eq!((verdict(&told, "r_type"), verdict(&told, "day")), ("skip", "allow"));
        assert!(!told.to_string().contains(&ann.key));
    }
    assert_eq!(world.left(&ann).await, 10);
}

#[tokio::test]
async fn what_is_explained_is_what_happens() {
    let setup = "[plans.free]\nmodels = [\"gpt-test\"]\nscopes = [\"model\"]\n[[routes]]\nprefix = \"/v1\"\nupstream = \"model\"\n\
                 [[routes]]\nprefix = \"/closed\"\nupstream = \"model\"\nscope = \"closed\"\n\
                 [[routes]]\nprefix = \"/typed\"\nupstream = \"model\"\nr_type = \"image\"";
    let world = World::with(|with| with.add(setup)).await;
    let ann = world.user("ann").await;
    let cases = [
        ("/v1/chat/completions", json!("gpt-test"), None),
        ("/v1/chat/completions", json!("gpt-4o"), Some("model_not_found")),
        ("/v1/chat/completions", Value::Null, Some("model_missing")),
        ("/nowhere", json!("gpt-test"), Some("unknown_path")),
        ("/closed/v1/chat/completions", json!("gpt-test"), Some("route_not_allowed")),
        ("/v1/files", json!("gpt-test"), Some("call_not_allowed")),
        ("/typed/v1/chat/completions", json!("gpt-test"), Some("r_type_not_allowed")),
    ];
    for (path, model, denied_by) in cases {
        let told = explained(&world, json!({"key": ann.key, "path": path, "model": model})).await;
        assert_eq!(told["denied_by"].as_str(), denied_by, "{path} {told}");
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
        if !model.is_null() {
            body["model"] = model;
        }
        let happened = world.post(path).bearer(&ann.key).json(&body).send().await;
        let code = happened.json()["error"]["code"].as_str().map(str::to_owned);
        assert_eq!((happened.status == 200, code.as_deref()), (denied_by.is_none(), denied_by), "{path}");
    }
}

#[tokio::test]
async fn each_address_rule_is_named_by_whose_it_is() {
    let access = "[access]\nenable_ip_whitelist = true\nwhitelisted_ips = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";
    let world = World::with(|setup| setup.add(access)).await;
    let ann = world.user_with("ann", json!({"allowed_ips": ["127.0.0.0/8", "10.1.0.0/16"]})).await;
    let form = json!({"name": "ci", "allowed_ips": ["10.1.2.0/24"]});
    world.post("/api/v1/auth/keys").bearer(&ann.jwt).json(&form).send().await;
    let cases = [
        ("192.0.2.1", Some("installation")),
        ("10.2.0.1", Some("user's")),
        ("10.1.3.1", Some("key's")),
        ("10.1.2.3", None),
    ];
    for (address, whose) in cases {
        let question = json!({"username": "ann", "key_name": "ci", "address": address});
        let told = explained(&world, question).await;
        let step = told["steps"].as_array().unwrap().iter().find(|step| step["step"] == "address").unwrap();
        assert_eq!(told["allowed"], whose.is_none(), "{address}");
        assert!(step["detail"].as_str().unwrap().contains(whose.unwrap_or("within every rule")), "{step}");
    }
}

#[tokio::test]
async fn everything_in_the_way_is_told_not_the_first_alone() {
    let world = World::start().await;
    let ann = world.user_with("ann", json!({"limits": {"conversation_limit": 0}, "is_active": false})).await;
    let told = explained(&world, chat(&json!({"key": ann.key}))).await;
    assert_eq!((&told["allowed"], &told["denied_by"]), (&json!(false), &json!("account_disabled")));
    assert_eq!((verdict(&told, "active"), verdict(&told, "day")), ("deny", "deny"));
    let unknown = json!({"key": "pe-0123456789abcdefghijABCDEFGHIJ01"});
    assert_eq!(explained(&world, chat(&unknown)).await["denied_by"], "invalid_api_key");
    let told = explained(&world, json!({"username": "ann", "method": "GET", "path": "/v1/models"})).await;
    assert_eq!(verdict(&told, "day"), "skip");
}

#[tokio::test]
async fn only_the_admin_asks_and_asks_about_one() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let question = json!({"key": ann.key});
    assert_eq!(world.post("/api/v1/admin/explain").bearer(&ann.jwt).json(&question).send().await.status, 401);
    let admin = world.admin().await;
    for wrong in [json!({}), json!({"key": "x", "username": "ann"}), json!({"key": "x", "address": "here"})] {
        let refused = world.post("/api/v1/admin/explain").bearer(&admin).json(&wrong).send().await;
        assert_eq!(refused.status, 422, "{wrong}");
    }
    let nobody = world.post("/api/v1/admin/explain").bearer(&admin).json(&json!({"username": "nobody"}));
    assert_eq!(nobody.send().await.status, 404);
}
