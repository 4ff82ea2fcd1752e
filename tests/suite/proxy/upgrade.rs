//! WebSocket upgrades: refused unless the route allows them; then the key comes first, and the tunnel
//! opens only after the upstream's 101.

use crate::upstream::{Answer, frame};
use crate::wire::Wire;
use crate::world::World;

fn upgrade(key: &str, protocol: &str) -> String {
    format!(
        "GET /v1/realtime?model=m HTTP/1.1\r\nhost: gate\r\nx-api-key: {key}\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

async fn open_world() -> World {
    World::with(|setup| {
        setup.only_route("prefix = \"/v1\"\nwebsocket = true\nwebsocket_charge = \"connection\"");
    })
    .await
}

#[tokio::test]
async fn an_upgrade_is_refused_where_the_route_does_not_allow_it() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let mut wire = Wire::connect(world.addr).await;
    wire.send(upgrade(&ann.key, "websocket")).await;
    let answer = wire.answer().await;
    assert_eq!(
        (answer.status(), answer.json()["error"]["code"].as_str()),
        (400, Some("upgrade_not_allowed"))
    );
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn bytes_flow_both_ways_after_the_upstreams_101() {
    let world = open_world().await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::echo_tunnel());
    let mut wire = Wire::connect(world.addr).await;
    wire.send(upgrade(&ann.key, "websocket")).await;
    let head = wire.head().await;
    assert_eq!(
        (head.status, head.header("sec-websocket-accept")),
        (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    );
    assert!(head.header("upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")));
    for (opcode, words) in [(9, b"hello".to_vec()), (2, vec![0xff; 70_000])] {
        // What comes back is masked, which a server's may not be: an app that is none passes unread.
        let words = frame(opcode, &words, Some([1, 2, 3, 4]));
        wire.send(&words).await;
        assert_eq!(wire.exactly(words.len()).await, words);
    }
    let seen = world.upstream.last();
    assert_eq!(seen.header("sec-websocket-key").as_deref(), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(seen.header("upgrade").as_deref(), Some("websocket"));
    assert!(!seen.everything().contains(&ann.key));
}

#[tokio::test]
async fn the_key_comes_first() {
    let world = open_world().await;
    let mut wire = Wire::connect(world.addr).await;
    wire.send(upgrade("pe-0123456789abcdefghijABCDEFGHIJ01", "websocket")).await;
    assert_eq!(wire.answer().await.status(), 401);
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn no_tunnel_opens_before_the_upstream_agrees() {
    let world = open_world().await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::bytes("text/plain", "no").status(426));
    let mut wire = Wire::connect(world.addr).await;
    let hidden = "GET /v1/models HTTP/1.1\r\nhost: gate\r\n\r\n";
    wire.send(upgrade(&ann.key, "websocket") + hidden).await;
    assert_eq!(wire.answer().await.status(), 426);
    assert_eq!(wire.answer().await.status(), 401, "what came behind is a request of its own, without a key");
    assert_eq!(world.upstream.hits(), 1);
}

#[tokio::test]
async fn no_other_protocol_is_spoken() {
    let world = open_world().await;
    let ann = world.user("ann").await;
    for protocol in ["h2c", "foo", "websocket, h2c"] {
        let mut wire = Wire::connect(world.addr).await;
        wire.send(upgrade(&ann.key, protocol)).await;
        assert_ne!(wire.head().await.status, 101, "{protocol}");
        for seen in world.upstream.requests() {
            assert!(matches!(seen.header("upgrade").as_deref(), None | Some("websocket")), "{seen:?}");
            assert_eq!(seen.header("http2-settings"), None);
        }
    }
}
