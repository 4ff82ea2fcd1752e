//! A plan's list of models against real apps that read bodies, forms and paths laxly: Go's `encoding/json`, Express
//! and Starlette with Werkzeug. Each app says which models a request named to it; none but the plan's may get there.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::spellings::{Running, express, go, starlette};
use crate::wire::Wire;
use crate::world::World;

/// A request: path and query, `Content-Type`, body.
type Variant = (String, String, Vec<u8>);

const CHAT: &str = "/v1/chat/completions";
const PATHS: [&str; 3] = [CHAT, "/v1/anything", "/app/answer"];

const NAMES: [&str; 16] = [
    "model",
    "MODEL",
    "Model",
    "mOdEl",
    r"\u006dodel",
    r"\u004dodel",
    r"mode\u006c",
    r"mode\u004C",
    r"model\u0000",
    r"model\u0000x",
    "model ",
    " model",
    r"mo\ud83ddel",
    "ｍodel",
    "model[]",
    "modeｌ",
];

/// How a model that is not open may be written.
const VALUES: [&str; 7] =
    ["dear", r"d\u0065ar", r"dear\u0000", "small-1,dear", r"dear\u0000small-1", "Small-1", " small-1"];

/// `N` is the name, `V` the value.
const SHAPES: [&str; 14] = [
    r#"{"N":"V"}"#,
    r#"{"model":"small-1","N":"V"}"#,
    r#"{"N":"V","model":"small-1"}"#,
    r#"{"a":{"model":"small-1"},"N":"V"}"#,
    r#"[{"N":"V"}]"#,
    r#"{"N":"V"}{"model":"small-1"}"#,
    "{\"model\":\"small-1\"}\n{\"N\":\"V\"}",
    "// {}\n{\"N\":\"V\"}",
    "\u{feff}{\"N\":\"V\"}",
    r#"{"N":"V",}"#,
    r"{'N':'V'}",
    r#"{"x":NaN,"N":"V"}"#,
    " \r\n\t{\"N\" : \"V\"} ",
    r#"{"N":"V","N":"small-1"}"#,
];

const LABELS: [&str; 20] = [
    "application/json",
    "application/json; charset=utf-8",
    "application/json; charset=utf-7",
    "application/json; charset=\"utf-16\"",
    "application/json;a=b;CHARSET='utf-16le'",
    "application/json; charset=utf-8; charset=utf-7",
    "application/json; charset=latin1",
    "application/vnd.api+json",
    "text/json",
    "text/plain",
    "text/plain; charset=utf-7",
    "text/html",
    "application/octet-stream",
    "application/octet-stream; charset=utf-7",
    "application/x-ndjson",
    "image/png",
    "application/pdf; charset=utf-16be",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=xYz",
    "",
];

