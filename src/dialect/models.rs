//! The models that a call names beside its `model` field: in its path, in its query, and deeper in its body.
//!
//! A plan that lists models holds for all of them. Which path names one is written down here, once.

use std::ops::ControlFlow;

use super::names::{self, Likeness};
use super::raw::Raw;
use super::scan::{self, ScanError};
use crate::path::Path;

/// A model that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InPath {
    /// The model, or the deployment.
    pub model: String,
    /// Whether the path says what the model is to do, not only which one is meant (`/v1/models/m`).
    pub is_call: bool,
}

/// Ends of paths of calls that run a model also where they name none: that is the upstream's default.
const RUNS: &[&str] = &[
    "/chat/completions",
    "/completions",
    "/responses",
    "/responses/compact",
    "/messages",
    "/embeddings",
    "/moderations",
    "/edits",
    "/images/generations",
    "/images/edits",
    "/images/variations",
    "/audio/speech",
    "/audio/transcriptions",
    "/audio/translations",
    "/videos",
    "/realtime",
    "/realtime/calls",
    "/realtime/sessions",
    "/realtime/client_secrets",
    "/realtime/transcription_sessions",
    "/rerank",
    "/rerankings",
    "/score",
    "/completion",
    "/complete",
    "/infill",
    "/embedding",
    "/generate",
    "/generate_stream",
    "/api/chat",
    "/api/generate",
    "/api/embed",
];

/// What follows a model in a path.
const VERBS: &[&str] = &[
    "chat",
    "completions",
    "completion",
    "embeddings",
    "responses",
    "messages",
    "images",
    "audio",
    "videos",
    "moderations",
    "rerank",
    "realtime",
    "edits",
    "extensions",
    "generate",
    "score",
    "search",
    "predictions",
    "batches",
    "invoke",
    "invoke-with-response-stream",
    "converse",
    "converse-stream",
];

/// Members of a body below which a model may be named, and how.
const BELOW: [(&str, Below); 15] = [
    ("models", Below::Texts),
    ("fallbacks", Below::Texts),
    ("fallback_models", Below::Texts),
    ("context_window_fallbacks", Below::Texts),
    ("content_policy_fallbacks", Below::Texts),
    ("context_window_fallback_dict", Below::Texts),
    ("deployment_id", Below::Texts),
    ("engine", Below::Texts),
    ("tools", Below::Elements),
    ("plugins", Below::Elements),
    ("session", Below::Deep),
    ("response", Below::Deep),
    ("setup", Below::Deep),
    ("requests", Below::Deep),
    ("user_config", Below::Deep),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Below {
    /// Each text in it is a model; of an object that has a `model`, that one.
    Texts,
    /// The `model` of each element.
    Elements,
    /// Each `model` in it, but for what people wrote.
    Deep,
}

/// Members that hold what people wrote, or schemas.
const SAID: [&str; 6] = ["messages", "contents", "content", "instructions", "parameters", "metadata"];
/// How deep models are looked for: each level is read once more.
const DEPTH: u32 = 6;

/// A judge of one model: it breaks off with what it found.
pub type Judge<'a, B> = &'a mut dyn FnMut(&str) -> ControlFlow<B>;

/// The models that a path names: Azure's deployments, engines, Gemini's and others' models. A path may name several,
/// to servers that differ in which one they take.
#[must_use]
pub fn in_path(path: &str) -> Vec<InPath> {
    let segments: Vec<String> =
        path.split('/').skip(1).map(|segment| names::percent_decoded(segment, false)).collect();
    let mut found = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let after = segments.get(at + 1..).unwrap_or_default();
        let before = at.checked_sub(1).and_then(|at| segments.get(at)).map_or("", String::as_str);
        let named = match fold(segment).as_str() {
            "deployments" | "engines" => before_verb(after).map(|(model, _)| InPath { model, is_call: true }),
            "models" | "tunedmodels" => of_models(after),
            "model" => {
                before_verb(after).filter(|(_, verb)| *verb).map(|(model, _)| InPath { model, is_call: true })
            }
            "run" if fold(before) == "ai" => whole(after).map(|model| InPath { model, is_call: true }),
            _ => None,
        };
        found.extend(named.filter(|named| !found.contains(named)));
    }
    found
}

/// `models/m:generateContent`, `models/m`, `models/owner/m/predictions`.
fn of_models(after: &[String]) -> Option<InPath> {
    let (model, has_verb) = before_verb(after)?;
    match model.rsplit_once(':').filter(|(_, verb)| is_verb_of_gemini(verb)) {
        Some((model, _)) => Some(InPath { model: model.to_owned(), is_call: true }),
        None => Some(InPath { model, is_call: has_verb }),
    }
}

fn is_verb_of_gemini(verb: &str) -> bool {
    let verb = fold(verb);
    [
        "generate", "stream", "count", "embed", "batch", "async", "predict", "raw", "compute", "direct",
        "serving",
    ]
    .iter()
    .any(|start| verb.starts_with(start))
}

