//! The body that goes to the upstream: whole, or passed through piece by piece.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::ask::AskError;
use crate::dialect::form::Form;
use crate::listen::{Paced, RequestBody};

/// A request body on its way.
pub(super) enum Outgoing {
    /// Nothing, or everything at once.
    Whole(Option<Bytes>),
    /// What the client sends, when it sends it.
    Through(Box<Through>),
}

/// A client's body passed on as it comes.
pub(super) struct Through {
    /// What was read of it beforehand.
    head: Option<Bytes>,
    inner: Paced<RequestBody>,
    /// Reads on in what follows, where fields decide.
    form: Option<Form>,
    passed: u64,
    max: u64,
    /// Until its first byte that is no white space was seen.
    refuse_json: bool,
    progress: Progress,
}

/// How a body fares, for whoever waits for the answer to it.
#[derive(Clone)]
pub(super) struct Progress(Rc<Passing>);

struct Passing {
    /// Why it was not passed to its end; hyper would only say "user error".
    fault: Cell<Option<AskError>>,
    /// When its last bytes went out.
    last: Cell<Instant>,
}

/// The request's own body is at fault.
#[derive(Debug, thiserror::Error)]
#[error("the client's body cannot be passed on")]
pub(super) struct NotPassed;

// === impl Outgoing ===

impl Outgoing {
    pub(super) fn empty() -> Self {
        Self::Whole(None)
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// `refuse_json`: the request is charged by what its JSON says, so it may not come in disguise.
    pub(super) fn through(inner: Paced<RequestBody>, max: u64, refuse_json: bool) -> Self {
        let (head, form, progress) = (None, None, Progress::new());
        Self::Through(Box::new(Through { head, inner, form, passed: 0, max, refuse_json, progress }))
    }

    /// The rest of a body of which `head` was read, by `form` where that is one.
    pub(super) fn going_on(head: Bytes, inner: Paced<RequestBody>, max: u64, form: Option<Form>) -> Self {
        let (head, progress) = (Some(head).filter(|head| !head.is_empty()), Progress::new());
        Self::Through(Box::new(Through { head, inner, form, passed: 0, max, refuse_json: false, progress }))
    }

    /// The same body once more, where it is all here.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Through(_) => None,
        }
    }

    /// Where it will be seen how this body fares.
    pub(super) fn progress(&self) -> Progress {
        match self {
            Self::Whole(_) => Progress::new(),
            Self::Through(through) => through.progress.clone(),
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = NotPassed;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NotPassed>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Through(through) => through.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Through(through) => through.head.is_none() && through.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Through(through) => through.size_hint(),
        }
    }
}

// === impl Through ===

impl Through {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, NotPassed>>> {
        if let Some(head) = self.head.take() {
            self.passed += head.len() as u64;
            self.progress.0.last.set(Instant::now());
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        loop {
            return match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None => Poll::Ready(None),
                Some(Err(error)) => Poll::Ready(Some(self.fail(error.into()))),
                // A field that may not stand in a head could come after the body: trailers go no further.
                Some(Ok(frame)) if !frame.is_data() => continue,
                Some(Ok(frame)) => Poll::Ready(Some(self.pass(frame))),
            };
        }
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, NotPassed> {
        let Some(data) = frame.data_ref() else { return Ok(frame) };
        if self.refuse_json
            && let Some(first) = data.iter().find(|b| !b.is_ascii_whitespace())
        {
            // A multipart body begins with "--"; what begins otherwise, some parser takes for JSON.
            if *first != b'-' {
                return self.fail(AskError::NotJson);
            }
            self.refuse_json = false;
        }
        if let Some(form) = &mut self.form
            && let Err(error) = form.feed(data)
        {
            return self.fail(error.into());
        }
        self.passed += data.len() as u64;
        if self.passed > self.max {
            return self.fail(AskError::TooLarge { max: self.max });
        }
        self.progress.0.last.set(Instant::now());
        Ok(frame)
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, before) = (self.inner.size_hint(), self.head.as_ref().map_or(0, |head| head.len() as u64));
        hint.exact().map_or_else(SizeHint::default, |exact| SizeHint::with_exact(exact + before))
    }

    fn fail(&mut self, error: AskError) -> Result<Frame<Bytes>, NotPassed> {
        self.progress.0.fault.set(Some(error));
        Err(NotPassed)
    }
}

// === impl Progress ===

impl Progress {
    fn new() -> Self {
        Self(Rc::new(Passing { fault: Cell::new(None), last: Cell::new(Instant::now()) }))
    }

    /// What is wrong with the client's body, if that is why sending failed.
    pub(super) fn fault(&self) -> Option<AskError> {
        self.0.fault.get()
    }

    /// When the upstream last got something.
    pub(super) fn last(&self) -> Instant {
        self.0.last.get()
    }
}
