//! A body that is sent in parts with pauses between them, so that an endpoint which refuses it by its length can say
//! so.
//!
//! An endpoint that answers while the body is still being sent, and then closes, resets the connection: whoever writes
//! at that
//! moment learns of the reset and not of the answer. Whoever pauses reads the answer first.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// The first part, for endpoints that look at the length that the head says.
const BEGINNING: usize = 16 << 10;
/// How long these have to refuse.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The least of the further parts, for endpoints that count what arrives.
const PART: usize = 64 << 10;
/// Most further parts.
const PARTS: usize = 256;
/// How long these have after each.
const PAUSE: Duration = Duration::from_millis(2);

/// The body.
pub(super) struct Paced {
    rest: Bytes,
    part: usize,
    /// The pause before the next part; `None` before the first.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(body: Bytes) -> Self {
        Self { part: PART.max(body.len().div_ceil(PARTS)), rest: body, pause: None }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let (length, pause) = match &mut self.pause {
            None => (BEGINNING, FIRST_PAUSE),
            Some(pause) => {
                ready!(pause.as_mut().poll(context));
                (self.part, PAUSE)
            }
        };
        self.pause = Some(Box::pin(tokio::time::sleep(pause)));
        let length = self.rest.len().min(length);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
