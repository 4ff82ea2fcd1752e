//! Arbitrary bytes as a request body: what the scanner finds is what `serde_json` finds, and a lenient parser finds
//! no field that the scanner did not see, unless the body is refused.

use jsonc_parser::{JsonValue, ParseOptions, parse_to_value};
use serde_json::{Map, Value};
use tollgate::dialect::label::may_be_json;
use tollgate::dialect::scan::{Found, MAX_DEPTH, ScanError, find, text};

const NAMES: [&str; 3] = ["model", "stream", "r_type"];

/// What a body is put together from, where its first byte says so.
const PIECES: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "'",
    " ",
    "\n",
    "\\",
    "/*",
    "*/",
    "//",
    "\u{feff}",
    "\0",
    "{\"model\":",
    "\"model\"",
    "\"MODEL\"",
    "\"\\u006dodel\"",
    "\"\\u004dodel\"",
    "\"model\\u0000x\"",
    "model",
    "Model",
    "'model'",
    "\"small-1\"",
    "\"dear\"",
    "\"stream\"",
    "\"\u{17f}tream\"",
    "true",
    "null",
    "1",
    "-1.5e3",
    "NaN",
    "\"r_type\"",
    "\"a\"",
    ":1,",
    "\"\\ud83d\"",
    "{\"a\":[",
    "}",
];

/// One body; panics when a promise is broken.
pub(super) fn tell(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let pieces = || rest.iter().flat_map(|piece| PIECES[usize::from(*piece) % PIECES.len()].bytes());
    let body: Vec<u8> = match first % 4 {
        0 => rest.to_vec(),
        1 => pieces().collect(),
        2 => [b"{\"a\":1,".to_vec(), pieces().collect(), b":\"x\"}".to_vec()].concat(),
        _ => members(rest),
    };
    let strict = serde_json::from_slice::<Value>(&body);
    let shown = String::from_utf8_lossy(&body);
    match (find(&body, NAMES), strict) {
        (Ok(found), Ok(Value::Object(members))) => {
            same(&found, &members, &shown);
            holds_for_the_lenient(&found, &body);
        }
        (Err(ScanError::Duplicate { index }), Ok(Value::Object(members))) => {
            assert!(members.keys().any(|name| reads(name) == NAMES[index]), "{shown}");
        }
        (Err(ScanError::TooDeep), Ok(value)) => assert!(depth(&value) > MAX_DEPTH, "{shown}"),
        (Err(ScanError::NotAnObject), Ok(value)) => assert!(!value.is_object(), "{shown}"),
        // Numbers without end, and half a surrogate pair, are grammar.
        (Ok(found), Err(_)) => holds_for_the_lenient(&found, &body),
        (Err(_), Err(_)) => nothing_is_hidden(&body),
        (ours, theirs) => panic!("{ours:?}, but serde_json {theirs:?}: {shown}"),
    }
}

/// An object of names and values from the pieces, in one of the ways in which they may stand there.
fn members(data: &[u8]) -> Vec<u8> {
    let is_name = |piece: &&&str| {
        piece.len() > 3 && piece.to_lowercase().contains(['o', 'a', 'e']) && !piece.contains(['{', ':'])
    };
    let names: Vec<&str> = PIECES.iter().filter(is_name).copied().collect();
    let member = |pair: &[u8; 2]| {
        let [name, value] = pair.map(|byte| names[usize::from(byte) % names.len()]);
        format!("{name}:{value}")
    };
    let (pairs, _) = data.as_chunks::<2>();
    let pairs: Vec<String> = pairs.iter().take(4).map(member).collect();
    let start = ["", " ", "/**/", "//\n", "\u{feff}"][data.len() % 5];
    format!("{start}{{{}}}", pairs.join(",")).into_bytes()
}

/// A name as the laxest reads it: without case, up to a NUL.
fn reads(name: &str) -> String {
    let name = name.split('\0').next().unwrap_or_default().replace(char::REPLACEMENT_CHARACTER, "");
    name.to_uppercase().to_lowercase()
}

fn same(found: &Found<'_, 3>, members: &Map<String, Value>, shown: &str) {
    for (at, name) in NAMES.into_iter().enumerate() {
        let ours = found.values[at].map(|raw| serde_json::from_slice::<Value>(raw).expect("a value"));
        let mut theirs = members.iter().filter(|(written, _)| reads(written) == name);
        let (first, more) = (theirs.next(), theirs.next());
        assert!(more.is_none(), "{name} twice in {shown}");
        assert_eq!(ours.as_ref(), first.map(|(_, value)| value), "{name} of {shown}");
        assert_eq!(
            found.misspelled[at],
            first.is_some_and(|(written, _)| written != name),
            "{name} of {shown}"
        );
    }
}

fn lenient(body: &[u8]) -> Option<Vec<(String, Option<String>)>> {
    let text = std::str::from_utf8(body).ok()?;
    let Ok(Some(JsonValue::Object(object))) = parse_to_value(text, &ParseOptions::default()) else {
        return None;
    };
    let value = |value: JsonValue<'_>| {
        if let JsonValue::String(text) = value { Some(text.into_owned()) } else { None }
    };
    Some(object.into_iter().map(|(name, of)| (name.into_owned(), value(of))).collect())
}

/// What was scanned, a lenient parser reads alike.
fn holds_for_the_lenient(found: &Found<'_, 3>, body: &[u8]) {
    for (name, value) in lenient(body).into_iter().flatten() {
        if let Some(at) = NAMES.iter().position(|asked| reads(&name) == *asked) {
            let ours = found.values[at].expect("the lenient parser finds it").to_vec();
            let ours = text(&ours).map(std::borrow::Cow::into_owned);
            assert_eq!(ours, value, "{name} of {}", String::from_utf8_lossy(body));
        }
    }
}

/// What could not be scanned is refused, or has no field for a lenient parser either.
fn nothing_is_hidden(body: &[u8]) {
    let has_field = |members: Vec<(String, Option<String>)>| {
        members.iter().any(|(name, _)| NAMES.contains(&reads(name).as_str()))
    };
    assert!(may_be_json(body) || !lenient(body).is_some_and(has_field), "{}", String::from_utf8_lossy(body));
}

fn depth(value: &Value) -> u32 {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
