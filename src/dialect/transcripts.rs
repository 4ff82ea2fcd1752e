//! Answers as servers send them, and what must be read from them however they are split.
#![cfg(test)]

use std::fmt::Write;

use proptest::prelude::{any, prop, prop_assert_eq, proptest};
use serde_json::{Value, json};

use super::{Call, Framing, Usage, assembler};

const CALLS: [Call; 8] = [
    Call::ChatCompletions,
    Call::Completions,
    Call::Responses,
    Call::Embeddings,
    Call::Messages,
    Call::OllamaChat,
    Call::OllamaGenerate,
    Call::Other,
];
const FRAMINGS: [Framing; 4] = [Framing::Sse, Framing::Ndjson, Framing::Json, Framing::Other];

/// What was said, with what is JSON in it as a tree.
#[derive(Clone, Debug, PartialEq)]
struct Answered {
    messages: Vec<Value>,
    model: Option<String>,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    finished: bool,
    error: Option<Value>,
    cut: u64,
}

impl From<super::Answered> for Answered {
    fn from(from: super::Answered) -> Self {
        let super::Answered { messages, model, finish_reason, usage, finished, error, cut } = from;
        let json = |text: &str| {
            serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"))
        };
        let listed = if messages.is_empty() { Value::Array(Vec::new()) } else { json(&messages) };
        let Value::Array(messages) = listed else { panic!("{messages}") };
        Self { messages, model, finish_reason, usage, finished, error: error.map(|error| json(&error)), cut }
    }
}

impl Answered {
    fn ran_out_of_length(&self) -> bool {
        let finish_reason = self.finish_reason.clone();
        super::Answered { finish_reason, ..super::Answered::default() }.ran_out_of_length()
    }
}

fn ending(call: Call, framing: Framing, bytes: &[u8]) -> Answered {
    super::ending::ending(call, framing, bytes).into()
}

fn assemble(call: Call, framing: Framing, chunks: &[&[u8]]) -> Answered {
    let mut assembler = assembler(call, framing, None);
    for chunk in chunks {
        assembler.feed(chunk);
    }
    assembler.finish().into()
}

fn read(call: Call, framing: Framing, bytes: &str) -> Answered {
    assemble(call, framing, &[bytes.as_bytes()])
}

/// Data events as OpenAI sends them.
fn sse(events: &[Value]) -> String {
    events.iter().fold(String::new(), |mut stream, event| {
        write!(stream, "data: {event}\n\n").unwrap();
        stream
    })
}

/// Events with their type as name, as Anthropic and OpenAI's responses send them.
fn named(events: &[Value]) -> String {
    events.iter().fold(String::new(), |mut stream, event| {
        let name = event["type"].as_str().unwrap();
        write!(stream, "event: {name}\ndata: {event}\n\n").unwrap();
        stream
    })
}

fn ndjson(lines: &[Value]) -> String {
    lines.iter().fold(String::new(), |stream, line| format!("{stream}{line}\n"))
}

#[expect(clippy::unnecessary_wraps, reason = "compared with what may be absent")]
fn usage(prompt: u64, completion: u64, cached: Option<u64>, reasoning: Option<u64>) -> Option<Usage> {
    let total = Some(prompt + completion);
    Some(Usage { prompt: Some(prompt), completion: Some(completion), total, cached, reasoning })
}

fn assistant(content: &Value) -> Value {
    json!({"role": "assistant", "content": content})
}

fn said(text: &str) -> Vec<Value> {
    vec![assistant(&json!(text))]
}

fn chunk(choices: &Value, usage: &Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06",
        "choices": choices, "usage": usage})
}

fn delta(index: u64, delta: &Value, finish_reason: Option<&str>) -> Value {
    chunk(
        &json!([{"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": null}]),
        &Value::Null,
    )
}

