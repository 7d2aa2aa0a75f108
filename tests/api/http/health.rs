//! What supervisors and proxies ask.

use crate::support::app::TestApp;

#[tokio::test]
async fn it_lives_and_is_ready_until_it_is_about_to_end() {
    let t = TestApp::start().await;
    t.get("/livez").await.answers("ok");
    t.get("/readyz").await.answers("ready");
    let version = t.get("/version").await.ok();
    assert_eq!(
        (&version["name"], &version["version"]),
        (&"digitalmistress".into(), &env!("CARGO_PKG_VERSION").into())
    );

    t.about_to_end();
    t.get("/readyz").await.problem(503, "unavailable");
    t.get("/livez").await.answers("ok");
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m", "hello").await.ok();
}

#[tokio::test]
async fn it_is_not_ready_where_the_schema_is_behind() {
    digitalmistress::queries! {
        scan fn forget() = "DELETE FROM schema_migration WHERE version = (SELECT MAX(version) FROM schema_migration)";
    }
    let t = TestApp::start().await;
    t.db().write(async |c| forget().exec(&c).await).await.unwrap();
    t.get("/readyz").await.problem(503, "unavailable");
}
