//! Which listener serves what.

use crate::world::World;

#[tokio::test]
async fn with_a_listener_of_their_own_the_staffs_and_the_admins_api_are_nowhere_else() {
    let world = World::with(|setup| setup.add("[server]\nadmin_listen = [\"127.0.0.1:0\"]")).await;
    let admin = format!("http://{}", world.admin_addr().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let there =
        async |path: &str| client.get(format!("{admin}{path}")).send().await.unwrap().status().as_u16();
    for path in ["/metrics", "/api/v1/admin/users", "/api/v1/admin/message-logs", "/api/v1/staff/users"] {
        assert_eq!(world.get(path).send().await.status, 404, "{path}");
        assert_ne!(there(path).await, 404, "{path}");
    }
    assert_eq!(there("/api/v1/auth/profile").await, 404);
    assert_eq!((world.get("/health").send().await.status, there("/health").await), (200, 200));
}
