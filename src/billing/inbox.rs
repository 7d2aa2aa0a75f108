//! Notices of providers: judged, written down once, answered. What they mean is found out afterwards, by asking.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Billing, BillingError,
    facts::FactOutcome,
    gateway::{Notice, Received, Rejection, Signal, Subject, Touched},
    row::Mode,
    store::queue::{self, NoticeRow, NoticeStatus},
};
use crate::platform::{db, time};

/// Notices that `billing dead` shows at most.
const SHOWN: i64 = 200;

/// Why a notice was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// No provider has this name, or it expects something else.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It could not be written down; the provider is to send it again.
    #[error(transparent)]
    Failed(#[from] BillingError),
}

/// A notice that was given up: for a day its provider could not be asked what it means.
#[derive(Debug, Serialize)]
pub struct DeadNotice {
    /// The provider's name in the settings.
    pub provider: String,
    /// Whether real money moves.
    pub mode: &'static str,
    /// The provider's name for it.
    pub key: String,
    /// The kind of notice.
    pub kind: String,
    /// What it is about.
    pub subject: Option<String>,
    /// When it happened, by the provider's clock.
    #[serde(serialize_with = "time::serialize")]
    pub occurred_at: Timestamp,
    /// When it came.
    #[serde(serialize_with = "time::serialize")]
    pub received_at: Timestamp,
}

impl Subject {
    /// As it is stored.
    pub fn text(&self) -> String {
        match self {
            Subject::Customer(reference) => format!("customer:{reference}"),
            Subject::Dispute(reference) => format!("dispute:{reference}"),
            Subject::Charge(reference) => format!("charge:{reference}"),
        }
    }

    /// Reads what [`Subject::text`] wrote.
    pub fn from_text(text: &str) -> Option<Subject> {
        let (kind, reference) = text.split_once(':')?;
        let reference = reference.to_owned();
        match kind {
            "customer" => Some(Subject::Customer(reference)),
            "dispute" => Some(Subject::Dispute(reference)),
            "charge" => Some(Subject::Charge(reference)),
            _ => None,
        }
    }
}

impl Billing {
    /// Takes a notice: what is answered is what the provider expects.
    ///
    /// # Errors
    ///
    /// After an error nothing is stored.
    pub async fn receive(&self, provider: &str, notice: &Notice<'_>) -> Result<String, NotTaken> {
        let (gateway, mode) = self.gateway(provider).ok_or(Rejection::NotHere)?;
        let outcome = gateway.receive(notice, self.now());
        let Received { signal, reply } = match outcome {
            Ok(received) => received,
            Err(rejection) => {
                count(provider, "rejected");
                return Err(rejection.into());
            }
        };
        let outcome = match signal {
            Signal::Touched(touched) => self.take_notice(provider, mode, &touched).await?,
            Signal::Ignored(touched) => self.ignore_notice(provider, mode, &touched).await?,
            Signal::Fact(fact) => match self.apply_fact(provider, mode, &fact).await? {
                FactOutcome::Stored => "stored",
                FactOutcome::Again => "again",
                FactOutcome::Ignored => "ignored",
            },
        };
        count(provider, outcome);
        Ok(reply)
    }

    /// Writes a notice down and wishes that its subject be asked for, in one transaction: it is done only when the answer is
    /// stored.
    pub(super) async fn take_notice(
        &self,
        provider: &str,
        mode: Mode,
        touched: &Touched,
    ) -> Result<&'static str, BillingError> {
        let Some(subject) = touched.subject.as_ref().map(Subject::text) else {
            return self.ignore_notice(provider, mode, touched).await;
        };
        let (name, touched, now) = (provider.to_owned(), touched.clone(), self.now());
        let is_new = self
            .0
            .db
            .write(async move |c| {
                let Touched { key, kind, at, .. } = &touched;
                let pending = NoticeStatus::Pending;
                let notice = queue::add_notice(&name, mode, key, kind, Some(&subject), 0, pending, *at, now);
                if notice.exec(&c).await? == 0 {
                    return Ok::<_, db::Error>(false);
                }
                let seq = queue::wish(&name, mode, &subject, now).one(&c).await?;
                queue::number_notice(&name, mode, key, seq).exec(&c).await?;
                Ok(true)
            })
            .await?;
        if is_new {
            self.0.wake.notify_one();
        }
        Ok(if is_new { "taken" } else { "again" })
    }

    async fn ignore_notice(
        &self,
        provider: &str,
        mode: Mode,
        touched: &Touched,
    ) -> Result<&'static str, BillingError> {
        let (name, touched, now) = (provider.to_owned(), touched.clone(), self.now());
        self.0
            .db
            .write(async move |c| {
                let Touched { key, kind, subject, at } = &touched;
                let subject = subject.as_ref().map(Subject::text);
                let ignored = NoticeStatus::Ignored;
                queue::add_notice(&name, mode, key, kind, subject.as_deref(), 0, ignored, *at, now)
                    .exec(&c)
                    .await
            })
            .await?;
        Ok("ignored")
    }

    /// Wishes that everything whose notices are not done be asked for at once; returns how many subjects that are.
    pub async fn replay(&self) -> Result<usize, BillingError> {
        let open = self.0.db.read_slow(async |c| queue::open_subjects().all(&c).await).await?;
        let (count, now) = (open.len(), self.now());
        for queue::SubjectRow { provider, mode, subject } in open {
            self.0
                .db
                .write(async move |c| queue::hurry(&provider, mode, &subject, now).exec(&c).await)
                .await?;
        }
        self.0.wake.notify_one();
        Ok(count)
    }

    /// The notices that were given up, newest first.
    pub async fn dead(&self) -> Result<Vec<DeadNotice>, BillingError> {
        let rows = self.0.db.read_slow(async |c| queue::dead_notices(SHOWN).all(&c).await).await?;
        let shown = |row: NoticeRow| DeadNotice {
            provider: row.provider,
            mode: row.mode.as_str(),
            key: row.event_key,
            kind: row.kind,
            subject: row.subject,
            occurred_at: row.occurred_at,
            received_at: row.received_at,
        };
        Ok(rows.into_iter().map(shown).collect())
    }
}

fn count(provider: &str, outcome: &'static str) {
    let provider = provider.to_owned();
    metrics::counter!("billing_notices_total", "provider" => provider, "outcome" => outcome).increment(1);
}
