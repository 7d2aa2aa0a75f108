//! The pages, which work without a script and without a network.

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse as _, Redirect, Response},
    routing::get,
};
use minijinja::{AutoEscape, Environment, Value, context};
use url::Url;

use super::{CHECKOUT, CheckoutPage, Dev, MANAGE, ManagePage, Untold, loopback, sale_of};
use crate::platform::{
    extract::ApiQuery,
    problem::{Code, Problem},
};

/// The largest form: one button.
const FORM_LIMIT: usize = 1024;

/// Something that can be pressed.
#[derive(Clone, Copy)]
struct Button {
    name: &'static str,
    /// The event that is told.
    event: Option<&'static str>,
    label: &'static str,
    meaning: &'static str,
}

const fn button(
    name: &'static str,
    event: Option<&'static str>,
    label: &'static str,
    meaning: &'static str,
) -> Button {
    Button { name, event, label, meaning }
}

/// Declining tells an event that the gateway does not know: it is noted, answered, and changes nothing.
const BUYING: [Button; 3] = [
    button("pay", Some("initial"), "Pay", "Buys 30 days from now, and goes to success_url."),
    button("decline", Some("declined"), "Decline", "The card is refused. Goes to cancel_url."),
    button("back", None, "Back", "Nothing happens. Goes to cancel_url."),
];

const MANAGING: [Button; 6] = [
    button("renew", Some("rebill"), "Renew", "Pays for 30 days from now, at the same price."),
    button("cancel", Some("cancel"), "Cancel", "Lasts as long as it is paid, and is not renewed."),
    button("uncancel", Some("uncancel"), "Uncancel", "Is renewed after all."),
    button("expire", Some("expiry"), "Expire", "Ends now. Renewing revives it."),
    button("refund", Some("credit"), "Refund", "Money is given back: held up until it is paid again."),
    button(
        "charge_back",
        Some("chargeback"),
        "Charge back",
        "The bank takes money back: all access is held up.",
    ),
];

impl Button {
    fn shown(self) -> Value {
        context! { name => self.name, label => self.label, meaning => self.meaning }
    }
}

impl Dev {
    /// The pages, under `/dev/checkout`. Anybody on this machine may open one whose address was made here.
    pub fn router(&self) -> Router {
        Router::new()
            .route(CHECKOUT, get(checkout).post(buy))
            .route(MANAGE, get(manage).post(change))
            .layer(DefaultBodyLimit::max(FORM_LIMIT))
            .with_state(self.clone())
    }
}

/// The name of the button that was pressed.
struct Pressed(String);

impl<S: Send + Sync> FromRequest<S> for Pressed {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let refused = || Problem::new(Code::BadRequest, "The form names no button of this page.");
        let body = Bytes::from_request(request, state).await.map_err(|_| refused())?;
        let pressed = url::form_urlencoded::parse(&body).find(|(name, _)| name == "press");
        pressed.map(|(_, button)| Pressed(button.into_owned())).ok_or_else(refused)
    }
}

impl Pressed {
    fn of(&self, buttons: &[Button]) -> Result<Button, Problem> {
        let found = buttons.iter().find(|button| button.name == self.0).copied();
        found.ok_or_else(|| Problem::new(Code::BadRequest, "The form names no button of this page."))
    }
}

/// This server's address, as the browser has it: on this machine, whatever the header says.
fn ourselves(headers: &HeaderMap) -> Result<Url, Problem> {
    let origin = headers.get(header::HOST).and_then(|host| loopback(host.to_str().ok()?));
    origin.ok_or_else(|| Problem::new(Code::Forbidden, "Development answers to localhost only."))
}

async fn checkout(State(dev): State<Dev>, query: ApiQuery) -> Result<Response, Problem> {
    let page = dev.checkout_page(&query).ok_or_else(Problem::not_found)?;
    show_checkout(&page, None)
}

async fn buy(
    State(dev): State<Dev>,
    query: ApiQuery,
    headers: HeaderMap,
    pressed: Pressed,
) -> Result<Response, Problem> {
    let page = dev.checkout_page(&query).ok_or_else(Problem::not_found)?;
    let origin = ourselves(&headers)?;
    let button = pressed.of(&BUYING)?;
    // Who buys again what was cancelled wants it renewed.
    let again = (button.name == "pay").then_some("uncancel");
    for event in button.event.into_iter().chain(again) {
        if let Err(failure) = dev.tell(origin.clone(), event, &page.customer, Some(&page.price)).await {
            return show_checkout(&page, Some(&failure));
        }
    }
    let to = if button.name == "pay" { &page.success_url } else { &page.cancel_url };
    Ok(Redirect::to(to).into_response())
}

