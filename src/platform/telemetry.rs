//! Logs and metrics.
//!
//! Only events of this program are ever shown, whatever the level: drivers and clients log parameters, headers and
//! bodies at `debug` and `trace`, and those are people's words and our keys. A panic is an event like any other, without its
//! message.

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line, for collectors.
    Json,
    /// For people.
    Text,
}

/// Starts logging to standard error, panics included. Does nothing if it was started before.
pub fn start_logging(format: LogFormat, level: tracing::Level) {
    let filter = EnvFilter::new(format!("off,digitalmistress={level}"));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
            registry.with(layer.with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let layer = fmt::layer().compact().with_target(false).with_ansi(colours);
            registry.with(layer.with_writer(std::io::stderr)).try_init()
        }
    };
    drop(started); // A second start keeps the first.
    std::panic::set_hook(Box::new(log_panic));
}

/// Says where it happened and not what was said: `expect`, slices and `assert` quote what they worked on, and that may be
/// what somebody wrote. The runtime's own hook would print it.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let at = panic.location().map(tracing::field::display);
    tracing::error!(at, thread = std::thread::current().name(), "a panic");
}

/// Bounds of the histograms, in seconds: from a database read to a long reply.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Starts collecting metrics and returns what renders them. What was measured before is not there.
///
/// They grow until they are rendered or [tidied](PrometheusHandle::run_upkeep).
///
/// # Errors
///
/// When that was done before.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new().set_buckets(SECONDS)?.install_recorder()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Log;

        fn make_writer(&self) -> Log {
            self.clone()
        }
    }

    /// Keeps what this thread logs, until the second value is dropped.
    pub(crate) fn logged() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let subscriber =
            tracing_subscriber::registry().with(fmt::layer().with_ansi(false).with_writer(log.clone()));
        (log, tracing::subscriber::set_default(subscriber))
    }

    #[test]
    fn a_panic_is_told_by_its_place_and_not_by_its_words() {
        let (log, _logging) = logged();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        let _ = std::panic::catch_unwind(|| panic!("private words"));
        std::panic::set_hook(before);
        assert!(
            log.text().contains("telemetry.rs") && !log.text().contains("private words"),
            "{}",
            log.text()
        );
    }
}
