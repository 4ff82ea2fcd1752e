//! Request bodies of the control plane on their way to a form.

use std::error::Error;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::problem::Problem;
use crate::limits::{BodyBytes, LimitError};
use crate::listen::PacedError;

/// A body whose bytes are counted until it is dropped.
pub struct Counted<B> {
    body: B,
    room: BodyBytes<IpAddr>,
    bytes: u64,
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CountedError {
    /// It came too slowly.
    #[error("the request body comes too slowly")]
    TooSlow,
    /// Bodies take as much memory as they may.
    #[error(transparent)]
    NoRoom(LimitError),
    /// It ended early.
    #[error("the request body ended early")]
    Broken,
}

// === impl Counted ===

impl<B> Counted<B> {
    /// Counts the bytes of `body` in `room`.
    pub fn new(body: B, room: BodyBytes<IpAddr>) -> Self {
        Self { body, room, bytes: 0 }
    }
}

impl<B, E> Body for Counted<B>
where
    B: Body<Data = Bytes, Error = PacedError<E>> + Unpin,
{
    type Data = Bytes;
    type Error = CountedError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CountedError>>> {
        let this = &mut *self;
        Pin::new(&mut this.body).poll_frame(cx).map(|frame| {
            Some(match frame? {
                Ok(frame) => {
                    this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                    this.room.hold(this.bytes).map(|()| frame).map_err(CountedError::NoRoom)
                }
                Err(PacedError::TooSlow) => Err(CountedError::TooSlow),
                Err(PacedError::Body(_)) => Err(CountedError::Broken),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Problem ===

impl Problem {
    /// What a caller is told whose body could not be read.
    pub(super) fn of_body(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            match error.downcast_ref::<CountedError>() {
                Some(CountedError::TooSlow) => return Self::BodyTimeout,
                Some(CountedError::NoRoom(limit)) => return Self::Unavailable(limit.to_string()),
                Some(CountedError::Broken) => return Self::BrokenBody,
                None => cause = error.source(),
            }
        }
        Self::BrokenBody
    }
}
