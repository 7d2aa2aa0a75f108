//! What holds whatever happens: histories, orders, failures and interleavings that a generator thinks of, or all there are.

mod checkouts;
mod crashes;
mod facts;
mod history;
mod moving;
mod order;
mod strangers;
mod workers;

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
};

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use digitalmistress::platform::{db::Error, server::PeerAddress};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::support::app::TestApp;

/// Tries a property with so many cases that a generator thinks of.
fn try_with<S: Strategy>(cases: u32, strategy: &S, property: impl AsyncFn(S::Value)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: wanted.unwrap_or(cases),
        failure_persistence: None,
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    };
    let tried = TestRunner::new(config).run(strategy, |case| {
        runtime.block_on(property(case));
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}

/// Chooses by a seed, always the same.
pub struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(sides.max(1)).unwrap()).unwrap()
    }

    fn shuffle<T>(&mut self, values: &mut [T]) {
        for at in (1..values.len()).rev() {
            values.swap(at, self.roll(at + 1));
        }
    }
}

/// Polls a future at most so often, and then leaves it as it is.
async fn poll_times<F: Future + ?Sized>(times: usize, future: &mut Pin<&mut F>) -> Option<F::Output> {
    let mut left = times;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Polls a future until the process dies. There are two steps for each poll: it dies at once, when nothing that was begun
/// has been done, or when it would go on, and all of it has.
async fn dies_at<F: Future>(step: usize, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), step / 2);
    let dies_late = step % 2 == 1;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 && !dies_late => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A call with a session and without a socket: its status and its body.
async fn call(t: &TestApp, token: &str, path: &str, body: Value) -> (u16, Value) {
    let request = Request::builder()
        .method("POST")
        .uri(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .extension(PeerAddress(SocketAddr::from(([127, 0, 0, 1], 1))))
        .body(Body::from(body.to_string()));
    let response = t.router.clone().oneshot(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

digitalmistress::queries! {
    scan fn wishes() -> Wish = "SELECT subject, want_seq, done_seq FROM billing_sync ORDER BY provider, mode, subject";
    scan fn versions() -> Version =
        "SELECT reference, version, period_start, cancel_at FROM subscription ORDER BY provider, mode, reference";
    scan fn inbox() -> Noticed =
        "SELECT event_key, subject, seq, status FROM billing_inbox ORDER BY provider, mode, event_key";
    scan fn customers() -> Customer =
        "SELECT provider, mode, reference, user_id FROM billing_customer ORDER BY provider, mode, reference";
    scan fn owned() -> Owned =
        "SELECT user_id, provider, mode, reference, customer, state, raw_state, price, period_start, period_end, cancel_at,
                ended_at, version
           FROM subscription ORDER BY provider, mode, reference";
    scan fn holds() -> Hold =
        "SELECT user_id, provider, mode, reference, kind, subscription, opened_at, released_at FROM access_hold
          ORDER BY provider, mode, reference";
    scan fn jobs() -> i64 = "SELECT COUNT(*) FROM job";
    scan fn intents() -> i64 = "SELECT COUNT(*) FROM checkout_intent";
    scan fn audited() -> i64 =
        "SELECT COUNT(*) FROM audit_event
          WHERE action IN ('subscription.changed', 'access.held', 'access.released')";
}

digitalmistress::record! {
    #[derive(Clone, Debug, PartialEq)]
    pub struct Wish {
        subject: String,
        want_seq: i64,
        done_seq: i64,
    }
}

digitalmistress::record! {
    #[derive(Clone, Debug, PartialEq)]
    pub struct Version {
        reference: String,
        version: i64,
        period_start: Option<i64>,
        cancel_at: Option<i64>,
    }
}

digitalmistress::record! {
    #[derive(Clone, Debug, PartialEq)]
    pub struct Noticed {
        event_key: String,
        subject: Option<String>,
        seq: i64,
        status: String,
    }
}

digitalmistress::record! {
    #[derive(Clone, Debug, PartialEq)]
    pub struct Customer {
        provider: String,
        mode: String,
        reference: String,
        user_id: uuid::Uuid,
    }
}

digitalmistress::record! {
    #[derive(Clone, Debug, PartialEq)]
    pub struct Owned {
        user_id: Option<uuid::Uuid>,
        provider: String,
        mode: String,
        reference: String,
        customer: Option<String>,
        state: String,
        raw_state: String,
        price: Option<String>,
        period_start: Option<i64>,
        period_end: Option<i64>,
        cancel_at: Option<i64>,
        ended_at: Option<i64>,
        version: i64,
    }
}

digitalmistress::record! {
    #[derive(Clone, Debug, PartialEq)]
    pub struct Hold {
        user_id: Option<uuid::Uuid>,
        provider: String,
        mode: String,
        reference: String,
        kind: String,
        subscription: Option<String>,
        opened_at: i64,
        released_at: Option<i64>,
    }
}

/// Every row of billing's tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    inbox: Vec<Noticed>,
    wishes: Vec<Wish>,
    subscriptions: Vec<Owned>,
    holds: Vec<Hold>,
    customers: Vec<Customer>,
    audited: i64,
}

impl Tables {
    /// Notices are read first: what one that is done has led to is in what is read after it.
    async fn of(t: &TestApp) -> Tables {
        let read = t.db().read_slow(async |c| {
            Ok::<_, Error>(Tables {
                inbox: inbox().all(&c).await?,
                wishes: wishes().all(&c).await?,
                subscriptions: owned().all(&c).await?,
                holds: holds().all(&c).await?,
                customers: customers().all(&c).await?,
                audited: audited().one(&c).await?,
            })
        });
        read.await.unwrap()
    }

    /// What the provider has, as far as it was told: holds that were released are history.
    fn told(&self) -> (Vec<Owned>, Vec<Hold>) {
        let subscriptions = self.subscriptions.iter().cloned();
        let subscriptions = subscriptions.map(|row| Owned { user_id: None, version: 0, ..row });
        let open = self.holds.iter().filter(|hold| hold.released_at.is_none()).cloned();
        (subscriptions.collect(), open.map(|hold| Hold { user_id: None, ..hold }).collect())
    }
}
