//! `doctor`: looks at everything that the program depends on, and says what is wrong. It changes nothing.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use reqwest::{Client, header::DATE};
use serde::Serialize;
use url::Url;

use super::{Failure, say};
use crate::{
    app::{Offices, World},
    auth::KeyState,
    config::{Config, MailSettings, ProviderKind},
    platform::{http_client, mail::Smtp},
};

/// How long anybody has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far our clock may be from others'. Access tokens and signed notices live for minutes.
const SKEW: Duration = Duration::from_secs(30);
/// The least that has to be free on the disk, in bytes.
const FREE_BYTES: u64 = 1 << 30;
/// The least that has to be free on the disk, in percent.
const FREE_PERCENT: u64 = 5;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What.
    what: String,
    /// Whether it is in order.
    ok: bool,
    /// What was found.
    detail: String,
}

impl Finding {
    fn new<E: std::fmt::Display>(what: impl Into<String>, found: Result<String, E>) -> Finding {
        match found {
            Ok(detail) => Finding { what: what.into(), ok: true, detail },
            Err(error) => Finding { what: what.into(), ok: false, detail: error.to_string() },
        }
    }
}

/// Looks at everything, prints what was found, and fails if anything is wrong.
pub async fn run(config: &Config, world: &World, json: bool) -> Result<(), Failure> {
    let mut findings = Vec::new();
    look_inside(config, world, &mut findings).await;
    findings.push(disk("disk", &config.server.data_dir));
    if let Some(directory) = config.database.sqlite_path().as_deref().and_then(Path::parent) {
        findings.push(disk("disk of the database", directory));
    }
    findings.push(mail(&config.mail).await);
    let client = http_client::build(PATIENCE, PATIENCE)?;
    let mut clocks = Vec::new();
    for provider in &config.route {
        let what = format!("provider {}", provider.name);
        findings.push(match base_url(&provider.kind) {
            None => Finding::new(what, Ok::<_, String>("needs nobody".to_owned())),
            Some(url) => reach(what, &client, url, world.clock.now(), &mut clocks).await,
        });
    }
    findings.push(clock(&clocks));
    let wrong = findings.iter().filter(|finding| !finding.ok).count();
    if json {
        say(&serde_json::to_string_pretty(&findings)?)?;
    } else {
        for Finding { what, ok, detail } in &findings {
            say(&format!("{:5} {what}: {detail}", if *ok { "ok" } else { "WRONG" }))?;
        }
    }
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} of {} are not in order", findings.len()).into()) }
}

/// Database, keys and payment providers: what the services look at when they are opened.
async fn look_inside(config: &Config, world: &World, findings: &mut Vec<Finding>) {
    if let Some(file) = config.database.sqlite_path().filter(|file| !file.exists()) {
        let missing = format!("there is no file {}", file.display());
        return findings.push(Finding::new("database and keys", Err::<String, _>(missing)));
    }
    let offices = match Offices::open(config, world).await {
        Ok(offices) => offices,
        Err(error) => return findings.push(Finding::new("database and keys", Err(error))),
    };
    let engine = if config.database.sqlite_path().is_some() { "SQLite" } else { "PostgreSQL" };
    let found = match offices.keyring.missing_masters().await {
        Ok(missing) if missing.is_empty() => Ok(format!("{engine}, schema up to date, the master keys fit")),
        Ok(missing) => Err(format!("data keys are wrapped under {}, too", missing.join(", "))),
        Err(error) => Err(error.to_string()),
    };
    findings.push(Finding::new("database and keys", found));
    let signing = offices.auth.signing_keys().await.map_err(|error| error.to_string()).and_then(|keys| {
        let signs = keys.iter().find(|key| key.state == KeyState::Signing);
        signs.map(|key| format!("{} signs", key.kid)).ok_or("no key signs access tokens".to_owned())
    });
    findings.push(Finding::new("signing key", signing));
    for (name, answer) in offices.billing.check_providers().await {
        findings.push(Finding::new(format!("payments {name}"), answer));
    }
    if let Err(error) = offices.db.close().await {
        findings.push(Finding::new("database and keys", Err(error)));
    }
}

