//! Stopping: readiness red, nobody new, everybody old to the end.

use crate::upstream::{Answer, Gate, PATIENCE};
use crate::wire::{Wire, exchange};
use crate::world::World;

#[tokio::test]
async fn a_running_stream_is_finished_and_nobody_new_is_served() {
    let mut world = World::with(|setup| setup.add("[server]\ndrain_timeout = \"30s\"")).await;
    let ann = world.user("ann").await;
    let gate = Gate::closed();
    world.upstream.next(Answer::sse(["data: 1\n\n"]).hold(&gate).send("data: [DONE]\n\n"));
    let mut running = world.chat_streamed(&ann).begin().await;
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: 1\n\n");

    let app = world.take_app();
    let addr = world.addr;
    let stopping = tokio::spawn(app.shutdown());
    let refused = async { while !Wire::refused(addr).await {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("the gate still accepts connections");
    assert!(!stopping.is_finished(), "a stream is still running");

    gate.open();
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: [DONE]\n\n");
    assert!(running.chunk().await.unwrap().is_none(), "the stream ends as it should");
    tokio::time::timeout(PATIENCE, stopping).await.expect("the gate stops").unwrap();
}

#[tokio::test]
async fn a_stream_that_outlasts_the_drain_time_is_ended() {
    let mut world = World::with(|setup| setup.add("[server]\ndrain_timeout = \"300ms\"")).await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::sse(["data: 1\n\n"]).then_silence());
    let mut running = world.chat_streamed(&ann).begin().await;
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    let app = world.take_app();
    tokio::time::timeout(PATIENCE, app.shutdown()).await.expect("the gate stops");
    while let Ok(Some(more)) = running.chunk().await {
        assert!(!String::from_utf8_lossy(&more).contains("[DONE]"));
    }
    world.upstream.closed().await;
}

#[tokio::test]
async fn readiness_is_green_while_the_gate_serves() {
    let world = World::start().await;
    for path in ["/livez", "/readyz", "/health"] {
        let answer = exchange(world.addr, format!("GET {path} HTTP/1.1\r\nhost: gate\r\n\r\n")).await;
        assert_eq!(answer.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn readiness_turns_red_on_a_connection_that_is_still_open() {
    let mut world = World::with(|setup| setup.add("[server]\ndrain_timeout = \"30s\"")).await;
    let ann = world.user("ann").await;
    let gate = Gate::closed();
    world.upstream.next(Answer::sse(["data: 1\n\n"]).hold(&gate).send("data: [DONE]\n\n"));
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let mut request = crate::world::chat_request();
    request["stream"] = true.into();
    let call = world.post_with(&client, "/v1/chat/completions").bearer(&ann.key).json(&request);
    let mut running = call.begin().await;
    running.chunk().await.unwrap();
    let mut wire = Wire::connect(world.addr).await;
    let ready = "GET /readyz HTTP/1.1\r\nhost: gate\r\n\r\n";
    wire.send(ready).await;
    assert_eq!(wire.answer().await.status(), 200);
    let addr = world.addr;
    let stopping = tokio::spawn(world.take_app().shutdown());
    while !Wire::refused(addr).await {}
    wire.send(ready).await;
    let heard = String::from_utf8_lossy(&wire.closed().await).into_owned();
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 503"), "{heard}");
    gate.open();
    tokio::time::timeout(PATIENCE, stopping).await.expect("the gate stops").unwrap();
}
