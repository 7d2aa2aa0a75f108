//! Closed by default: every route needs a live session unless its path is on the short public list.

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{Auth, Caller};
use crate::platform::{
    problem::{Code, Problem},
    public::PublicPaths,
};

/// What the gate has to know.
#[derive(Clone)]
pub struct Gate {
    /// Who knows the sessions.
    pub auth: Auth,
    /// What anybody may call.
    pub public: PublicPaths,
}

/// The middleware in front of every route: finds out who calls, or refuses.
pub async fn gate(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    // Without a template no route matched, and the fallback answers 404 to everybody.
    let open =
        request.extensions().get::<MatchedPath>().is_none_or(|path| gate.public.include(path.as_str()));
    if !open {
        match identify(&gate.auth, request.headers()).await {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
            }
            Err(problem) => return problem.into_response(),
        }
    }
    next.run(request).await
}

async fn identify(auth: &Auth, headers: &HeaderMap) -> Result<Caller, Problem> {
    let token = bearer_token(headers).ok_or_else(signed_out)?;
    Ok(auth.authenticate(token).await?)
}

/// The access token of a request (RFC 6750, 2.1).
pub fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn signed_out() -> Problem {
    Problem::new(Code::Unauthenticated, "Send `authorization: Bearer` with a valid access token.")
}

/// The caller of a route that needs a live session.
pub struct CurrentUser(pub Caller);

impl<S: Sync> FromRequestParts<S> for CurrentUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Caller>().copied().map(CurrentUser).ok_or_else(signed_out)
    }
}
