//! A charged path is charged, or refused, however it is spelled: by real apps, alone and behind an nginx that decodes.

use crate::spellings::{Running, decoding, express, go, spellings, starlette};
use crate::wire::Wire;
use crate::world::World;

const PATH: &str = "/v1/chat/completions";
const DAY: i64 = 1_000_000;

#[tokio::test]
#[expect(clippy::print_stdout, reason = "how many were tried is a figure to be read")]
async fn no_spelling_of_a_charged_path_reaches_an_app_uncharged() {
    let mut apps = vec![starlette(false).await, starlette(true).await, express().await, go().await];
    for (name, at) in [("nginx-starlette", 0), ("nginx-lax", 1), ("nginx-express", 2), ("nginx-go", 3)] {
        let front = decoding(name, apps[at].addr).await;
        apps.push(front);
    }
    let world = World::with(|setup| setup.add(&config(&apps))).await;
    let ann = world.user("ann").await;
    let (mut tried, mut served) = (0, 0);
    for app in &apps {
        let mut of_app = 0;
        for path in spellings(PATH, app.name.ends_with("lax")) {
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: {}\r\nx-api-key: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
                 content-length: 2\r\n\r\n{{}}",
                app.name, ann.key,
            );
            let mut wire = Wire::connect(world.addr).await;
            wire.send(request).await;
            let head = wire.head_if_any().await;
            tried += 1;
            if let Some(head) = head.filter(|head| head.header("x-served") == Some("charged")) {
                let day = head.header("ratelimit").unwrap_or_default();
                assert!(day.contains("\"day\""), "{} answers {path:?} and it costs nothing", app.name);
                of_app += 1;
            }
        }
        assert!(of_app >= 2, "{} never answered", app.name);
        served += of_app;
    }
    let charged = DAY - world.left(&ann).await;
    assert!(charged >= served, "{served} were served, {charged} were charged");
    println!("{tried} variants, {served} reached the app, {charged} were charged, 0 reached it uncharged");
}

/// For each app a host: `/v1` is charged, all else is free.
fn config(apps: &[Running]) -> String {
    let plan = format!("[plans.free]\nconversation_limit = {DAY}\n");
    let upstream =
        |app: &Running| format!("[[upstreams]]\nname = \"{0}\"\nurl = \"http://{1}\"\n", app.name, app.addr);
    let routes = |Running { name, .. }: &Running| {
        let route =
            format!("[[routes]]\nhost = \"{name}\"\nupstream = \"{name}\"\nkeep_upstream_headers = true\n");
        format!("{route}prefix = \"/v1\"\ncharge = [\"POST {PATH}\"]\n{route}prefix = \"/\"\ncharge = []\n")
    };
    [plan].into_iter().chain(apps.iter().map(upstream)).chain(apps.iter().map(routes)).collect()
}
