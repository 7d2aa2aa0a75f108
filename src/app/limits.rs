//! Who is limited by which policy: an address, whoever calls from there, and a user, wherever from.

use std::net::IpAddr;

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{
    auth::Caller,
    config::LimitSettings,
    platform::{
        client::{ClientAddress, network_key},
        clock::SharedClock,
        limits::{Limit, Limits, Policy},
        problem::{Code, Problem},
    },
};

/// What supervisors ask, as often as they like: it costs next to nothing, and must not fail because somebody else calls.
const UNLIMITED: [&str; 3] = ["/livez", "/readyz", "/version"];
/// Where payment providers call, many times at once from few addresses.
const NOTICES: &str = "/v1/webhooks/";
/// Where messages are sent.
const MESSAGES: &str = "/v1/chat";

/// The counts, and what is decided by them.
#[derive(Clone)]
pub struct Limiter {
    limits: Limits,
    settings: LimitSettings,
}

impl Limiter {
    /// A limiter that has seen nobody yet.
    pub fn new(settings: LimitSettings, clock: SharedClock) -> Limiter {
        Limiter { limits: Limits::new(clock), settings }
    }

    /// How fast a user's messages may come. The chat counts them: a message that was sent before is none.
    pub fn messages(&self) -> Limit {
        Limit::new(self.limits.clone(), Policy { name: "message", rate: self.settings.message })
    }

    async fn limit(&self, policy: Policy, key: u128, request: Request, next: Next) -> Response {
        let verdict = self.limits.take(policy, key);
        let mut response = match verdict.wait {
            None => next.run(request).await,
            Some(wait) => {
                metrics::counter!("rate_limited_total", "policy" => policy.name).increment(1);
                Problem::new(Code::RateLimited, "Too many calls.").retry_after(wait).into_response()
            }
        };
        verdict.tell(response.headers_mut());
        response
    }
}

/// The middleware in front of everything that costs something: limits each network address.
pub async fn by_address(State(limiter): State<Limiter>, request: Request, next: Next) -> Response {
    let template = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let address = request.extensions().get::<ClientAddress>();
    let (false, Some(ClientAddress(address))) = (UNLIMITED.contains(&template), address) else {
        return next.run(request).await;
    };
    let (name, rate) = if template.starts_with(NOTICES) {
        ("webhook", limiter.settings.webhook)
    } else {
        ("address", limiter.settings.address)
    };
    let key = of_network(*address);
    limiter.limit(Policy { name, rate }, key, request, next).await
}

/// The middleware behind the gate: limits each user.
pub async fn by_user(State(limiter): State<Limiter>, request: Request, next: Next) -> Response {
    let Some(Caller { user_id, .. }) = request.extensions().get::<Caller>().copied() else {
        return next.run(request).await;
    };
    let template = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if template == MESSAGES && request.method() == Method::POST {
        let mut response = next.run(request).await;
        limiter.messages().look(user_id.as_u128()).tell(response.headers_mut());
        return response;
    }
    let policy = Policy { name: "user", rate: limiter.settings.user };
    limiter.limit(policy, user_id.as_u128(), request, next).await
}

/// A number for what one subscriber cannot change about an address.
fn of_network(address: IpAddr) -> u128 {
    network_key(address).into_iter().fold(0, |number, byte| number << 8 | u128::from(byte))
}
