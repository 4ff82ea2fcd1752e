//! `tollgate demo`: one command from nothing to an answered chat.

use std::collections::HashMap;

use serde_json::json;

use super::child::{Child, post};

/// A demo on a free port, with what it printed for scripts.
pub(crate) fn started() -> (Child, HashMap<String, String>) {
    let child = Child::tollgate(&std::env::temp_dir(), &["demo", "--listen", "127.0.0.1:0"], &[]);
    let said = child.says("\n# ");
    let pairs = said.lines().filter_map(|line| line.split_once('='));
    let named = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let told: HashMap<_, _> = pairs
        .filter(|(name, _)| name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()))
        .map(named)
        .collect();
    for name in ["url", "api_key", "admin_username", "admin_password", "user_email", "user_password"] {
        assert!(told.contains_key(name), "no {name}= line:\n{said}");
    }
    (child, told)
}

#[tokio::test]
async fn it_prints_keys_answers_a_chat_and_leaves_with_0() {
    let (mut child, told) = started();
    let url = &told["url"];
    let chat = json!({"model": "demo-chat", "messages": [{"role": "user", "content": "Hello"}]});
    let (status, answer) = post(&format!("{url}/v1/chat/completions"), Some(&told["api_key"]), &chat).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["choices"][0]["message"]["content"].is_string());

    let admin = json!({"username": told["admin_username"], "password": told["admin_password"]});
    let (_, login) = post(&format!("{url}/api/v1/admin/login"), None, &admin).await;
    let token = login["access_token"].as_str().unwrap_or_else(|| panic!("{login}"));
    let listed = reqwest::Client::new().get(format!("{url}/api/v1/admin/message-logs")).bearer_auth(token);
    let rows: serde_json::Value = listed.send().await.unwrap().json().await.unwrap();
    assert_eq!(rows[0]["answer"][0]["content"], answer["choices"][0]["message"]["content"], "{rows}");

    let user = json!({"email": told["user_email"], "password": told["user_password"]});
    assert_eq!(post(&format!("{url}/api/v1/auth/login"), None, &user).await.0, 200);
    child.signal("INT");
    let (code, said) = child.ends();
    assert_eq!(code, Some(0), "{said}");
}
