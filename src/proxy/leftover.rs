//! What is still to come of a request that is answered already.

use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Longest time that a client may go on sending.
const LINGER: Duration = Duration::from_secs(5);
/// Longest silence in that time.
const LINGER_SILENCE: Duration = Duration::from_secs(1);

/// Reads and forgets the rest of a refused HTTP/2 request, for as long as on HTTP/1.1, where the
/// listener does it. A body that is dropped resets its stream, which RFC 9113 §8.1 allows after a
/// whole answer, but curl and httpx then report the reset and never the refusal.
pub(super) fn discard<B>(mut body: B, version: Version)
where
    B: Body<Data = Bytes> + Unpin + 'static,
{
    if version != Version::HTTP_2 || body.is_end_stream() {
        return;
    }
    spawn_local(timeout(LINGER, async move {
        while let Ok(Some(Ok(_))) = timeout(LINGER_SILENCE, body.frame()).await {}
    }));
}
