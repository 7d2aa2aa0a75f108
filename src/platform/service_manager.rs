//! What a service manager is told: that the program is ready, that it is ending, and that it still answers.
//!
//! systemd, and who speaks like it, names a socket in `NOTIFY_SOCKET`, and in `WATCHDOG_USEC` how often it wants to hear from
//! the program (`sd_notify(3)`). Where there is none, as in development, nobody is told anything.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::net::UnixDatagram,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::oneshot, time::MissedTickBehavior};

use super::tasks::Tasks;

/// The way to whoever has started the program.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager {
    socket: Option<Arc<UnixDatagram>>,
    /// How long it waits for a sign of life before it takes the program for dead.
    patience: Option<Duration>,
}

impl ServiceManager {
    /// Looks in the environment for somebody to tell. Who cannot be reached is not told: that is no reason not to serve.
    pub fn find(env: &[(OsString, OsString)]) -> ServiceManager {
        let value = |wanted: &str| {
            let found = env.iter().find(|(name, value)| name == wanted && !value.is_empty());
            found.map(|(_, value)| value.as_os_str())
        };
        let number = |wanted: &str| value(wanted)?.to_str()?.parse::<u64>().ok();
        let socket = value("NOTIFY_SOCKET").and_then(|path| {
            let connected = connect(path);
            if let Err(error) = &connected {
                tracing::warn!(%error, "the service manager cannot be told anything");
            }
            connected.ok()
        });
        // What another process was told is inherited.
        let is_ours = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(std::process::id()));
        let patience = number("WATCHDOG_USEC").filter(|us| is_ours && *us > 0).map(Duration::from_micros);
        ServiceManager { socket: socket.map(Arc::new), patience }
    }

    /// Says that requests are answered from now on, and gives signs of life until the program has to end, if somebody waits
    /// for them.
    pub fn ready(&self, tasks: &Tasks) {
        self.tell("READY=1");
        if let Some(patience) = self.patience.filter(|_| self.socket.is_some()) {
            let (manager, watched) = (self.clone(), tasks.clone());
            tasks.spawn(async move { give_signs(&watched, patience, || manager.tell("WATCHDOG=1")).await });
        }
    }

    /// Says that the program is ending.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, what: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(what.as_bytes()) {
            tracing::warn!(%error, what, "the service manager could not be told");
        }
    }
}

/// A socket that never waits: a manager that reads nothing must not hold up a thread that answers requests.
fn connect(path: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

/// Calls `sign` twice as often as it is waited for, each time only after a task that was just begun has run to its end. Where
/// every thread of the runtime is stuck none does, and the service manager starts the program anew.
async fn give_signs(tasks: &Tasks, patience: Duration, sign: impl Fn()) {
    let pause = patience.checked_div(2).unwrap_or(patience).max(Duration::from_millis(1));
    let mut rounds = tokio::time::interval(pause);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            () = tasks.must_end() => return,
        }
        let (done, is_done) = oneshot::channel();
        tasks.spawn(async move {
            // It is waited for below.
            let _ = done.send(());
        });
        if is_done.await.is_ok() {
            sign();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn signs_come_twice_as_often_as_they_are_waited_for_and_end_with_the_program() {
        let tasks = Tasks::default();
        let signs = Arc::new(AtomicUsize::new(0));
        let (watched, counted) = (tasks.clone(), Arc::clone(&signs));
        tasks.spawn(async move {
            let count = || {
                counted.fetch_add(1, Ordering::Relaxed);
            };
            give_signs(&watched, Duration::from_secs(30), count).await;
        });
        tokio::time::sleep(Duration::from_secs(301)).await;
        assert_eq!(signs.load(Ordering::Relaxed), 21);

        // While running replies may finish, they are still given.
        tasks.stop();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(signs.load(Ordering::Relaxed), 23);
        tasks.end();
        assert_eq!(tasks.wait(Duration::from_secs(1)).await, 0);
    }

    #[test]
    fn what_another_process_is_watched_for_is_not_ours() {
        let ours = std::process::id().to_string();
        let second = Some(Duration::from_secs(1));
        for (pairs, patience) in [
            (vec![], None),
            (vec![("WATCHDOG_USEC", "1000000")], second),
            (vec![("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", &ours)], second),
            (vec![("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "1")], None),
            (vec![("WATCHDOG_USEC", "0")], None),
            (vec![("WATCHDOG_USEC", "soon")], None),
        ] {
            let found = ServiceManager::find(&env(&pairs));
            assert_eq!(found.patience, patience, "{pairs:?}");
            assert!(found.socket.is_none());
        }
    }

    #[test]
    fn a_manager_that_reads_nothing_holds_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::find(&env(&[("NOTIFY_SOCKET", path.to_str().unwrap())]));
        for _ in 0..10_000 {
            manager.stopping();
        }
        let mut buffer = [0; 32];
        let length = listener.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], *b"STOPPING=1");
    }
}
