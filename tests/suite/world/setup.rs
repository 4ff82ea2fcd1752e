//! The terms of a world: the usual configuration, and what a story lays over it.

use super::{ADMIN_PASSWORD, UPSTREAM_SECRET};

/// What a world is configured with where its story says nothing else.
pub(crate) const USUAL: &str = r#"
[server]
listen = ["127.0.0.1:0"]
data_dir = "data"
workers = 2
drain_timeout = "5s"
[database]
url = "DATABASE"
max_connections = 6
[security]
secret_key = "a-secret-of-the-tests-that-is-long-enough-0123456789"
encryption_key = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
bcrypt_rounds = 4
admin_username = "admin"
[limits]
rate_limit_per_minute = 0
[plans.free]
conversation_limit = 10
[plans.premium]
conversation_limit = 1000
[[upstreams]]
name = "model"
url = "UPSTREAM"
credential = { header = "authorization", value = "Bearer sk-the-operators-own" }
[[routes]]
prefix = "/v1"
upstream = "model"
charge = ["POST /v1/chat/completions", "POST /v1/completions", "POST /v1/responses", "POST /v1/messages"]
[[routes]]
prefix = "/api"
upstream = "model"
dialect = "ollama"
charge = ["POST /api/chat", "POST /api/generate"]
[[routes]]
prefix = "/app"
upstream = "model"
dialect = "plain"
answer = "/reply"
charge = ["POST /app/chat"]
"#;

/// The configuration of a world before it starts.
pub(crate) struct Setup {
    pub(super) table: toml::Table,
    upstream: String,
    /// Environment variables the gateway sees.
    pub(crate) vars: Vec<(String, String)>,
    /// PEM of the certificate authority clients trust, where the gate speaks TLS.
    pub(crate) trust: Option<String>,
}

// === impl Setup ===

impl Setup {
    pub(super) fn new(upstream: String) -> Self {
        let vars = vec![("ADMIN_PASSWORD".to_owned(), ADMIN_PASSWORD.to_owned())];
        let mut setup = Self { table: toml::Table::new(), upstream, vars, trust: None };
        setup.add(USUAL);
        setup
    }

    /// Lays this TOML over what is there.
    pub(crate) fn add(&mut self, text: &str) {
        let text = text.replace("UPSTREAM", &self.upstream);
        let over: toml::Table = text.parse().unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
        lay_over(&mut self.table, over);
    }

    /// Only this route, to the usual upstream: the keys of one `[[routes]]` table.
    pub(crate) fn only_route(&mut self, keys: &str) {
        self.add(&format!("[[routes]]\nupstream = \"model\"\n{keys}"));
    }

    /// The usual upstream with these keys as well.
    pub(crate) fn upstream(&mut self, keys: &str) {
        let credential =
            format!("credential = {{ header = \"authorization\", value = \"Bearer {UPSTREAM_SECRET}\" }}");
        self.add(&format!("[[upstreams]]\nname = \"model\"\nurl = \"UPSTREAM\"\n{credential}\n{keys}"));
    }
}

fn lay_over(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => lay_over(old, new),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}