fn chat_stream() -> String {
    let usage = json!({"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0}});
    sse(&[
        delta(0, &json!({"role": "assistant", "content": "", "refusal": null}), None),
        delta(0, &json!({"content": "Héllo"}), None),
        delta(0, &json!({"content": " 😀\n\n"}), None),
        delta(0, &json!({}), Some("stop")),
        chunk(&json!([]), &usage),
    ]) + "data: [DONE]\n\n"
}

fn two_choices_with_tools() -> String {
    sse(&[
        delta(1, &json!({"role": "assistant", "content": "no"}), None),
        delta(0, &json!({"role": "assistant", "content": null}), None),
        delta(
            0,
            &json!({"tool_calls": [{"index": 1, "id": "call_b", "type": "function",
            "function": {"name": "time", "arguments": ""}}]}),
            None,
        ),
        delta(
            0,
            &json!({"tool_calls": [{"index": 0, "id": "call_a", "type": "function",
            "function": {"name": "weather", "arguments": "{\"ci"}}]}),
            None,
        ),
        delta(
            0,
            &json!({"tool_calls": [{"index": 0, "id": null, "function": {"arguments": "ty\":\"Bonn\"}"}}]}),
            None,
        ),
        delta(1, &json!({"content": " way"}), Some("stop")),
        delta(0, &json!({}), Some("tool_calls")),
    ]) + "data: [DONE]\n\n"
}

fn responses_start() -> Vec<Value> {
    vec![
        json!({"type": "response.created", "sequence_number": 0,
            "response": {"id": "resp_1", "model": "gpt-5", "status": "in_progress", "output": [], "usage": null}}),
        json!({"type": "response.output_item.added", "output_index": 0,
            "item": {"id": "rs_1", "type": "reasoning", "summary": []}}),
        json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "Hm"}),
        json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "m."}),
        json!({"type": "response.output_item.added", "output_index": 1,
            "item": {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}}),
        json!({"type": "response.content_part.added", "output_index": 1, "content_index": 0,
            "part": {"type": "output_text", "text": "", "annotations": []}}),
        json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Hel"}),
        json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "lo"}),
        json!({"type": "response.refusal.delta", "output_index": 1, "content_index": 1, "delta": "No."}),
        json!({"type": "response.output_item.added", "output_index": 2,
            "item": {"id": "fc_1", "type": "function_call", "name": "f", "call_id": "c", "arguments": ""}}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{\"a\""}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 2, "delta": ":1}"}),
    ]
}

fn responses_parts() -> Value {
    json!([
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hmm."}]},
        {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress",
            "content": [{"type": "output_text", "text": "Hello"}, {"type": "refusal", "refusal": "No."}]},
        {"id": "fc_1", "type": "function_call", "name": "f", "call_id": "c", "arguments": "{\"a\":1}"},
    ])
}

fn responses_document(status: &str) -> Value {
    json!({"id": "resp_1", "object": "response", "model": "gpt-5-2025", "status": status, "error": null,
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}],
        "usage": {"input_tokens": 36, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 64}, "total_tokens": 123}})
}

fn responses_stream() -> String {
    let mut events = responses_start();
    events.push(json!({"type": "response.completed", "sequence_number": 9, "response": responses_document("completed")}));
    named(&events)
}

fn anthropic_start() -> Vec<Value> {
    vec![
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
            "content": [], "model": "claude-sonnet-4", "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": 20, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 3,
                "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": " see"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Okay — "}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "now"}}),
        json!({"type": "content_block_delta", "index": 1,
            "delta": {"type": "citations_delta", "citation": {"cited_text": "x"}}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}}),
        json!({"type": "content_block_delta", "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": "{\"location\":"}}),
        json!({"type": "content_block_delta", "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": " \"Rome\"}"}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "new_delta", "x": 1}}),
        json!({"type": "content_block_stop", "index": 2}),
    ]
}

fn anthropic_stream() -> String {
    let mut events = anthropic_start();
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
        "usage": {"output_tokens": 40}}));
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"},
        "usage": {"input_tokens": 21, "output_tokens": 89, "output_tokens_details": {"thinking_tokens": 30}}}));
    events.push(json!({"type": "message_stop"}));
    named(&events)
}

