//! A program that sells through the fake of Stripe, and what happens to it.

use digitalmistress::platform::tasks::Tasks;
use jiff::SignedDuration;

use super::{checkout, standing};
use crate::support::{
    app::{Person, TestApp},
    stripe::{Delivery, KEY, SECRET, StripeFake},
};

pub const DAY: i64 = 86_400;

/// Program and provider; time passes in both.
pub struct Shop {
    pub t: TestApp,
    pub stripe: StripeFake,
}

/// The settings of a provider named `stripe` at an address.
pub fn settings(url: &str) -> Vec<(&str, &str)> {
    vec![
        ("DM__BILLING__PROVIDERS__STRIPE__KIND", "stripe"),
        ("DM__BILLING__PROVIDERS__STRIPE__MODE", "test"),
        ("DM__BILLING__PROVIDERS__STRIPE__BASE_URL", url),
        ("DM__BILLING__PROVIDERS__STRIPE__SECRET_KEY", KEY),
        ("DM__BILLING__PROVIDERS__STRIPE__WEBHOOK_SECRETS", SECRET),
        ("DM__BILLING__PLANS__PLUS__PRICES__STRIPE", "price_plus"),
        ("DM__BILLING__PLANS__PRO__NAME", "Pro"),
        ("DM__BILLING__PLANS__PRO__MESSAGES_PER_DAY", "500"),
        ("DM__BILLING__PLANS__PRO__COMPANIONS", "*"),
        ("DM__BILLING__PLANS__PRO__PRICES__STRIPE", "price_pro"),
        ("DM__BILLING__CHECKOUT", "stripe"),
    ]
}

impl Shop {
    pub async fn open() -> Shop {
        Self::open_with(&[]).await
    }

    pub async fn open_with(more: &[(&str, &str)]) -> Shop {
        let noon: jiff::Timestamp = "2027-03-10T12:00:00Z".parse().unwrap();
        let stripe = StripeFake::start(noon.as_second()).await;
        let t = TestApp::with(&[&settings(&stripe.url), more].concat()).await;
        Shop { t, stripe }
    }

    pub async fn person(&self, name: &str) -> Person {
        self.t.sign_up(&format!("{name}@example.com")).await
    }

    /// Somebody new who has bought a plan; the subscription. Nothing of it has been delivered.
    pub async fn buyer(&self, name: &str, plan: &str) -> (Person, String) {
        let person = self.person(name).await;
        checkout(&self.t, &person, plan).await;
        let subscription = self.stripe.pay(&self.session()).expect("the checkout is open");
        (person, subscription)
    }

    /// The newest checkout.
    pub fn session(&self) -> String {
        self.stripe.objects("checkout.session")[0]["id"].as_str().unwrap().to_owned()
    }

    /// The customer of a subscription.
    pub fn customer(&self, subscription: &str) -> String {
        self.stripe.object("subscription", subscription)["customer"].as_str().unwrap().to_owned()
    }

    /// Delivers one notice.
    pub async fn post(&self, notice: &Delivery) -> u16 {
        let url = format!("{}/v1/webhooks/stripe", self.t.base);
        self.stripe.deliver(&self.t.client, &url, notice).await
    }

    /// Delivers everything that waits, in its order, and asks for what it is about.
    pub async fn deliver(&self) {
        for notice in self.stripe.notices() {
            assert_eq!(self.post(&notice).await, 200);
        }
        self.sync().await;
    }

    /// Asks for everything that is due.
    pub async fn sync(&self) {
        self.t.background.billing.sync_due(&Tasks::default()).await.unwrap();
    }

    /// Has the program ask by itself, as it does in the background, until the handle is aborted or dropped.
    pub fn asking(&self) -> Asking {
        let billing = self.t.background.billing.clone();
        Asking(tokio::spawn(async move {
            loop {
                billing.sync_due(&Tasks::default()).await.unwrap();
                billing.woken().await;
            }
        }))
    }

    /// One sweep, and everything that it leads to.
    pub async fn sweep(&self) {
        self.t.background.billing.sweep_providers().await.unwrap();
        // What a sweep asks for is spread over the next minutes.
        self.pass(0, 300);
        self.sync().await;
    }

    /// Lets days and seconds pass on both sides.
    pub fn pass(&self, days: i64, seconds: i64) {
        let seconds = days * DAY + seconds;
        self.t.clock.advance(SignedDuration::from_secs(seconds));
        self.stripe.advance(seconds);
    }

    /// The same, and the person signs in again.
    pub async fn pass_for(&self, name: &str, days: i64) -> Person {
        self.pass(days, 0);
        self.t.log_in(&format!("{name}@example.com")).await
    }

    pub async fn standing(&self, person: &Person) -> (String, String, Option<String>) {
        standing(&self.t, person).await
    }

    /// Every row that providers' news is kept in, as text: what must not change where nothing happened.
    pub async fn rows(&self) -> Vec<String> {
        digitalmistress::queries! {
            scan fn all() -> Row =
                "SELECT provider, mode, reference, state, price, period_start, period_end, cancel_at, ended_at
                   FROM subscription ORDER BY provider, mode, reference";
            scan fn holds() -> Hold =
                "SELECT reference, kind, subscription, opened_at, released_by FROM access_hold ORDER BY reference";
        }
        digitalmistress::record! {
            #[derive(Debug)]
            struct Row {
                provider: String,
                mode: String,
                reference: String,
                state: String,
                price: Option<String>,
                period_start: Option<i64>,
                period_end: Option<i64>,
                cancel_at: Option<i64>,
                ended_at: Option<i64>,
            }
        }
        digitalmistress::record! {
            #[derive(Debug)]
            struct Hold {
                reference: String,
                kind: String,
                subscription: Option<String>,
                opened_at: i64,
                released_by: Option<String>,
            }
        }
        let read = self.t.db().read_slow(async |c| {
            let (rows, holds) = (all().all(&c).await?, holds().all(&c).await?);
            let rows = rows.iter().map(|row| format!("{row:?}"));
            let rows: Vec<String> = rows.chain(holds.iter().map(|hold| format!("{hold:?}"))).collect();
            Ok::<_, digitalmistress::platform::db::Error>(rows)
        });
        read.await.unwrap()
    }

    /// As if nobody had had the provider asked yet: for stories that ask more often than one user may.
    pub async fn forget_questions(&self) {
        digitalmistress::queries! {
            scan fn forget() = "UPDATE billing_customer SET asked = 0";
        }
        self.t.db().write(async |c| forget().exec(&c).await).await.unwrap();
    }

    /// How many notices are in each state.
    pub async fn notices(&self, status: &str) -> usize {
        digitalmistress::queries! {
            scan fn keys(status: str) -> String = "SELECT event_key FROM billing_inbox WHERE status = $1";
        }
        let status = status.to_owned();
        let read = async move |c| keys(&status).all(&c).await;
        let found: Result<Vec<String>, digitalmistress::platform::db::Error> =
            self.t.db().read_slow(read).await;
        found.unwrap().len()
    }

    /// The texts of the mails that somebody has, newest first.
    pub async fn mails(&self, name: &str) -> Vec<String> {
        self.t.background.run_due().await.unwrap();
        let mails = self.t.mailbox.mails(Some(&format!("{name}@example.com")));
        mails.into_iter().map(|mail| mail.text).filter(|text| text.contains("subscription")).collect()
    }
}

/// The background's work.
pub struct Asking(tokio::task::JoinHandle<()>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether a mail's text is about this.
pub fn tells(mails: &[String], what: &str) -> usize {
    mails.iter().filter(|text| text.contains(what)).count()
}
