//! What the demo app says: decided by the last message alone, without a clock or chance, so that the
//! same request always gets the same bytes, with the gate and without.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// When every answer was made, in seconds since the epoch: 2026-01-01T00:00:00Z.
pub(super) const MADE_AT: u64 = 1_767_225_600;

/// [`MADE_AT`] as Ollama and Anthropic write it.
pub(super) const MADE_AT_TEXT: &str = "2026-01-01T00:00:00Z";

/// Most words of a message that are said back, and the most that are counted to.
const MOST_WORDS: usize = 100;
const MOST_COUNTED: usize = 2_000;

/// A conversation as far as the answer depends on it, whatever the dialect was.
#[derive(Debug)]
pub(super) struct Heard {
    /// The last message's text.
    pub last: String,
    /// Whether the last message gives a tool's result.
    pub last_is_result: bool,
    /// Words of all messages: what the app calls tokens.
    pub words: u64,
}

/// A tool offered by the client: its name and the JSON schema of its arguments.
#[derive(Debug)]
pub(super) struct Tool {
    /// Name.
    pub name: String,
    /// JSON schema of an object.
    pub schema: Value,
}

/// Whether the client wants a tool called.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// When the question is about the weather.
    Auto,
    /// Never.
    None,
    /// Whichever is first.
    Any,
    /// This one.
    Named(String),
}

/// What is said back.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// Words, each with the space that goes before it; `cut` when a limit ended them.
    Words { words: Vec<String>, cut: bool },
    /// One call of a tool.
    Call { name: String, arguments: Value },
}

// === impl Heard ===

impl Heard {
    /// Hears a list of messages `{role, content}`, or of a Responses input's items.
    pub(super) fn messages(messages: &[Value]) -> Self {
        let texts: Vec<String> = messages.iter().map(message_text).collect();
        let kind = |key| messages.last().and_then(|m| m.get(key)).and_then(Value::as_str);
        let has_result_block = messages
            .last()
            .and_then(|m| m.get("content"))
            .and_then(Value::as_array)
            .is_some_and(|blocks| blocks.iter().any(|b| b.get("type") == Some(&json!("tool_result"))));
        Self {
            last_is_result: has_result_block
                || kind("role") == Some("tool")
                || kind("type") == Some("function_call_output"),
            words: texts.iter().map(|text| count_words(text)).sum(),
            last: texts.into_iter().last().unwrap_or_default(),
        }
    }

    /// Hears one prompt.
    pub(super) fn prompt(prompt: &str) -> Self {
        Self { last: prompt.to_owned(), last_is_result: false, words: count_words(prompt) }
    }

    /// Adds what goes before the messages: a system prompt, instructions.
    pub(super) fn with_preamble(mut self, preamble: Option<&Value>) -> Self {
        self.words += preamble.map_or(0, |text| count_words(&content_text(text)));
        self
    }
}

// === impl Reply ===

impl Reply {
    /// Decides what to say.
    pub(super) fn to(heard: &Heard, tools: &[Tool], choice: &Choice) -> Self {
        let about_weather = !heard.last_is_result && heard.last.to_lowercase().contains("weather");
        let tool = match choice {
            Choice::None => None,
            Choice::Auto => tools.first().filter(|_| about_weather),
            Choice::Any => tools.first(),
            Choice::Named(name) => tools.iter().find(|tool| tool.name == *name),
        };
        match tool {
            Some(tool) => {
                Self::Call { name: tool.name.clone(), arguments: arguments(&tool.schema, &heard.last) }
            }
            None => Self::Words { words: spoken(heard), cut: false },
        }
    }

    /// Ends the words after `limit` of them, if there is a limit; calls are never cut.
    pub(super) fn limited(self, limit: Option<u64>) -> Self {
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        match self {
            Self::Words { mut words, .. } if words.len() > limit => {
                words.truncate(limit);
                Self::Words { words, cut: true }
            }
            unlimited => unlimited,
        }
    }

    /// The same reply as the `index`-th of several choices: the first is unchanged.
    pub(super) fn variant(&self, index: u64) -> Self {
        match self {
            Self::Words { words, cut } if index > 0 => {
                let mut words = words.clone();
                if let Some(first) = words.first_mut() {
                    *first = format!("({}) {first}", index + 1);
                }
                Self::Words { words, cut: *cut }
            }
            same => same.clone(),
        }
    }

    /// The whole text; empty for a call.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Words { words, .. } => words.concat(),
            Self::Call { .. } => String::new(),
        }
    }

    /// Words of the answer: what the app calls tokens.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Words { words, .. } => words.len() as u64,
            Self::Call { arguments, .. } => 1 + count_words(&arguments.to_string()),
        }
    }
}

