//! The matrix of rights, walked cell by cell: made from the rows, so that a new path is walked too.

use std::collections::{BTreeSet, HashMap};

use serde_json::json;
use tollgate::control::rights::{Action, Role};
use tollgate::control::{Listed, listed};

use crate::world::{PASSWORD, World};

/// Who has done one of these shows another session afterwards.
const ENDS_SESSIONS: [Action; 3] =
    [Action::EndUserSessions, Action::EndStaffSessions, Action::EndAdminSessions];

/// Whose doors a path's are.
#[derive(Debug, PartialEq, Eq)]
enum Plane {
    Open,
    Key,
    User,
    Staff,
    Admin,
}

fn plane_of_path(path: &Listed) -> Plane {
    let roles = path.action.row().roles;
    match path.path {
        _ if roles.contains(&Role::Stranger) => Plane::Open,
        _ if roles.contains(&Role::KeyHolder) => Plane::Key,
        admin if admin.starts_with("/api/v1/admin/") => Plane::Admin,
        staff if staff.starts_with("/api/v1/staff/") => Plane::Staff,
        _ => Plane::User,
    }
}

fn plane_of_role(role: Role) -> Plane {
    match role {
        Role::Stranger => Plane::Open,
        Role::KeyHolder => Plane::Key,
        Role::User => Plane::User,
        Role::New | Role::Support | Role::Advanced => Plane::Staff,
        Role::Auditor | Role::Admin => Plane::Admin,
    }
}

/// What each role shows; a stranger shows nothing.
async fn credentials(world: &World) -> HashMap<Role, String> {
    HashMap::from([
        (Role::KeyHolder, world.user("kay").await.key),
        (Role::User, world.user("ann").await.jwt),
        (Role::New, world.staff("new", "new").await),
        (Role::Support, world.staff("support", "support").await),
        (Role::Advanced, world.staff("advanced", "advanced").await),
        (Role::Auditor, world.auditor().await),
        (Role::Admin, world.admin().await),
    ])
}

#[tokio::test]
async fn every_path_lets_in_whom_its_row_names_and_nobody_else() {
    let world = World::start().await;
    let mut credentials = credentials(&world).await;
    let mut cells = 0;
    for (n, path) in listed().iter().enumerate() {
        for role in Role::ALL {
            // Nobody of that name, so that who may do anything finds nothing to do it to.
            let target = path.path.replace("{username}", "nobody").replace("{id}", "999");
            let mut call = world.call(path.method, &target).json(&json!({}));
            if path.action == Action::DeleteOwnAccount && role == Role::User {
                call = call.bearer(&world.user(&format!("leaver{n}")).await.jwt);
            } else if let Some(credential) = credentials.get(&role) {
                call = call.bearer(credential);
            }
            let reply = call.send().await;
            let expected = match plane_of_path(path) {
                Plane::Open => None,
                own if own != plane_of_role(role) => Some(401),
                _ if !path.action.permits(role) => Some(403),
                _ => None,
            };
            let got = [401, 403].contains(&reply.status).then_some(reply.status);
            assert_eq!(got, expected, "{role:?} {path:?}: {}", reply.text());
            assert!(reply.status < 500, "{role:?} {path:?}: {}", reply.text());
            if reply.status == 200 && ENDS_SESSIONS.contains(&path.action) {
                let again = match role {
                    Role::User => world.login("ann@example.com", PASSWORD).await,
                    Role::Admin => world.admin().await,
                    Role::Auditor => world.auditor().await,
                    Role::New => world.staff_login("new").await,
                    Role::Support => world.staff_login("support").await,
                    _ => world.staff_login("advanced").await,
                };
                credentials.insert(role, again);
            }
            cells += 1;
        }
    }
    assert!(cells >= 200, "only {cells} cells");
}

#[tokio::test]
async fn a_body_says_what_its_row_names_and_nothing_else() {
    let world = World::start().await;
    let credentials = credentials(&world).await;
    let ann =
        async || world.get("/api/v1/admin/users/ann").bearer(&credentials[&Role::Admin]).send().await.json();
    let before = ann().await;
    let beyond =
        ["id", "user_id", "key", "role", "is_admin", "token_version", "password_hash", "quota_reset"];
    let named = Action::ALL.iter().flat_map(|action| action.row().fields.iter().copied());
    let fields: BTreeSet<&str> = named.chain(beyond).collect();
    for path in listed().iter().filter(|path| !path.action.row().fields.is_empty()) {
        let row = path.action.row();
        let role = row.roles.iter().copied().find(|role| plane_of_role(*role) == plane_of_path(path));
        let target = path.path.replace("{username}", "ann").replace("{id}", "1");
        for field in &fields {
            // Of the wrong shape for every field there is, so that nothing is changed either way.
            let call = world.call(path.method, &target).json(&json!({ *field: [[1]] }));
            let call = match role.and_then(|role| credentials.get(&role)) {
                Some(credential) => call.bearer(credential),
                None => call,
            };
            let reply = call.send().await;
            assert_eq!(reply.status, 422, "{field} {path:?}: {}", reply.text());
            let forbidden = json!({"loc": ["body", field], "msg": "Extra inputs are not permitted",
                                   "type": "extra_forbidden"});
            let told = reply.json()["detail"].as_array().unwrap().contains(&forbidden);
            assert_eq!(told, !row.fields.contains(field), "{field} {path:?}: {}", reply.text());
        }
    }
    assert_eq!(ann().await, before);
}

