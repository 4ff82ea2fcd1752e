//! WebSocket frames (RFC 6455 §5) as they pass: taken apart, never altered.

use bytes::{Buf, Bytes, BytesMut};

/// Takes one direction of a socket apart, whatever pieces it comes in. It holds a frame's head at most, and as
/// much of a message's text as is asked for.
pub(super) struct Reader {
    /// Frames of clients are masked, those of servers are not.
    is_masked: bool,
    /// Most bytes of a message that are kept.
    most: usize,
    frame: Option<Frame>,
    message: Option<Message>,
}

/// The frame that is passing.
struct Frame {
    is_control: bool,
    is_close: bool,
    is_last: bool,
    mask: Option<[u8; 4]>,
    /// Bytes of the payload still to come, and those that came.
    left: u64,
    passed: u64,
}

/// The message that is passing.
struct Message {
    is_text: bool,
    kept: Vec<u8>,
}

/// What came next.
pub(super) struct Step {
    /// As it came, to be passed on: a frame's head, or some of its payload.
    pub(super) bytes: Bytes,
    /// Whether it belongs to a control frame.
    pub(super) is_control: bool,
    /// Whether that is one that closes, and here is its end.
    pub(super) closes: bool,
    /// The message that ends here.
    pub(super) said: Option<Said>,
}

/// A message.
pub(super) struct Said {
    pub(super) is_text: bool,
    /// Unmasked; its beginning, where it is longer than what is kept.
    pub(super) bytes: Vec<u8>,
}

/// No frame, or one that may not come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
/// Bits of a frame that only extensions use.
const RESERVED: u8 = 0x70;

// === impl Reader ===

impl Reader {
    pub(super) fn of_client(most: usize) -> Self {
        Self { is_masked: true, most, frame: None, message: None }
    }

    pub(super) fn of_server(most: usize) -> Self {
        Self { is_masked: false, most, frame: None, message: None }
    }

    /// Whether a frame of one's own may follow: between two frames.
    pub(super) fn is_between_frames(&self) -> bool {
        self.frame.is_none()
    }

    /// Whether a message of one's own may follow.
    pub(super) fn is_between_messages(&self) -> bool {
        self.frame.is_none() && self.message.is_none()
    }

    /// The next step of what came in; `None`: more is needed.
    ///
    /// # Errors
    ///
    /// [`Malformed`]; nothing that follows can be understood.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Step>, Malformed> {
        match self.frame.take() {
            Some(frame) => Ok(self.payload(frame, input)),
            None => self.head(input),
        }
    }

    fn head(&mut self, input: &mut BytesMut) -> Result<Option<Step>, Malformed> {
        let Some((frame, opcode, size)) = head(input)? else { return Ok(None) };
        if frame.mask.is_some() != self.is_masked {
            return Err(Malformed);
        }
        match (opcode, &self.message) {
            (0, Some(_)) | (CLOSE.., _) => {}
            (TEXT | BINARY, None) => {
                self.message = Some(Message { is_text: opcode == TEXT, kept: Vec::new() });
            }
            _ => return Err(Malformed),
        }
        let bytes = input.split_to(size).freeze();
        Ok(Some(self.step(frame, bytes)))
    }

    fn payload(&mut self, mut frame: Frame, input: &mut BytesMut) -> Option<Step> {
        if input.is_empty() {
            self.frame = Some(frame);
            return None;
        }
        let length = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
        let bytes = input.split_to(length).freeze();
        if let Some(message) = self.message.as_mut().filter(|_| !frame.is_control) {
            message.keep(&bytes, &frame, self.most);
        }
        frame.left -= length as u64;
        frame.passed += length as u64;
        Some(self.step(frame, bytes))
    }

    fn step(&mut self, frame: Frame, bytes: Bytes) -> Step {
        let (is_control, is_end) = (frame.is_control, frame.left == 0);
        let closes = is_end && frame.is_close;
        let said = if is_end && frame.is_last && !is_control { self.message.take() } else { None };
        if !is_end {
            self.frame = Some(frame);
        }
        let said = said.map(|Message { is_text, kept }| Said { is_text, bytes: kept });
        Step { bytes, is_control, closes, said }
    }
}

// === impl Message ===