/// A name for an answer, such as `chatcmpl-1f0c…`, made from the request's bytes.
pub(super) fn name(prefix: &str, request: &[u8]) -> String {
    let digest = Sha256::digest(request);
    digest.iter().take(12).fold(prefix.to_owned(), |mut name, byte| {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// The text of a message's content: a string, or the `text` of its parts.
pub(super) fn content_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(part_text).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

/// A unit vector that depends on the text alone.
pub(super) fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(dimensions);
    for block in 0_u64.. {
        let digest = Sha256::new().chain_update(block.to_le_bytes()).chain_update(text).finalize();
        numbers.extend(digest.iter().map(|byte| f32::from(*byte) - 127.5));
        if numbers.len() >= dimensions {
            break;
        }
    }
    numbers.truncate(dimensions);
    let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
    numbers.iter().map(|number| number / length).collect()
}

/// A vector as the OpenAI SDKs ask for it by default: base64 over little-endian floats.
pub(super) fn vector_base64(vector: &[f32]) -> String {
    STANDARD.encode(vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
}

/// Words between white space.
pub(super) fn count_words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

fn message_text(message: &Value) -> String {
    match message {
        Value::String(text) => text.clone(),
        other => content_text(other.get("content").or_else(|| other.get("output")).unwrap_or(&Value::Null)),
    }
}

/// `{type: text, text}` of OpenAI and Anthropic, `input_text` of Responses, a `tool_result`'s content.
fn part_text(part: &Value) -> String {
    match part {
        Value::String(text) => text.clone(),
        other => match other.get("text").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => content_text(other.get("content").unwrap_or(&Value::Null)),
        },
    }
}

fn spoken(heard: &Heard) -> Vec<String> {
    if let Some(to) = counted_to(&heard.last) {
        return (1..=to).map(|n| if n == 1 { n.to_string() } else { format!(" {n}") }).collect();
    }
    let said: Vec<&str> = heard.last.split_whitespace().take(MOST_WORDS).collect();
    let text = match (heard.last_is_result, said.is_empty()) {
        (_, true) => "You said nothing, and I heard every word of it.".to_owned(),
        (true, _) => format!("The tool answered: {}", said.join(" ")),
        (false, _) => format!("You said: {} — nice to hear from you behind the gate.", said.join(" ")),
    };
    text.split(' ')
        .enumerate()
        .map(|(at, word)| if at == 0 { word.to_owned() } else { format!(" {word}") })
        .collect()
}

/// `N` of "count to N": an answer of a known length, to watch or to leave.
fn counted_to(text: &str) -> Option<usize> {
    let lower = text.to_lowercase();
    let (_, rest) = lower.split_once("count to ")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    Some(digits.parse::<usize>().ok()?.clamp(1, MOST_COUNTED))
}

/// Arguments that satisfy the plain part of a JSON schema: its required properties, or all of them.
fn arguments(schema: &Value, question: &str) -> Value {
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let required = schema.get("required").and_then(Value::as_array);
    let wanted = |name: &String| required.is_none_or(|names| names.iter().any(|n| n == name.as_str()));
    let given = properties.iter().filter(|(name, _)| wanted(name));
    Value::Object(given.map(|(name, of)| (name.clone(), argument(name, of, question))).collect())
}

fn argument(name: &str, schema: &Value, question: &str) -> Value {
    if let Some(first) = schema.get("enum").and_then(Value::as_array).and_then(|values| values.first()) {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => arguments(schema, question),
        _ if ["location", "city", "place"].contains(&name) => json!(place(question)),
        _ => json!(question),
    }
}

/// The word after "in", as in "the weather in Paris?".
fn place(question: &str) -> String {
    let after = question.split_whitespace().skip_while(|word| *word != "in").nth(1).unwrap_or("Paris");
    after.trim_matches(|c: char| !c.is_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Choice, Heard, Reply, Tool, vector, vector_base64};

    fn weather_tool() -> Tool {
        let schema = json!({
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}, "days": {"type": "integer"}},
            "required": ["city", "unit"],
        });
        Tool { name: "get_weather".into(), schema }
    }

    fn heard(text: &str) -> Heard {
        Heard::messages(&[json!({"role": "user", "content": text})])
    }

    #[test]
    fn the_last_message_is_said_back_whatever_form_its_content_has() {
        let parts = json!({"role": "user", "content": [{"type": "text", "text": "Grüß"}, {"type": "text", "text": "Gott"}]});
        let heard = Heard::messages(&[json!({"role": "system", "content": "Be kind."}), parts]);
        assert_eq!(heard.words, 4);
        let reply = Reply::to(&heard, &[], &Choice::Auto);
        assert_eq!(reply.text(), "You said: Grüß Gott — nice to hear from you behind the gate.");
        assert_eq!(reply.count(), 13);
    }

    #[test]
    fn a_tool_is_called_for_the_weather_or_when_forced_and_not_after_its_result() {
        let tools = [weather_tool()];
        let call =
            Reply::Call { name: "get_weather".into(), arguments: json!({"city": "Oslo", "unit": "c"}) };
        let question = heard("What is the weather in Oslo?");
        assert_eq!(Reply::to(&question, &tools, &Choice::Auto), call);
        assert!(matches!(Reply::to(&question, &tools, &Choice::None), Reply::Words { .. }));
        assert!(matches!(Reply::to(&heard("Hi"), &tools, &Choice::Auto), Reply::Words { .. }));
        assert!(matches!(Reply::to(&heard("Hi"), &tools, &Choice::Any), Reply::Call { .. }));
        let named = Choice::Named("get_weather".into());
        assert!(matches!(Reply::to(&heard("Hi"), &tools, &named), Reply::Call { .. }));
        let result = Heard::messages(&[json!({"role": "tool", "content": "the weather is fine"})]);
        assert_eq!(
            Reply::to(&result, &tools, &Choice::Auto).text(),
            "The tool answered: the weather is fine"
        );
    }

    #[test]
    fn counting_gives_answers_of_a_known_length_and_a_limit_cuts_them() {
        let reply = Reply::to(&heard("Please count to 5."), &[], &Choice::Auto);
        assert_eq!(reply.text(), "1 2 3 4 5");
        let cut = reply.limited(Some(2));
        assert_eq!(cut.text(), "1 2");
        assert!(matches!(cut, Reply::Words { cut: true, .. }));
    }

    #[test]
    fn vectors_are_the_same_each_time_and_of_length_one() {
        let first = vector("a", 40);
        assert_eq!(first, vector("a", 40));
        assert_ne!(first, vector("b", 40));
        let length: f32 = first.iter().map(|n| n * n).sum();
        assert!((length - 1.0).abs() < 1e-5);
        assert_eq!(vector_base64(&[1.0]), "AACAPw==");
    }
}
