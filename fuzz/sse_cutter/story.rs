//! Arbitrary bytes as a stream, in arbitrary pieces: the cutters give the events that the standards say, whatever the
//! pieces, and never hold more than their cap.

use tollgate::dialect::frames::{Ndjson, Sse};

const PIECES: [&[u8]; 16] = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"data",
    b"data:",
    b"data: ",
    b"event: x",
    b"event:",
    b": c",
    b"id: 1",
    b"\xef\xbb\xbf",
    b"\xc3\xa9",
    b"\xff",
    b"x",
    b" ",
];

type Events = Vec<(String, Vec<u8>)>;

/// One stream; panics when a promise is broken.
pub(super) fn tell(data: &[u8]) {
    let Some(([mode, cap], rest)) = data.split_first_chunk::<2>() else { return };
    let stream: Vec<u8> = if mode % 2 == 1 {
        rest.iter().flat_map(|piece| PIECES[usize::from(*piece) % PIECES.len()].iter().copied()).collect()
    } else {
        rest.to_vec()
    };
    let chunk = usize::from(mode / 2) % 9 + 1;
    assert_eq!(sse(&stream, chunk, usize::MAX), (standard(&stream), 0), "events of the standard");
    assert_eq!(ndjson(&stream, chunk, usize::MAX), (lines(&stream), 0), "lines");
    let cap = usize::from(*cap);
    let (kept, cut) = sse(&stream, chunk, cap);
    assert_eq!(
        (&kept, cut),
        (&sse(&stream, stream.len().max(1), cap).0, sse(&stream, 1, cap).1),
        "any pieces"
    );
    assert!(
        kept.iter().all(|(name, data)| data.len() + name.len() <= cap.saturating_mul(3)),
        "held more than {cap}"
    );
    let all = standard(&stream);
    let mut rest = all.iter();
    assert!(
        kept.iter().all(|event| rest.any(|other| other == event)),
        "an event that is none: {kept:?} of {all:?}"
    );
    assert!(cut > 0 || kept.len() == all.len(), "lost without a count");
    let (kept, cut) = ndjson(&stream, chunk, cap);
    assert_eq!(
        (&kept, cut),
        (&ndjson(&stream, stream.len().max(1), cap).0, ndjson(&stream, 1, cap).1),
        "any pieces"
    );
}

fn sse(stream: &[u8], chunk: usize, cap: usize) -> (Events, u64) {
    let (mut events, mut cutter) = (Vec::new(), Sse::with_cap(cap));
    for piece in stream.chunks(chunk) {
        cutter.feed(piece, |event| events.push((event.name.to_owned(), event.data.to_vec())));
    }
    let cut = cutter.finish(|event| events.push((event.name.to_owned(), event.data.to_vec())));
    (events, cut)
}

fn ndjson(stream: &[u8], chunk: usize, cap: usize) -> (Vec<Vec<u8>>, u64) {
    let (mut all, mut cutter) = (Vec::new(), Ndjson::with_cap(cap));
    for piece in stream.chunks(chunk) {
        cutter.feed(piece, |event| all.push(event.data.to_vec()));
    }
    let cut = cutter.finish(|event| all.push(event.data.to_vec()));
    (all, cut)
}

/// WHATWG HTML §9.2.6, in its plainest words; an event that the end cuts short counts.
fn standard(stream: &[u8]) -> Events {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
    let mut bytes = stream.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' if bytes.peek() == Some(&&b'\n') => {}
            b'\r' | b'\n' => lines.push(Vec::new()),
            other => lines.last_mut().expect("a line").push(*other),
        }
    }
    lines.push(Vec::new());
    let (mut events, mut name, mut data) = (Vec::new(), String::new(), Vec::<Vec<u8>>::new());
    for line in lines {
        if line.is_empty() {
            if !data.is_empty() {
                events.push((name, data.join(&b'\n')));
            }
            (name, data) = (String::new(), Vec::new());
            continue;
        }
        let colon = line.iter().position(|b| *b == b':');
        let (field, value) = colon.map_or((&line[..], &b""[..]), |at| (&line[..at], &line[at + 1..]));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => data.push(value.to_vec()),
            b"event" => name = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }
    events
}

fn lines(stream: &[u8]) -> Vec<Vec<u8>> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let lines = stream.split(|b| *b == b'\n').map(|line| line.trim_ascii().to_vec());
    lines.filter(|line| !line.is_empty()).collect()
}
