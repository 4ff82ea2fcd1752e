//! What was asked, read from a request's body for the log, with media replaced by their digest.

use super::Call;
use super::assembly::{MOST_PARTS, list, message, most_text};
use super::copy::{append, copy, escape};
use super::mend::mend;
use super::raw::Raw;

/// What a request asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its messages: the text of a JSON array, empty where there are none.
    pub messages: String,
    /// Whether some of it is missing: a body that is no JSON takes more room as a JSON string, and at last
    /// more than is kept.
    pub cut: bool,
}

/// The messages that a request's body asks to be answered, in the dialect's own form, copied as they are
/// written; what the dialect keeps beside its messages (instructions, a system prompt) comes first, as a
/// system message.
///
/// A body that was cut is read as far as it goes. One that is no JSON, or asks in no way known here,
/// gives one user message with the whole of it. Base64 media over 256 bytes are replaced by
/// `{"omitted": {"media_type", "bytes", "sha256"}}`: the size and digest of the media itself.
#[must_use]
pub fn asked(call: Call, body: &[u8]) -> Asked {
    if body.trim_ascii().is_empty() {
        return Asked::default();
    }
    if let Ok(whole) = Raw::parse(body) {
        return Asked { messages: messages(call, whole), cut: false };
    }
    if let Some(mended) = mend(body)
        && let Ok(beginning) = Raw::parse(&mended)
    {
        return Asked { messages: messages(call, beginning), cut: false };
    }
    let mut is_whole = true;
    let mut messages = b"[".to_vec();
    message("user", &mut messages, |to| {
        append(to, b"\"");
        is_whole = escape(body, most_text(body.len()), to);
        append(to, b"\"");
    });
    Asked { messages: list(messages), cut: !is_whole }
}

/// Messages, written one behind the other.
struct Messages(Vec<u8>);

fn messages(call: Call, body: Raw<'_>) -> String {
    // Never grows much beyond the body, and so never stands in memory twice.
    let mut to = Messages(Vec::with_capacity(body.bytes().len() + 256));
    match call {
        Call::ChatCompletions | Call::OllamaChat => to.all(body.get("messages")),
        Call::Messages => {
            to.says("system", body.get("system"));
            to.all(body.get("messages"));
        }
        Call::Responses | Call::Realtime => {
            to.says("system", body.get("instructions"));
            to.prompts(body.get("input"));
        }
        Call::Completions => to.prompts(body.get("prompt")),
        Call::OllamaGenerate => {
            to.says("system", body.get("system"));
            to.generate(body);
        }
        Call::Embeddings => to.says("user", body.get("input").or_else(|| body.get("prompt"))),
        Call::Other => {
            to.all(body.get("messages"));
            if to.0.is_empty() {
                let places = ["message", "prompt", "input", "query", "question"];
                to.says("user", places.into_iter().find_map(|key| body.get(key)));
            }
        }
    }
    if to.0.is_empty() {
        to.says("user", Some(body));
    }
    let mut messages = to.0;
    append(&mut messages, b"]");
    messages.shrink_to_fit();
    String::from_utf8(messages).unwrap_or_default()
}

// === impl Messages ===

impl Messages {
    fn next(&mut self) -> &mut Vec<u8> {
        let before: &[u8] = if self.0.is_empty() { b"[" } else { b"," };
        append(&mut self.0, before);
        &mut self.0
    }

    fn says(&mut self, role: &str, content: Option<Raw<'_>>) {
        if let Some(content) = content {
            message(role, self.next(), |to| copy(content, to));
        }
    }

    /// A list of messages.
    fn all(&mut self, list: Option<Raw<'_>>) {
        for message in list.into_iter().flat_map(Raw::elements) {
            copy(message, self.next());
        }
    }

    /// A text is a user message; of a list, each text is one, and objects are messages already. A list of
    /// token numbers is one message, and so is one of so many prompts that messages would be many times as long.
    fn prompts(&mut self, prompts: Option<Raw<'_>>) {
        let Some(prompts) = prompts else { return };
        let is_list = prompts.is_list() && !prompts.elements().any(Raw::is_number);
        if !is_list || prompts.elements().nth(MOST_PARTS).is_some() {
            return self.prompt(prompts);
        }
        for prompt in prompts.elements() {
            self.prompt(prompt);
        }
    }

    fn prompt(&mut self, prompt: Raw<'_>) {
        if prompt.is_object() {
            copy(prompt, self.next());
        } else {
            self.says("user", Some(prompt));
        }
    }

    /// Images belong to the prompt.
    fn generate(&mut self, body: Raw<'_>) {
        let [prompt, images] = body.pick(["prompt", "images"]);
        let (Some(text), Some(images)) = (prompt.filter(|prompt| prompt.is_string()), images) else {
            return self.prompts(prompt);
        };
        let to = self.next();
        append(to, b"{\"content\":");
        copy(text, to);
        append(to, b",\"images\":");
        copy_member("images", images, to);
        append(to, b",\"role\":\"user\"}");
    }
}

/// A value that is read as that of a member of this name, as media are.
fn copy_member(name: &str, value: Raw<'_>, to: &mut Vec<u8>) {
    let object = [b"{\"", name.as_bytes(), b"\":", value.bytes(), b"}"].concat();
    let start = to.len() + name.len() + 4;
    let at = to.len();
    copy(Raw::parse(&object).unwrap_or(Raw::NULL), to);
    to.pop();
    to.drain(at..start.min(to.len()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};
    use serde_json::{Value, json};

    use super::asked as read;
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

    fn asked(call: Call, body: &[u8]) -> Vec<Value> {
        let asked = read(call, body);
        if asked.messages.is_empty() { Vec::new() } else { serde_json::from_str(&asked.messages).unwrap() }
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
