//! The first start makes what is missing, and says what only it can say.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::child::{Child, Site};

/// The password on the line that tells it, if there is one.
fn told_password(said: &str) -> Option<String> {
    let line = said.lines().find(|line| line.contains("admin_password="))?;
    let word = line.split("admin_password=").nth(1)?.split_whitespace().next()?;
    Some(word.trim_matches('"').to_owned())
}

#[tokio::test]
async fn a_changed_admin_username_makes_no_second_admin_and_says_so() {
    let site = Site::new("");
    let mut first = site.serve(&[("ADMIN_PASSWORD", "correct-horse-7")]).await;
    first.signal("TERM");
    first.ends();
    let named = [("ADMIN_PASSWORD", "another-word-9"), ("ADMIN_USERNAME", "root")];
    let second = site.serve(&named).await;
    let said = second.said();
    assert!(said.contains("security.admin_username names no admin") && said.contains("root"), "{said}");
    for (name, password, expected) in
        [("root", "another-word-9", 401), ("admin", "another-word-9", 401), ("admin", "correct-horse-7", 200)]
    {
        let form = json!({"username": name, "password": password});
        assert_eq!(site.post("/api/v1/admin/login", None, &form).await.0, expected, "{name}");
    }
    let command = |args: &[&str]| Child::tollgate(site.folder.path(), args, &[]).ends();
    let (code, said) = command(&["admin", "add", "root"]);
    assert!(code == Some(0) && said.contains("admin_password="), "{said}");
    let (code, said) = command(&["admin", "disable", "admin"]);
    assert_eq!(code, Some(0), "{said}");
    for refused in [["admin", "disable", "root"], ["admin", "delete", "root"]] {
        let (code, said) = command(&refused);
        assert!(code == Some(1) && said.contains("the last active admin stays"), "{said}");
    }
    let (_, said) = command(&["admin", "list"]);
    assert!(said.contains("root") && said.contains("no"), "{said}");
}

#[tokio::test]
async fn secrets_are_made_for_the_owner_alone_and_the_password_is_told_once() {
    let site = Site::new("");
    let mut first = site.serve(&[]).await;
    for secret in ["secret_key", "encryption_key"] {
        let file = site.folder.path().join("data").join(secret);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}: {mode:o}");
        assert!(std::fs::read(&file).unwrap().len() >= 32);
    }
    let password = told_password(&first.said()).unwrap_or_else(|| panic!("{}", first.said()));
    assert!(password.len() >= 16, "{password}");
    assert!(site.admin(&password).await.is_ok());
    assert_eq!(site.admin("admin123!").await, Err(401));
    let (jwt, key) = site.user("ann").await;
    first.signal("TERM");
    let (code, said) = first.ends();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches(&password).count(), 1, "told once:\n{said}");

    let mut second = site.serve(&[]).await;
    assert!(site.admin(&password).await.is_ok(), "the password is still good");
    assert_eq!(site.get("/api/v1/auth/profile", &jwt).await.0, 200, "sessions outlive a restart");
    let (status, verified) = site.post("/api/v1/auth/verify-key", Some(&key), &json!({})).await;
    assert_eq!((status, &verified["remaining_conversations"]), (200, &json!(9)));
    second.signal("TERM");
    let (_, said) = second.ends();
    assert!(told_password(&said).is_none() && !said.contains(&password), "{said}");
}

#[tokio::test]
async fn the_seeds_own_settings_start_a_development_installation_with_warnings() {
    let site = Site::new("");
    let seed = [
        ("SECRET_KEY", "your-super-secret-key-here-change-this-in-production"),
        ("ALGORITHM", "HS256"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "30"),
        ("DATABASE_URL", "sqlite:///./user_management.db"),
        ("BCRYPT_ROUNDS", "4"),
        ("ENCRYPTION_KEY", "your-encryption-key-here-32-bytes"),
        ("ADMIN_USERNAME", "admin"),
        ("ADMIN_PASSWORD", "admin123!"),
        ("ENABLE_IP_WHITELIST", "false"),
        ("WHITELISTED_IPS", "127.0.0.1,localhost"),
        ("RATE_LIMIT_PER_MINUTE", "60"),
    ];
    let child = site.serve(&seed).await;
    assert!(site.admin("admin123!").await.is_ok());
    assert!(site.folder.path().join("user_management.db").exists());
    let said = child.said();
    assert!(said.to_lowercase().contains("warn"), "{said}");
    for weak in ["secret_key", "encryption_key", "admin_password"] {
        assert!(said.to_lowercase().contains(weak), "no warning of {weak}:\n{said}");
    }
    assert!(!said.contains("job_scheduler"), "the scheduler's own remarks are no news:\n{said}");
}

#[tokio::test]
async fn the_seeds_example_of_an_update_needs_no_plan_in_the_configuration() {
    let site = Site::new("");
    let _child = site.serve(&[("ADMIN_PASSWORD", "admin123!")]).await;
    let (jwt, key) = site.user("johndoe").await;
    let admin = site.admin("admin123!").await.unwrap();
    let terms = json!({"subscription_plan": "premium", "limits": {"conversation_limit": 100, "reset": 100}});
    let user = site.url("/api/v1/admin/users/johndoe");
    let updated = reqwest::Client::new().put(user).bearer_auth(admin).json(&terms).send().await.unwrap();
    assert_eq!(updated.status(), 200, "{}", updated.text().await.unwrap());
    let (_, profile) = site.get("/api/v1/auth/profile", &jwt).await;
    assert_eq!(profile["subscription_plan"], "premium", "{profile}");
    let (_, verified) = site.post("/api/v1/auth/verify-key", Some(&key), &json!({})).await;
    assert_eq!(verified["remaining_conversations"], 99, "{verified}");
}

#[tokio::test]
async fn the_environment_goes_before_the_file() {
    let site = Site::new("[plans.free]\nconversation_limit = 3\n");
    let _child = site.serve(&[("GATEWAY__PLANS__FREE__CONVERSATION_LIMIT", "7")]).await;
    let (jwt, _) = site.user("ann").await;
    let (_, profile) = site.get("/api/v1/auth/profile", &jwt).await;
    assert_eq!(profile["limits"]["conversation_limit"], 7, "{profile}");
}
