//! Closed by default: every route needs a live session unless its path is on the short public list.

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{Auth, Caller};
use crate::platform::{
    extract::with_whole_body,
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
pub async fn gate(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    // Without a template no route matched, and the fallback answers 404 to everybody.
    let open =
        request.extensions().get::<MatchedPath>().is_none_or(|path| gate.public.include(path.as_str()));
    if open {
        return next.run(request).await;
    }
    match admit(&gate.auth, request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Finds out who calls. The session is asked for when the body is there: it may arrive long after the head, and a session
/// that has ended meanwhile must not be used. Only who has a token of ours can make us wait for a body.
async fn admit(auth: &Auth, request: Request) -> Result<Request, Problem> {
    let token = bearer_token(request.headers()).ok_or_else(signed_out)?.to_owned();
    auth.check_signature(&token).await?;
    let mut request = with_whole_body(request).await?;
    let caller = auth.authenticate(&token).await?;
    request.extensions_mut().insert(caller);
    Ok(request)
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
