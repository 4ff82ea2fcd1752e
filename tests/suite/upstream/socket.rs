//! A model that speaks WebSocket: it answers each `response.create` as OpenAI's do, starts a response by itself
//! when sound is committed, and echoes what is no event.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// Where it listens, and what it heard. It ends with the process.
#[derive(Clone)]
pub(crate) struct SocketModel {
    pub(crate) addr: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    heads: Vec<String>,
    texts: Vec<String>,
    responses: usize,
}

struct Peer {
    stream: TcpStream,
    model: SocketModel,
    is_realtime: bool,
}

// === impl SocketModel ===

impl SocketModel {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let model = Self { addr, heard: Arc::default() };
        let serving = model.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let model = serving.clone();
                std::thread::spawn(move || drop(serve(stream, model)));
            }
        });
        model
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The messages that came, on all sockets.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.heard.lock().unwrap().texts.clone()
    }

    /// How many of them asked for a response.
    pub(crate) fn asked(&self) -> usize {
        self.texts().iter().filter(|text| text.contains("response.create")).count()
    }

    /// The latest head of a request.
    pub(crate) fn head(&self) -> String {
        self.heard.lock().unwrap().heads.last().cloned().expect("nobody came")
    }
}

fn serve(mut stream: TcpStream, model: SocketModel) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let field = |name: &str| {
        head.lines().find_map(|line| {
            line.split_once(':')
                .filter(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.trim().to_owned())
        })
    };
    let key = field("sec-websocket-key").unwrap_or_default();
    let protocol = field("sec-websocket-protocol").map_or(String::new(), |offered| {
        format!("sec-websocket-protocol: {}\r\n", offered.split(',').next().unwrap().trim())
    });
    let accept = base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()));
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n{protocol}\
         sec-websocket-accept: {accept}\r\n\r\n"
    )?;
    let is_realtime = head.lines().next().unwrap_or_default().contains("/realtime");
    model.heard.lock().unwrap().heads.push(head);
    let mut peer = Peer { stream, model, is_realtime };
    while let Some(text) = peer.message()? {
        peer.answer(&text)?;
    }
    Ok(())
}

// === impl Peer ===

impl Peer {
    /// The next message; nothing where the client closes.
    fn message(&mut self) -> std::io::Result<Option<String>> {
        let mut text = Vec::new();
        loop {
            let (first, second) = (self.bytes(1)?[0], self.bytes(1)?[0]);
            let length = match second & 0x7f {
                126 => usize::from(u16::from_be_bytes(self.bytes(2)?.try_into().unwrap())),
                127 => usize::from_be_bytes(self.bytes(8)?.try_into().unwrap()),
                short => usize::from(short),
            };
            assert!(second & 0x80 != 0, "frames of clients are masked");
            let mask = self.bytes(4)?;
            let payload: Vec<u8> =
                self.bytes(length)?.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            match first & 0x0f {
                8 => {
                    self.send_frame(8, &payload)?;
                    return Ok(None);
                }
                9 => self.send_frame(10, &payload)?,
                10 => {}
                _ => {
                    text.extend(payload);
                    if first & 0x80 != 0 {
                        let text = String::from_utf8_lossy(&text).into_owned();
                        self.model.heard.lock().unwrap().texts.push(text.clone());
                        return Ok(Some(text));
                    }
                }
            }
        }
    }

    fn bytes(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn answer(&mut self, text: &str) -> std::io::Result<()> {
        let event: Value = serde_json::from_str(text).unwrap_or_default();
        match event["type"].as_str() {
            Some("response.create") if event["fail"] == true => self.event(&json!({
                "type": "error", "event_id": "e", "error": {"type": "invalid_request_error", "message": "no"}
            })),
            Some("response.create" | "input_audio_buffer.commit") => self.respond(),
            Some("flood") => loop {
                self.event(&json!({"type": "tick"}))?;
                std::thread::sleep(Duration::from_millis(5));
            },
            Some("session.update") => self.event(&json!({"type": "session.updated", "session": {}})),
            Some(_) if self.is_realtime => Ok(()),
            _ => self.send_frame(1, format!("echo {text}").as_bytes()),
        }
    }

    fn respond(&mut self) -> std::io::Result<()> {
        let number = {
            let mut heard = self.model.heard.lock().unwrap();
            heard.responses += 1;
            heard.responses
        };
        let id = format!("resp_{number}");
        let (last, status) = if self.is_realtime {
            ("response.done", "completed")
        } else {
            ("response.completed", "completed")
        };
        let response = |output: Value, usage: Value| {
            json!({"id": id, "object": if self.is_realtime { "realtime.response" } else { "response" },
                   "status": status, "output": output, "usage": usage, "model": "gpt-test", "created_at": 1,
                   "parallel_tool_calls": false, "tool_choice": "auto", "tools": []})
        };
        let begin = json!({"type": "response.created", "event_id": "e1", "sequence_number": 0,
                           "response": response(json!([]), Value::Null)});
        let delta = json!({"type": "response.output_text.delta", "event_id": "e2", "response_id": id,
                           "item_id": "i", "output_index": 0, "content_index": 0, "delta": "Hello",
                           "sequence_number": 1, "logprobs": []});
        let output = json!([{"id": "i", "type": "message", "role": "assistant", "status": "completed",
                             "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}]);
        let usage = json!({"input_tokens": 7, "output_tokens": 5, "total_tokens": 12,
                           "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}});
        let end = json!({"type": last, "event_id": "e3", "sequence_number": 2, "response": response(output, usage)});
        for event in [begin, delta, end] {
            self.event(&event)?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Value) -> std::io::Result<()> {
        self.send_frame(1, event.to_string().as_bytes())
    }

    fn send_frame(&mut self, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(&frame(opcode, payload, None))
    }
}

/// A whole message in one frame, masked where it is a client's.
pub(crate) fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        short @ ..126 => bytes.push(masked | u8::try_from(short).unwrap()),
        long => {
            bytes.push(masked | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    let mask_of = mask.unwrap_or_default();
    bytes.extend(mask.into_iter().flatten());
    bytes.extend(payload.iter().zip(mask_of.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// FIPS 180-4; handshakes of WebSockets are the only use.
fn sha1(bytes: &[u8]) -> Vec<u8> {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((bytes.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut words: Vec<u32> =
            block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for at in 16..80 {
            words.push((words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1));
        }
        let mut now = state;
        for (at, word) in words.into_iter().enumerate() {
            let [first, second, third, fourth, fifth] = now;
            let (mixed, round) = match at / 20 {
                0 => ((second & third) | (!second & fourth), 0x5a82_7999_u32),
                1 => (second ^ third ^ fourth, 0x6ed9_eba1),
                2 => ((second & third) | (second & fourth) | (third & fourth), 0x8f1b_bcdc),
                _ => (second ^ third ^ fourth, 0xca62_c1d6),
            };
            let next = [mixed, fifth, round, word].into_iter().fold(first.rotate_left(5), u32::wrapping_add);
            now = [next, first, second.rotate_left(30), third, fourth];
        }
        for (kept, new) in state.iter_mut().zip(now) {
            *kept = kept.wrapping_add(new);
        }
    }
    state.iter().flat_map(|word| word.to_be_bytes()).collect()
}
