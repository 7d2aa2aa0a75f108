//! Listening, connections and their limits, and an orderly end.

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

use super::tasks::Tasks;

/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head of a request, and what is read ahead of a body.
const BUFFER: usize = 64 * 1024;
/// How long to pause when no more sockets can be had.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address of the peer of a connection.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// Answers requests on `listeners` until the program ends, then lets running answers finish for at most `drain`.
///
/// More than `max_connections` at once wait in the operating system's queue.
pub async fn serve(
    listeners: Vec<TcpListener>,
    router: Router,
    tasks: &Tasks,
    max_connections: usize,
    drain: Duration,
) {
    let connections = Arc::new(Semaphore::new(max_connections));
    let graceful = GracefulShutdown::new();
    let accept_all = futures_util::future::join_all(
        listeners.iter().map(|listener| accept(listener, &router, &connections, &graceful, tasks)),
    );
    tokio::select! {
        _ = accept_all => {}
        () = tasks.stopping() => {}
    }
    drop(listeners);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time and were closed");
    }
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    connections: &Arc<Semaphore>,
    graceful: &GracefulShutdown,
    tasks: &Tasks,
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
        let connection = graceful.watch(connection(stream, peer, router.clone()));
        tasks.spawn(async move {
            // What goes wrong here is the client's: it left, or it does not speak HTTP.
            let _ = connection.await;
            drop(permit);
        });
    }
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
) -> http1::Connection<
    TokioIo<TcpStream>,
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
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