impl Message {
    fn keep(&mut self, bytes: &[u8], frame: &Frame, most: usize) {
        let room = most.saturating_sub(self.kept.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        match frame.mask {
            None => self.kept.extend_from_slice(kept),
            Some(mask) => {
                let from = usize::try_from(frame.passed % 4).unwrap_or(0);
                let mask = mask.iter().cycle().skip(from);
                self.kept.extend(kept.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
            }
        }
    }
}

/// The head of a frame, its opcode and its size.
fn head(bytes: &[u8]) -> Result<Option<(Frame, u8, usize)>, Malformed> {
    let mut rest = bytes;
    let Some((first, second)) = rest.try_get_u8().ok().zip(rest.try_get_u8().ok()) else { return Ok(None) };
    let (opcode, is_last) = (first & 0x0f, first & 0x80 != 0);
    let is_control = opcode >= CLOSE;
    let short = second & 0x7f;
    if first & RESERVED != 0 || matches!(opcode, 3..=7 | 11..) || is_control && (!is_last || short > 125) {
        return Err(Malformed);
    }
    let length = match short {
        126 => rest.try_get_u16().map(u64::from),
        127 => rest.try_get_u64(),
        short => Ok(u64::from(short)),
    };
    let Ok(left) = length else { return Ok(None) };
    if left >> 63 != 0 {
        return Err(Malformed);
    }
    let mask = if second & 0x80 == 0 {
        None
    } else {
        let Ok(mask) = rest.try_get_u32() else { return Ok(None) };
        Some(mask.to_be_bytes())
    };
    let frame = Frame { is_control, is_close: opcode == CLOSE, is_last, mask, left, passed: 0 };
    Ok(Some((frame, opcode, bytes.len() - rest.len())))
}

/// A text message of a server, in one frame.
pub(super) fn text(payload: &[u8]) -> Vec<u8> {
    frame(TEXT, payload, None)
}

/// The frame that closes, from a server.
pub(super) fn close(code: u16, reason: &str) -> Vec<u8> {
    let reason = reason.get(..123).unwrap_or(reason);
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat(), None)
}

/// The frame that closes, from a client.
pub(super) fn close_of_client(code: u16) -> Vec<u8> {
    frame(CLOSE, &code.to_be_bytes(), Some(rand::random()))
}

fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..126), _) => bytes.push(masked | short),
        (_, Ok(length)) => {
            bytes.push(masked | 0x7e);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            bytes.push(masked | 0x7f);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    match mask {
        None => bytes.extend_from_slice(payload),
        Some(mask) => {
            bytes.extend_from_slice(&mask);
            bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{Malformed, Reader, frame};

    /// What was said and what passed, fed in pieces of so many bytes.
    fn read(reader: &mut Reader, bytes: &[u8], piece: usize) -> Result<(Vec<Vec<u8>>, Vec<u8>), Malformed> {
        let (mut said, mut passed, mut input) = (Vec::new(), Vec::new(), BytesMut::new());
        for piece in bytes.chunks(piece) {
            input.extend_from_slice(piece);
            while let Some(step) = reader.next(&mut input)? {
                passed.extend_from_slice(&step.bytes);
                said.extend(step.said.map(|said| said.bytes));
            }
        }
        passed.extend_from_slice(&input);
        Ok((said, passed))
    }

    #[test]
    fn messages_are_read_through_fragments_controls_and_masks_and_pass_as_they_came() {
        let mask = Some([1, 2, 3, 250]);
        let mut first = frame(1, b"Hel", mask);
        first[0] &= 0x7f;
        let long = vec![b'x'; 70_000];
        let bytes = [first, frame(9, b"ping", mask), frame(0, b"lo", mask), frame(2, &long, mask)].concat();
        for piece in [1, 2, 3, 7, 1000, bytes.len()] {
            let (said, passed) = read(&mut Reader::of_client(1 << 20), &bytes, piece).unwrap();
            assert_eq!(said, [b"Hello".to_vec(), long.clone()], "{piece}");
            assert!(passed == bytes, "{piece}");
        }
    }

    #[test]
    fn what_is_no_frame_is_malformed() {
        let unmasked = frame(1, b"x", None);
        let masked = frame(1, b"x", Some([0; 4]));
        assert_eq!(read(&mut Reader::of_client(9), &unmasked, 9).err(), Some(Malformed));
        assert_eq!(read(&mut Reader::of_server(9), &masked, 9).err(), Some(Malformed));
        let server: [&[u8]; 6] = [
            &[0x80, 0],                              // goes on with nothing
            &[0x01, 0, 0x81, 0],                     // begins within a message
            &[0xc1, 0],                              // a reserved bit
            &[0x83, 0],                              // a reserved opcode
            &[0x09, 0],                              // a control frame in pieces
            &[0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], // longer than can be
        ];
        for wrong in server {
            assert_eq!(read(&mut Reader::of_server(9), wrong, 99).err(), Some(Malformed), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_panics(bytes: Vec<u8>, piece in 1_usize..9, server: bool) {
            let mut reader = if server { Reader::of_server(4) } else { Reader::of_client(4) };
            if let Ok((said, passed)) = read(&mut reader, &bytes, piece) {
                prop_assert_eq!(passed, bytes);
                prop_assert!(said.iter().all(|said| said.len() <= 4));
            }
        }
    }
}