/// Values that would do something, where they may not be said.
#[tokio::test]
async fn what_is_privileged_is_refused_whole_and_changes_nothing() {
    let world = World::start().await;
    let credentials = credentials(&world).await;
    let ann =
        async || world.get("/api/v1/admin/users/ann").bearer(&credentials[&Role::Admin]).send().await.json();
    let before = ann().await;
    let privileged = [
        ("credits", json!({"main": 1000})),
        ("level", json!("advanced")),
        ("access_rtype", json!(["all"])),
        ("additional_notes", json!("trusted")),
        ("is_active", json!(true)),
        ("subscription_plan", json!("premium")),
        ("limits", json!({"conversation_limit": 1000})),
        ("email", json!("other@example.com")),
        ("allowed_ips", json!([])),
        ("username", json!("root")),
        ("staff_level", json!("advanced")),
    ];
    let mine = [(Role::User, Action::DescribeOneself, "/api/v1/auth/profile", "about_me", json!("hi"))];
    let theirs = [Role::Support, Role::Advanced]
        .map(|role| (role, Action::HelpUsers, "/api/v1/staff/users/ann", "password", json!("let-me-in-1")));
    for (role, action, path, allowed, value) in mine.into_iter().chain(theirs) {
        for (field, wish) in privileged.iter().filter(|(field, _)| !action.row().fields.contains(field)) {
            let form = json!({ *field: wish, allowed: value });
            let refused = world.put(path).bearer(&credentials[&role]).json(&form).send().await;
            assert_eq!(refused.status, 422, "{role:?} {form}");
        }
    }
    assert_eq!(ann().await, before);
    let jwt = &credentials[&Role::User];
    assert_eq!(world.get("/api/v1/auth/profile").bearer(jwt).send().await.status, 200, "no session ended");
}

#[tokio::test]
async fn ones_own_things_are_those_of_the_session() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let of_bob = world.get("/api/v1/auth/keys").bearer(&bob.jwt).send().await.json()[0]["id"].clone();
    for path in listed().iter().filter(|path| path.action.row().roles == [Role::User]) {
        assert!(!path.path.contains("{username}"), "{path:?} would name somebody");
        if path.path.contains('{') {
            let theirs = path.path.replace("{id}", of_bob.as_str().unwrap());
            let reply = world.call(path.method, &theirs).bearer(&ann.jwt).json(&json!({})).send().await;
            assert_eq!(reply.status, 404, "{path:?} reaches what is another's: {}", reply.text());
        }
    }
    let shown = world.get("/api/v1/auth/api-key?reveal=true").bearer(&bob.jwt).send().await.json();
    assert_eq!(shown["api_key"], bob.key.as_str());
    let form = json!({"current_password": bob.password, "new_password": "bobs-word-1", "confirm_new_password": "bobs-word-1"});
    assert_eq!(world.put("/api/v1/auth/password").bearer(&bob.jwt).json(&form).send().await.status, 200);
    assert_eq!(world.post("/api/v1/auth/regenerate-key").bearer(&bob.jwt).send().await.status, 200);
    assert_eq!(world.delete("/api/v1/auth/account").bearer(&bob.jwt).send().await.status, 200);
    world.login(&ann.email, &ann.password).await;
    let profile = world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await;
    assert_eq!((profile.status, &profile.json()["username"]), (200, &json!("ann")));
    assert_eq!(world.chat(&ann).send().await.status, 200);
}

#[test]
fn every_row_is_used_and_every_path_is_named_once() {
    let paths = listed();
    let mut named = BTreeSet::new();
    for path in &paths {
        assert!(named.insert((path.method, path.path)), "{path:?} twice");
    }
    for action in Action::ALL {
        // What was noted is part of what is seen of a user, and has no path of its own.
        let used = *action == Action::ReadNotes || paths.iter().any(|path| path.action == *action);
        assert!(used, "{action:?} is nowhere");
    }
}