const ENCODINGS: [fn(&str) -> Vec<u8>; 5] = [
    |text| text.as_bytes().to_vec(),
    |text| text.replace('m', "+AG0-").into_bytes(),
    |text| text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
    |text| [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect(),
    |text| text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
];

/// Parts of a form, `N` the name.
const PARTS: [&str; 12] = [
    "Content-Disposition: form-data; name=\"N\"\r\n\r\ndear",
    "Content-Disposition: form-data; name=N\r\n\r\ndear",
    "content-disposition:form-data;NAME=\"N\"\r\n\r\ndear",
    "Content-Disposition: form-data;\r\n name=\"N\"\r\n\r\ndear",
    "Content-Disposition: form-data; name=\"x\"; name=\"N\"\r\n\r\ndear",
    "Content-Disposition: form-data; name*=utf-8''N\r\n\r\ndear",
    "Content-Disposition: form-data; filename=\"a\\\"; name=\"N\"\r\n\r\ndear",
    "Content-Disposition: form-data; name=\"N\"\r\nContent-Type: text/plain; charset=utf-7\r\n\r\ndear",
    "Content-Disposition: form-data; name=\"N\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nd=65ar",
    "Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nx\n--xYz\r\nContent-Disposition: form-data; name=\"N\"\r\n\r\ndear",
    "Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nx--xYz\r\nContent-Disposition: form-data; name=\"N\"\r\n\r\ndear",
    "Content-Disposition: attachment; name=\"N\"\r\n\r\ndear",
];

const SMALL: &str = "Content-Disposition: form-data; name=\"model\"\r\n\r\nsmall-1";

const TARGETS: [&str; 18] = [
    "/openai/deployments/dear/chat/completions",
    "/openai/deployments/dear/chat/completions?model=small-1",
    "/OpenAI/deployments/dear/embeddings",
    "/openai/deployments/small-1/deployments/dear/completions",
    "/openai/deployments/small-1/chat/completions?deployment=dear",
    "/v1/engines/dear/completions",
    "/v1/engines/small-1/engines/dear/completions",
    "/v1beta/models/dear:generateContent",
    "/v1beta/models/dear%3AgenerateContent",
    "/v1beta/models/dear:STREAMgenerateContent/",
    "/v1/models/dear",
    "/app/models/dear:generateContent",
    "/v1/anything?model=dear",
    "/v1/anything?%6dodel=dear",
    "/app/answer?model=small-1&model=dear",
    "/app/answer?model[]=dear",
    "/app/answer?model=small-1;model=dear",
    "/app/answer?x=1&deployment=dear",
];

fn variants() -> Vec<Variant> {
    let mut all: Vec<Variant> = Vec::new();
    let json = |name: &str, value: &str, shape: &str| shape.replace('N', name).replace('V', value);
    let mut label = LABELS.iter().cycle();
    let mut path = PATHS.iter().cycle();
    let mut next = || ((*path.next().unwrap()).to_owned(), (*label.next().unwrap()).to_owned());
    for name in NAMES {
        for shape in SHAPES {
            let body = json(name, "dear", shape).into_bytes();
            let (path, label) = next();
            all.push((CHAT.to_owned(), LABELS[0].to_owned(), body.clone()));
            all.push((path, label, body));
        }
    }
    for (label, encoding) in LABELS.iter().flat_map(|label| ENCODINGS.map(|encoding| (label, encoding))) {
        for (path, shape) in PATHS.iter().zip(&SHAPES) {
            all.push(((*path).to_owned(), (*label).to_owned(), encoding(&json("model", "dear", shape))));
        }
    }
    for (value, shape) in VALUES.iter().flat_map(|value| SHAPES.map(|shape| (value, shape))) {
        let (path, label) = next();
        all.push((path, label, json("model", value, shape).into_bytes()));
    }
    let mut path = ["/v1/images/edits", "/v1/audio/transcriptions", "/app/upload"].into_iter().cycle();
    for (part, name) in
        PARTS.iter().flat_map(|part| ["model", "Model", "model[]", "%6dodel"].map(|name| (part, name)))
    {
        let dear = part.replace('N', name);
        for parts in [[&dear, SMALL], [SMALL, &dear]] {
            let form: String = parts.iter().flat_map(|part| ["--xYz\r\n", part, "\r\n"]).collect();
            let early = format!("--xYz\r\n{SMALL}\r\n--xYz--\r\n{form}");
            for (label, form) in [
                ("multipart/form-data; boundary=xYz", format!("{form}--xYz--\r\n")),
                ("multipart/form-data; boundary=xYz; boundary=a", format!("{form}--xYz--\r\n")),
                ("Multipart/Form-Data;Boundary=\"xYz\"", form.replace("\r\n", "\n") + "--xYz--\n"),
                ("multipart/form-data; boundary=xYz", format!("{early}--xYz--\r\n")),
            ] {
                all.push((path.next().unwrap().to_owned(), label.to_owned(), form.into_bytes()));
            }
        }
    }
    for target in TARGETS {
        for body in ["{}", r#"{"model":"small-1"}"#] {
            all.push((target.to_owned(), "application/json".to_owned(), body.as_bytes().to_vec()));
        }
    }
    for body in
        ["model=dear", "a=b&MODEL=dear", "model=small-1&model=dear", "model%5B%5D=dear", "%6dodel=dear"]
    {
        all.extend(PATHS.map(|path| (path.to_owned(), LABELS[17].to_owned(), body.as_bytes().to_vec())));
    }
    all
}

/// How many of them reached the app, each with models of the plan only.
async fn try_all(gate: SocketAddr, app: &Running, key: &str, variants: &[Variant]) -> usize {
    let mut served = 0;
    for (path, label, body) in variants {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nx-api-key: {key}\r\nconnection: close\r\n",
            app.name
        );
        if !label.is_empty() {
            write!(head, "content-type: {label}\r\n").unwrap();
        }
        write!(head, "content-length: {}\r\n\r\n", body.len()).unwrap();
        let mut wire = Wire::connect(gate).await;
        wire.send([head.as_bytes(), body].concat()).await;
        let answer = wire.head_if_any().await;
        let Some(models) = answer.as_ref().and_then(|head| head.header("x-models")) else { continue };
        let models: Vec<String> = serde_json::from_str(models).unwrap_or_else(|_| vec![models.to_owned()]);
        let shown = String::from_utf8_lossy(body);
        let is_open = |model: &String| model.split(',').all(|one| one.starts_with("small-"));
        assert!(models.iter().all(is_open), "{} reads {models:?}: {path} {label:?} {shown:?}", app.name);
        assert!(
            !models.is_empty() || *path != CHAT,
            "{} runs its default: {path} {label:?} {shown:?}",
            app.name
        );
        served += 1;
    }
    served
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "how many were tried is a figure to be read")]
async fn no_variant_reaches_an_app_with_a_model_that_the_plan_leaves_out() {
    let (starlette, express, go) = tokio::join!(starlette(false), express(), go());
    let apps = [starlette, express, go];
    let world = World::with(|setup| {
        let mut text = "[plans.free]\nconversation_limit = 1000000\nmodels = [\"small-*\"]\n".to_owned();
        for Running { name, addr, .. } in &apps {
            write!(text, "[[upstreams]]\nname = \"{name}\"\nurl = \"http://{addr}/read\"\n").unwrap();
        }
        for Running { name, .. } in &apps {
            let route = format!(
                "[[routes]]\nhost = \"{name}\"\nupstream = \"{name}\"\nkeep_upstream_headers = true\n"
            );
            write!(text, "{route}prefix = \"/\"\nallow = [\"*\"]\ncharge = [\"POST {CHAT}\"]\n").unwrap();
            write!(text, "{route}prefix = \"/app\"\ndialect = \"plain\"\ncharge = []\n").unwrap();
        }
        setup.add(&text);
    })
    .await;
    let ann = world.user("ann").await;
    let variants = variants();
    let [starlette, express, go] = &apps;
    let good: Variant = (CHAT.to_owned(), LABELS[0].to_owned(), br#"{"model":"small-1"}"#.to_vec());
    for app in &apps {
        let one = try_all(world.addr, app, &ann.key, std::slice::from_ref(&good)).await;
        assert_eq!(one, 1, "{} answers", app.name);
    }
    let served = tokio::join!(
        try_all(world.addr, starlette, &ann.key, &variants),
        try_all(world.addr, express, &ann.key, &variants),
        try_all(world.addr, go, &ann.key, &variants),
    );
    let (tried, served) = (variants.len() * apps.len(), served.0 + served.1 + served.2);
    println!("{tried} variants, {served} reached an app, 0 with a model that the plan leaves out");
}
