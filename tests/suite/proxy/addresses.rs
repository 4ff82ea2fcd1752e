//! From where a key may be used: global and per user, and whose word about addresses is believed.

use serde_json::json;

use crate::world::{Reply, World};

const BEHIND_A_PROXY: &str = "[server]\ntrusted_proxies = [\"127.0.0.1/32\", \"10.0.0.0/8\"]";

fn code(answer: &Reply) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_spoofed_forwarded_address_changes_nothing() {
    let world = World::with(|setup| {
        setup.add("[access]\nenable_ip_whitelist = true\nwhitelisted_ips = [\"203.0.113.0/24\"]");
    })
    .await;
    let ann = world.user("ann").await;
    for spoofed in ["203.0.113.7", "203.0.113.7, 127.0.0.1", "::ffff:203.0.113.7", "for=203.0.113.7"] {
        let call = world.chat(&ann).header("x-forwarded-for", spoofed).header("x-real-ip", spoofed);
        let answer = call.header("forwarded", spoofed).send().await;
        assert_eq!((answer.status, code(&answer)), (403, "ip_not_allowed".into()), "{spoofed}");
        assert_eq!(answer.header("x-tollgate-denied-by"), "ip_not_allowed");
    }
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_first_untrusted_hop_from_the_right_is_the_client() {
    let world = World::with(|setup| {
        setup.add(BEHIND_A_PROXY);
        setup.add(
            "[access]\nenable_ip_whitelist = true\nwhitelisted_ips = [\"203.0.113.0/24\", \"2001:db8::/32\"]",
        );
    })
    .await;
    let ann = world.user("ann").await;
    for (chain, status) in [
        ("203.0.113.7", 200),
        ("6.6.6.6, 203.0.113.7", 200),
        ("203.0.113.7, 10.1.2.3", 200),
        ("::ffff:203.0.113.7", 200),
        ("2001:db8::7", 200),
        ("203.0.113.7, 6.6.6.6", 403),
        ("203.0.113.7, 6.6.6.6, 10.1.2.3", 403),
        ("203.0.113.7, nonsense", 403),
        ("2001:db9::7", 403),
    ] {
        let answer = world.chat(&ann).header("x-forwarded-for", chain).send().await;
        assert_eq!(answer.status, status, "{chain}: {}", answer.text());
    }
    let two_lines =
        world.chat(&ann).header("x-forwarded-for", "203.0.113.7").header("x-forwarded-for", "6.6.6.6");
    assert_eq!(two_lines.send().await.status, 403, "the last line is nearest to us");
}

#[tokio::test]
async fn a_user_may_be_bound_to_addresses_of_their_own() {
    let world = World::with(|setup| setup.add(BEHIND_A_PROXY)).await;
    let ann = world.user_with("ann", json!({"allowed_ips": ["198.51.100.0/24", "2001:db8:1::/48"]})).await;
    let bob = world.user("bob").await;
    for (from, status) in
        [("198.51.100.9", 200), ("2001:db8:1::5", 200), ("203.0.113.7", 403), ("2001:db8:2::5", 403)]
    {
        assert_eq!(
            world.chat(&ann).header("x-forwarded-for", from).send().await.status,
            status,
            "ann from {from}"
        );
        assert_eq!(
            world.chat(&bob).header("x-forwarded-for", from).send().await.status,
            200,
            "bob from {from}"
        );
    }
    assert_eq!(world.left(&ann).await, 8);
}

#[tokio::test]
async fn the_log_names_the_client_and_not_the_proxy() {
    let world = World::with(|setup| setup.add(BEHIND_A_PROXY)).await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).header("x-forwarded-for", "203.0.113.7").send().await.status, 200);
    assert_eq!(world.row().await["client_ip"], "203.0.113.7");
}

#[tokio::test]
async fn behind_a_proxy_that_names_no_address_nobody_passes_on_either_plane() {
    let world = World::with(|setup| setup.add(BEHIND_A_PROXY)).await;
    let ann = world.user("ann").await;
    let forwarded = world.chat(&ann).header("x-forwarded-for", "nonsense").send().await;
    assert_eq!((forwarded.status, code(&forwarded)), (403, "ip_not_allowed".into()));
    let asked = world.get("/api/v1/auth/profile").bearer(&ann.jwt).header("x-forwarded-for", "nonsense");
    let told = asked.send().await;
    assert_eq!((told.status, told.json()["code"].as_str()), (403, Some("ip_not_allowed")));
    let health = world.get("/health").header("x-forwarded-for", "nonsense").send().await;
    assert_eq!(health.status, 200, "whether the gate is well is no secret");
}
