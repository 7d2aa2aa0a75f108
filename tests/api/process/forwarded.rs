//! A proxy that is missing in the settings: its operator hears of it, without a line for every request.

use crate::support::{database::TestDatabase, process::Server};
use secrecy::ExposeSecret as _;

#[tokio::test]
async fn a_forwarding_header_from_no_proxy_of_ours_is_warned_about_once_a_minute() {
    let database = TestDatabase::new().await;
    let data = database.dir.path().join("data");
    let url = database.settings.url.expose_secret();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (trusted, warnings) in [("", 1), ("127.0.0.1, ::1", 0)] {
        let mut server = Server::dev(&data, url, &[("DM__SERVER__TRUSTED_PROXIES", trusted)]);
        for name in ["x-forwarded-for", "forwarded", "x-forwarded-for", "x-forwarded-for"] {
            let call = client.get(format!("{}/v1/policies", server.base)).header(name, "for=198.51.100.7");
            assert_eq!(call.send().await.unwrap().status(), 200);
        }
        assert!(server.terminate().success());
        let output = server.output();
        assert_eq!(output.matches("is not in server.trusted_proxies").count(), warnings, "{output}");
    }
}
