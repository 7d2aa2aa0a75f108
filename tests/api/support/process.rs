//! The program as an operator runs it: a process of its own, with its output kept.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long a process may take to do what it is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn run(arguments: &[&str], env: &[(&str, &str)], input: &str) -> Ended {
    let env: Vec<(OsString, OsString)> =
        env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    run_with(arguments, &env, input)
}

/// As [`run`], with variables that need not be text.
pub fn run_with(arguments: &[&str], env: &[(OsString, OsString)], input: &str) -> Ended {
    let mut child = command(arguments, env).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Ended {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn command<V: AsRef<OsStr>>(arguments: &[&str], env: &[(V, V)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_digitalmistress"));
    command.args(arguments).env_clear().envs(env.iter().map(|(name, value)| (name, value)));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A server in a process of its own.
pub struct Server {
    pub base: String,
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts `dev` on a free port and waits until it says where it is.
    pub fn dev(data_dir: &Path, database: &str, more: &[(&str, &str)]) -> Server {
        let mut env = vec![
            ("DM__SERVER__LISTEN", "127.0.0.1:0"),
            ("DM__SERVER__DATA_DIR", data_dir.to_str().unwrap()),
            ("DM__DATABASE__URL", database),
            ("DM__CHAT__PROVIDERS__DEMO__PACE", "0s"),
        ];
        env.extend(more);
        let server = Self::start(&["dev"], &env, |line| {
            let url = line.trim().strip_prefix("API")?.trim();
            Some(url.trim_end_matches("/v1").replace("localhost", "127.0.0.1"))
        });
        let deadline = Instant::now() + PATIENCE;
        while !server.output().contains("Ctrl-C ends it") {
            assert!(Instant::now() < deadline, "it did not finish its banner:\n{}", server.output());
            std::thread::sleep(Duration::from_millis(1));
        }
        server
    }

    /// Starts a server and waits for the line of its output that tells the address.
    pub fn start(arguments: &[&str], env: &[(&str, &str)], address: fn(&str) -> Option<String>) -> Server {
        let mut child = command(arguments, env).stdin(Stdio::null()).spawn().unwrap();
        let output: Arc<Mutex<String>> = Arc::default();
        let (found, base) = std::sync::mpsc::channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let mut readers = Vec::new();
        for stream in streams {
            let (output, found) = (output.clone(), found.clone());
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Some(base) = address(&line) {
                        let _ = found.send(base);
                    }
                    output.lock().unwrap().push_str(&format!("{line}\n"));
                }
            }));
        }
        drop(found);
        match base.recv_timeout(PATIENCE) {
            Ok(base) => Server { base, child, output, readers },
            Err(_) => {
                let _ = child.kill();
                panic!("the server did not start:\n{}", output.lock().unwrap());
            }
        }
    }

    /// Everything that it has printed.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended. Then everything that it printed has been read.
    pub fn terminate(&mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => {
                    self.readers.drain(..).for_each(|reader| reader.join().unwrap());
                    return status;
                }
                None if Instant::now() > deadline => panic!("it did not end:\n{}", self.output()),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