fn ollama_stream() -> String {
    ndjson(&[
        json!({"model": "llama3.2", "message": {"role": "assistant", "content": "", "thinking": "Wel"}, "done": false}),
        json!({"model": "llama3.2", "message": {"role": "assistant", "content": "", "thinking": "l"}, "done": false}),
        json!({"model": "llama3.2", "message": {"role": "assistant", "content": "The"}, "done": false}),
        json!({"model": "llama3.2", "message": {"role": "assistant", "content": " sky",
            "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, "done": false}),
        json!({"model": "llama3.2", "message": {"role": "assistant", "content": ""}, "done": true,
            "done_reason": "stop", "total_duration": 4_883_583_458_u64, "prompt_eval_count": 26, "eval_count": 290}),
    ])
}

fn transcripts() -> Vec<(Call, Framing, String)> {
    vec![
        (Call::ChatCompletions, Framing::Sse, chat_stream()),
        (Call::ChatCompletions, Framing::Sse, chat_stream().replace('\n', "\r\n")),
        (Call::ChatCompletions, Framing::Sse, two_choices_with_tools()),
        (Call::ChatCompletions, Framing::Other, chat_stream()),
        (Call::Responses, Framing::Sse, responses_stream()),
        (Call::Responses, Framing::Json, responses_document("completed").to_string()),
        (Call::Messages, Framing::Sse, anthropic_stream()),
        (Call::OllamaChat, Framing::Ndjson, ollama_stream()),
        (Call::OllamaChat, Framing::Json, ollama_stream()),
        (Call::Other, Framing::Sse, chat_stream()),
        (Call::Other, Framing::Sse, "data: one\n\ndata:two\n\n: ping\n\ndata: {\"text\":\"é\"}".to_owned()),
        (Call::Other, Framing::Ndjson, "{\"text\":\"a\"}\nb\n{\"text\":\"c\"}".to_owned()),
    ]
}

// === OpenAI chat ===

#[test]
fn a_streamed_chat_is_put_together() {
    let answered = read(Call::ChatCompletions, Framing::Sse, &chat_stream());
    let expected = Answered {
        messages: said("Héllo 😀\n\n"),
        model: Some("gpt-4o-2024-08-06".into()),
        finish_reason: Some("stop".into()),
        usage: usage(19, 10, Some(4), Some(0)),
        finished: true,
        error: None,
        cut: 0,
    };
    assert_eq!(read(Call::Other, Framing::Sse, &chat_stream()), expected);
    let mistyped = read(Call::ChatCompletions, Framing::Other, &chat_stream());
    assert_eq!(mistyped, expected);
    assert_eq!(answered.messages[0]["content"], "Héllo 😀\n\n");
    assert_eq!(answered, Answered { messages: answered.messages.clone(), ..expected });
}

#[test]
fn choices_and_tool_calls_are_told_apart_by_index() {
    let answered = read(Call::ChatCompletions, Framing::Sse, &two_choices_with_tools());
    let tools = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Bonn\"}"}},
        {"id": "call_b", "type": "function", "function": {"name": "time", "arguments": ""}},
    ]});
    assert_eq!(answered.messages, [tools, assistant(&json!("no way"))]);
    assert_eq!(answered.finish_reason.as_deref(), Some("tool_calls"));
    assert_eq!(answered.usage, None);
    assert!(answered.finished);
}

#[test]
fn reasoning_refusals_and_old_function_calls_are_kept() {
    let stream = sse(&[
        delta(0, &json!({"reasoning_content": "th", "reasoning": "th"}), None),
        delta(0, &json!({"reasoning_content": "ink"}), None),
        delta(0, &json!({"refusal": "I can"}), None),
        delta(0, &json!({"refusal": "not"}), None),
        delta(0, &json!({"function_call": {"name": "f", "arguments": "{"}}), None),
        delta(0, &json!({"function_call": {"arguments": "}"}}), Some("function_call")),
    ]);
    let answered = read(Call::ChatCompletions, Framing::Sse, &stream);
    let message = json!({"role": "assistant", "content": null, "reasoning_content": "think", "refusal": "I cannot",
        "function_call": {"name": "f", "arguments": "{}"}});
    assert_eq!(answered.messages, [message]);
    assert!(!answered.finished);

    let stream =
        sse(&[delta(0, &json!({"reasoning": "a"}), None), delta(0, &json!({"reasoning": "b"}), None)]);
    assert_eq!(read(Call::ChatCompletions, Framing::Sse, &stream).messages[0]["reasoning"], "ab");
}

