//! From a file's name and an environment to a [`Config`], or to every mistake that is in the way.

use std::io;
use std::path::{Path, PathBuf};

use super::tree::{Tree, Verdict};
use super::{
    Config, Environment, Finding, Secrets, Vars, check, file, mail, metrics, routes, secrets, tree, webhooks,
};

/// Where the file is looked for last.
pub(super) const SYSTEM_FILE: &str = "/etc/tollgate/gateway.toml";

/// How a configuration is read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What relative paths count from; empty for the working directory.
    pub base_dir: PathBuf,
    /// Whether missing secrets are made.
    pub secrets: Secrets,
}

/// Why there is no configuration. Never holds the value of a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML: each syntax error, with `line L, column C` for a path.
    #[error("{}", lines(.0))]
    Syntax(Vec<Finding>),
    /// Every mistake that was found, in one go.
    #[error("{}", lines(.0))]
    Mistakes(Vec<Finding>),
}

// === impl Config ===

impl Config {
    /// Reads the file that [`locate`] finds, or none, and the environment over it.
    ///
    /// # Errors
    /// Every mistake there is, not only the first.
    pub fn load(explicit: Option<&Path>, vars: &Vars, options: &Options) -> Result<Self, ConfigError> {
        let file = locate(explicit, vars, &options.base_dir);
        let text = match file.clone() {
            None => String::new(),
            Some(path) => {
                std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path, source })?
            }
        };
        Ok(Self { file, ..Self::assemble(&text, vars, options)? })
    }

    /// Reads a file's text, as a start would: relative paths count from `base_dir`, and missing secrets
    /// are made.
    ///
    /// # Errors
    /// Every mistake there is, not only the first.
    pub fn from_toml(text: &str, base_dir: &Path, vars: &Vars) -> Result<Self, ConfigError> {
        Self::assemble(text, vars, &Options { base_dir: base_dir.to_owned(), secrets: Secrets::Create })
    }

    /// For people: the file that was read, or where there is none.
    #[must_use]
    pub fn source(&self) -> String {
        self.file.as_ref().map_or_else(
            || {
                let usual = std::path::absolute("gateway.toml").unwrap_or_else(|_| "gateway.toml".into());
                format!("none, neither {} nor {}", usual.display(), SYSTEM_FILE)
            },
            |file| std::path::absolute(file).unwrap_or_else(|_| file.clone()).display().to_string(),
        )
    }

    fn assemble(text: &str, vars: &Vars, options: &Options) -> Result<Self, ConfigError> {
        let table = tree::parse(text).map_err(ConfigError::Syntax)?;
        let tree = Tree::new(vars);
        let draft = file::read(tree.root(table), &tree, &options.base_dir);
        tree.refuse_unknown_variables();
        let strict = draft.server.environment == Environment::Production;
        let config = Self::finish(&tree, draft, options, strict);
        let Verdict { mistakes, warnings, notes } = tree.into_verdict(strict);
        match config {
            Some(config) if mistakes.is_empty() => Ok(Self { warnings, notes, ..config }),
            _ => Err(ConfigError::Mistakes(mistakes)),
        }
    }

    /// Checks the draft; `None` only where the tree has been told why. Secrets are made last.
    fn finish(tree: &Tree<'_>, draft: file::Draft, options: &Options, strict: bool) -> Option<Self> {
        let data_dir = &draft.server.data_dir;
        check::server(tree, &draft.server);
        check::bcrypt(tree, draft.security.bcrypt_rounds);
        check::sizes(tree, &draft.limits, &draft.message_log);
        let access = check::access(tree, draft.access);
        let mail = mail::check(tree, &draft.mail, data_dir);
        check::sessions(tree, &draft.security, &mail);
        let database = check::database(tree, &draft.database, data_dir, &options.base_dir);
        let webhooks = webhooks::check(tree, draft.webhooks);
        let metrics = metrics::check(tree, draft.metrics);
        let upstreams = check::upstreams(tree, &draft.upstreams);
        let routes = routes::check(tree, draft.routes, &draft.upstreams);
        let security = secrets::resolve(tree, draft.security, data_dir, options.secrets, strict);
        Some(Self {
            file: None,
            database: database?,
            security: security?,
            metrics,
            access,
            limits: draft.limits,
            plans: draft.plans,
            message_log: draft.message_log,
            webhooks,
            authz: draft.authz,
            mail,
            upstreams: upstreams?,
            routes: routes?,
            server: draft.server,
            warnings: Vec::new(),
            notes: Vec::new(),
        })
    }
}