async fn manage(State(dev): State<Dev>, query: ApiQuery) -> Result<Response, Problem> {
    let page = dev.manage_page(&query).ok_or_else(Problem::not_found)?;
    let done = MANAGING.iter().find(|button| query.get("done") == Some(button.name));
    show_manage(&page, done, None)
}

async fn change(
    State(dev): State<Dev>,
    query: ApiQuery,
    headers: HeaderMap,
    pressed: Pressed,
) -> Result<Response, Problem> {
    let page = dev.manage_page(&query).ok_or_else(Problem::not_found)?;
    let origin = ourselves(&headers)?;
    let button = pressed.of(&MANAGING)?;
    if let Some(event) = button.event
        && let Err(failure) = dev.tell(origin, event, &page.customer, None).await
    {
        return show_manage(&page, None, Some(&failure));
    }
    // Back to this page, so that reloading it presses nothing.
    let mut address = dev.manage_address(&page.customer, &page.return_url);
    address.query_pairs_mut().append_pair("done", button.name);
    Ok(Redirect::to(&format!("{MANAGE}?{}", address.query().unwrap_or_default())).into_response())
}

fn fact(name: &str, value: &str) -> Value {
    context! { name, value }
}

fn show_checkout(page: &CheckoutPage, failure: Option<&Untold>) -> Result<Response, Problem> {
    let facts = [
        fact("Price", &page.price),
        fact("Customer", &page.customer),
        fact("success_url", &page.success_url),
        fact("cancel_url", &page.cancel_url),
    ];
    let shown = context! {
        title => "Development checkout",
        introduction => "No money moves. Each button sends this server what a payment provider would send it.",
        facts, buttons => BUYING.map(Button::shown), failure => failure.map(Untold::to_string),
    };
    show(shown, &[&page.success_url, &page.cancel_url], failure.is_some())
}

fn show_manage(
    page: &ManagePage,
    done: Option<&Button>,
    failure: Option<&Untold>,
) -> Result<Response, Problem> {
    let facts = [fact("Sale", &sale_of(&page.customer)), fact("Customer", &page.customer)];
    let shown = context! {
        title => "Development subscription",
        introduction => "What can happen to what was bought here. No money moves. Buy first: a renewal alone has no price.",
        facts, buttons => MANAGING.map(Button::shown), done => done.map(|button| button.label),
        failure => failure.map(Untold::to_string), back => page.return_url.as_str(),
    };
    show(shown, &[], failure.is_some())
}