/// The segments before the first that is a verb, joined, and whether there is one.
fn before_verb(after: &[String]) -> Option<(String, bool)> {
    let is_verb = |segment: &String| VERBS.contains(&fold(segment).as_str());
    // The model itself may have a verb's name.
    let verb = after.iter().skip(1).position(is_verb).map(|at| at + 1);
    let model = whole(after.get(..verb.unwrap_or(after.len())).unwrap_or_default())?;
    Some((model, verb.is_some()))
}

fn whole(segments: &[String]) -> Option<String> {
    let model = segments.join("/");
    let model = model.strip_suffix('/').unwrap_or(&model);
    if model.is_empty() { None } else { Some(model.to_owned()) }
}

fn fold(text: &str) -> String {
    let end = text.find([';', '?', '#']).unwrap_or(text.len());
    let (text, _) = text.split_at(end);
    text.trim().to_uppercase().to_lowercase()
}

/// Gives `judge` the models that a query names.
///
/// # Errors
///
/// What breaks off.
pub fn in_query<B>(query: &str, judge: Judge<'_, B>) -> ControlFlow<B> {
    for pair in query.split(['&', ';']) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_one = ["model", "deployment", "deployment_id", "engine"]
            .iter()
            .any(|asked| names::compare_in_form(name, asked) != Likeness::Other);
        if is_one {
            judge(&names::percent_decoded(value, true))?;
        }
    }
    ControlFlow::Continue(())
}

