//! Listening, connections and their limits, and an orderly end.
//!
//! There is no limit per peer address: behind a proxy every connection comes from one address. That limit is the proxy's to
//! keep, as `deploy/nginx.conf` does.

mod stall;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tower::ServiceExt as _;

use self::stall::StallGuard;
use super::tasks::Tasks;

/// The largest head of a request, its line and its headers together, and what is read ahead of a body. More than a
/// hundred headers are refused too; that is hyper's default.
const BUFFER: usize = 64 * 1024;
/// How long to pause when no more sockets can be had.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address of the peer of a connection.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// How much a client may have, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. More wait in the operating system's queue.
    pub connections: usize,
    /// How long the head of a request may take to arrive. A connection that is kept open between two requests is
    /// waiting for the next head, and may be idle as long.
    pub head: Duration,
    /// How long a client may take nothing of what waits to be sent to it.
    pub stall: Duration,
    /// How long running answers may take to finish when the program ends.
    pub drain: Duration,
}

impl Limits {
    /// So many connections, so much time at the end, and patience with clients as usual.
    pub const fn new(connections: usize, drain: Duration) -> Limits {
        Limits { connections, head: Duration::from_secs(10), stall: Duration::from_secs(30), drain }
    }
}

/// Answers requests on `listeners` until the program ends, then lets running answers finish.
pub async fn serve(listeners: Vec<TcpListener>, router: Router, tasks: &Tasks, limits: Limits) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let accept_all = futures_util::future::join_all(
        listeners.iter().map(|listener| accept(listener, &router, &connections, &graceful, tasks, limits)),
    );
    tokio::select! {
        _ = accept_all => {}
        () = tasks.stopping() => {}
    }
    drop(listeners);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time and were closed");
    }
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    connections: &Arc<Semaphore>,
    graceful: &GracefulShutdown,
    tasks: &Tasks,
    limits: Limits,
) {
    loop {
        let Ok(permit) = Arc::clone(connections).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_about_one_connection(&error) => continue,
            Err(error) => {
                // Out of file descriptors, most likely: those in use will be freed.
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = graceful.watch(connection(stream, peer, router.clone(), limits));
        tasks.spawn(async move {
            // What goes wrong here is the client's: it left, it is too slow, or it does not speak HTTP.
            let _ = connection.await;
            drop(permit);
        });
    }
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
) -> http1::Connection<
    TokioIo<StallGuard<TcpStream>>,
    impl hyper::service::HttpService<Incoming, ResBody = Body, Error = std::convert::Infallible, Future: Send>,
> {
    // Words of a stream go out as they come.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        let request: Request = request.map(Body::new);
        router.clone().oneshot(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_header_size(BUFFER)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(StallGuard::new(stream, limits.stall)), service)
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
