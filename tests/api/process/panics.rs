//! What a panic leaves in the log.

use std::{panic::catch_unwind, process::Command};

use digitalmistress::platform::telemetry::{LogFormat, start_logging};
use serde_json::Value;

/// Set for the process that panics: this test, run again by itself, because a hook is for a whole process.
const CHILD: &str = "DM_TEST_PANICS";
const TEXT: &str = "canary-message-text";

#[test]
fn a_panic_is_logged_by_its_place_and_without_its_words() {
    if std::env::var_os(CHILD).is_some() {
        return panic_in_every_way();
    }
    let this_test = "process::panics::a_panic_is_logged_by_its_place_and_without_its_words";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this_test, "--nocapture"])
        .env(CHILD, "1")
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let (stdout, stderr) =
        (String::from_utf8(child.stdout).unwrap(), String::from_utf8(child.stderr).unwrap());
    assert!(child.status.success() && stdout.contains("1 passed"), "{stdout}{stderr}");
    assert!(!stdout.contains("canary") && !stderr.contains("canary"), "{stdout}{stderr}");

    let events: Vec<Value> = stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(events.len(), 3, "{stderr}");
    for event in &events {
        assert_eq!((&event["level"], &event["message"]), (&"ERROR".into(), &"a panic".into()));
        let (file, line) = event["at"].as_str().unwrap().split_once(':').unwrap();
        assert_eq!(file, file!());
        assert!(line.split(':').all(|number| number.parse::<u32>().is_ok()), "{event}");
    }
    assert_eq!(events[0]["span"]["id"], "some-request");
    assert_eq!(events[2]["thread"], "a-thread");
}

fn panic_in_every_way() {
    start_logging(LogFormat::Json, tracing::Level::INFO);
    let in_a_request = || {
        let _span = tracing::info_span!(target: "digitalmistress", "request", id = "some-request").entered();
        panic!("{TEXT}")
    };
    let in_a_slice = || {
        let beyond = TEXT.len() + 1;
        assert!(!TEXT[..beyond].is_empty())
    };
    assert!(catch_unwind(in_a_request).is_err());
    assert!(catch_unwind(in_a_slice).is_err());
    let thread = std::thread::Builder::new().name("a-thread".into());
    assert!(thread.spawn(|| TEXT.parse::<u8>().expect(TEXT)).unwrap().join().is_err());
}
