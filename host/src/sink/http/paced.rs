//! A body whose rest follows after a pause, so that an endpoint which refuses it by its length can say so.
//!
//! An endpoint that answers while the body is still being sent, and then closes, resets the connection: whoever writes at that
//! moment learns of the reset and not of the answer. Whoever waits for it reads the answer first.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// What is sent before the pause.
const BEGINNING: usize = 16 << 10;
/// How long an endpoint has to refuse by then.
const PAUSE: Duration = Duration::from_millis(500);

/// The body.
pub(super) struct Paced {
    rest: Bytes,
    begun: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(body: Bytes) -> Self {
        Self { rest: body, begun: false, pause: None }
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
        if !self.begun {
            self.begun = true;
            let beginning = self.rest.len().min(BEGINNING);
            let beginning = self.rest.split_to(beginning);
            return Poll::Ready(Some(Ok(Frame::data(beginning))));
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(PAUSE)));
        ready!(pause.as_mut().poll(context));
        let rest = std::mem::take(&mut self.rest);
        Poll::Ready(Some(Ok(Frame::data(rest))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
