//! Background tasks that shutdown knows about.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Starts tasks, tells them when the program is ending, and waits for them.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tracker: TaskTracker,
    leaving: CancellationToken,
    stopping: CancellationToken,
    ending: CancellationToken,
}

impl Tasks {
    /// Starts a task. It should end soon after [`Tasks::stopping`] says so. One that panics ends alone, and the log says
    /// that it did.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.tracker.spawn(async move {
            let _counted = Counted::new();
            if AssertUnwindSafe(future).catch_unwind().await.is_err() {
                // What it said may hold anything, so it is not repeated.
                tracing::error!("a task panicked");
            }
        });
    }

    /// Whether the program is about to end: whoever sends requests here is to send them elsewhere.
    pub fn is_leaving(&self) -> bool {
        self.0.leaving.is_cancelled()
    }

    /// Says that the program is about to end. Everything goes on until [`Tasks::stop`].
    pub fn leave(&self) {
        self.0.leaving.cancel();
    }

    /// Completes when the program begins to end: nothing new is begun from here on.
    pub async fn stopping(&self) {
        self.0.stopping.cancelled().await;
    }

    /// Whether the program is ending.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.is_cancelled()
    }

    /// Tells every task that the program is ending.
    pub fn stop(&self) {
        self.leave();
        self.0.stopping.cancel();
    }

    /// Completes when running work must be wrapped up: the time that it was given to finish is over.
    pub async fn must_end(&self) {
        self.0.ending.cancelled().await;
    }

    /// Tells every task to wrap up now.
    pub fn end(&self) {
        self.stop();
        self.0.ending.cancel();
    }

    /// Waits until every task has ended, but not longer than `limit`. Returns how many are still running.
    pub async fn wait(&self, limit: Duration) -> usize {
        self.0.tracker.close();
        let _ = tokio::time::timeout(limit, self.0.tracker.wait()).await;
        self.0.tracker.len()
    }
}

/// A task that is counted in the metrics for as long as it lives, however it ends.
struct Counted;

impl Counted {
    fn new() -> Counted {
        metrics::gauge!("tasks_running").increment(1.0);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("tasks_running").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::telemetry::tests::logged;

    #[tokio::test]
    async fn a_task_that_panics_ends_alone_and_is_logged_without_its_words() {
        let (log, _logging) = logged();
        let tasks = Tasks::default();
        tasks.spawn(async { panic!("private words") });
        let (done, is_done) = tokio::sync::oneshot::channel();
        tasks.spawn(async move { done.send(()).unwrap() });

        assert_eq!(tasks.wait(Duration::from_secs(5)).await, 0);
        is_done.await.unwrap();
        assert!(log.text().contains("a task panicked") && !log.text().contains("private words"));
    }
}
