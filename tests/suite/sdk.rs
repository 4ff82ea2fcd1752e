//! The official SDKs judge us: each is given our address and a key, and nothing else. They speak to
//! `tollgate demo`, and to a FastAPI app that knows nothing of us behind `tollgate serve`.
//!
//! `tests/run` installs them; without it these stories fail and say so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::operate::child::{self, Child, Site, post, route_to};
use crate::operate::demo;
use crate::proof::ports::free_port;

/// What a script is told, see `tests/sdk/stage.py`.
struct Stage {
    url: String,
    key: String,
    used_up: String,
    hasty: Option<String>,
}

pub(crate) fn tool(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools =
        std::env::var_os("TOLLGATE_TEST_TOOLS").map_or_else(|| root.join("target/test-tools"), PathBuf::from);
    let tool = tools.join(path);
    assert!(tool.exists(), "{} is missing: run tests/run, which installs the SDKs", tool.display());
    tool
}

pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

// === impl Stage ===

impl Stage {
    /// Somebody with plenty left, and somebody who may ask once a second: both are given, or made on
    /// plans of the site. Somebody with nothing left is made in any case.
    async fn set(url: &str, admin_password: &str, key: Option<&str>) -> Self {
        let login = json!({"username": "admin", "password": admin_password});
        let (_, admin) = post(&format!("{url}/api/v1/admin/login"), None, &login).await;
        let admin = admin["access_token"].as_str().unwrap_or_else(|| panic!("{admin}"));
        let poor = json!({"limits": {"conversation_limit": 0, "reset": 0}});
        let used_up = somebody(url, admin, "poor", &poor).await;
        let (key, hasty) = match key {
            Some(key) => (key.to_owned(), None),
            None => (
                somebody(url, admin, "rich", &json!({"subscription_plan": "premium"})).await,
                Some(somebody(url, admin, "hasty", &json!({"subscription_plan": "hasty"})).await),
            ),
        };
        Self { url: url.to_owned(), key, used_up, hasty }
    }

    /// Runs one script to its end, which must be a good one.
    fn play(&self, mut command: Command) {
        command.env("TOLLGATE_URL", &self.url).env("TOLLGATE_KEY", &self.key);
        command.env("TOLLGATE_USED_UP_KEY", &self.used_up);
        command.envs(self.hasty.iter().map(|key| ("TOLLGATE_HASTY_KEY", key)));
        command.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("HTTP_PROXY").env_remove("http_proxy");
        let name = format!("{command:?}");
        let (code, said) = Child::start(command).ends();
        assert_eq!(code, Some(0), "{name}\n{said}");
    }

    fn python(&self, name: &str) {
        let mut command = Command::new(tool("python/bin/python"));
        command.arg(script(name));
        self.play(command);
    }

    fn everybody(&self) {
        for name in ["openai_python.py", "anthropic_python.py", "langchain_chat.py", "ollama_python.py"] {
            self.python(name);
        }
        let mut node = Command::new("node");
        node.arg(script("openai_node.mjs")).env("TOLLGATE_NODE_MODULES", tool("node"));
        self.play(node);
        self.play(Command::new(script("curl.sh")));
    }
}

/// Registers `name` on these terms of the admin's; the key.
async fn somebody(url: &str, admin: &str, name: &str, terms: &Value) -> String {
    let (_, key) = child::register(url, name).await;
    let user = format!("{url}/api/v1/admin/users/{name}");
    let changed = reqwest::Client::new().put(user).bearer_auth(admin).json(terms).send().await.unwrap();
    assert_eq!(changed.status(), 200, "{}", changed.text().await.unwrap());
    key
}

#[tokio::test]
async fn every_sdk_speaks_to_the_demo() {
    let (_child, told) = demo::started();
    let stage = Stage::set(&told["url"], &told["admin_password"], Some(&told["api_key"])).await;
    stage.everybody();
}

