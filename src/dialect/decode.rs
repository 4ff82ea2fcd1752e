//! Undoes the `Content-Encoding` of a captured body (RFC 9110 §8.4), as far as the bytes go.
//!
//! Capture asks for `identity`, so this serves upstreams that compress all the same. A body cut in
//! the middle gives what could be decoded before the cut; nothing decodes past the caller's limit.

use std::borrow::Cow;
use std::io::Read;

use brotli_decompressor::Decompressor;
use flate2::read::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The window a decoder for HTTP must support, and the most it may be asked for (RFC 9659).
const ZSTD_WINDOW: u64 = 8 * 1024 * 1024;

/// More encodings than this are not undone.
const MOST_CODINGS: usize = 4;

/// A body in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// What could be decoded; the input itself where nothing was encoded.
    pub bytes: Cow<'a, [u8]>,
    /// Whether something is missing: the input ended early or was broken, the limit was met, or
    /// the encoding is not known.
    pub cut: bool,
}

/// Decodes `bytes`, whose `Content-Encoding` is `encoding`, into at most `limit` bytes. Encodings
/// listed together are undone last first. A body of an encoding not known gives nothing.
#[must_use]
pub fn decode<'a>(encoding: Option<&str>, bytes: &'a [u8], limit: usize) -> Decoded<'a> {
    let mut decoded = Decoded { bytes: Cow::Borrowed(bytes), cut: false };
    for (nth, coding) in encoding.unwrap_or_default().rsplit(',').enumerate() {
        if nth == MOST_CODINGS {
            return Decoded { bytes: Cow::Owned(Vec::new()), cut: true };
        }
        let (bytes, cut) = match coding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => continue,
            "gzip" | "x-gzip" => read_up_to(MultiGzDecoder::new(&*decoded.bytes), limit),
            "deflate" => inflate(&decoded.bytes, limit),
            "br" => read_up_to(Decompressor::new(&*decoded.bytes, 4096), limit),
            "zstd" => unzstd(&decoded.bytes, limit),
            _ => (Vec::new(), true),
        };
        decoded = Decoded { bytes: Cow::Owned(bytes), cut: cut || decoded.cut };
    }
    shorten(decoded, limit)
}

fn shorten(decoded: Decoded<'_>, limit: usize) -> Decoded<'_> {
    if decoded.bytes.len() <= limit {
        return decoded;
    }
    let bytes = match decoded.bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(..limit).unwrap_or_default()),
        Cow::Owned(mut bytes) => {
            bytes.truncate(limit);
            Cow::Owned(bytes)
        }
    };
    Decoded { bytes, cut: true }
}

/// One byte more than the limit is read, to know whether there was more.
fn read_up_to(source: impl Read, limit: usize) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let ended = source.take(most).read_to_end(&mut bytes).is_ok();
    (bytes, !ended)
}

/// `deflate` is the zlib format; some servers send raw DEFLATE data instead (RFC 9110 §8.4.1.2).
fn inflate(bytes: &[u8], limit: usize) -> (Vec<u8>, bool) {
    let zlib = matches!(bytes, [cmf, flg, ..]
        if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0);
    let mut stream = Decompress::new(zlib);
    let mut decoded = Vec::new();
    loop {
        let before = (stream.total_in(), stream.total_out());
        let rest = usize::try_from(stream.total_in()).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        decoded.reserve(32 * 1024);
        match stream.decompress_vec(rest, &mut decoded, FlushDecompress::None) {
            Ok(Status::StreamEnd) => return (decoded, false),
            Ok(_) if decoded.len() <= limit && before != (stream.total_in(), stream.total_out()) => {}
            Ok(_) | Err(_) => return (decoded, true),
        }
    }
}

/// Frames one after the other (RFC 8878 §3). The decoder keeps a window back until the frame ends,
/// so a frame cut short is ended by an empty last block, which gives back all that was decoded.
fn unzstd(bytes: &[u8], limit: usize) -> (Vec<u8>, bool) {
    let mut decoded = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if let Some(after) = skippable(rest) {
            rest = after;
            continue;
        }
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(ZSTD_WINDOW);
        if frame.init(&mut rest).is_err() {
            return (decoded, true);
        }
        if !unzstd_frame(&mut frame, &mut rest, &mut decoded, limit) {
            return (decoded, true);
        }
    }
    (decoded, bytes.is_empty())
}

/// Whether the frame was whole and below the limit.
fn unzstd_frame(frame: &mut FrameDecoder, rest: &mut &[u8], decoded: &mut Vec<u8>, limit: usize) -> bool {
    const LAST_BLOCK_THEN_CHECKSUM: &[u8] = &[1, 0, 0, 0, 0, 0, 0];
    while !frame.is_finished() {
        let whole = has_whole_block(rest);
        let mut end = LAST_BLOCK_THEN_CHECKSUM;
        let source = if whole { &mut *rest } else { &mut end };
        let read = frame.decode_blocks(source, BlockDecodingStrategy::UptoBlocks(1));
        let collected = frame.collect_to_writer(&mut *decoded);
        if read.is_err() || collected.is_err() || !whole || decoded.len() > limit {
            return false;
        }
    }
    true
}

