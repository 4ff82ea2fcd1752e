//! What was asked, read from a request's body for the log, with media replaced by their digest.

use std::mem::take;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Call;
use super::assembly::{message, take_list, take_some};
use super::mend::mend;

/// Base64 of at most this length is kept as it is.
const KEPT_MEDIA: usize = 256;

/// Members that hold base64 without saying so by a data URL: audio and files of OpenAI, sources of
/// Anthropic, images of Ollama.
const MEDIA_KEYS: [&str; 4] = ["data", "file_data", "images", "b64_json"];

const FORGIVING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, FORGIVING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, FORGIVING);

/// The messages that a request's body asks to be answered, in the dialect's own form; what the
/// dialect keeps beside its messages (instructions, a system prompt) comes first, as a system message.
///
/// A body that was cut is read as far as it goes. One that is no JSON, or asks in no way known here,
/// gives one user message with the whole of it. Base64 media are replaced as [`omit_media`] says.
#[must_use]
pub fn asked(call: Call, body: &[u8]) -> Vec<Value> {
    if body.trim_ascii().is_empty() {
        return Vec::new();
    }
    let Some(mut body) = mend(body) else { return vec![user(Value::from(String::from_utf8_lossy(body)))] };
    let mut messages = match call {
        Call::ChatCompletions | Call::OllamaChat => take_list(&mut body, "messages"),
        Call::Messages => with_system(&mut body, "system", |body| take_list(body, "messages")),
        Call::Responses => with_system(&mut body, "instructions", |body| prompts(body, "input")),
        Call::Completions => prompts(&mut body, "prompt"),
        Call::OllamaGenerate => with_system(&mut body, "system", generate),
        Call::Embeddings => embedded(&mut body),
        Call::Other => plain(&mut body),
    };
    if messages.is_empty() {
        messages = vec![user(body)];
    }
    messages.iter_mut().for_each(omit_media);
    messages
}

/// Replaces each base64 media over 256 bytes, wherever it is in `value`, by
/// `{"omitted": {"media_type", "bytes", "sha256"}}`: the size and digest of the media itself.
pub fn omit_media(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(omitted) = omitted_data_url(text) {
                *value = omitted;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(omit_media),
        Value::Object(object) => omit_members(object),
        _ => {}
    }
}

// === reading each call ===

fn user(content: Value) -> Value {
    message("user", content)
}

fn with_system(body: &mut Value, key: &str, rest: impl FnOnce(&mut Value) -> Vec<Value>) -> Vec<Value> {
    let system = take_some(body, key).map(|content| message("system", content));
    system.into_iter().chain(rest(body)).collect()
}

/// A text is a user message; of a list, each text is one, and objects are messages already. A list of
/// token numbers is one message.
fn prompts(body: &mut Value, key: &str) -> Vec<Value> {
    let as_message = |prompt: Value| if prompt.is_object() { prompt } else { user(prompt) };
    match take_some(body, key) {
        None => Vec::new(),
        Some(Value::Array(list)) if list.iter().any(Value::is_number) => vec![user(Value::Array(list))],
        Some(Value::Array(list)) => list.into_iter().map(as_message).collect(),
        Some(prompt) => vec![as_message(prompt)],
    }
}

fn generate(body: &mut Value) -> Vec<Value> {
    let images = take_some(body, "images");
    let mut messages = prompts(body, "prompt");
    if let (Some(images), Some(message)) = (images, messages.first_mut().and_then(Value::as_object_mut)) {
        message.insert("images".to_owned(), images);
    }
    messages
}

fn embedded(body: &mut Value) -> Vec<Value> {
    let input = take_some(body, "input").or_else(|| take_some(body, "prompt"));
    input.into_iter().map(user).collect()
}

fn plain(body: &mut Value) -> Vec<Value> {
    let messages = take_list(body, "messages");
    if !messages.is_empty() {
        return messages;
    }
    let places = ["message", "prompt", "input", "query", "question"];
    places.into_iter().find_map(|key| take_some(body, key)).into_iter().map(user).collect()
}

// === leaving media out ===

fn omit_members(object: &mut Map<String, Value>) {
    let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
    let format = || text("format").map(|format| format!("audio/{format}"));
    let media_type = text("media_type").or_else(|| text("mime_type")).or_else(format);
    let is_image = text("type").is_some_and(|kind| kind == "image_generation_call");
    for (key, member) in object.iter_mut() {
        if MEDIA_KEYS.contains(&key.as_str()) || (is_image && key == "result") {
            omit_raw(member, media_type.as_deref());
        }
        omit_media(member);
    }
}

fn omit_raw(member: &mut Value, media_type: Option<&str>) {
    match member {
        Value::String(text) if text.len() > KEPT_MEDIA && is_base64(text) => {
            *member = omitted(media_type, &take(text));
        }
        Value::Array(list) => list.iter_mut().for_each(|member| omit_raw(member, media_type)),
        _ => {}
    }
}

/// `data:image/png;base64,…` (RFC 2397).
fn omitted_data_url(text: &str) -> Option<Value> {
    if text.len() <= KEPT_MEDIA {
        return None;
    }
    let (head, base64) = text.strip_prefix("data:")?.split_once(',')?;
    let head = head.strip_suffix(";base64")?;
    let media_type = head.split(';').next().filter(|name| !name.is_empty());
    Some(omitted(media_type, base64))
}

