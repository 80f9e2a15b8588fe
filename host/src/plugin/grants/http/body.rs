//! What goes up and what comes down, counted, and given back when it ends.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use wasmtime_wasi_http::{Error, WasiBody};

use super::Reported;
use crate::plugin::instance::{Spent, UnderWay};

/// A guest's request body, up to its limit.
pub(super) struct Outgoing {
    /// Never locked: the client demands that bodies can be shared between threads, which this one cannot.
    body: Mutex<WasiBody>,
    sent: u64,
    limit: u64,
}

impl Outgoing {
    pub(super) fn new(body: WasiBody, limit: u64) -> Self {
        Self { body: Mutex::new(body), sent: 0, limit }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        let frame = ready!(Pin::new(body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.sent = self.sent.saturating_add(length(frame));
            if self.sent > self.limit {
                return Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(self.limit)))));
            }
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// Bytes of data in a frame; trailers have none.
fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

/// An answer's body, held by its reader and by the clock that ends it.
pub(super) struct Held(Mutex<Answer>);

enum Answer {
    /// Being read. The permit is of the requests in flight.
    Open { body: reqwest::Body, left: u64, _permit: OwnedSemaphorePermit },
    /// The last byte was read, or there was an error.
    Ended,
    /// The time was over first.
    Late,
}

impl Held {
    pub(super) fn new(body: reqwest::Body, left: u64, permit: OwnedSemaphorePermit) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Answer::Open { body, left, _permit: permit })))
    }

    /// Ends the answer where it is, unless it has ended: closes its connection and gives the permit back, also when the guest
    /// does not look at it.
    pub(super) async fn cut(&self, deadline: Instant, reported: &Reported) {
        tokio::time::sleep_until(deadline).await;
        self.late(reported);
    }

    fn late(&self, reported: &Reported) {
        let mut answer = self.answer();
        if matches!(*answer, Answer::Open { .. }) {
            *answer = Answer::Late;
            reported.late();
        }
    }

    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer's body as the guest reads it, up to its limit and its deadline.
pub(super) struct Incoming {
    held: Arc<Held>,
    spent: Arc<Spent>,
    /// While the server owes the bytes that the guest asked for.
    under_way: Option<UnderWay>,
    reported: Arc<Reported>,
    limit: u64,
    /// Here as well as in [`Held::cut`], so that a reader who waits is woken.
    deadline: Pin<Box<Sleep>>,
    /// The longest that the guest wants to wait for the next bytes.
    pause: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Incoming {
    pub(super) fn new(
        held: Arc<Held>,
        spent: Arc<Spent>,
        reported: Arc<Reported>,
        limit: u64,
        deadline: Instant,
        pause: Option<Duration>,
    ) -> Self {
        let pause = pause.map(|longest| (longest, Box::pin(sleep(longest))));
        Self { held, spent, under_way: None, reported, limit, deadline: Box::pin(sleep_until(deadline)), pause }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let under_way = this.under_way.take();
        if this.deadline.as_mut().poll(context).is_ready() {
            this.held.late(&this.reported);
        }
        let mut answer = this.held.answer();
        let (body, left) = match &mut *answer {
            Answer::Open { body, left, .. } => (body, left),
            Answer::Ended => return Poll::Ready(None),
            Answer::Late => return Poll::Ready(Some(Err(Error::HttpResponseTimeout))),
        };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
            let is_waiting = this.pause.as_mut().is_none_or(|(_, pause)| pause.as_mut().poll(context).is_pending());
            if is_waiting {
                this.under_way = under_way.or_else(|| Some(this.spent.request()));
                return Poll::Pending;
            }
            *answer = Answer::Ended;
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        if let Some((longest, pause)) = &mut this.pause {
            pause.as_mut().reset(Instant::now() + *longest);
        }
        let frame = match frame {
            Some(Ok(frame)) => match left.checked_sub(length(&frame)) {
                Some(rest) => {
                    *left = rest;
                    Some(Ok(frame))
                }
                None => {
                    this.reported.too_long(false);
                    Some(Err(Error::HttpResponseBodySize(Some(this.limit))))
                }
            },
            Some(Err(error)) => Some(Err(super::send::broken(&error))),
            None => None,
        };
        // Nobody asks once more for what has ended, so the permit must not wait for it.
        if matches!(frame, None | Some(Err(_))) || body.is_end_stream() {
            *answer = Answer::Ended;
        }
        Poll::Ready(frame)
    }
}