#[tokio::test]
async fn every_sdk_speaks_to_an_app_that_knows_nothing_of_us() {
    let app = free_port();
    let mut uvicorn = Command::new(tool("python/bin/uvicorn"));
    uvicorn.args([
        "fastapi_app:app",
        "--host",
        "127.0.0.1",
        "--log-level",
        "warning",
        "--port",
        &app.port().to_string(),
    ]);
    uvicorn.current_dir(script("")).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut uvicorn = Child::start(uvicorn);
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(app).await.is_err() {
        assert!(uvicorn.runs() && begun.elapsed() < Duration::from_secs(30), "{}", uvicorn.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let plans = "[plans.premium]\nconversation_limit = 1000\n\
                 [plans.hasty]\nconversation_limit = 1000\nrate_limit_per_minute = 60\nburst = 1\n";
    let site = Site::new(&(plans.to_owned() + &route_to(&format!("http://{app}"))));
    let _child = site.serve(&[("ADMIN_PASSWORD", "correct-horse-7")]).await;
    let stage = Stage::set(&site.url(""), "correct-horse-7", None).await;
    stage.everybody();
}

/// The documentation's pages need nobody but us: in a browser that reaches nothing else they come up
/// whole, call us, and have nothing to complain of.
#[tokio::test]
async fn the_documentation_opens_in_a_browser_without_a_network() {
    let (_child, told) = demo::started();
    let mut node = Command::new("node");
    node.arg(script("documentation.mjs")).env("TOLLGATE_NODE_MODULES", tool("node"));
    node.env("TOLLGATE_URL", &told["url"]).env_remove("HTTP_PROXY").env_remove("http_proxy");
    let (code, said) = Child::start(node).ends_within(4 * child::PATIENCE);
    assert_eq!(code, Some(0), "{said}");
}

/// Started as the earlier service was: by its variables, with its kind of keys.
#[tokio::test]
async fn a_client_of_the_earlier_service_goes_its_whole_way() {
    let plans = "[plans.free]\nconversation_limit = 10\n[plans.premium]\nconversation_limit = 1000\n";
    let site = Site::new(plans);
    let _child = site
        .serve(&[
            ("SECRET_KEY", "your-super-secret-key-of-at-least-32-characters"),
            ("ENCRYPTION_KEY", "your-encryption-key-here-32-bytes"),
            ("DATABASE_URL", "sqlite:///./user_management.db"),
            ("ADMIN_USERNAME", "admin"),
            ("ADMIN_PASSWORD", "admin-of-1999!"),
        ])
        .await;
    let mut client = Command::new(tool("python/bin/python"));
    client.arg(script("seed_client.py")).env("PYTHONDONTWRITEBYTECODE", "1").env_remove("http_proxy");
    client.env("TOLLGATE_URL", site.url("")).env("TOLLGATE_ADMIN_PASSWORD", "admin-of-1999!");
    let (code, said) = Child::start(client).ends();
    assert_eq!(code, Some(0), "{said}");
}

/// Thousands of calls, good and bad, made up from nothing but our own document: it tells of every answer.
#[tokio::test]
async fn the_document_holds_against_thousands_of_made_up_calls() {
    let more = "server.trusted_proxies = [\"127.0.0.1/32\"]\n\
                [mail]\ntransport = \"file\"\nfrom = \"Tollgate <gate@example.com>\"\n\
                [plans.free]\nconversation_limit = 10\n[plans.premium]\nconversation_limit = 1000\n";
    let site = Site::new(more);
    let mut gate = site.serve(&[("ADMIN_PASSWORD", "correct-horse-7")]).await;
    let mut fuzz = Command::new(tool("python/bin/python"));
    fuzz.arg(script("schema_fuzz.py")).current_dir(site.folder.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    fuzz.env("TOLLGATE_URL", site.url("")).env("TOLLGATE_ADMIN_PASSWORD", "correct-horse-7");
    fuzz.env_remove("HTTP_PROXY").env_remove("http_proxy");
    let (code, said) = Child::start(fuzz).ends_within(Duration::from_mins(10));
    assert_eq!(code, Some(0), "{said}");
    assert!(gate.runs(), "{}", gate.said());
}
