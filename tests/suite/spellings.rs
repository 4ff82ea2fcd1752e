//! The spellings of a charged request, crossed, and what reads them: real apps on Starlette, Express and Go, which
//! take different spellings for the same path, and real proxies in front of them.
//!
//! Each app says `x-served: charged` when the charged handler ran. A story sends every spelling, and no such answer
//! may be free.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::operate::child::Child;
use crate::proof::ports::free_port;
use crate::sdk::{script, tool};

/// An app, or a proxy, that is another process.
pub(crate) struct Running {
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    child: Child,
    _folder: TempDir,
}

const CASES: [fn(&str) -> String; 4] = [
    str::to_owned,
    str::to_uppercase,
    |path| path.replacen("/v", "/V", 1).replacen("/c", "/C", 1),
    |path| path.replace('t', "T").replace('n', "N"),
];

/// What may follow a path.
const TAILS: &[&str] = &[
    "",
    "/",
    "//",
    "/.",
    "/..",
    "/../",
    "/x/..",
    "/%2e",
    "/%2e%2e",
    ".",
    "..",
    ".json",
    ".html",
    ".x/",
    "\\",
    "%5C",
    "%2F",
    "%2f",
    "%252F",
    ";",
    ";x",
    ";x=1/",
    "%3B",
    "%3bx",
    "%253B",
    "?",
    "??",
    "?x",
    "?<",
    "?x=%0a",
    "?\"{}|",
    "#",
    "#x",
    "%3F",
    "%3Fx",
    "%253Fx",
    "%23",
    "%23x",
    "%2523",
    "%",
    "%%",
    "%2",
    "%zz",
    "%25",
    "%20",
    "%20x",
    "%2520",
    "%20HTTP/1.1",
    "+",
    "%09",
    "%0a",
    "%0A/",
    "%0d",
    "%0d%0a",
    "%00",
    "%00.png",
    "%0b",
    "%0c",
    "%7f",
    "%1f",
    "%85",
    "%A0",
    "%C2%A0",
    "%C2%85",
    "%E2%80%A8",
    "%E3%80%80",
    "%E2%80%8B",
    "%EF%BB%BF",
    "%EF%BC%8F",
    "%EF%BC%9Fx",
    "%ff",
    "%c0%af",
    "%c0%80",
    "%e0%80%af",
    "&x",
    "%26x",
    "=",
    "%3D",
    "~",
    "%7E",
    "!",
    "%21",
    "@",
    "%40",
    ":",
    "%3A",
    ",",
    "$",
    "'",
    "(",
    "*",
    "%2A",
    "/*",
    "|",
    "{}",
    "^",
    "`",
    "\"",
    "<>",
    "%22",
    "%3C",
    "[1]",
];

/// What may stand for a slash.
const SLASHES: &[&str] = &[
    "//",
    "///",
    "/./",
    "/../",
    "/x/../",
    "/x/%2e%2e/",
    "/%2e/",
    "/.%2e/",
    "%2F",
    "%2f",
    "/%2F",
    "%252F",
    "\\",
    "/\\",
    "%5C",
    "/%5c/",
    "/;/",
    "/;a=b/",
    ";/",
    ";x=1/",
    "%3B/",
    "/%20/",
    "%20/",
    "/%09/",
    "/%0a/",
    "%00/",
    "%0a/",
    "%3F/",
    "%23/",
    "/+/",
    "%EF%BC%8F",
    "%E2%81%84",
    "%c0%af",
    "/%ff/",
    "/~/",
    "./",
    "/.;/",
];

/// What may stand for a letter.
const LETTERS: &[(char, &str)] = &[
    ('c', "%63"),
    ('c', "%43"),
    ('c', "%2563"),
    ('h', "%68"),
    ('t', "%74"),
    ('t', "%54"),
    ('a', "%61"),
    ('s', "%C5%BF"),
    ('i', "%C4%B1"),
    ('i', "%C4%B0"),
    ('c', "%EF%BC%A3"),
    ('c', "%EF%BD%83"),
    ('o', "%6F"),
    ('o', "%CE%BF"),
    ('v', "%76"),
    ('1', "%31"),
    ('a', "%C3%A1"),
    ('a', "%E2%80%8Ba"),
    ('t', "%0at"),
    ('t', "%00t"),
    ('c', "%u0063"),
];

/// What may come before a path.
const HEADS: &[&str] = &[
    "/",
    "//",
    "/.",
    "/./",
    "/..",
    "/x/..",
    "/x/%2e%2e",
    "/%2e",
    "/%2e%2e",
    "/%2F",
    "/;",
    "/;x",
    "/%20",
    "\\",
    "/\\",
    "/%5c",
    "/%0a",
    "/%00",
    "http://gate",
    "HTTP://gate",
    "http://gate:80",
    "//gate",
    "http:",
    "*",
    ".",
    "/%3F",
    "/%23",
    "/*/..",
];

/// Every spelling of a path: of its case, crossed with what follows it, what comes before it, its slashes and
/// its letters; with `crossed`, also slashes and letters crossed with what follows.
pub(crate) fn spellings(path: &str, crossed: bool) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut inner = BTreeSet::from([path.to_owned()]);
    let inside: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
    for slash in SLASHES {
        inner.extend(inside.iter().map(|at| instead_of(path, *at, slash)));
    }
    for (letter, instead) in LETTERS {
        inner.extend(path.find(*letter).map(|at| instead_of(path, at, instead)));
    }
    for case in CASES {
        let spelled = case(path);
        all.extend(TAILS.iter().map(|tail| format!("{spelled}{tail}")));
        all.extend(HEADS.iter().map(|head| format!("{head}{spelled}")));
    }
    for spelled in &inner {
        all.insert(spelled.clone());
        all.insert(spelled.to_uppercase());
        if crossed {
            all.extend(TAILS.iter().map(|tail| format!("{spelled}{tail}")));
        }
    }
    all
}