fn is_base64(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=\r\n".contains(&byte))
}

/// What does not decode, as when it was cut, is measured as it stands.
fn omitted(media_type: Option<&str>, base64: &str) -> Value {
    let text: String = base64.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(&text).or_else(|_| URL_SAFE.decode(&text));
    let media = decoded.unwrap_or_else(|_| text.into_bytes());
    json!({"omitted": {"media_type": media_type, "bytes": media.len(), "sha256": hex(&Sha256::digest(&media))}})
}

fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 0x0f].map(|digit| char::from_digit(u32::from(digit), 16));
    bytes.iter().flat_map(digits).flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};
    use serde_json::{Value, json};

    use super::asked;
    use crate::dialect::Call;

    /// 300 bytes of zero.
    fn zeros() -> String {
        "A".repeat(400)
    }

    fn zeros_omitted(media_type: Option<&str>) -> Value {
        let sha256 = "d13d4a8b3b8add19b5970157f09d00c12cbda4fed4d74d8493156523f7069b66";
        json!({"omitted": {"media_type": media_type, "bytes": 300, "sha256": sha256}})
    }

    fn ask(call: Call, body: &Value) -> Value {
        Value::Array(asked(call, body.to_string().as_bytes()))
    }

    #[test]
    fn every_call_is_read_in_its_own_form() {
        let hi = json!({"role": "user", "content": "hi"});
        let system = json!({"role": "system", "content": "be brief"});
        let both = json!([system, hi]);
        let one = json!([hi]);
        let cases = [
            (Call::ChatCompletions, json!({"messages": both}), &both),
            (Call::OllamaChat, json!({"messages": both, "stream": false}), &both),
            (Call::Completions, json!({"prompt": "hi"}), &one),
            (Call::Responses, json!({"input": "hi"}), &one),
            (Call::Responses, json!({"instructions": "be brief", "input": [hi]}), &both),
            (Call::Messages, json!({"system": "be brief", "messages": [hi]}), &both),
            (Call::OllamaGenerate, json!({"system": "be brief", "prompt": "hi"}), &both),
            (Call::Embeddings, json!({"input": "hi"}), &one),
            (Call::Embeddings, json!({"prompt": "hi"}), &one),
            (Call::Other, json!({"messages": both}), &both),
            (Call::Other, json!({"message": "hi"}), &one),
            (Call::Other, json!({"query": "hi"}), &one),
        ];
        for (call, body, expected) in cases {
            assert_eq!(&ask(call, &body), expected, "{call:?} {body}");
        }
    }

    #[test]
    fn lists_of_prompts_are_messages_and_lists_of_tokens_are_one() {
        let two = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]);
        assert_eq!(ask(Call::Completions, &json!({"prompt": ["a", "b"]})), two);
        let tokens = json!([{"role": "user", "content": [1, 2]}]);
        assert_eq!(ask(Call::Completions, &json!({"prompt": [1, 2]})), tokens);
        let batch = json!([{"role": "user", "content": ["a", "b"]}]);
        assert_eq!(ask(Call::Embeddings, &json!({"input": ["a", "b"]})), batch);
    }

    #[test]
    fn a_body_that_asks_in_no_known_way_is_kept_whole() {
        assert_eq!(
            ask(Call::ChatCompletions, &json!({"n": 1})),
            json!([{"role": "user", "content": {"n": 1}}])
        );
        assert_eq!(asked(Call::Other, b"plain \xff"), [json!({"role": "user", "content": "plain \u{fffd}"})]);
        assert!(asked(Call::Other, b" ").is_empty());
    }

    #[test]
    fn a_body_that_was_cut_is_read_as_far_as_it_goes() {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"hello wor"#;
        assert_eq!(asked(Call::ChatCompletions, body), [json!({"role": "user", "content": "hello wor"})]);
    }

    #[test]
    fn media_are_replaced_by_type_size_and_digest() {
        let data = zeros();
        let url = format!("data:image/png;base64,{data}");
        let body = json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": data}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ]}]});
        let content = ask(Call::ChatCompletions, &body)[0]["content"].clone();
        assert_eq!(content[0], json!({"type": "text", "text": "look"}));
        assert_eq!(
            content[1]["image_url"],
            json!({"url": zeros_omitted(Some("image/png")), "detail": "low"})
        );
        assert_eq!(content[2]["input_audio"]["data"], zeros_omitted(Some("audio/wav")));
        assert_eq!(content[3]["source"]["data"], zeros_omitted(Some("image/jpeg")));
        assert_eq!(content[4]["image_url"]["url"], "https://example.org/a.png");
        assert_eq!(content[5]["image_url"]["url"], "data:image/png;base64,AAAA");

        let body = json!({"prompt": "look", "images": [data]});
        assert_eq!(ask(Call::OllamaGenerate, &body)[0]["images"], json!([zeros_omitted(None)]));
    }

    #[test]
    fn long_text_is_no_media() {
        let text = "Not base64, only long. ".repeat(40);
        let body = json!({"messages": [{"role": "user", "content": text, "data": text}]});
        assert_eq!(ask(Call::ChatCompletions, &body)[0]["data"], text);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for call in [Call::ChatCompletions, Call::Messages, Call::Responses, Call::OllamaGenerate, Call::Other] {
                let _ = asked(call, &bytes);
            }
        }
    }
}
