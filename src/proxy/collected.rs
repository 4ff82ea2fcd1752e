//! A request body as it is gathered in memory, every byte of it counted until it is let go.

use bytes::Bytes;

use crate::ids::UserId;
use crate::limits::{BodyBytes, LimitError};

/// Pieces of a body. Most bodies are one piece; then nothing is copied.
pub(super) struct Collected {
    first: Bytes,
    rest: Vec<u8>,
    /// Length that the head announced.
    announced: Option<usize>,
    room: BodyBytes<UserId>,
}

/// Bytes and what counts them, let go together.
struct Counted {
    bytes: Bytes,
    _room: BodyBytes<UserId>,
}

/// Smallest buffer.
const LEAST: usize = 64 * 1024;

// === impl Collected ===

impl Collected {
    pub(super) fn new(announced: Option<u64>, room: BodyBytes<UserId>) -> Self {
        let announced = announced.and_then(|length| usize::try_from(length).ok());
        Self { first: Bytes::new(), rest: Vec::new(), announced, room }
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// What came so far.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.rest.is_empty() { &self.first } else { &self.rest }
    }

    /// Adds a piece. Memory is taken as bytes come, never for a length that is only announced.
    ///
    /// # Errors
    ///
    /// When bodies take as much memory as they may.
    pub(super) fn push(&mut self, data: Bytes) -> Result<(), LimitError> {
        if self.len() == 0 {
            self.room.hold(data.len() as u64)?;
            self.first = data;
            return Ok(());
        }
        let length = self.len() + data.len();
        if length > self.rest.capacity() {
            let doubled = length.max(self.rest.capacity().saturating_mul(2)).max(LEAST);
            let enough = self.announced.map_or(doubled, |whole| doubled.min(whole.max(length)));
            self.room.hold(enough as u64)?;
            self.rest.reserve_exact(enough - self.rest.len());
        }
        if !self.first.is_empty() {
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&data);
        Ok(())
    }

    /// All of it. It is counted until the last clone is dropped.
    pub(super) fn into_bytes(self) -> Bytes {
        let bytes = if self.rest.is_empty() { self.first } else { Bytes::from(self.rest) };
        Bytes::from_owner(Counted { bytes, _room: self.room })
    }
}

// === impl Counted ===

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
