//! `doctor`, as an operator types it.

use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::support::{
    database::TestDatabase,
    process::{Ended, run},
    upstream::{Step, Upstream},
};

struct Patient {
    database: TestDatabase,
}

impl Patient {
    fn examine(&self, arguments: &[&str], more: &[(&str, &str)]) -> Ended {
        let data = self.database.dir.path().join("data");
        let own = [
            ("DM_PROFILE", "development"),
            ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
            ("DM__DATABASE__URL", self.database.settings.url.expose_secret()),
        ];
        run(arguments, &[&own, more].concat(), "")
    }
}

/// On several threads: a command blocks one, and the upstream has to answer it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doctor_names_what_is_wrong_and_only_that() {
    let patient = Patient { database: TestDatabase::new().await };
    let behind = patient.examine(&["doctor"], &[]);
    assert!(!behind.success && behind.stdout.contains("WRONG database and keys"), "{behind:?}");
    assert!(patient.examine(&["migrate"], &[]).success);
    let healthy = patient.examine(&["doctor"], &[]);
    assert!(healthy.success && !healthy.stdout.contains("WRONG"), "{healthy:?}");

    let upstream =
        Upstream::start(vec![Step::Bytes(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec())])
            .await;
    let provider = |url| {
        [
            ("DM__CHAT__ROUTE", "main"),
            ("DM__CHAT__PROVIDERS__MAIN__KIND", "openai"),
            ("DM__CHAT__PROVIDERS__MAIN__BASE_URL", url),
            ("DM__CHAT__PROVIDERS__MAIN__API_KEY", "sk-canary"),
            ("DM__CHAT__PROVIDERS__MAIN__MODEL", "m"),
            ("DM__CHAT__PROVIDERS__MAIN__CONTEXT_TOKENS", "8192"),
            ("DM__CHAT__PROVIDERS__MAIN__MAX_OUTPUT_TOKENS", "1024"),
        ]
    };
    let reached = patient.examine(&["doctor"], &provider(&upstream.url));
    assert!(reached.success && reached.stdout.contains("ok    provider main: answers"), "{reached:?}");
    let lost = patient.examine(&["doctor", "--json"], &provider("http://127.0.0.1:1/v1"));
    assert!(!lost.success && lost.stderr.contains("1 of "), "{lost:?}");
    let findings: Value = serde_json::from_str(&lost.stdout).unwrap();
    let wrong: Vec<&Value> = findings.as_array().unwrap().iter().filter(|one| one["ok"] == false).collect();
    assert_eq!((wrong.len(), &wrong[0]["what"]), (1, &"provider main".into()));
    assert!(!lost.stdout.contains("canary") && !lost.stderr.contains("canary"));

    let mail = [
        ("DM__MAIL__TRANSPORT", "smtp"),
        ("DM__MAIL__SMTP_URL", "smtp://user:canary@127.0.0.1:1"),
        ("DM__MAIL__FROM", "Us <us@example.com>"),
    ];
    let silent = patient.examine(&["doctor"], &mail);
    assert!(!silent.success && silent.stdout.contains("WRONG mail:"), "{silent:?}");
    assert!(!silent.stdout.contains("canary"));
}
