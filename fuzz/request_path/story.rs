//! Arbitrary text as a path: what a lax server reads as the charged path is charged, or refused; and what is
//! forwarded has one reading but for case, a last slash and harmless escapes.

use std::path::Path as FilePath;
use std::sync::LazyLock;

use http::Method;
use tollgate::config::{Config, Target, Vars, route_for};
use tollgate::dialect::models;
use tollgate::path::{Doubt, Path};

const PIECES: [&str; 40] = [
    "/",
    "//",
    "/v1",
    "/V1",
    "/chat",
    "/CHAT",
    "/chat/completions",
    "completions",
    ".",
    "..",
    "/.",
    "/..",
    "%2e",
    "%2F",
    "%5C",
    "\\",
    "%",
    "%25",
    "%3F",
    "%23",
    "%20",
    "%00",
    "%0a",
    ";",
    ";x=1",
    "%3B",
    "?",
    "#",
    "%63",
    "%C5%BF",
    "%EF%BC%8F",
    "%FF",
    "x",
    "~",
    ":",
    "+",
    "/deployments/dear",
    "/models/dear",
    ":generateContent",
    "%3A",
];

const CHARGED: &str = "/v1/chat/completions";

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = format!(
        "[[upstreams]]\nname = \"app\"\nurl = \"http://app\"\n\
         [[routes]]\nupstream = \"app\"\nprefix = \"/v1\"\ncharge = [\"POST {CHARGED}\"]\n\
         [[routes]]\nupstream = \"app\"\nprefix = \"/\"\ncharge = []\n"
    );
    Config::from_toml(&text, FilePath::new("/nowhere"), &Vars::default()).expect("a configuration")
});

/// One path; panics when a promise is broken.
pub(super) fn tell(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let written: String = if mode % 2 == 1 {
        rest.iter().map(|piece| PIECES[usize::from(*piece) % PIECES.len()]).collect()
    } else {
        String::from_utf8_lossy(rest).into_owned()
    };
    let path = Path::new(&written);
    let canonical = path.canonical().to_owned();
    let charged = Path::new(CHARGED);
    assert!(
        canonical.is_empty() || canonical.starts_with('/') && !canonical.ends_with('/'),
        "{written:?} {canonical:?}"
    );
    if !canonical.contains('%') {
        assert_eq!(Path::new(&canonical).canonical(), canonical, "{written:?}: canonical once is canonical");
    }
    let target = Target { method: &Method::POST, host: "gate", path: &path, has_body: true };
    let found = route_for(CONFIG.routes.iter(), &target).ok().map(|at| &CONFIG.routes[at]);
    if let Some(route) = found {
        assert!(path.doubt().is_none() || !route.charges_some(&Method::POST), "{written:?} is in doubt");
        let is_charged = route.charges(&Method::POST, &path, true);
        assert!(
            is_charged || lax(&written) != charged.canonical(),
            "{written:?} is read as {CHARGED}, and free"
        );
    }
    if path.doubt() != Some(Doubt::Always) {
        // The laxest reading differs from the plainest only where it says so.
        let plain = decoded(&written).to_uppercase().to_lowercase();
        let plain = plain.strip_suffix('/').unwrap_or(&plain);
        assert!(path.doubt().is_some() || plain == canonical, "{written:?}: {plain:?}, {canonical:?}");
        names_its_model(&written);
    }
}

/// A path as a lax server reads it: decoded once, without case, empty segments and parameters, up to a blank, `?` or `#`.
fn lax(written: &str) -> String {
    let decoded = decoded(written).to_lowercase();
    let end = decoded.find(|c: char| matches!(c, '?' | '#') || c.is_whitespace() || c.is_control());
    let decoded = decoded.split_at(end.unwrap_or(decoded.len())).0;
    let segments = decoded.split(['/', '\\']).map(|segment| segment.split(';').next().unwrap_or_default());
    segments.filter(|segment| !matches!(*segment, "" | ".")).flat_map(|segment| ["/", segment]).collect()
}

/// What a server takes for Azure's deployment is among the models that are judged.
fn names_its_model(written: &str) {
    let decoded = decoded(written);
    let mut segments = decoded.split('/').skip_while(|segment| *segment != "deployments").skip(1);
    if let Some(deployment) = segments.next().filter(|deployment| !deployment.is_empty()) {
        let judged = models::in_path(written);
        assert!(judged.iter().any(|named| named.model.starts_with(deployment)), "{written:?}: {judged:?}");
    }
}

fn decoded(written: &str) -> String {
    let (bytes, mut out, mut at) = (written.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|hex| !hex.starts_with('+')).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, length) = byte.filter(|_| bytes[at] == b'%').map_or((bytes[at], 1), |byte| (byte, 3));
        out.push(byte);
        at += length;
    }
    String::from_utf8_lossy(&out).into_owned()
}