#[test]
fn tool_calls_without_an_index_begin_with_their_name() {
    let call = |name: Option<&str>, arguments: &str| {
        delta(0, &json!({"tool_calls": [{"function": {"name": name, "arguments": arguments}}]}), None)
    };
    let stream = sse(&[call(Some("a"), "1"), call(None, "2"), call(Some("b"), "3")]);
    let calls = &read(Call::ChatCompletions, Framing::Sse, &stream).messages[0]["tool_calls"];
    assert_eq!(calls[0]["function"], json!({"name": "a", "arguments": "12"}));
    assert_eq!(calls[1]["function"], json!({"name": "b", "arguments": "3"}));
}

#[test]
fn the_last_usage_wins_wherever_it_stands() {
    let counts = |n: u64| json!({"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n});
    let with = |n: u64| chunk(&json!([{"index": 0, "delta": {"content": "x"}}]), &counts(n));
    let every = sse(&[with(1), with(2), with(3), delta(0, &json!({}), Some("stop"))]);
    assert_eq!(read(Call::ChatCompletions, Framing::Sse, &every).usage, usage(5, 3, None, None));

    let zero = sse(&[chunk(&json!([{"delta": {}}]), &counts(0))]);
    assert_eq!(read(Call::ChatCompletions, Framing::Sse, &zero).usage, usage(5, 0, None, None));

    let groq = sse(&[json!({"choices": [], "x_groq": {"usage": counts(7)}})]);
    assert_eq!(read(Call::ChatCompletions, Framing::Sse, &groq).usage, usage(5, 7, None, None));

    let nothing = sse(&[chunk(&json!([]), &json!({}))]);
    assert_eq!(read(Call::ChatCompletions, Framing::Sse, &nothing).usage, None);
}

#[test]
fn an_error_in_the_stream_is_kept_beside_what_was_said() {
    let error = json!({"message": "overloaded", "type": "server_error", "param": null, "code": null});
    let stream = sse(&[delta(0, &json!({"content": "Hel"}), None), json!({"error": error})]);
    let answered = read(Call::ChatCompletions, Framing::Sse, &stream);
    assert_eq!((answered.messages, answered.error, answered.finished), (said("Hel"), Some(error), false));
}

#[test]
fn the_last_event_needs_no_blank_line() {
    let stream = chat_stream();
    let cut = stream.trim_end();
    assert_eq!(
        read(Call::ChatCompletions, Framing::Sse, cut),
        read(Call::ChatCompletions, Framing::Sse, &stream)
    );
}

#[test]
fn documents_say_what_streams_say() {
    let message = json!({"role": "assistant", "content": "Hi", "annotations": []});
    let document = json!({"id": "1", "object": "chat.completion", "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}});
    let expected = Answered {
        messages: vec![message],
        model: Some("m".into()),
        finish_reason: Some("stop".into()),
        usage: usage(1, 2, None, None),
        finished: true,
        error: None,
        cut: 0,
    };
    assert_eq!(read(Call::ChatCompletions, Framing::Json, &document.to_string()), expected);
    assert!(read(Call::Other, Framing::Json, &document.to_string()).usage.is_some());

    let mut cut = document.to_string();
    cut.truncate(60);
    assert!(!read(Call::ChatCompletions, Framing::Json, &cut).finished);
}

#[test]
fn a_document_that_was_cut_gives_its_beginning() {
    let cut = r#"{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"Hello wor"#;
    let answered = read(Call::ChatCompletions, Framing::Json, cut);
    assert_eq!((answered.messages, answered.finished), (said("Hello wor"), false));
}

#[test]
fn legacy_completions_are_assistant_texts() {
    let text = |text: &str, reason: Option<&str>| json!({"object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": reason}]});
    let stream = sse(&[text("Once", None), text(" upon", Some("length"))]) + "data: [DONE]\n\n";
    let answered = read(Call::Completions, Framing::Sse, &stream);
    assert_eq!((&answered.messages, answered.finished), (&said("Once upon"), true));
    assert!(answered.ran_out_of_length());
    let document = text("Once", Some("stop")).to_string();
    assert_eq!(read(Call::Completions, Framing::Json, &document).messages, said("Once"));
}

#[test]
fn of_embeddings_only_the_usage_is_kept() {
    let document = json!({"object": "list", "model": "text-embedding-3-small",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2]}],
        "usage": {"prompt_tokens": 8, "total_tokens": 8}});
    let answered = read(Call::Embeddings, Framing::Json, &document.to_string());
    assert!(answered.messages.is_empty() && answered.finished);
    let counts = Usage { prompt: Some(8), total: Some(8), ..Usage::default() };
    assert_eq!(answered.usage, Some(counts));
    assert_eq!(answered.model.as_deref(), Some("text-embedding-3-small"));

    let ollama = json!({"model": "all-minilm", "embeddings": [[0.1]], "prompt_eval_count": 8}).to_string();
    assert_eq!(read(Call::Embeddings, Framing::Json, &ollama).usage, Some(counts));
    assert!(read(Call::Embeddings, Framing::Other, "<html>").messages.is_empty());
}

