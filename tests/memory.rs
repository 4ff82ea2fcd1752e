//! How much memory the log takes to read what was asked and answered: at most four times the bytes, and a little.
//!
//! One test, alone in its process, for the allocator counts for all threads.

use peak_alloc::PeakAlloc;
use tollgate::dialect::message::asked;
use tollgate::dialect::{Call, Framing, assembler};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const SIZE: usize = 256 << 10;
/// What does not grow with the bytes: up to 1,024 parts that are told apart, and stacks of levels.
const FIXED: usize = 384 << 10;

/// A piece, as often as it takes to make [`SIZE`] bytes.
fn many(piece: &str) -> String {
    piece.repeat(SIZE / piece.len())
}

/// Values that take many times their bytes as a tree, or as a text in another form.
fn values() -> Vec<String> {
    let list = |piece: &str| format!("[{}{}]", many(&format!("{piece},")), piece);
    let text = |piece: &str| format!("\"{}\"", many(piece));
    let nested = |open: &str, inner: &str, close: &str| {
        list(&format!("{}{inner}{}", open.repeat(60), close.repeat(60)))
    };
    vec![
        list("{\"a\":0}"),
        list("{}"),
        list("[]"),
        list("0"),
        list("9e15"),
        list("\"\""),
        list("null"),
        format!("{{{}\"\":0}}", many("\"\":0,")),
        nested("{\"\":", "0", "}"),
        nested("[", "", "]"),
        text("x"),
        text("\\u0001"),
        text("\\\\"),
        text("\\\""),
        text("\\ud83d"),
        text("é"),
        format!("\"data:image/png;base64,{}\"", many("QUJD")),
        list("{\"type\":\"text\",\"text\":\"\"}"),
        list("{\"index\":7,\"id\":\"\",\"function\":{\"name\":\"\",\"arguments\":{\"\":\"\"}}}"),
    ]
}

/// The same document in lines of one event, each of some hundred bytes, where it has a comma there.
fn lines(document: &str) -> String {
    let mut text = String::new();
    let mut length = 0;
    for piece in document.split_inclusive("},") {
        text.push_str(piece);
        length += piece.len();
        if length > 1000 && piece.ends_with("},") {
            text.push_str("\ndata: ");
            length = 0;
        }
    }
    text
}

const ASKED: [(Call, &str); 9] = [
    (Call::ChatCompletions, "messages"),
    (Call::ChatCompletions, "other"),
    (Call::Completions, "prompt"),
    (Call::Responses, "input"),
    (Call::Messages, "system"),
    (Call::OllamaChat, "messages"),
    (Call::OllamaGenerate, "images\":[],\"prompt"),
    (Call::Embeddings, "input"),
    (Call::Other, "message"),
];
/// Where a value stands in an event or a document; `@` is its place.
const ANSWERED: [(Call, &str); 24] = [
    (Call::Other, "@"),
    (Call::Embeddings, "@"),
    (Call::ChatCompletions, r#"{"choices":@}"#),
    (Call::ChatCompletions, r#"{"choices":[{"index":0,"delta":{"content":@}}]}"#),
    (Call::ChatCompletions, r#"{"choices":[{"index":0,"delta":{"tool_calls":@}}]}"#),
    (Call::ChatCompletions, r#"{"choices":[{"index":0,"delta":{"function_call":{"arguments":@}}}]}"#),
    (Call::ChatCompletions, r#"{"choices":[{"index":0,"delta":{"content":""},"logprobs":{"content":@}}]}"#),
    (Call::ChatCompletions, r#"{"choices":[{"index":0,"message":{"role":"assistant","content":@}}]}"#),
    (Call::Completions, r#"{"choices":[{"index":0,"text":@}],"usage":@}"#),
    (Call::Other, r#"{"object":"chat.completion.chunk","choices":[{"delta":{"content":@}}]}"#),
    (Call::ChatCompletions, r#"{"error":@}"#),
    (Call::ChatCompletions, r#"{"model":@}"#),
    (Call::Responses, r#"{"type":"response.completed","response":{"output":@}}"#),
    (Call::Responses, r#"{"type":"response.output_item.done","output_index":0,"item":@}"#),
    (Call::Responses, r#"{"type":"response.output_text.delta","output_index":0,"delta":@}"#),
    (Call::Messages, r#"{"type":"message_start","message":{"role":"assistant","content":@}}"#),
    (Call::Messages, r#"{"type":"content_block_start","index":0,"content_block":@}"#),
    (Call::Messages, r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":@}}"#),
    (
        Call::Messages,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":@}}"#,
    ),
    (
        Call::Messages,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":@}}"#,
    ),
    (Call::OllamaChat, r#"{"message":{"role":"assistant","content":@,"tool_calls":@}}"#),
    (Call::OllamaGenerate, r#"{"response":@}"#),
    (Call::Other, r#"{"answer":@}"#),
    (Call::Other, r#"{"unknown":@}"#),
];

/// Bytes at the highest moment of `work`, those of `input` included.
fn peak<T>(input: usize, work: impl FnOnce() -> T) -> usize {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    drop(work());
    HEAP.peak_usage().saturating_sub(before) + input
}

fn hold(what: &str, bytes: usize, took: usize, worst: &mut usize) {
    let times = took.saturating_sub(FIXED) * 100 / bytes;
    assert!(times <= 400, "{what}: {took} bytes for {bytes}");
    *worst = times.max(*worst);
}

#[test]
fn whatever_is_said_takes_at_most_four_times_its_bytes() {
    let mut worst = 0;
    for (nth, value) in values().into_iter().enumerate() {
        let start: String = value.chars().take(40).collect();
        for (call, member) in ASKED {
            let body = format!("{{\"model\":\"m\",\"{member}\":{value}}}");
            for body in [body.as_bytes(), &body.as_bytes()[..body.len() - 2]] {
                let took = peak(body.len(), || asked(call, body));
                hold(&format!("{call:?} asks {member} {start}"), body.len(), took, &mut worst);
            }
        }
        for (place, (call, template)) in ANSWERED.into_iter().enumerate() {
            let document = template.replace('@', &value);
            // In turn, so that each value meets each form and each place does, in the time there is.
            let in_turn = (nth + place) % 5;
            let forms = [
                (Framing::Sse, format!("data: {document}\n\ndata: [DONE]\n\n")),
                (Framing::Sse, format!("data: {}\n\n", lines(&document))),
                (Framing::Ndjson, format!("{document}\n{{\"done\":true}}")),
                (Framing::Json, document.clone()),
                (Framing::Json, document.chars().take(document.chars().count() - 2).collect()),
            ];
            for (framing, bytes) in forms.into_iter().skip(in_turn).take(1) {
                let length = bytes.len();
                let took = peak(length, || assembler(call, framing, None).finish_with(bytes.into_bytes()));
                hold(&format!("{call:?} {framing:?} answers {template} {start}"), length, took, &mut worst);
            }
        }
    }
    for piece in ["\u{1}", "\\", "x", "\u{e9}"] {
        let bytes = many(piece).into_bytes();
        let took = peak(bytes.len(), || asked(Call::Other, &bytes));
        hold("bytes that are no JSON", bytes.len(), took, &mut worst);
    }
    let small: String = many("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n");
    let took = peak(small.len(), || {
        assembler(Call::ChatCompletions, Framing::Sse, None).finish_with(small.clone().into_bytes())
    });
    hold("many small events", small.len(), took - small.len(), &mut worst);
    assert!(worst > 100, "{worst} % is less than the bytes themselves");
}