/// Gives `judge` the models that a JSON object names below its top: in fallbacks, tools, sessions and batches.
///
/// # Errors
///
/// What breaks off; [`ScanError`] where the body is not one object, or names one of these members twice.
pub fn in_body<B>(body: &[u8], judge: Judge<'_, B>) -> Result<ControlFlow<B>, ScanError> {
    let values = scan::scan(body, BELOW.map(|(name, _)| name))?;
    for ((_, below), value) in BELOW.into_iter().zip(values) {
        let Some(Ok(value)) = value.map(Raw::parse) else { continue };
        let judged = match below {
            Below::Texts => texts(value, DEPTH, judge),
            Below::Elements => value.elements().try_for_each(|element| of(element, judge)),
            Below::Deep => deep(value, DEPTH, judge),
        };
        if judged.is_break() {
            return Ok(judged);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The name of a member of [`in_body`], by the index of its error.
#[must_use]
pub fn member(index: usize) -> &'static str {
    BELOW.get(index).map_or("model", |(name, _)| name)
}

/// The model that an object names itself.
fn of<B>(object: Raw<'_>, judge: Judge<'_, B>) -> ControlFlow<B> {
    let mut models =
        object.members().filter(|(name, _)| is(*name, "model")).filter_map(|(_, value)| value.text());
    models.try_for_each(|model| judge(&model))
}

fn is(name: Raw<'_>, asked: &str) -> bool {
    names::compare(name.bytes(), asked) != Likeness::Other
}

fn texts<B>(value: Raw<'_>, depth: u32, judge: Judge<'_, B>) -> ControlFlow<B> {
    if let Some(model) = value.text() {
        return judge(&model);
    }
    let Some(depth) = depth.checked_sub(1) else { return ControlFlow::Continue(()) };
    value.elements().try_for_each(|element| texts(element, depth, judge))?;
    if value.members().any(|(name, _)| is(name, "model")) {
        return of(value, judge);
    }
    value.members().try_for_each(|(_, value)| texts(value, depth, judge))
}

fn deep<B>(value: Raw<'_>, depth: u32, judge: Judge<'_, B>) -> ControlFlow<B> {
    let Some(depth) = depth.checked_sub(1) else { return ControlFlow::Continue(()) };
    value.elements().try_for_each(|element| deep(element, depth, judge))?;
    for (name, value) in value.members() {
        if is(name, "model") {
            value.text().map_or(ControlFlow::Continue(()), |model| judge(&model))?;
        } else if is(name, "tools") {
            value.elements().try_for_each(|element| of(element, judge))?;
        } else if !(is(name, "input") && value.is_list() || SAID.iter().any(|said| is(name, said))) {
            deep(value, depth, judge)?;
        }
    }
    ControlFlow::Continue(())
}

/// Whether a path is where batches are made: what they ask stands in files, or in many requests at once.
#[must_use]
pub fn is_batch(path: &Path<'_>) -> bool {
    let path = path.canonical();
    let last = path.rsplit('/').next().unwrap_or_default();
    matches!(last, "batches" | "batchpredictionjobs" | "batch")
        || last.ends_with(":batchgeneratecontent")
        || last.ends_with(":asyncbatchembedcontent")
}

/// Whether a call to this path runs a model, also where it names none.
#[must_use]
pub fn runs_one(path: &Path<'_>) -> bool {
    RUNS.iter().any(|end| path.canonical().ends_with(end))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::{in_body, in_path, in_query, is_batch, runs_one};
    use crate::path::Path;

    #[test]
    fn a_path_names_the_model_it_is_for() {
        for (path, model) in [
            ("/openai/deployments/dear/chat/completions", "dear"),
            ("/OpenAI/Deployments/Dear/Chat/Completions/", "Dear"),
            ("/openai/deployments/azure/gpt-4/chat/completions", "azure/gpt-4"),
            ("/openai/deployments/dear/extensions/chat/completions", "dear"),
            ("/openai/deployments/dear/images/generations", "dear"),
            ("/openai/deployments/dear", "dear"),
            ("/openai/deployments/chat/chat/completions", "chat"),
            ("/v1/engines/dear/completions", "dear"),
            ("/v1/engines/org/dear/embeddings", "org/dear"),
            ("/v1beta/models/gemini-pro:generateContent", "gemini-pro"),
            ("/v1beta/models/gemini-pro%3AstreamGenerateContent", "gemini-pro"),
            ("/v1beta/tunedModels/mine:generateContent", "mine"),
            ("/v1/projects/p/locations/l/publishers/google/models/gemini:rawPredict", "gemini"),
            ("/v1/models/org/m/predictions", "org/m"),
            ("/model/anthropic.claude%3A0/converse", "anthropic.claude:0"),
            ("/model/m/invoke-with-response-stream", "m"),
            ("/accounts/a/ai/run/@cf/meta/llama", "@cf/meta/llama"),
        ] {
            let found = in_path(path);
            assert_eq!(found.iter().map(|found| found.model.as_str()).collect::<Vec<_>>(), [model], "{path}");
            assert!(found.iter().all(|found| found.is_call), "{path}");
        }
        for (path, model) in
            [("/v1/models/gpt-4o:free", "gpt-4o:free"), ("/v1/models/ft:gpt:org::id", "ft:gpt:org::id")]
        {
            let [found] = in_path(path).try_into().unwrap();
            assert_eq!((found.model.as_str(), found.is_call), (model, false), "{path}");
        }
        assert_eq!(in_path("/openai/deployments/small/engines/dear/completions").len(), 2);
        for path in
            ["/", "/v1/models", "/v1/models/", "/v1/chat/completions", "/model/x", "/run/x", "/engines"]
        {
            assert_eq!(in_path(path), [], "{path}");
        }
    }

    fn body(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let judged = in_body::<()>(text.as_bytes(), &mut |model| {
            found.push(model.to_owned());
            ControlFlow::Continue(())
        });
        assert_eq!(judged, Ok(ControlFlow::Continue(())), "{text}");
        found
    }

    #[test]
    fn a_body_names_models_below_its_top() {
        for text in [
            r#"{"models":["dear"]}"#,
            r#"{"fallbacks":["dear"]}"#,
            r#"{"Fallbacks":[{"model":"dear","messages":["x"]}]}"#,
            r#"{"fallbacks":[{"cheap":["dear"]}]}"#,
            r#"{"context_window_fallback_dict":{"cheap":"dear"}}"#,
            r#"{"deployment_id":"dear"}"#,
            r#"{"tools":[{"type":"image_generation","MODEL":"dear"}]}"#,
            r#"{"session":{"model":"dear"}}"#,
            r#"{"session":{"audio":{"input":{"transcription":{"model":"dear"}}}}}"#,
            r#"{"session":{"tools":[{"model":"dear"}]}}"#,
            r#"{"type":"response.create","response":{"model":"dear"}}"#,
            r#"{"setup":{"model":"dear"}}"#,
            r#"{"requests":[{"params":{"model":"dear","messages":[{"model":"x"}]}}]}"#,
        ] {
            assert_eq!(body(text), ["dear"], "{text}");
        }
        for none in [
            r#"{"messages":[{"role":"user","content":"","model":"x"}],"metadata":{"model":"x"}}"#,
            r#"{"tools":[{"function":{"parameters":{"properties":{"model":{"type":"string"}}}}}]}"#,
            r#"{"session":{"instructions":{"model":"x"}},"models":null}"#,
        ] {
            assert_eq!(body(none), Vec::<String>::new(), "{none}");
        }
        assert!(in_body::<()>(br#"{"models":[],"MODELS":["x"]}"#, &mut |_| ControlFlow::Break(())).is_err());
    }

    #[test]
    fn a_query_names_models() {
        let mut found = Vec::new();
        let _ = in_query::<()>("model=a%2Fb&x=y&Deployment=c;model[]=d&%6dodel=e&models=z", &mut |model| {
            found.push(model.to_owned());
            ControlFlow::Continue(())
        });
        assert_eq!(found, ["a/b", "c", "d", "e"]);
    }

    #[test]
    fn batches_and_calls_that_run_a_default_model_are_known_by_their_paths() {
        for path in
            ["/v1/batches", "/V1/Batches/", "/v1/messages/batches", "/v1beta/models/m:batchGenerateContent"]
        {
            assert!(is_batch(&Path::new(path)), "{path}");
        }
        assert!(!is_batch(&Path::new("/v1/batches/b_1/cancel")));
        assert!(
            runs_one(&Path::new("/v1/Images/Edits"))
                && runs_one(&Path::new("/openai/deployments/d/audio/speech"))
        );
        assert!(!runs_one(&Path::new("/v1/files")) && !runs_one(&Path::new("/v1/models")));
    }
}