// === OpenAI responses ===

#[test]
fn the_terminal_event_of_a_response_is_trusted() {
    let output = responses_document("completed")["output"].clone();
    let expected = Answered {
        messages: vec![assistant(&output)],
        model: Some("gpt-5-2025".into()),
        finish_reason: Some("completed".into()),
        usage: usage(36, 87, Some(0), Some(64)),
        finished: true,
        error: None,
        cut: 0,
    };
    assert_eq!(read(Call::Responses, Framing::Sse, &responses_stream()), expected);
    let document = responses_document("completed").to_string();
    assert_eq!(read(Call::Responses, Framing::Json, &document), expected);
}

#[test]
fn a_response_cut_short_is_put_together_from_its_parts() {
    let answered = read(Call::Responses, Framing::Sse, &named(&responses_start()));
    assert_eq!(answered.messages, [assistant(&responses_parts())]);
    assert_eq!((answered.model.as_deref(), answered.usage, answered.finished), (Some("gpt-5"), None, false));
}

#[test]
fn incomplete_and_failed_responses_are_ends_too() {
    let mut response = responses_document("incomplete");
    response["incomplete_details"] = json!({"reason": "max_output_tokens"});
    let stream = named(&[json!({"type": "response.incomplete", "response": response})]);
    let answered = read(Call::Responses, Framing::Sse, &stream);
    assert!(answered.finished && answered.ran_out_of_length() && answered.usage.is_some());

    let mut response = responses_document("failed");
    response["error"] = json!({"code": "server_error", "message": "no"});
    let stream = named(&[json!({"type": "response.failed", "response": response})]);
    let answered = read(Call::Responses, Framing::Sse, &stream);
    assert_eq!(answered.error, Some(json!({"code": "server_error", "message": "no"})));

    let error = json!({"type": "error", "code": null, "message": "no", "param": null, "sequence_number": 3});
    let answered = read(Call::Responses, Framing::Sse, &named(std::slice::from_ref(&error)));
    assert_eq!((answered.error, answered.finished), (Some(error), false));
}

// === Anthropic ===