/// Block header: 1 bit last, 2 bits type, 21 bits size; of an RLE block one byte is stored.
fn has_whole_block(bytes: &[u8]) -> bool {
    let [a, b, c, content @ ..] = bytes else { return false };
    let header = u32::from_le_bytes([*a, *b, *c, 0]);
    let stored = if (header >> 1) & 3 == 1 { 1 } else { header >> 3 };
    usize::try_from(stored).is_ok_and(|stored| content.len() >= stored)
}

/// What follows a skippable frame (RFC 8878 §3.1.2), if `bytes` begin with one.
fn skippable(bytes: &[u8]) -> Option<&[u8]> {
    let [m0, 0x2a, 0x4d, 0x18, l0, l1, l2, l3, content @ ..] = bytes else { return None };
    let length = usize::try_from(u32::from_le_bytes([*l0, *l1, *l2, *l3])).ok()?;
    (m0 & 0xf0 == 0x50).then(|| content.get(length..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::io::Write;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::{any, prop, prop_assert, proptest};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::decode;

    const LIMIT: usize = 1 << 20;

    /// `data: {"choices":[]}` and a blank line, forty times, by Python's `brotli` at quality 5.
    const BROTLI: &str = "G28DAMQxzhe6BSe9ie4cpJTasvpOI0vmVN4pyukBAQ==";

    fn answer() -> Vec<u8> {
        b"data: {\"choices\":[]}\n\n".repeat(40)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + u8::try_from(state >> 28).unwrap()
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn every_encoding_gives_back_the_answer() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&answer()).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(&answer()).unwrap();
        let encoded = [
            ("gzip", gzip(&answer())),
            ("X-GZIP", gzip(&answer())),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
            ("br", STANDARD.decode(BROTLI).unwrap()),
            ("zstd", compress_to_vec(answer().as_slice(), CompressionLevel::Fastest)),
            ("identity", answer()),
            ("gzip, identity , gzip", gzip(&gzip(&answer()))),
        ];
        for (name, bytes) in encoded {
            let decoded = decode(Some(name), &bytes, LIMIT);
            assert_eq!(decoded.bytes, answer(), "{name}");
            assert!(!decoded.cut, "{name}");
        }
    }

    #[test]
    fn no_encoding_copies_nothing() {
        let decoded = decode(None, b"hello", LIMIT);
        assert!(matches!(decoded.bytes, Cow::Borrowed(b"hello")));
        assert!(!decoded.cut);
    }

    #[test]
    fn a_cut_body_gives_what_came_before_the_cut() {
        let long = noise(400_000);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&long).unwrap();
        let zstd = compress_to_vec(long.as_slice(), CompressionLevel::Fastest);
        for (name, bytes) in [("gzip", gzip(&long)), ("deflate", zlib.finish().unwrap()), ("zstd", zstd)] {
            let decoded = decode(Some(name), &bytes[..bytes.len() * 3 / 4], LIMIT);
            assert!(decoded.cut, "{name}");
            assert!(decoded.bytes.len() > 100_000, "{name}: {}", decoded.bytes.len());
            assert!(long.starts_with(&decoded.bytes), "{name}");
        }
        let brotli = STANDARD.decode(BROTLI).unwrap();
        let decoded = decode(Some("br"), &brotli[..brotli.len() - 1], LIMIT);
        assert!(decoded.cut);
        assert!(answer().starts_with(&decoded.bytes));
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let zeros = vec![0; 3_000_000];
        let zstd = compress_to_vec(zeros.as_slice(), CompressionLevel::Fastest);
        for (name, bytes) in [("gzip", gzip(&zeros)), ("zstd", zstd), ("identity", zeros)] {
            let decoded = decode(Some(name), &bytes, 1000);
            assert_eq!((decoded.bytes.len(), decoded.cut), (1000, true), "{name}");
        }
    }

    #[test]
    fn an_unknown_encoding_gives_nothing() {
        let decoded = decode(Some("snappy"), b"hello", LIMIT);
        assert!(decoded.bytes.is_empty());
        assert!(decoded.cut);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), flip in any::<usize>()) {
            let zstd = compress_to_vec(answer().as_slice(), CompressionLevel::Fastest);
            for name in ["gzip", "deflate", "br", "zstd"] {
                prop_assert!(decode(Some(name), &bytes, 1000).bytes.len() <= 1000);
                for mut encoded in [zstd.clone(), STANDARD.decode(BROTLI).unwrap(), gzip(&answer())] {
                    let at = flip % encoded.len();
                    encoded[at] ^= bytes.first().copied().unwrap_or(1);
                    prop_assert!(decode(Some(name), &encoded, 1000).bytes.len() <= 1000);
                }
            }
        }
    }
}
