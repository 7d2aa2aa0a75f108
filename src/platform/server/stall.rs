//! Giving up on readers who take nothing.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A socket whose writes fail once the peer has taken no byte for a time.
///
/// Only waiting to write counts. A stream that has nothing to say yet, or a request that is being worked on, writes
/// nothing and may take as long as it likes.
pub(super) struct StallGuard<S> {
    socket: S,
    limit: Duration,
    /// Runs while bytes wait for the peer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> StallGuard<S> {
    pub(super) fn new(socket: S, limit: Duration) -> StallGuard<S> {
        StallGuard { socket, limit, timer: None }
    }

    /// Any progress stops the timer; the first wait starts it, and its end is the error.
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, pieces);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.judge(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::timeout,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);
    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (socket, _peer) = duplex(16);
        let mut socket = StallGuard::new(socket, LIMIT);
        let written = timeout(LONG, socket.write_all(&[0; 17])).await.expect("it does not wait for ever");
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_slow_is_waited_for() {
        let (socket, mut peer) = duplex(16);
        let mut socket = StallGuard::new(socket, LIMIT);
        let reading = async {
            for _ in 0..100 {
                sleep(LIMIT - Duration::from_secs(1)).await;
                peer.read_u8().await?;
            }
            Ok(())
        };
        tokio::try_join!(socket.write_all(&[0; 116]), reading).expect("nobody gives up");
    }

    #[tokio::test(start_paused = true)]
    async fn having_nothing_to_say_is_not_a_stall() {
        let (socket, mut peer) = duplex(16);
        let mut socket = StallGuard::new(socket, LIMIT);
        for _ in 0..3 {
            // It waits for the peer once, so that a timer that was left running would be noticed.
            let mut taken = [0; 17];
            tokio::try_join!(socket.write_all(&[0; 17]), peer.read_exact(&mut taken))
                .expect("nobody gives up");
            sleep(LONG).await;
        }
    }
}
