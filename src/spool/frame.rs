//! The bytes of a file: a header of 64 bytes, then frames, each aligned to 8 bytes. Numbers are little
//! endian.
//!
//! | header | | frame | |
//! |---|---|---|---|
//! | 0 | magic `TGSPOOL` and a zero | 0 | length of the payload, u32 |
//! | 8 | format, u32 | 4 | CRC-32C, u32 |
//! | 12 | zero, u32 | 8 | kind, u8 |
//! | 16 | run, 16 bytes | 9 | ordinal in this file, u24 |
//! | 32 | sequence number, u64 | 12 | mark of this file, u32 |
//! | 40 | salt, u64 | 16 | conversation, 16 bytes |
//! | 48 | boot of the machine, hashed, u64 | 32 | payload, then zeros up to a multiple of 8 |
//! | 56 | zero, u32 | | |
//! | 60 | CRC-32C of 0..60, u32 | | |
//!
//! A frame's CRC covers the file's salt, the frame's offset, and the frame but for the CRC itself; the
//! mark comes from the salt too. So nothing that was written elsewhere is taken for a frame: not the
//! old bytes of a reused block, and not what a client put into a prompt. In every format to come the
//! magic, the format and the last CRC stay where they are.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{FRAME, Kind, MAX_RECORD};
use crate::ids::{ExchangeId, RunId};

/// The format written, and the newest one read.
pub(super) const FORMAT: u32 = 1;
/// Bytes before the first frame.
pub(super) const HEADER: usize = 64;
/// A file ends before it has this many frames: their ordinals have 24 bits.
pub(super) const MAX_ORDINAL: u32 = (1 << 24) - 1;

const MAGIC: [u8; 8] = *b"TGSPOOL\0";

/// What a file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) format: u32,
    pub(super) run: RunId,
    pub(super) seq: u64,
    pub(super) salt: u64,
    pub(super) boot: u64,
}

/// What a file's frames have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    seed: u32,
    mark: u32,
}

/// The head of a frame that looks like one of its file; only its CRC says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: u32,
    pub(super) kind: Kind,
    pub(super) ordinal: u32,
    pub(super) id: ExchangeId,
}

// === impl Header ===

impl Header {
    /// The salt is a digest of the run's name, which nobody outside can guess. So it is known from
    /// the file's name too, and a file whose header was damaged is still read.
    pub(super) fn new(run: RunId, seq: u64, boot: u64) -> Self {
        let digest = Sha256::new()
            .chain_update(b"tollgate spool")
            .chain_update(run.0.as_bytes())
            .chain_update(seq.to_le_bytes())
            .finalize();
        let salt = digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self { format: FORMAT, run, seq, salt, boot }
    }

    /// What the name of a file says: `<run>-<sequence number>.seg`.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let (run, seq) = name.strip_suffix(".seg")?.split_once('-')?;
        let run = RunId(Uuid::try_parse(run).ok()?);
        Some(Self::new(run, u64::from_str_radix(seq, 16).ok()?, 0))
    }

    pub(super) fn name(&self) -> String {
        format!("{}-{:016x}.seg", self.run.0.simple(), self.seq)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.format.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(self.run.0.as_bytes());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&self.boot.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// A header that is whole, of whatever format.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.first_chunk::<HEADER>()?.split_last_chunk()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (magic, rest) = body.split_first_chunk::<8>()?;
        let (format, rest) = rest.split_first_chunk()?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let (run, rest) = rest.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (boot, _) = rest.split_first_chunk()?;
        let header = Self {
            format: u32::from_le_bytes(*format),
            run: RunId(Uuid::from_bytes(*run)),
            seq: u64::from_le_bytes(*seq),
            salt: u64::from_le_bytes(*salt),
            boot: u64::from_le_bytes(*boot),
        };
        (*magic == MAGIC && header.format > 0).then_some(header)
    }

    pub(super) fn key(&self) -> Key {
        let [a, b, c, d, mark @ ..] = self.salt.to_le_bytes();
        Key { seed: crc32c::crc32c(&[a, b, c, d]), mark: u32::from_le_bytes(mark) }
    }
}

// === impl Key ===

impl Key {
    /// Puts a frame that will stand at `offset` into `buffer`, in place of what is there. The payload
    /// has at most [`MAX_RECORD`] bytes less [`FRAME`].
    pub(super) fn encode(self, buffer: &mut Vec<u8>, offset: u64, head: &Head, payload: &[&[u8]]) {
        buffer.clear();
        buffer.extend_from_slice(&head.len.to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&(head.ordinal << 8 | u32::from(code(head.kind))).to_le_bytes());
        buffer.extend_from_slice(&self.mark.to_le_bytes());
        buffer.extend_from_slice(head.id.0.as_bytes());
        for piece in payload {
            buffer.extend_from_slice(piece);
        }
        buffer.resize(buffer.len().next_multiple_of(8), 0);
        let crc = self.crc(offset, buffer).to_le_bytes();
        if let Some(place) = buffer.get_mut(4..8) {
            place.copy_from_slice(&crc);
        }
    }

