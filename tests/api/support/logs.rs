//! What a test's own program logs and counts. Only on a runtime of one thread, because both hang on the thread.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
};

use tracing::{Dispatch, subscriber::NoSubscriber};

/// Not used, but there: while there is only one subscriber in the process, `tracing` asks that of the thread which first
/// comes by a line of logging whether anybody wants it. That may be another test's, which has none, and then the line is
/// never logged.
static OTHERS: OnceLock<[Dispatch; 2]> = OnceLock::new();

/// Listens for as long as it lives.
pub struct Logs {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Logs {
    pub fn listen() -> Logs {
        Self::listen_to(tracing::Level::INFO)
    }

    /// The same, with more or less of it.
    pub fn listen_to(level: tracing::Level) -> Logs {
        OTHERS.get_or_init(|| [Dispatch::new(NoSubscriber::new()), Dispatch::new(NoSubscriber::new())]);
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let sink = Sink(text.clone());
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || sink.clone())
            .finish();
        Logs { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The lines that have a text in them.
    pub fn lines_with(&self, what: &str) -> Vec<String> {
        let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
    }
}
