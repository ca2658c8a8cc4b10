//! The bytes of a WebSocket as they arrive, and what of them is no whole message yet.
//!
//! This is for frames what `gateway/body.rs` is for requests: a message that is sent slowly, or never to
//! its end, holds neither memory nor the connection for long. All that is arriving shares one budget with
//! the bodies of requests.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::error::{Code, Error};
use crate::gateway::body::BodyBudget;
use crate::gateway::limits::{FIRST_FRAME_BYTES_MAX, WEBSOCKET_READ_BYTES};

/// The header of a control frame of a client's (RFC 6455, section 5.2): two bytes, and the mask.
const CONTROL_HEADER_BYTES: usize = 6;

/// A connection that is read no further than its messages may take memory and time.
pub struct Intake<S> {
    io: S,
    /// Bytes of what is no whole message yet.
    unread: usize,
    /// As many may be.
    unread_max: usize,
    /// Those of them that the budget knows: none while they are few, as in most messages.
    counted: usize,
    /// Since when they are many.
    since: Option<Instant>,
    patience: Duration,
    budget: BodyBudget,
    /// Why nothing more is read.
    refusal: Option<Error>,
}

impl<S> Intake<S> {
    /// A connection of which nobody has signed in: its first message is a short one. A longer message may
    /// take `patience` to arrive.
    pub fn new(io: S, patience: Duration, budget: BodyBudget) -> Intake<S> {
        let unread_max = FIRST_FRAME_BYTES_MAX;
        let (unread, counted, since, refusal) = (0, 0, None, None);
        Intake { io, unread, unread_max, counted, since, patience, budget, refusal }
    }

    /// From here on its messages are bounded elsewhere, each by itself.
    pub fn trust(&mut self) {
        self.unread_max = usize::MAX;
    }

    /// A message has been read.
    pub fn message(&mut self) {
        self.unread = 0;
        self.since = None;
        self.give_back();
    }

    /// A ping or pong has been read, perhaps in the middle of a message.
    pub fn control(&mut self, payload: usize) {
        self.unread = self.unread.saturating_sub(payload + CONTROL_HEADER_BYTES);
    }

    /// Why reading has failed, if not because of the connection.
    pub fn take_refusal(&mut self) -> Option<Error> {
        self.refusal.take()
    }

    fn give_back(&mut self) {
        // Nothing is, of a short message: those do not touch what all connections share.
        if self.counted > 0 {
            self.budget.give_back(std::mem::take(&mut self.counted));
        }
    }

    fn took(&mut self, bytes: usize) -> Result<(), Error> {
        self.unread += bytes;
        if self.unread > self.unread_max {
            let message = format!("sign in first, in at most {FIRST_FRAME_BYTES_MAX} bytes");
            return Err(Error::new(Code::TooLarge, message));
        }
        if self.unread <= WEBSOCKET_READ_BYTES {
            return Ok(());
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() > self.patience {
            return Err(Error::new(Code::Timeout, "the frame did not arrive in time"));
        }
        let more = self.unread.saturating_sub(self.counted);
        self.counted += more;
        self.budget.take(more)
    }
}

impl<S> Drop for Intake<S> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Intake<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let taken = this.took(buf.filled().len() - before);
        Poll::Ready(taken.map_err(|error| {
            this.refusal = Some(error.clone());
            io::Error::other(error)
        }))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Intake<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::gateway::limits::BODIES_BYTES_MAX;

    /// A connection by which this many bytes arrive.
    fn arriving(bytes: usize, budget: &BodyBudget) -> Intake<io::Cursor<Vec<u8>>> {
        let patience = Duration::from_secs(30);
        Intake::new(io::Cursor::new(vec![0; bytes]), patience, budget.clone())
    }

    async fn read(intake: &mut Intake<io::Cursor<Vec<u8>>>) -> Result<usize, Error> {
        let mut all = Vec::new();
        let read = intake.read_to_end(&mut all).await;
        read.map_err(|_| intake.take_refusal().unwrap())
    }

    #[tokio::test]
    async fn who_has_not_signed_in_sends_little() {
        let budget = BodyBudget::default();
        let mut short = arriving(FIRST_FRAME_BYTES_MAX, &budget);
        assert_eq!(read(&mut short).await, Ok(FIRST_FRAME_BYTES_MAX));
        let mut long = arriving(FIRST_FRAME_BYTES_MAX + 1, &budget);
        assert_eq!(read(&mut long).await.unwrap_err().code, Code::TooLarge);
        let mut trusted = arriving(FIRST_FRAME_BYTES_MAX + 1, &budget);
        trusted.trust();
        assert_eq!(read(&mut trusted).await, Ok(FIRST_FRAME_BYTES_MAX + 1));
    }

    #[tokio::test]
    async fn what_is_arriving_shares_a_budget_and_gives_it_back() {
        let budget = BodyBudget::default();
        let mut first = arriving(BODIES_BYTES_MAX, &budget);
        first.trust();
        assert_eq!(read(&mut first).await, Ok(BODIES_BYTES_MAX));
        let mut second = arriving(WEBSOCKET_READ_BYTES + 1, &budget);
        assert_eq!(read(&mut second).await.unwrap_err().code, Code::Overloaded);
        first.message();
        drop(second);
        let mut third = arriving(WEBSOCKET_READ_BYTES + 1, &budget);
        assert_eq!(read(&mut third).await, Ok(WEBSOCKET_READ_BYTES + 1));
        drop((first, third));
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test]
    async fn a_message_that_takes_too_long_is_given_up() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let patience = Duration::from_millis(500);
        let mut intake = Intake::new(near, patience, BodyBudget::default());
        let mut buffer = vec![0; WEBSOCKET_READ_BYTES + 1];
        tokio::io::AsyncWriteExt::write_all(&mut far, &buffer).await.unwrap();
        intake.read_exact(&mut buffer).await.unwrap();
        // Pings between its pieces do not make it shorter, nor newer.
        intake.control(0);
        tokio::time::sleep(patience).await;
        tokio::io::AsyncWriteExt::write_all(&mut far, &[0; 16]).await.unwrap();
        intake.read_exact(&mut buffer[..16]).await.unwrap_err();
        assert_eq!(intake.take_refusal().unwrap().code, Code::Timeout);
    }
}