    /// The head of what may be a frame: its mark, its kind and its length are possible.
    pub(super) fn head(self, bytes: &[u8]) -> Option<Head> {
        let (len, rest) = bytes.split_first_chunk()?;
        let (_crc, rest) = rest.split_first_chunk::<4>()?;
        let (word, rest) = rest.split_first_chunk()?;
        let (mark, rest) = rest.split_first_chunk()?;
        let id = rest.first_chunk()?;
        if u32::from_le_bytes(*mark) != self.mark {
            return None;
        }
        let (word, len) = (u32::from_le_bytes(*word), u32::from_le_bytes(*len));
        let kind = kind(word.to_le_bytes())?;
        let id = ExchangeId(Uuid::from_bytes(*id));
        (size(len) <= MAX_RECORD as u64).then_some(Head { len, kind, ordinal: word >> 8, id })
    }

    /// Whether these are the bytes that were put into a frame for this file and this offset.
    pub(super) fn holds(self, offset: u64, frame: &[u8]) -> bool {
        let crc = frame.get(4..8).and_then(|crc| crc.first_chunk());
        crc.is_some_and(|crc| u32::from_le_bytes(*crc) == self.crc(offset, frame))
    }

    fn crc(self, offset: u64, frame: &[u8]) -> u32 {
        let crc = crc32c::crc32c_append(self.seed, &offset.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, frame.get(..4).unwrap_or_default());
        crc32c::crc32c_append(crc, frame.get(8..).unwrap_or_default())
    }
}

/// What is the length of one record, with a head as those of the file it is from, named
/// `<run>-<sequence number>-<offset>.bin`. Nothing says that its bits are right.
pub(super) fn sole_record<'a>(name: &str, bytes: &'a [u8]) -> Option<(Kind, &'a [u8])> {
    let (file, _) = name.rsplit_once('-')?;
    let head = Header::from_name(&format!("{file}.seg"))?.key().head(bytes)?;
    let payload = bytes.get(FRAME..)?.get(..usize::try_from(head.len).ok()?)?;
    (size(head.len) == bytes.len() as u64).then_some((head.kind, payload))
}

/// Bytes of a frame with a payload of `len` bytes.
pub(super) fn size(len: u32) -> u64 {
    (FRAME as u64 + u64::from(len)).next_multiple_of(8)
}

fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Begin => 1,
        Kind::Part => 2,
        Kind::End => 3,
        Kind::Whole => 4,
    }
}

fn kind([code, ..]: [u8; 4]) -> Option<Kind> {
    [Kind::Begin, Kind::Part, Kind::End, Kind::Whole].get(usize::from(code).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::{Head, Header, size};
    use crate::ids::{ExchangeId, RunId};
    use crate::spool::{FRAME, Kind, MAX_RECORD};

    #[test]
    fn a_header_says_what_was_put_into_it_and_a_name_says_the_same() {
        let header = Header::new(RunId::generate(), 0x17, 99);
        assert_eq!(header.encode().len(), 64);
        assert_eq!(Header::decode(&header.encode()), Some(header));
        assert_eq!(Header::from_name(&header.name()).unwrap().key(), header.key());
        for byte in 0..64 {
            let mut bytes = header.encode();
            bytes[byte] ^= 4;
            assert_eq!(Header::decode(&bytes), None, "byte {byte}");
        }
        for name in ["", "lock", "x-1.seg", "0190-1.seg", "a.seg"] {
            assert_eq!(Header::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_frame_is_one_only_in_its_file_and_at_its_place() {
        let run = RunId::generate();
        let (key, other) = (Header::new(run, 1, 0).key(), Header::new(run, 2, 0).key());
        let head = Head { len: 5, kind: Kind::End, ordinal: 70_000, id: ExchangeId::generate() };
        let mut frame = Vec::new();
        key.encode(&mut frame, 128, &head, &[b"he", b"", b"llo"]);
        assert_eq!((frame.len() as u64, &frame[FRAME..FRAME + 5]), (size(5), &b"hello"[..]));
        assert_eq!(key.head(&frame), Some(head));
        assert!(key.holds(128, &frame));
        assert!(!key.holds(136, &frame));
        assert_eq!(other.head(&frame), None);
        assert!(!other.holds(128, &frame));
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.holds(128, &frame), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        let longest = u32::try_from(MAX_RECORD - FRAME).unwrap();
        for (len, possible) in [(longest, true), (longest + 1, false), (u32::MAX, false)] {
            key.encode(&mut frame, 128, &Head { len, ..head }, &[]);
            assert_eq!(key.head(&frame).is_some(), possible, "{len}");
        }
    }
}