fn disk(what: &str, path: &Path) -> Finding {
    let found = rustix::fs::statvfs(path).map_err(|error| format!("{}: {error}", path.display()));
    Finding::new(what, found.and_then(|disk| judge_disk(disk.f_bavail, disk.f_blocks, disk.f_frsize)))
}

fn judge_disk(free: u64, all: u64, block: u64) -> Result<String, String> {
    let (bytes, percent) =
        (free.saturating_mul(block), free.saturating_mul(100).checked_div(all).unwrap_or(0));
    let found = format!("{} MiB free, {percent} %", bytes >> 20);
    if bytes < FREE_BYTES || percent < FREE_PERCENT { Err(found) } else { Ok(found) }
}

async fn mail(settings: &MailSettings) -> Finding {
    let MailSettings::Smtp(smtp) = settings else {
        return Finding::new("mail", Ok::<_, String>("a page of this server's".to_owned()));
    };
    let found = match Smtp::new(smtp) {
        Ok(smtp) => smtp.reach().await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    Finding::new("mail", found.map(|()| "the server lets us in".to_owned()))
}

fn base_url(kind: &ProviderKind) -> Option<&Url> {
    match kind {
        ProviderKind::Anthropic(anthropic) => Some(&anthropic.base_url),
        ProviderKind::OpenAi(openai) => Some(&openai.base_url),
        ProviderKind::Demo(_) => None,
    }
}

/// Whether somebody answers there, whatever the answer is. No key is sent.
async fn reach(
    what: String,
    client: &Client,
    url: &Url,
    now: Timestamp,
    clocks: &mut Vec<Duration>,
) -> Finding {
    let asked = tokio::time::timeout(PATIENCE, client.get(url.clone()).send());
    let found = match asked.await {
        Ok(Ok(answer)) => {
            let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
            clocks.extend(date.and_then(|date| skew(date, now)));
            Ok(format!("answers, with status {}", answer.status().as_u16()))
        }
        Ok(Err(error)) => Err(error.without_url().to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Finding::new(what, found)
}

/// How far a `Date` header is from our clock.
fn skew(date: &str, now: Timestamp) -> Option<Duration> {
    let theirs = Timestamp::try_from(httpdate::parse_http_date(date).ok()?).ok()?;
    Some(theirs.duration_since(now).unsigned_abs())
}

/// Of several clocks the one that is nearest to ours: one of theirs may be wrong.
fn clock(skews: &[Duration]) -> Finding {
    let found = match skews.iter().min() {
        None => Ok("nobody to compare with".to_owned()),
        Some(skew) if *skew <= SKEW => Ok(format!("within {} s of others", skew.as_secs().max(1))),
        Some(skew) => Err(format!("{} s away from others", skew.as_secs())),
    };
    Finding::new("clock", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_before_it_is() {
        assert!(judge_disk(1 << 20, 10 << 20, 4096).is_ok(), "4 GiB of 40");
        assert!(judge_disk(1 << 17, 1 << 18, 4096).is_err(), "half of 1 GiB");
        assert!(judge_disk(1 << 20, 1 << 26, 4096).is_err(), "4 GiB of 256");
        assert!(judge_disk(0, 0, 0).is_err());
    }

    #[test]
    fn the_nearest_clock_decides() {
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        let near = skew("Mon, 30 Nov 2026 12:00:10 GMT", now).unwrap();
        let far = skew("Mon, 30 Nov 2026 11:00:00 GMT", now).unwrap();
        assert_eq!((near, far), (Duration::from_secs(10), Duration::from_secs(3600)));
        assert_eq!(skew("today", now), None);
        assert!(clock(&[far, near]).ok && !clock(&[far]).ok && clock(&[]).ok);
    }
}