/// The path with this instead of its character at `at`.
fn instead_of(path: &str, at: usize, instead: &str) -> String {
    let (before, rest) = path.split_at(at);
    format!("{before}{instead}{}", rest.split_at(1).1)
}

// === apps ===

/// FastAPI on uvicorn.
pub(crate) async fn starlette(lax: bool) -> Running {
    let addr = free_port();
    let app = if lax { "spelling_app:lax" } else { "spelling_app:app" };
    let mut command = Command::new(tool("python/bin/uvicorn"));
    command.args([app, "--log-level", "warning", "--port", &addr.port().to_string()]);
    command.current_dir(script("")).env("PYTHONDONTWRITEBYTECODE", "1");
    run(if lax { "lax" } else { "starlette" }, addr, command, folder()).await
}

pub(crate) async fn express() -> Running {
    let addr = free_port();
    let mut command = Command::new("node");
    command.arg(script("spelling_app.mjs")).arg(addr.port().to_string());
    command.env("TOLLGATE_NODE_MODULES", tool("node"));
    run("express", addr, command, folder()).await
}

/// Go's own server and router.
pub(crate) async fn go() -> Running {
    let (addr, folder) = (free_port(), folder());
    let binary = folder.path().join("app");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&binary).arg(script("spelling_app.go")).current_dir(folder.path());
    // Go's own library is built once for all stories.
    build.env("GOCACHE", tool("").join("go-cache")).env("GOFLAGS", "-mod=mod").env("HOME", folder.path());
    let (code, said) = Child::start(build).ends_within(Duration::from_mins(2));
    assert_eq!(code, Some(0), "{said}");
    let mut command = Command::new(binary);
    command.arg(addr.port().to_string());
    run("go", addr, command, folder).await
}

// === proxies ===

/// nginx with these `server` blocks, of which one listens on `addr`.
pub(crate) async fn nginx(name: &'static str, addr: SocketAddr, servers: &str) -> Running {
    let folder = folder();
    let home = folder.path().display();
    let config = format!(
        "daemon off; master_process off; pid {home}/pid; error_log stderr error; events {{}}\n\
         http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p;\n\
           fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n{servers} }}"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(&file);
    run(name, addr, command, folder).await
}

/// nginx as it is often set up: what it decodes of a path, it writes out.
pub(crate) async fn decoding(name: &'static str, app: SocketAddr) -> Running {
    let addr = free_port();
    nginx(name, addr, &format!("server {{ listen {addr}; location / {{ proxy_pass http://{app}$uri; }} }}"))
        .await
}

/// The README's nginx in front of `app`, asking `gate`.
pub(crate) async fn asking_nginx(gate: SocketAddr, app: SocketAddr) -> Running {
    let addr = free_port();
    let locations = snippet("nginx", gate, app);
    nginx("nginx", addr, &format!("server {{ listen {addr};\n{locations} }}")).await
}

/// The README's Traefik in front of `app`, asking `gate`.
pub(crate) async fn asking_traefik(gate: SocketAddr, app: SocketAddr) -> Running {
    let (addr, folder) = (free_port(), folder());
    let file = folder.path().join("dynamic.yaml");
    std::fs::write(&file, snippet("yaml", gate, app)).unwrap();
    let mut command = Command::new(tool("python/bin/traefik"));
    command.arg(format!("--entryPoints.web.address={addr}"));
    command.arg(format!("--providers.file.filename={}", file.display()));
    command.args([
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
        "--log.level=ERROR",
    ]);
    command.current_dir(folder.path());
    let running = run("traefik", addr, command, folder).await;
    // It listens before it has read its routers.
    let begun = Instant::now();
    while reqwest::get(format!("http://{addr}/free")).await.is_ok_and(|answer| answer.status() == 404) {
        assert!(begun.elapsed() < Duration::from_mins(1), "{}", running.child.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running
}

/// The README's Caddy in front of `app`, asking `gate`.
pub(crate) async fn asking_caddy(gate: SocketAddr, app: SocketAddr) -> Running {
    let (addr, folder) = (free_port(), folder());
    let file = folder.path().join("Caddyfile");
    let site =
        snippet("caddyfile", gate, app).replace("app.example.org", &format!("http://:{}", addr.port()));
    std::fs::write(&file, format!("{{\n admin off\n auto_https off\n}}\n{site}")).unwrap();
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
    command.env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path());
    run("caddy", addr, command, folder).await
}

/// The one block of the README in this language that asks, between these two.
fn snippet(language: &str, gate: SocketAddr, app: SocketAddr) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let fence = format!("```{language}\n");
    let blocks = readme.split(&fence).skip(1);
    let mut blocks =
        blocks.map(|block| block.split("```").next().unwrap()).filter(|block| block.contains("authz"));
    let block = blocks.next().unwrap_or_else(|| panic!("README.md has no {language} that asks"));
    assert!(block.contains("127.0.0.1:8080") && block.contains("127.0.0.1:9000"), "{block}");
    block.replace("127.0.0.1:8080", &gate.to_string()).replace("127.0.0.1:9000", &app.to_string())
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn run(name: &'static str, addr: SocketAddr, command: Command, folder: TempDir) -> Running {
    let mut child = Child::start(command);
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(addr).await.is_err() {
        assert!(child.runs() && begun.elapsed() < Duration::from_mins(1), "{name}: {}", child.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Running { name, addr, child, _folder: folder }
}
