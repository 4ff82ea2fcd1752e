//! Arbitrary text as a configuration: it is read or refused with every mistake named, and what is read is coherent.

use std::path::Path;

use tollgate::config::{Config, ConfigError, Vars};

const PIECES: [&str; 44] = [
    "\n",
    "[server]\n",
    "[limits]\n",
    "[plans.free]\n",
    "[plans.free.levels.x]\n",
    "[[routes]]\n",
    "[[upstreams]]\n",
    "[security]\n",
    "[message_log]\n",
    "[authz]\n",
    "[mail]\n",
    "[access]\n",
    "name = \"a\"\n",
    "url = \"http://a\"\n",
    "upstream = \"a\"\n",
    "prefix = \"/\"\n",
    "prefix = \"/v1\"\n",
    "prefix = \"/a/../b\"\n",
    "dialect = \"plain\"\n",
    "charge = [\"POST /v1/x\"]\n",
    "charge = []\n",
    "models = [\"small-*\"]\n",
    "models = []\n",
    "conversation_limit = 10\n",
    "conversation_limit = -1\n",
    "max_body_size = \"1MiB\"\n",
    "max_upload_size = \"1KiB\"\n",
    "max_body_memory = \"99999999TiB\"\n",
    "host = \"a.example\"\n",
    "strip_prefix = true\n",
    "listen = [\"127.0.0.1:0\"]\n",
    "trusted_proxies = [\"10.0.0.0/8\"]\n",
    "environment = \"production\"\n",
    "headers = \"x-forwarded\"\n",
    "time_zone = \"Europe/Berlin\"\n",
    "time_zone = \"Mars\"\n",
    "credential = { header = \"a\", value = \"${X}\" }\n",
    "burst = 0\n",
    "rate_limit_per_minute = 18446744073709551616\n",
    "= 1\n",
    "\"",
    "answer = \"/a\"\n",
    "websocket = true\n",
    "unknown = 1\n",
];

/// One file; panics when a promise is broken.
pub(super) fn tell(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let text: String = if mode % 2 == 1 {
        rest.iter().map(|piece| PIECES[usize::from(*piece) % PIECES.len()]).collect()
    } else {
        String::from_utf8_lossy(rest).into_owned()
    };
    // Files that a configuration names are read; none without an end may be.
    if text.contains("_file") || text.contains("/dev") || text.contains("/proc") {
        return;
    }
    match Config::from_toml(&text, Path::new("/nowhere"), &Vars::default()) {
        Ok(config) => is_coherent(&config, &text),
        Err(ConfigError::Mistakes(findings) | ConfigError::Syntax(findings)) => {
            assert!(
                !findings.is_empty() && findings.iter().all(|finding| !finding.message.is_empty()),
                "{text}"
            );
        }
        Err(other) => assert!(!other.to_string().is_empty(), "{text}"),
    }
}

fn is_coherent(config: &Config, text: &str) {
    let limits = &config.limits;
    assert!(limits.max_body_size <= limits.max_upload_size, "{text}");
    for route in &config.routes {
        assert!(config.upstreams.get(route.upstream).is_some(), "a route to nowhere: {text}");
        assert!(route.prefix.is_empty() || route.prefix.starts_with('/'), "{text}");
        let own = tollgate::path::Path::new(&route.prefix);
        assert!(route.takes_path(&own), "a route that does not take its own prefix: {text}");
    }
    for plan in config.plans.all() {
        assert!(plan.allowance.per_day >= 0, "{text}");
        assert!(plan.models.is_open() || !plan.models.permits_model("a\0"), "{text}");
    }
}