#[test]
fn an_anthropic_message_is_accumulated_as_its_sdk_does() {
    let answered = read(Call::Messages, Framing::Sse, &anthropic_stream());
    let content = json!([
        {"type": "thinking", "thinking": "Let me see", "signature": "EqQB"},
        {"type": "text", "text": "Okay — now", "citations": [{"cited_text": "x"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"location": "Rome"},
            "deltas": [{"type": "new_delta", "x": 1}]},
    ]);
    let expected = Answered {
        messages: vec![assistant(&content)],
        model: Some("claude-sonnet-4".into()),
        finish_reason: Some("tool_use".into()),
        usage: usage(124, 89, Some(3), Some(30)),
        finished: true,
        error: None,
        cut: 0,
    };
    assert_eq!(answered, expected);
}

#[test]
fn an_anthropic_stream_that_breaks_keeps_its_last_counts_and_raw_input() {
    let mut events = anthropic_start();
    events.truncate(15);
    let error = json!({"type": "overloaded_error", "message": "Overloaded"});
    events.push(json!({"type": "error", "error": error}));
    let answered = read(Call::Messages, Framing::Sse, &named(&events));
    assert_eq!(answered.messages[0]["content"][2]["input"], "{\"location\":");
    assert_eq!((answered.usage, answered.error), (usage(123, 1, Some(3), None), Some(error)));
    assert!(!answered.finished);
}

#[test]
fn an_anthropic_document_has_the_same_form() {
    let content = json!([{"type": "text", "text": "Hi"}]);
    let document = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": content,
        "stop_reason": "end_turn", "stop_sequence": null, "usage": {"input_tokens": 0, "output_tokens": 2}});
    let answered = read(Call::Messages, Framing::Json, &document.to_string());
    assert_eq!(answered.messages, [assistant(&content)]);
    assert_eq!(
        (answered.usage, answered.finish_reason.as_deref()),
        (usage(0, 2, None, None), Some("end_turn"))
    );

    let refused =
        json!({"type": "error", "error": {"type": "api_error", "message": "no"}, "request_id": "r"});
    let answered = read(Call::Messages, Framing::Json, &refused.to_string());
    assert_eq!(
        (answered.messages.len(), answered.error),
        (0, Some(json!({"type": "api_error", "message": "no"})))
    );
}

// === Ollama ===

