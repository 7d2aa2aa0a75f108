//! PostgreSQL over TLS: certificates are checked, always.

use digitalmistress::platform::db::{Error, Limits};

use super::*;

async fn reads(settings: &DatabaseSettings) -> Result<i64, Error> {
    let db = open(settings);
    db.read(async |c| count_entries(1).one(&c).await).await
}

#[tokio::test]
async fn a_certificate_of_the_named_authority_is_accepted_and_any_other_refused() {
    let (test, _db) = database().await;
    let Ok(ca_file) = std::env::var("DM_TEST_CA_FILE") else {
        assert!(test.is_sqlite(), "the PostgreSQL run comes with an authority");
        return;
    };
    use secrecy::ExposeSecret as _;
    let url = format!("{}?sslmode=require", test.settings.url.expose_secret());
    let with = |ca_file: Option<&str>, url: &str| DatabaseSettings {
        url: url.into(),
        pool_size: 1,
        ca_file: ca_file.map(Into::into),
        limits: Limits::default(),
    };

    assert_eq!(reads(&with(Some(&ca_file), &url)).await.map_err(|e| e.to_string()), Ok(0));
    let unknown = reads(&with(None, &url)).await;
    assert!(matches!(unknown, Err(Error::Unavailable(_))), "{unknown:?}");
}