fn show(page: Value, ways_out: &[&str], failed: bool) -> Result<Response, Problem> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let html = environment.render_str(include_str!("page.html"), page).map_err(Problem::internal)?;
    let policy = HeaderValue::from_str(&policy(ways_out)).map_err(Problem::internal)?;
    let status = if failed { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
    Ok((status, [(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response())
}

/// A page of ours: its own style and form, which may lead to the ways out. Browsers ask `form-action` about the redirect
/// that answers a form too.
fn policy(ways_out: &[&str]) -> String {
    let mut policy =
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; \
                      form-action 'self'"
            .to_owned();
    // A host may hold a semicolon, which would begin a directive here.
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '/' | '.' | '-' | '_' | '[' | ']');
    let mut origins: Vec<String> = ways_out
        .iter()
        .filter_map(|way| Some(Url::parse(way).ok()?.origin().ascii_serialization()))
        .filter(|origin| origin.chars().all(is_plain))
        .collect();
    origins.dedup();
    for origin in origins {
        policy.push(' ');
        policy.push_str(&origin);
    }
    policy
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use axum::{
        body::{Body, to_bytes},
        http::Method,
        routing::any,
    };
    use jiff::Timestamp;
    use secrecy::ExposeSecret as _;
    use tower::ServiceExt as _;
    use uuid::Uuid;

    use super::*;
    use crate::{
        billing::{
            gateway::{Fact, FactEvent, Gateway as _, Notice, Order, Signal},
            row::HoldKind,
        },
        platform::{
            clock::{Clock, SystemClock},
            random::SystemRandom,
            seal::DataKey,
            server::{Limits, serve},
            tasks::Tasks,
        },
    };

    fn dev() -> Dev {
        let key = DataKey::derive("test", &"a key that stays".into());
        let public_url = "http://localhost:8080/".parse().unwrap();
        Dev::new("demo", &public_url, key, Arc::new(SystemClock), Arc::new(SystemRandom)).unwrap()
    }

    fn order(price: &str, success_url: &str) -> Order {
        Order {
            user: Uuid::nil(),
            customer: "c1".into(),
            price: price.into(),
            success_url: success_url.into(),
            cancel_url: "http://localhost:3000/plans".into(),
            nonce: Uuid::nil(),
        }
    }

    /// The path and query of a checkout.
    async fn begun(dev: &Dev) -> String {
        let order = order("gold", "http://localhost:3000/paid?a=1&b=<2>");
        let url = Url::parse(dev.start_checkout(&order).await.unwrap().url.expose_secret()).unwrap();
        assert_eq!(
            (url.origin().ascii_serialization().as_str(), url.path()),
            ("http://localhost:8080", CHECKOUT)
        );
        format!("{}?{}", url.path(), url.query().unwrap())
    }

    async fn managed(dev: &Dev) -> String {
        let url = dev.portal("c1", "http://localhost:3000/account").await.unwrap();
        let url = Url::parse(url.expose_secret()).unwrap();
        format!("{}?{}", url.path(), url.query().unwrap())
    }

    /// Starts a server that takes notices as ours does: its `Host`, and what it made of them. It is taken for one that
    /// fails while `status` is not 200.
    async fn taker(dev: &Dev, status: StatusCode) -> (String, Arc<Mutex<Vec<Signal>>>) {
        let signals = Arc::<Mutex<Vec<Signal>>>::default();
        let (seen, judge) = (Arc::clone(&signals), dev.clone());
        let take = move |method: Method, headers: HeaderMap, body: Bytes| async move {
            let (method, headers, body) = (&method, &headers, &body[..]);
            let notice = Notice { method, path_secret: None, query: "", headers, peer: None, body };
            let received = judge.receive(&notice, SystemClock.now()).unwrap();
            seen.lock().unwrap().push(received.signal);
            (status, received.reply)
        };
        let router = Router::new().route("/v1/webhooks/demo", any(take));
        let listener = tokio::net::TcpListener::bind("localhost:0").await.unwrap();
        let host = format!("localhost:{}", listener.local_addr().unwrap().port());
        let tasks = Tasks::default();
        tasks.clone().spawn(async move {
            serve(vec![listener], router, &tasks, Limits::new(10, Duration::ZERO)).await;
        });
        (host, signals)
    }

    /// An answer: its status, `Location`, policy and text.
    async fn answer(dev: &Dev, request: Request) -> (u16, String, String, String) {
        let response = dev.router().oneshot(request).await.unwrap();
        let header =
            |name| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (to, policy) = (header(header::LOCATION), header(header::CONTENT_SECURITY_POLICY));
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 100_000).await.unwrap();
        (status, to, policy, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn look(dev: &Dev, page: &str) -> (u16, String, String, String) {
        answer(dev, Request::get(page).body(Body::empty()).unwrap()).await
    }

    async fn press(dev: &Dev, page: &str, host: &str, button: &str) -> (u16, String, String, String) {
        let request = Request::post(page).header(header::HOST, host).body(format!("press={button}").into());
        answer(dev, request.unwrap()).await
    }

    fn facts(signals: &Mutex<Vec<Signal>>) -> Vec<Fact> {
        let signals = std::mem::take(&mut *signals.lock().unwrap());
        let of_fact = |signal| match signal {
            Signal::Fact(fact) => fact,
            other => panic!("{other:?}"),
        };
        signals.into_iter().map(of_fact).collect()
    }

    #[tokio::test]
    async fn paying_tells_of_a_sale_and_leads_to_the_success() {
        let dev = dev();
        let (page, (host, signals)) = (begun(&dev).await, taker(&dev, StatusCode::OK).await);
        let (status, to, ..) = press(&dev, &page, &host, "pay").await;
        assert_eq!((status, to.as_str()), (303, "http://localhost:3000/paid?a=1&b=%3C2%3E"));

        let facts = facts(&signals);
        let [fact, renewed] = facts.as_slice() else { panic!("{facts:?}") };
        assert_eq!(renewed.event, FactEvent::Uncancelled);
        let through = fact.at + jiff::SignedDuration::from_hours(720);
        assert_eq!(fact.event, FactEvent::Paid { price: Some("gold".into()), through });
        assert_eq!((fact.customer.as_deref(), fact.subscription.as_str()), (Some("c1"), "dev_c1"));
    }

    #[tokio::test]
    async fn declining_and_going_back_buy_nothing() {
        let dev = dev();
        let (page, (host, signals)) = (begun(&dev).await, taker(&dev, StatusCode::OK).await);
        for (button, told) in [("back", 0), ("decline", 1)] {
            let (status, to, ..) = press(&dev, &page, &host, button).await;
            assert_eq!((status, to.as_str()), (303, "http://localhost:3000/plans"));
            let signals = std::mem::take(&mut *signals.lock().unwrap());
            assert_eq!(signals.len(), told);
            assert!(signals.iter().all(|signal| matches!(signal, Signal::Ignored(_))), "{signals:?}");
        }
    }

    #[tokio::test]
    async fn every_state_can_be_made_of_what_was_bought() {
        let dev = dev();
        let (page, (host, signals)) = (managed(&dev).await, taker(&dev, StatusCode::OK).await);
        let mut last = Timestamp::MIN;
        for (button, kind) in [
            ("renew", "rebill"),
            ("cancel", "cancel"),
            ("uncancel", "uncancel"),
            ("expire", "expiry"),
            ("refund", "credit"),
            ("charge_back", "chargeback"),
        ] {
            let (status, to, ..) = press(&dev, &page, &host, button).await;
            assert_eq!((status, to), (303, format!("{page}&done={button}")));
            let (status, .., html) = look(&dev, &format!("{page}&done={button}")).await;
            assert!(status == 200 && html.contains("Sent, and taken"), "{html}");

            let facts = facts(&signals);
            let [fact] = facts.as_slice() else { panic!("{facts:?}") };
            assert_eq!((fact.kind.as_str(), fact.subscription.as_str()), (kind, "dev_c1"));
            let hold = match &fact.event {
                FactEvent::Held { kind, transaction } => Some((*kind, transaction.len())),
                _ => None,
            };
            let expected = match button {
                "refund" => Some((HoldKind::Refund, 32)),
                "charge_back" => Some((HoldKind::Chargeback, 32)),
                _ => None,
            };
            assert_eq!(hold, expected);
            assert!(fact.at > last, "which of two came last can be told");
            last = fact.at;
        }
        let cancelled = dev.cancel("dev_c1", SystemClock.now()).await.unwrap().unwrap();
        assert_eq!((cancelled.event, cancelled.customer.as_deref()), (FactEvent::Cancelled, Some("c1")));
        assert!(cancelled.at > last);
    }

    #[tokio::test]
    async fn what_this_server_does_not_take_is_shown() {
        let dev = dev();
        let (host, _) = taker(&dev, StatusCode::SERVICE_UNAVAILABLE).await;
        for (page, button) in [(begun(&dev).await, "pay"), (managed(&dev).await, "renew")] {
            let (status, to, _, html) = press(&dev, &page, &host, button).await;
            assert_eq!((status, to.as_str()), (502, ""));
            assert!(
                html.contains("Not taken: this server answered its own notice with status 503"),
                "{html}"
            );
            let (status, .., html) = press(&dev, &page, "localhost:1", button).await;
            assert!(status == 502 && html.contains("did not answer itself"), "{html}");
        }
    }

    #[tokio::test]
    async fn only_this_machine_is_called() {
        let dev = dev();
        let page = begun(&dev).await;
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "localhost@example.com",
            "localhost:80@example.com",
            "localhost:x",
            "localhost:65536",
            "localhost:+80",
            "localhost:",
            "localhost/",
            "[::2]",
            "[::1]evil",
            "10.1.1.1:80",
        ] {
            assert_eq!(press(&dev, &page, host, "pay").await.0, 403, "{host}");
        }
        for (host, origin) in [
            ("localhost", "http://localhost/"),
            ("LocalHost:8080", "http://localhost:8080/"),
            ("[::1]:9", "http://[::1]:9/"),
        ] {
            assert_eq!(loopback(host).map(String::from).as_deref(), Some(origin));
        }
    }

    #[tokio::test]
    async fn an_address_that_was_not_made_here_is_no_page() {
        let dev = dev();
        let (buying, managing) = (begun(&dev).await, managed(&dev).await);
        let other_ways = buying.replace("localhost%3A3000", "evil.example");
        let cheaper = buying.replace("price=gold", "price=free");
        let for_ever = buying.replace("expires_at=", "expires_at=9");
        let other_return = managing.replace("localhost%3A3000", "evil.example");
        let unsealed = buying.split("&seal=").next().unwrap().to_owned();
        let swapped = managing.replace(MANAGE, CHECKOUT);
        assert!(other_ways != buying && cheaper != buying && other_return != managing);
        for page in [&other_ways, &cheaper, &for_ever, &other_return, &unsealed, &swapped, CHECKOUT, MANAGE] {
            assert_eq!(look(&dev, page).await.0, 404, "{page}");
            assert_eq!(press(&dev, page, "localhost:1", "pay").await.0, 404, "{page}");
        }
        for (page, button) in [(&buying, "renew"), (&managing, "pay"), (&buying, ""), (&managing, "Renew")] {
            assert_eq!(press(&dev, page, "localhost:1", button).await.0, 400, "{button}");
        }
        let long = Request::post(&buying).header(header::HOST, "localhost:1").body("x".repeat(2000).into());
        assert_eq!(answer(&dev, long.unwrap()).await.0, 400);
    }

    #[tokio::test]
    async fn a_page_ends_and_outlives_a_restart_before() {
        let page = begun(&dev()).await;
        assert_eq!(look(&dev(), &page).await.0, 200);
        let key = DataKey::derive("test", &"a key that stays".into());
        let public_url = "http://localhost:8080/".parse().unwrap();
        let late = Dev::new("demo", &public_url, key, Arc::new(Tomorrow), Arc::new(SystemRandom)).unwrap();
        assert_eq!(look(&late, &page).await.0, 404);
    }

    struct Tomorrow;

    impl Clock for Tomorrow {
        fn now(&self) -> Timestamp {
            SystemClock.now() + jiff::SignedDuration::from_hours(25)
        }
    }

    #[tokio::test]
    async fn a_page_says_only_what_it_is_told_and_loads_nothing() {
        let dev = dev();
        let (status, _, policy, html) = look(&dev, &begun(&dev).await).await;
        assert_eq!(status, 200);
        assert!(html.contains("<dd>gold</dd>") && html.contains("Decline"), "{html}");
        assert!(html.contains("paid?a=1&amp;b=%3C2%3E"), "{html}");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(policy.ends_with("form-action 'self' http://localhost:3000"), "{policy}");

        // Whatever a setting or a caller holds is text.
        let words = r#""><script>alert('1')</script>&"#;
        let page = CheckoutPage {
            customer: words.into(),
            price: words.into(),
            success_url: words.into(),
            cancel_url: words.into(),
        };
        let managed = ManagePage { customer: words.into(), return_url: words.into() };
        let failure = Untold::Unsignable(words);
        for shown in [show_checkout(&page, Some(&failure)), show_manage(&managed, None, Some(&failure))] {
            let body = to_bytes(shown.unwrap().into_body(), 100_000).await.unwrap();
            let html = String::from_utf8(body.to_vec()).unwrap();
            assert!(!html.contains("<script") && !html.contains("'1'"), "{html}");
            assert!(html.contains("&quot;&gt;&lt;script&gt;"), "{html}");
        }
        assert!(policy_of("http://a;script-src").ends_with("form-action 'self'"));
    }

    fn policy_of(way: &str) -> String {
        policy(&[way])
    }

    #[tokio::test]
    async fn the_ways_back_are_web_addresses() {
        let dev = dev();
        for url in ["javascript:alert(1)", "/paid", "", "data:text/html,x"] {
            assert!(dev.start_checkout(&order("gold", url)).await.is_err(), "{url}");
            assert!(dev.portal("c1", url).await.is_err(), "{url}");
        }
        assert!(dev.start_checkout(&order("a price", "http://localhost:3000/")).await.is_err());
    }
}
