//! Signals that ask for something else than the end.

use serde_json::json;

use super::child::{Site, route_to};
use crate::upstream::{Answer, Gate, Upstream};

#[tokio::test]
async fn signals_that_ask_for_nothing_a_gateway_does_end_nothing_and_are_told_in_the_log() {
    let upstream = Upstream::start();
    let site = Site::new(&route_to(&upstream.url()));
    let mut child = site.serve(&[]).await;
    let (_, key) = site.user("ann").await;
    let gate = Gate::closed();
    upstream.next(Answer::sse(["data: 1\n\n"]).hold(&gate).send("data: [DONE]\n\n"));
    let request = json!({"model": "m", "stream": true, "messages": []});
    let call = reqwest::Client::new().post(site.url("/v1/chat/completions")).bearer_auth(&key).json(&request);
    let mut running = call.send().await.unwrap();
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    for signal in ["HUP", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "XFSZ"] {
        child.signal(signal);
        child.says(&format!("\"signal\":\"SIG{signal}\""));
    }
    // Not one that is waited for: it makes no line.
    child.signal("PIPE");
    assert_eq!(site.status("/readyz").await, Some(200));
    gate.open();
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: [DONE]\n\n");

    // While it drains as well.
    let gate = Gate::closed();
    upstream.next(Answer::sse(["data: 1\n\n"]).hold(&gate).send("data: [DONE]\n\n"));
    let call = reqwest::Client::new().post(site.url("/v1/chat/completions")).bearer_auth(&key).json(&request);
    let mut running = call.send().await.unwrap();
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    child.signal("TERM");
    child.says("\"draining\"");
    child.signal("HUP");
    gate.open();
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: [DONE]\n\n");
    let (code, said) = child.ends();
    assert_eq!(code, Some(0), "{said}");
}