/// The file to read: the given one, then `$GATEWAY_CONFIG`, whether they exist or not; then
/// `gateway.toml` in `base_dir` and `/etc/tollgate/gateway.toml`, if they do. `None` is a legal
/// installation of defaults and environment, without routes.
#[must_use]
pub fn locate(explicit: Option<&Path>, vars: &Vars, base_dir: &Path) -> Option<PathBuf> {
    let named = explicit.map(Path::to_owned);
    let named =
        named.or_else(|| vars.get("GATEWAY_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from));
    let usual = [base_dir.join("gateway.toml"), PathBuf::from(SYSTEM_FILE)];
    named.or_else(|| usual.into_iter().find(|path| path.exists()))
}

fn lines(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

// === impl ConfigError ===

impl ConfigError {
    /// Every mistake; empty when the file could not be read.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Read { .. } => &[],
            Self::Syntax(findings) | Self::Mistakes(findings) => findings,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write;
    use std::path::Path;

    use secrecy::ExposeSecret;

    use super::{Config, ConfigError, Finding, Options, Secrets, Tree, Vars, file, locate};
    use crate::config::DatabaseLocation;
    use crate::config::tree::parse;
    use crate::plan::{AddressRules, Permitted};

    const EXAMPLE: &str = include_str!("../../gateway.toml.example");
    const STRONG: &str = "kJ8s-Vq2ZpX4mT7wLb1NcR6yHd3GfA9u";
    const APP: &str = "[[upstreams]]\nname = \"app\"\nurl = \"http://app\"\n";

    /// A file, and the path of a mistake in it.
    const MISTAKES: &[(&str, &str)] = &[
        ("[server]\nlistne = [\"0.0.0.0:1\"]", "server.listne"),
        ("[sever]\nlisten = []", "sever"),
        ("server = 3", "server"),
        ("[server]\nlisten = []", "server.listen"),
        ("[server]\nlisten = \"0.0.0.0:8080\"", "server.listen"),
        ("[server]\nlisten = [\"0.0.0.0:8080\", \"localhost\"]", "server.listen[1]"),
        ("[server]\nlisten = [\"0.0.0.0:80\"]\nadmin_listen = [\"127.0.0.1:80\"]", "server.admin_listen[0]"),
        ("[server]\nworkers = \"2\"", "server.workers"),
        ("[server]\nworkers = -1", "server.workers"),
        ("[server]\ndrain_timeout = 30", "server.drain_timeout"),
        ("[server]\ndrain_timeout = \"30\"", "server.drain_timeout"),
        ("[server]\nenvironment = \"prod\"", "server.environment"),
        ("[server]\ndebug = \"yes\"", "server.debug"),
        ("[server]\ntrusted_proxies = [\"10.0.0.0/33\"]", "server.trusted_proxies[0]"),
        ("[server.tls]\ncertificate = \"none.pem\"\nprivate_key = \"x\"", "server.tls.certificate"),
        ("[server.tls]\ncertificate = \"none.pem\"", "server.tls.private_key"),
        ("[server.connections]\nmax_head_size = \"0B\"", "server.connections.max_head_size"),
        ("[server.connections]\nmax_head_size = 32768", "server.connections.max_head_size"),
        ("[server.connections]\nh2_max_streams = 0", "server.connections.h2_max_streams"),
        ("[database]\nurl = \"mysql://h/d\"", "database.url"),
        ("[database]\nurl = \"sqlite::memory:\"", "database.url"),
        ("[database]\nurl_file = \"none\"", "database.url_file"),
        ("[database]\nmax_connections = 0", "database.max_connections"),
        ("[webhooks]\nurl = \"https://h/x\"", "webhooks.secret"),
        ("[webhooks]\nurl = \"ftp://h/x\"\nsecret = \"s\"", "webhooks.url"),
        ("[webhooks]\nurl = \"https://u:p@h/x\"\nsecret = \"s\"", "webhooks.url"),
        ("[webhooks]\nevents = [\"user_gone\"]", "webhooks.events[0]"),
        ("[authz]\ncharge = [\"/chat\"]", "authz.charge[0]"),
        ("[redis]\nurl = \"redis://h\"", "redis"),
        ("[security]\nbcrypt_rounds = 17", "security.bcrypt_rounds"),
        ("[security]\nbcrypt_rounds = 3", "security.bcrypt_rounds"),
        ("[security]\nsecret_key = \"\"", "security.secret_key"),
        ("[security]\nsecret_key = \"a\"\nsecret_key_file = \"b\"", "security.secret_key"),
        ("[security]\nsecret_key = \"${NOPE}\"", "security.secret_key"),
        ("[security]\nsecret_key = 123", "security.secret_key"),
        ("[security]\nadmin_password_file = \"none\"", "security.admin_password_file"),
        ("[security]\naccess_token_ttl = \"0s\"", "security.access_token_ttl"),
        ("[security]\nrequire_totp = [\"user\"]", "security.require_totp[0]"),
        ("[security]\nrequire_verified_email = true", "security.require_verified_email"),
        ("[security]\nrefresh_token_ttl = \"10m\"", "security.refresh_token_ttl"),
        ("[mail]\ntransport = \"smtp\"", "mail.host"),
        ("[security]\nregistration_by_mail = true", "security.registration_by_mail"),
        ("[mail]\nhost = \"smtp.example.org\"\nfrom = \"nobody\"", "mail.from"),
        ("[mail]\nhost = \"h\"\nfrom = \"a@b.c\"\nusername = \"u\"", "mail.password"),
        ("[mail]\nhost = \"h\"\nfrom = \"a@b.c\"\npassword = \"p\"", "mail.username"),
        ("[mail]\ntransport = \"pigeon\"", "mail.transport"),
        ("[mail]\nport = 0", "mail.port"),
        ("[access]\nwhitelisted_ips = [\"your.server.ip\"]", "access.whitelisted_ips[0]"),
        ("[limits]\ntime_zone = \"Mars/Olympus\"", "limits.time_zone"),
        ("[limits]\nrate_limit_per_minute = -1", "limits.rate_limit_per_minute"),
        ("[limits]\nmax_parallel = 0", "limits.max_parallel"),
        ("[limits]\nmax_body_size = \"1GiB\"", "limits.max_body_size"),
        ("[limits]\nmax_body_memory = \"1MiB\"", "limits.max_body_memory"),
        ("[limits]\nmax_body_memory_per_user = \"1MiB\"", "limits.max_body_memory_per_user"),
        ("[server.connections]\nbody_timeout = \"0s\"", "server.connections.body_timeout"),
        ("[plans.pro]\nburst = 1", "plans.pro.conversation_limit"),
        ("[plans.free]\nconversation_limit = -1", "plans.free.conversation_limit"),
        ("[plans.free]\nmodels = [\"a*b\"]", "plans.free.models[0]"),
        ("[plans.free.levels.basic]\ntime_zone = \"x\"", "plans.free.levels.basic.time_zone"),
        ("[plans.free.levels.basic]\nlimit = 1", "plans.free.levels.basic.limit"),
        ("[message_log]\nsync = \"always\"", "message_log.sync"),
        ("[message_log]\ncontent_retention = \"91d\"", "message_log.content_retention"),
        ("[message_log]\nmax_answer_size = \"1GiB\"", "message_log.max_answer_size"),
        ("[message_log]\nmax_spool = \"15MiB\"", "message_log.max_spool"),
        ("[message_log]\nsync_interval = \"2m\"", "message_log.sync_interval"),
        (
            "[message_log]\nmemory_threshold = \"1GiB\"\nmax_memory = \"10MiB\"",
            "message_log.memory_threshold",
        ),
        ("[[upstreams]]\nurl = \"http://a\"", "upstreams[0].name"),
        ("[[upstreams]]\nname = \"a\"", "upstreams[0].url"),
        ("[[upstreams]]\nname = \"a b\"\nurl = \"http://a\"", "upstreams[0].name"),
        ("[[upstreams]]\nname = \"a\"\nurl = \"http://u:p@a\"", "upstreams[0].url"),
        ("[[upstreams]]\nname = \"a\"\nurl = \"http://a\"\nca_file = \"none\"", "upstreams[0].ca_file"),
        ("[upstreams]\nname = \"a\"", "upstreams"),
        ("[[routes]]\nprefix = \"/v1\"\nupstream = \"app\"", "routes[0].upstream"),
    ];

    fn load(text: &str, vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        Config::from_toml(text, dir.path(), &vars.iter().copied().collect())
    }

    fn found(text: &str, vars: &[(&str, &str)]) -> Vec<Finding> {
        load(text, vars).expect_err(text).findings().to_vec()
    }

    /// A route to an upstream, with these further lines.
    fn with_route(lines: &str) -> String {
        format!("{APP}[[routes]]\nupstream = \"app\"\n{lines}")
    }

    /// The example with its disabled keys enabled.
    fn everything() -> String {
        let enabled = |line: &str| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key.to_owned(),
            _ => line.to_owned(),
        };
        EXAMPLE.lines().map(enabled).fold(String::new(), |mut text, line| {
            writeln!(text, "{line}").unwrap();
            text
        })
    }

    #[test]
    fn each_mistake_is_found_where_it_is() {
        for (text, path) in MISTAKES {
            let findings = found(text, &[]);
            assert!(findings.iter().any(|finding| finding.path == *path), "{text}\n{findings:?}");
        }
    }

    #[test]
    fn each_mistake_of_routes_and_credentials_is_found_where_it_is() {
        let routes = [
            ("", "prefix"),
            ("prefix = \"v1\"", "prefix"),
            ("prefix = \"/api/v1/x\"", "prefix"),
            ("prefix = \"/health/\"", "prefix"),
            ("prefix = \"/console\"", "prefix"),
            ("prefix = \"/a//b\"", "prefix"),
            ("prefix = \"/a/../b\"", "prefix"),
            ("prefix = \"/a%2fb\"", "prefix"),
            ("prefix = \"/a;b\"", "prefix"),
            ("prefix = \"/v1\"\nhost = \"h:80\"", "host"),
            ("prefix = \"/v1\"\ndialect = \"gemini\"", "dialect"),
            ("prefix = \"/v1\"\ncharge = [\"/v1/x\"]", "charge[0]"),
            ("prefix = \"/v1\"\ncharge = [\"post /v1/x\"]", "charge[0]"),
            ("prefix = \"/v1\"\nfree = [\"POST /v2/x\"]", "free[0]"),
            ("prefix = \"/v1\"\nfree = [\"POST */x*y\"]", "free[0]"),
            ("prefix = \"/v1\"\nallow = [\"*\", \"/v1/x\"]", "allow[1]"),
            ("prefix = \"/v1\"\nallow = [\"GET /v2/*\"]", "allow[0]"),
            ("prefix = \"/v1\"\nallow = [\"GET /v1/%66iles\"]", "allow[0]"),
            ("prefix = \"/v1\"\ncharge = [\"POST /v1/x\", \"POST /v2/x\"]", "charge[1]"),
            ("prefix = \"/v1\"\ncapture = true", "capture"),
            ("prefix = \"/v1\"\nanswer = \"reply\"", "answer"),
            ("prefix = \"/v1\"\nr_type = \"\"", "r_type"),
            ("prefix = \"/v1\"\nchrage = []", "chrage"),
        ];
        for (lines, key) in routes {
            let findings = found(&with_route(lines), &[]);
            assert_eq!(findings.first().unwrap().path, format!("routes[0].{key}"), "{lines}\n{findings:?}");
        }
        let credentials = [
            ("{ header = \"x-api-key\" }", "credential.value"),
            ("{ value = \"x\" }", "credential.header"),
            ("{ header = \"a b\", value = \"x\" }", "credential.header"),
            ("{ header = \"host\", value = \"x\" }", "credential.header"),
            ("{ header = \"x-api-key\", value = \"a\\nb\" }", "credential.value"),
            ("{ header = \"x-api-key\", value_file = \"none\" }", "credential.value_file"),
            ("\"sk-123\"", "credential"),
        ];
        for (credential, key) in credentials {
            let findings = found(&format!("{APP}credential = {credential}"), &[]);
            let path = format!("upstreams[0].{key}");
            assert!(findings.iter().any(|finding| finding.path == path), "{credential}\n{findings:?}");
        }
        let twins = with_route(&format!(
            "prefix = \"/v1\"\n[[routes]]\nprefix = \"/v1/\"\nupstream = \"app\"\n{APP}"
        ));
        let paths: Vec<String> = found(&twins, &[]).into_iter().map(|finding| finding.path).collect();
        assert_eq!(paths, ["upstreams[1].name", "routes[1].prefix"]);
    }

    #[test]
    fn each_mistake_of_the_environment_names_its_variable() {
        let cases = [
            ("GATEWAY__SERVER__LISTNE", "127.0.0.1:1"),
            ("GATEWAY__NOPE", "1"),
            ("GATEWAY__UPSTREAMS__3__URL", "http://a"),
            ("GATEWAY__PLANS__FREE__CONVERSATION_LIMIT", "ten"),
            ("GATEWAY__LIMITS__BURST", ""),
            ("GATEWAY__SERVER__DRAIN_TIMEOUT", "30"),
            ("SECRET_KEY", ""),
            ("ENCRYPTION_KEY", " "),
            ("ALGORITHM", "none"),
            ("ACCESS_TOKEN_EXPIRE_MINUTES", "30m"),
            ("ACCESS_TOKEN_EXPIRE_MINUTES", "0"),
            ("DATABASE_URL", "oracle://x"),
            ("BCRYPT_ROUNDS", "40"),
            ("ADMIN_USERNAME", ""),
            ("ENABLE_IP_WHITELIST", "maybe"),
            ("WHITELISTED_IPS", "127.0.0.1,your.server.ip"),
            ("RATE_LIMIT_PER_MINUTE", "many"),
            ("BATCH_LOG_INTERVAL_MINUTES", "-1"),
            ("MEMORY_THRESHOLD_MB", "100MiB"),
            ("DEBUG", "app:*"),
        ];
        for (name, value) in cases {
            let findings = found("", &[(name, value)]);
            let paths: Vec<&str> = findings.iter().map(|finding| finding.path.as_str()).collect();
            assert_eq!(paths, [name], "{findings:?}");
        }
        let long = "é".repeat(37);
        assert_eq!(found("", &[("ADMIN_PASSWORD", &long)]).first().unwrap().path, "ADMIN_PASSWORD");
    }

    #[test]
    fn every_mistake_is_told_at_once_with_a_way_out() {
        let text = "[server]\nlistne = 1\ndrain_timeout = 5\n[limits]\ntime_zone = \"x\"\n\
                    [[routes]]\nprefix = \"v1\"\nupstream = \"opnai\"\n\
                    [[upstreams]]\nname = \"openai\"\nurl = \"https://h\"\n";
        let error = load(text, &[("BCRYPT_ROUNDS", "x")]).unwrap_err();
        let told = error.to_string();
        assert_eq!(told.lines().count(), 6, "{told}");
        assert!(told.contains("did you mean \"listen\"?"), "{told}");
        assert!(told.contains("did you mean \"openai\"?"), "{told}");
        let unknown = found("", &[("GATEWAY__LIMITS__BURTS", "1")]);
        assert!(unknown.first().unwrap().message.contains("GATEWAY__LIMITS__BURST?"), "{unknown:?}");
    }

    #[test]
    fn a_key_nobody_knows_is_told_all_that_are() {
        let told = found("[[upstreams]]\nname = \"a\"\nurl = \"http://a\"\nbanana = 1", &[])[0].to_string();
        assert!(told.contains("known here are name, url, credential, ca_file, "), "{told}");
    }

    #[test]
    fn syntax_errors_have_line_and_column_and_tell_no_secret() {
        let bare = load("[security]\nsecret_key = hunter2\n", &[]).unwrap_err();
        assert!(matches!(&bare, ConfigError::Syntax(_)));
        assert!(bare.to_string().starts_with("line 2, column "), "{bare}");
        for line in [
            "\"hunter2",
            "'hunter2\n",
            "\"\\hunter2\"",
            "hunter2.5e",
            "1hunter2",
            "[hunter2",
            "\"a\" hunter2",
        ] {
            let error = load(&format!("[security]\nsecret_key = {line}\n"), &[]).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let twice =
            load("[security]\nsecret_key = \"hunter2\"\nsecret_key = \"hunter2\"\n", &[]).unwrap_err();
        assert!(!twice.to_string().contains("hunter2"), "{twice}");
    }

    #[test]
    fn weak_settings_are_warned_of_in_development_and_refused_in_production() {
        let cases: &[&[(&str, &str)]] = &[
            &[("SECRET_KEY", "your-super-secret-key-here-change-this-in-production")],
            &[("ENCRYPTION_KEY", "your-encryption-key-here-32-bytes")],
            &[("SECRET_KEY", "hunter2hunter2")],
            &[("SECRET_KEY", "abababababababababababababababababababab")],
            &[("ADMIN_PASSWORD", "admin123!")],
            &[("BCRYPT_ROUNDS", "8")],
            &[("GATEWAY__MAIL__ENCRYPTION", "none"), ("SMTP_HOST", "h"), ("GATEWAY__MAIL__FROM", "a@b.c")],
            &[("ENCRYPTION_KEY", STRONG), ("SECRET_KEY", STRONG)],
            &[("GATEWAY__SERVER__TRUSTED_PROXIES", "0.0.0.0/0")],
        ];
        for vars in cases {
            let config = load("", vars).unwrap();
            let name = vars.first().unwrap().0;
            assert_eq!(config.warnings.first().unwrap().path, name);
            let strict = found("[server]\nenvironment = \"production\"", vars);
            let told = format!("{strict:?}");
            assert_eq!(strict.first().unwrap().path, name, "{told}");
            assert!(!name.contains("KEY") || vars.iter().all(|(_, value)| !told.contains(value)), "{told}");
        }
    }

    #[test]
    fn a_readable_secret_file_is_a_weakness() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, format!("{STRONG}\n")).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let text = "[security]\nsecret_key_file = \"key\"";
        let config = Config::from_toml(text, dir.path(), &Vars::default()).unwrap();
        assert_eq!(config.security.secret_key.expose_secret(), STRONG);
        assert_eq!(config.warnings.first().unwrap().path, "security.secret_key_file");
        let strict = Vars::from_iter([("GATEWAY__SERVER__ENVIRONMENT", "production")]);
        assert!(Config::from_toml(text, dir.path(), &strict).is_err());
    }

    #[test]
    fn tls_files_are_read_and_the_key_is_to_be_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let text = "[server.tls]\ncertificate = \"cert.pem\"\nprivate_key = \"key.pem\"\n";
        let mut warned = Vec::new();
        for mode in [0o600, 0o644] {
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
            let config = Config::from_toml(text, dir.path(), &Vars::default()).unwrap();
            warned.extend(config.warnings.into_iter().map(|warning| (mode, warning.path)));
        }
        assert_eq!(warned, [(0o644, "server.tls.private_key".to_owned())]);
        let swapped = text.replace("\"key.pem\"", "\"cert.pem\"");
        let error = Config::from_toml(&swapped, dir.path(), &Vars::default()).unwrap_err();
        assert_eq!(error.findings().first().unwrap().path, "server.tls.private_key");
    }

    #[test]
    fn no_damage_to_a_file_makes_a_check_panic() {
        let text = everything();
        let options = Options { base_dir: "nowhere".into(), secrets: Secrets::ReadOnly };
        for start in (0..text.len()).step_by(29) {
            for length in [1, 2, 40] {
                let stays = |(at, _): &(usize, char)| !(start..start + length).contains(at);
                let damaged: String = text.char_indices().filter(stays).map(|(_, kept)| kept).collect();
                assert!(Config::assemble(&damaged, &Vars::default(), &options).is_err());
            }
        }
    }

    #[test]
    fn the_seeds_environment_starts_a_development_installation() {
        let vars = [
            ("SECRET_KEY", "your-super-secret-key-here-change-this-in-production"),
            ("ALGORITHM", "HS256"),
            ("ACCESS_TOKEN_EXPIRE_MINUTES", "45"),
            ("DATABASE_URL", "sqlite:///./user_management.db"),
            ("BCRYPT_ROUNDS", "12"),
            ("ENCRYPTION_KEY", "your-encryption-key-here-32-bytes"),
            ("ADMIN_USERNAME", "admin"),
            ("ADMIN_PASSWORD", "admin123!"),
            ("ENABLE_IP_WHITELIST", "true"),
            ("WHITELISTED_IPS", "127.0.0.1,localhost"),
            ("RATE_LIMIT_PER_MINUTE", "100"),
            ("SMTP_HOST", "mail.example.org"),
        ];
        let config = load("[limits]\nrate_limit_per_minute = 5", &vars).unwrap();
        assert_eq!(config.limits.rate_limit_per_minute, 100);
        assert_eq!(config.limits.burst, 100);
        assert_eq!(config.security.access_token_ttl.as_secs(), 45 * 60);
        assert!(matches!(&config.access, AddressRules::Only(_)));
        assert!(config.access.permit("::1".parse().unwrap()));
        assert!(!config.access.permit("10.0.0.1".parse().unwrap()));
        let mut warned: Vec<&str> = config.warnings.iter().map(|warning| warning.path.as_str()).collect();
        warned.sort_unstable();
        assert_eq!(warned, ["ADMIN_PASSWORD", "ENCRYPTION_KEY", "SECRET_KEY", "mail.from"]);
    }

    #[test]
    fn the_environment_goes_before_the_file_and_adds_to_it() {
        let vars = [
            ("GATEWAY_CONFIG", "elsewhere.toml"),
            ("GATEWAY__SERVER__LISTEN", "127.0.0.1:1, 127.0.0.1:2"),
            ("GATEWAY__PLANS__FREE__CONVERSATION_LIMIT", "3"),
            ("GATEWAY__PLANS__TEAM__CONVERSATION_LIMIT", "7"),
            ("GATEWAY__UPSTREAMS__0__URL", "http://other:9000"),
            ("GATEWAY__UPSTREAMS__0__CREDENTIAL__HEADER", "x-api-key"),
            ("GATEWAY__UPSTREAMS__0__CREDENTIAL__VALUE", "pa${x}$$"),
            ("GATEWAY__ROUTES__0__PREFIX", "/"),
            ("GATEWAY__ROUTES__0__UPSTREAM", "app"),
        ];
        let config = load(&format!("{APP}[plans.Free2]\nconversation_limit = 1"), &vars).unwrap();
        assert_eq!(config.server.listen.len(), 2);
        assert_eq!(config.plans.resolve("free", "basic").allowance.per_day, 3);
        assert_eq!(config.plans.resolve("team", "basic").allowance.per_day, 7);
        let upstream = config.upstreams.first().unwrap();
        assert_eq!(upstream.authority.as_str(), "other:9000");
        let credential = upstream.credential.as_ref().unwrap();
        assert_eq!(credential.value.to_str().unwrap(), "pa${x}$$");
        assert!(!format!("{config:?}").contains("pa${x}"));
        let route = config.routes.first().unwrap();
        assert_eq!((route.prefix.as_str(), route.scope.as_str(), route.upstream), ("", "app", 0));
    }

    #[test]
    fn levels_differ_from_their_plan_only_where_they_say_so() {
        let text = "[limits]\nmax_parallel_per_key = 4\ntime_zone = \"Asia/Tokyo\"\n\
                    [plans.pro]\nconversation_limit = 100\nrate_limit_per_minute = 30\nmodels = [\"gpt-*\"]\n\
                    [plans.pro.levels.high]\nconversation_limit = 500\nmodels = [\"*\"]\n";
        let plans = load(text, &[]).unwrap().plans;
        let (base, high) = (plans.resolve("pro", "basic"), plans.resolve("pro", "high"));
        assert_eq!((base.allowance.per_day, high.allowance.per_day), (100, 500));
        assert_eq!(base.rates, high.rates);
        assert_eq!((base.rates.per_minute, base.rates.parallel), (30, 4));
        assert_eq!(base.allowance.zone, chrono_tz::Asia::Tokyo);
        assert!(!base.models.permits("claude") && high.models.permits("claude"));
        let stranger = plans.resolve("gone", "basic");
        assert_eq!((stranger.name.as_str(), stranger.allowance.per_day), ("free", 10));
        assert_eq!(stranger.scopes, Permitted::All);
    }

    #[test]
    fn a_check_writes_nothing_and_a_start_makes_what_is_missing_once() {
        let dir = tempfile::tempdir().unwrap();
        let options = |secrets| Options { base_dir: dir.path().to_owned(), secrets };
        let check = Config::load(None, &Vars::default(), &options(Secrets::ReadOnly)).unwrap();
        assert_eq!(check.notes.len(), 2);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let broken = Vars::from_iter([("DEBUG", "perhaps")]);
        assert!(Config::load(None, &broken, &options(Secrets::Create)).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let mut first = Config::load(None, &Vars::default(), &options(Secrets::Create)).unwrap();
        assert!(!dir.path().join("data/secret_key").exists(), "the database may know another");
        assert_eq!(first.security.make_missing().unwrap().len(), 2);
        let second = Config::load(None, &Vars::default(), &options(Secrets::Create)).unwrap();
        let keys = |config: &Config| {
            let security = &config.security;
            [&security.secret_key, &security.encryption_key].map(|key| key.expose_secret().to_owned())
        };
        assert_eq!(keys(&first), keys(&second));
        assert_ne!(keys(&first)[0], keys(&first)[1]);
        let DatabaseLocation::Sqlite(file) = &first.database.location else { panic!("{first:?}") };
        assert_eq!(*file, dir.path().join("data/tollgate.db"));
        assert!(first.routes.is_empty() && first.warnings.is_empty() && first.notes.is_empty());
    }

    #[test]
    fn the_file_is_looked_for_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let named = Vars::from_iter([("GATEWAY_CONFIG", "/there.toml")]);
        assert_eq!(
            locate(Some(Path::new("/here.toml")), &named, dir.path()).unwrap(),
            Path::new("/here.toml")
        );
        assert_eq!(locate(None, &named, dir.path()).unwrap(), Path::new("/there.toml"));
        std::fs::write(dir.path().join("gateway.toml"), "").unwrap();
        assert_eq!(locate(None, &Vars::default(), dir.path()).unwrap(), dir.path().join("gateway.toml"));
        let missing = Config::load(Some(Path::new("/nowhere/g.toml")), &named, &Options::default());
        assert!(matches!(missing, Err(ConfigError::Read { .. })));
    }

    #[test]
    fn the_files_we_ship_load_without_findings() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let vars = Vars::from_iter([
            ("OPENAI_API_KEY", "sk-test"),
            ("GATEWAY__SERVER__DATA_DIR", data.to_str().unwrap()),
        ]);
        let development = include_str!("../../config/development.toml");
        let production = include_str!("../../config/production.toml");
        for text in [EXAMPLE, development, production] {
            let config = Config::from_toml(text, dir.path(), &vars).unwrap();
            assert_eq!((config.warnings, config.notes), (vec![], vec![]));
            assert_eq!(config.routes.len(), 1);
        }
    }

    #[test]
    fn the_example_has_every_key_and_shows_the_defaults() {
        let vars = Vars::from_iter(
            [
                "OPENAI_API_KEY",
                "MY_SECRET_KEY",
                "MY_ENCRYPTION_KEY",
                "MY_ADMIN_PASSWORD",
                "MY_SMTP_PASSWORD",
                "MY_WEBHOOK_SECRET",
                "MY_METRICS_TOKEN",
            ]
            .map(|name| (name, "x")),
        );
        let tree = Tree::new(&vars);
        let shown = file::read(tree.root(parse(&everything()).unwrap()), &tree, Path::new(""));
        let absent: BTreeMap<String, bool> =
            tree.asked().into_iter().filter(|(_, in_file)| !in_file).collect();
        assert!(absent.is_empty(), "not in gateway.toml.example: {absent:?}");
        let mistakes = tree.into_verdict(false).mistakes;
        assert!(mistakes.iter().all(|mistake| mistake.message.starts_with("stands beside")), "{mistakes:?}");

        let tree = Tree::new(&vars);
        let default = file::read(tree.root(parse("").unwrap()), &tree, Path::new(""));
        let seen = |draft: &file::Draft| {
            let (server, limits, log) = (&draft.server, &draft.limits, &draft.message_log);
            format!("{:?}", (&server.connections, server.drain_timeout, limits, log, &draft.access.networks))
        };
        assert_eq!(seen(&shown), seen(&default));
    }
}