#[test]
fn ollama_lines_are_put_together() {
    let answered = read(Call::OllamaChat, Framing::Ndjson, &ollama_stream());
    let message = json!({"role": "assistant", "content": "The sky", "thinking": "Well",
        "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]});
    let expected = Answered {
        messages: vec![message],
        model: Some("llama3.2".into()),
        finish_reason: Some("stop".into()),
        usage: usage(26, 290, None, None),
        finished: true,
        error: None,
        cut: 0,
    };
    assert_eq!(answered, expected);
    assert_eq!(read(Call::OllamaChat, Framing::Ndjson, ollama_stream().trim_end()), expected);
    assert_eq!(read(Call::OllamaChat, Framing::Json, &ollama_stream()), expected);
}

#[test]
fn ollama_counts_that_are_absent_are_not_zero() {
    let stream = ndjson(&[
        json!({"model": "m", "response": "a", "done": false}),
        json!({"model": "m", "response": "b", "done": true, "done_reason": "length", "eval_count": 2}),
    ]);
    let answered = read(Call::OllamaGenerate, Framing::Ndjson, &stream);
    assert_eq!(answered.messages, said("ab"));
    assert_eq!(answered.usage, Some(Usage { completion: Some(2), ..Usage::default() }));

    let done = json!({"model": "m", "response": "b", "done": true}).to_string();
    let answered = read(Call::OllamaGenerate, Framing::Json, &done);
    assert_eq!((answered.messages, answered.usage, answered.finished), (said("b"), None, true));

    let broken = ndjson(&[json!({"response": "a", "done": false}), json!({"error": "out of memory"})]);
    let answered = read(Call::OllamaGenerate, Framing::Ndjson, &broken);
    assert_eq!((answered.messages, answered.error), (said("a"), Some(json!("out of memory"))));
}

// === plain ===

#[test]
fn a_plain_answer_is_found_where_the_route_says_or_where_apps_put_it() {
    let with = |pointer: Option<&str>, framing, bytes: &str| {
        let mut assembler = assembler(Call::Other, framing, pointer);
        assembler.feed(bytes.as_bytes());
        Answered::from(assembler.finish())
    };
    let nested = r#"{"result":{"say":"Hi"},"text":"other","usage":{"input_tokens":1,"output_tokens":2}}"#;
    let answered = with(Some("/result/say"), Framing::Json, nested);
    assert_eq!((answered.messages, answered.usage), (said("Hi"), usage(1, 2, None, None)));
    assert_eq!(with(None, Framing::Json, nested).messages, said("other"));
    assert_eq!(with(None, Framing::Json, r#"{"reply":"Hi"}"#).messages, said("Hi"));
    assert_eq!(with(None, Framing::Json, r#"{"message":{"content":"Hi"}}"#).messages, said("Hi"));
    assert_eq!(with(None, Framing::Json, r#"{"x":1}"#).messages, [assistant(&json!({"x": 1}))]);
    assert_eq!(with(None, Framing::Other, "Hi\nyou").messages, said("Hi\nyou"));
    assert_eq!(with(None, Framing::Other, "").messages, [] as [Value; 0]);

    let events = "data: {\"d\":\"a\"}\n\ndata: {\"other\":1}\n\ndata: {\"d\":\"b\"}\n\ndata: [DONE]\n\n";
    let answered = with(Some("/d"), Framing::Sse, events);
    assert_eq!((answered.messages, answered.finished), (said("ab"), true));
    assert_eq!(
        with(None, Framing::Sse, "data: {\"text\":\"a\"}\n\ndata: {\"text\":\"b").messages,
        said("ab")
    );
    assert_eq!(with(None, Framing::Sse, "data: one\n\ndata:  two\n\n").messages, said("one two"));
    assert_eq!(with(None, Framing::Ndjson, "{\"text\":\"a\"}\n{\"text\":\"b\"}").messages, said("ab"));
}

// === endings ===

#[test]
fn the_last_bytes_of_a_cut_answer_still_tell_how_it_ended() {
    for (call, framing, stream) in transcripts() {
        if call == Call::Other || framing == Framing::Other {
            continue;
        }
        let whole = read(call, framing, &stream);
        let filler = "x".repeat(40_000);
        let (head, tail) = match framing {
            Framing::Sse => (": ", format!("{filler}\"}}]}}\n\n{stream}")),
            Framing::Ndjson => ("", format!("{filler}\"}}\n{stream}")),
            _ => ("", stream),
        };
        let ended = ending(call, framing, format!("{head}{tail}").as_bytes());
        assert!(ended.messages.is_empty());
        assert_eq!((ended.usage, ended.finished), (whole.usage, true), "{call:?} {framing:?}");
        assert_eq!(ended.error, None);
    }
}

#[test]
fn the_end_of_a_cut_document_is_searched_for_its_counts() {
    let text = "say \"usage\":{\"prompt_tokens\":1} ".repeat(2000);
    // Written out, as the order of members is what matters here.
    let document = format!(
        r#"{{"choices":[{{"message":{{"content":{}}},"finish_reason":"length"}}],"usage":{{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}},"x":"{}"}}"#,
        json!(text),
        "usage",
    );
    let ended = ending(Call::ChatCompletions, Framing::Json, document.as_bytes());
    assert_eq!((ended.usage, ended.finished), (usage(3, 4, None, None), true));
    assert_eq!(ended.finish_reason.as_deref(), Some("length"));

    let ollama = r#"xxxx"},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":4}"#;
    let ended = ending(Call::OllamaChat, Framing::Json, ollama.as_bytes());
    assert_eq!((ended.usage, ended.finish_reason.as_deref()), (usage(3, 4, None, None), Some("stop")));

    let embed = br#",0.1]],"total_duration":14143917,"load_duration":1019500,"prompt_eval_count":8}"#;
    let ended = ending(Call::Embeddings, Framing::Json, embed);
    assert_eq!(ended.usage.and_then(|usage| usage.prompt), Some(8));

    let response =
        format!("{}\",{}", "x".repeat(20_000), r#""usage":{"input_tokens":3,"output_tokens":4}}}"#);
    let ended = ending(Call::Responses, Framing::Sse, response.as_bytes());
    assert_eq!((ended.usage, ended.finished), (usage(3, 4, None, None), true));
}

#[test]
fn an_ending_completes_what_the_beginning_told() {
    let stream = anthropic_stream();
    let (head, tail) = stream.split_at(stream.find("event: message_delta").unwrap() - 30);
    let whole = read(Call::Messages, Framing::Sse, &stream);
    let mut assembler = assembler(Call::Messages, Framing::Sse, None);
    assembler.feed(head.as_bytes());
    let mut answered = assembler.finish();
    answered.complete(super::ending::ending(Call::Messages, Framing::Sse, tail.as_bytes()));
    let answered = Answered::from(answered);
    let counts = |answered: &Answered| answered.usage.and_then(|usage| usage.completion);
    assert_eq!(counts(&answered), counts(&whole));
    assert_eq!((&answered.finish_reason, answered.finished), (&whole.finish_reason, true));
    assert_eq!(answered.messages.len(), 1);
}

#[test]
fn a_line_of_sixty_megabytes_is_skipped_and_the_rest_is_read() {
    let mut assembler = assembler(Call::ChatCompletions, Framing::Sse, None);
    assembler.feed(sse(&[delta(0, &json!({"content": "a"}), None)]).as_bytes());
    assembler.feed(b"data: \"");
    let megabyte = vec![b'x'; 1024 * 1024];
    for _ in 0..60 {
        assembler.feed(&megabyte);
    }
    assembler.feed(b"\"\n\n");
    assembler.feed(sse(&[delta(0, &json!({"content": "b"}), Some("stop"))]).as_bytes());
    let answered = Answered::from(assembler.finish());
    assert_eq!((answered.messages, answered.cut), (said("ab"), 1));
}

// === properties ===

proptest! {
    #[test]
    fn any_split_gives_the_same_answer(which in any::<prop::sample::Index>(), at in prop::collection::vec(any::<usize>(), 0..20)) {
        let transcripts = transcripts();
        let (call, framing, text) = which.get(&transcripts);
        let bytes = text.as_bytes();
        let mut ends: Vec<_> = at.iter().map(|n| n % (bytes.len() + 1)).collect();
        ends.extend([0, bytes.len()]);
        ends.sort_unstable();
        let parts: Vec<_> = ends.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let single: Vec<_> = bytes.chunks(1).collect();
        let whole = assemble(*call, *framing, &[bytes]);
        prop_assert_eq!(&whole, &assemble(*call, *framing, &parts));
        prop_assert_eq!(&whole, &assemble(*call, *framing, &single));
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), which in any::<prop::sample::Index>(),
        cut in any::<usize>(), flip in any::<usize>()) {
        let transcripts = transcripts();
        let mut broken = which.get(&transcripts).2.clone().into_bytes();
        let at = flip % broken.len();
        broken[at] = bytes.first().copied().unwrap_or(b'[');
        broken.truncate(cut % (broken.len() + 1));
        for call in CALLS {
            for framing in FRAMINGS {
                for input in [&bytes, &broken] {
                    assemble(call, framing, &[input]);
                    let _ = ending(call, framing, input);
                }
            }
        }
    }

    #[test]
    fn members_of_the_wrong_type_never_panic(replacement in 0_usize..8, which in any::<prop::sample::Index>(), nth in 0_usize..60) {
        let transcripts = transcripts();
        let (call, framing, text) = which.get(&transcripts);
        let values = ["null", "[]", "{}", "-1", "18446744073709551615", "1.5", "\"x\"", "[[1]]"];
        let Some((at, _)) = text.match_indices("\":").nth(nth) else { return Ok(()) };
        let (before, rest) = text.split_at(at + 2);
        let end = rest.find([',', '}', ']']).unwrap_or(rest.len());
        let broken = format!("{before}{}{}", values[replacement], rest.split_at(end).1);
        assemble(*call, *framing, &[broken.as_bytes()]);
    }
}
