//! `dev` and `serve`: start, listen, and end in order.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use axum::{Router, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{Failure, banner};
use crate::{
    app::{App, World},
    config::{Config, Profile},
    platform::{
        data_dir::DataDir, lock::FileLock, server, server::Limits, service_manager::ServiceManager,
        tasks::Tasks, telemetry,
    },
};

/// How long wrapping up may take after running work was told to.
const WRAP_UP: Duration = Duration::from_secs(10);
/// Connections to the metrics listener.
const METRICS_CONNECTIONS: usize = 16;
/// How often metrics are tidied.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Runs the server until it is told to end.
pub async fn serve(config: Config, world: World, manager: ServiceManager) -> Result<(), Failure> {
    let data_dir = DataDir::take(&config.server.data_dir, &*world.random, world.clock.now())?;
    let _database = take_database(&config)?;
    let listeners = listen(&config).await?;
    let metrics = collect_metrics(&config).await?;
    let app = App::start(&config, &world, data_dir.instance).await?;
    app.recover().await?;

    app.background.clone().start();
    if let Some((listener, metrics)) = metrics {
        serve_metrics(listener, &metrics, &world.tasks);
    }
    wait_for_a_signal(&world.tasks, config.server.drain_notice, manager.clone())?;
    let address = listeners.first().map(TcpListener::local_addr).transpose()?;
    tracing::info!(address = address.map(tracing::field::display), "ready");
    manager.ready(&world.tasks);
    if config.profile == Profile::Development {
        banner::print(&config, address.map_or(0, |address| address.port()))?;
    }

    let limit = config.server.drain_timeout;
    end_running_work_after(&world.tasks, limit);
    let drain = limit.saturating_add(WRAP_UP);
    server::serve(listeners, app.router, &world.tasks, Limits::new(config.server.max_connections, drain))
        .await;
    world.tasks.end();
    let left = world.tasks.wait(WRAP_UP).await;
    if left > 0 {
        tracing::warn!(left, "some work did not end in time");
    }
    app.db.close().await?;
    tracing::info!("ended");
    Ok(())
}

/// Two servers on one SQLite file would settle each other's replies, wherever their data directories are. Commands take
/// no lock: they work beside a server.
fn take_database(config: &Config) -> Result<Option<FileLock>, Failure> {
    let Some(file) = config.database.sqlite_path() else { return Ok(None) };
    match FileLock::take_beside(&file) {
        Ok(Some(lock)) => Ok(Some(lock)),
        Ok(None) => Err(format!("another server is using the database file {}", file.display()).into()),
        Err(error) => Err(format!("the database file {} cannot be locked: {error}", file.display()).into()),
    }
}

/// Binds the address; in development the same port of the other loopback family, too, because `localhost` may mean either.
async fn listen(config: &Config) -> Result<Vec<TcpListener>, Failure> {
    let address = config.server.listen;
    let cannot = |error| format!("cannot listen on {address}: {error}");
    let first = TcpListener::bind(address).await.map_err(cannot)?;
    let mut listeners = vec![first];
    if config.profile == Profile::Development {
        let port =
            listeners.first().map(TcpListener::local_addr).transpose()?.map_or(0, |bound| bound.port());
        let other = match address.ip() {
            IpAddr::V4(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        match TcpListener::bind(SocketAddr::new(other, port)).await {
            Ok(listener) => listeners.push(listener),
            // Another program there would get the requests that are meant for us.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(format!("cannot listen on {other} port {port}: {error}").into());
            }
            Err(error) => tracing::debug!(%error, "this machine has one loopback family only"),
        }
    }
    Ok(listeners)
}

/// SIGTERM and SIGINT end the program in order: for `notice` everything goes on while we say that we are not ready.
fn wait_for_a_signal(tasks: &Tasks, notice: Duration, manager: ServiceManager) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let waiting = tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = waiting.stopping() => {}
        }
        waiting.leave();
        manager.stopping();
        tracing::info!("about to end: not ready any more");
        tokio::select! {
            () = tokio::time::sleep(notice) => {}
            () = waiting.stopping() => {}
        }
        tracing::info!("ending: no new replies, running ones may finish");
        waiting.stop();
    });
    Ok(())
}

/// Replies that are still running after the drain time are wrapped up, so that their readers hear of it.
fn end_running_work_after(tasks: &Tasks, limit: Duration) {
    let waiting = tasks.clone();
    tasks.spawn(async move {
        waiting.stopping().await;
        tokio::select! {
            () = tokio::time::sleep(limit) => {}
            () = waiting.must_end() => {}
        }
        waiting.end();
    });
}

/// Starts collecting metrics where somebody can read them. Collected without being read or tidied, they would fill the
/// memory.
async fn collect_metrics(config: &Config) -> Result<Option<(TcpListener, PrometheusHandle)>, Failure> {
    let Some(address) = config.server.metrics_listen else { return Ok(None) };
    let listener =
        TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    Ok(Some((listener, telemetry::start_metrics()?)))
}

fn serve_metrics(listener: TcpListener, metrics: &PrometheusHandle, tasks: &Tasks) {
    let rendered = metrics.clone();
    let router = Router::new().route("/metrics", get(|| async move { rendered.render() }));
    let serving = tasks.clone();
    tasks.spawn(async move {
        server::serve(vec![listener], router, &serving, Limits::new(METRICS_CONNECTIONS, Duration::ZERO))
            .await;
    });
    let (tidied, tidying) = (metrics.clone(), tasks.clone());
    tasks.spawn(async move {
        while !tidying.is_stopping() {
            tidied.run_upkeep();
            tokio::select! {
                () = tokio::time::sleep(METRICS_UPKEEP) => {}
                () = tidying.stopping() => {}
            }
        }
    });
}
