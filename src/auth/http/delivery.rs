//! How tokens reach a client: in the body, or the refresh token in a cookie that no script can read.
//!
//! A browser sends a cookie along whoever asks it to. So a call that reads or sets ours is answered only to a page of an
//! allowed origin on the same site that sends JSON, which a page of another origin cannot do without being asked first.

use std::time::Duration;

use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use super::TokensAnswer;
use crate::{
    auth::{Auth, Tokens},
    platform::{
        cookie::{cookies, set_cookie},
        problem::{Code, Problem},
    },
};

/// The cookie's name. Browsers take a cookie of this prefix from this host alone, for all its paths, and by https or on
/// localhost only.
const NAME: &str = "__Host-dm_refresh";

/// How the refresh token reaches the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::auth) enum TokenDelivery {
    /// In the body.
    #[default]
    Body,
    /// In a cookie that no script can read.
    Cookie,
}

/// Tokens on their way to a client.
pub(in crate::auth) struct TokensReply {
    answer: TokensAnswer,
    cookie: Option<HeaderValue>,
}

impl TokensReply {
    pub(in crate::auth) fn new(tokens: Tokens, delivery: TokenDelivery) -> TokensReply {
        let cookie = match delivery {
            TokenDelivery::Body => None,
            TokenDelivery::Cookie => {
                set_cookie(NAME, tokens.refresh_token.expose_secret(), tokens.refresh_expires_in)
            }
        };
        let mut answer = TokensAnswer::from(tokens);
        if cookie.is_some() {
            answer.refresh_token = None;
        }
        TokensReply { answer, cookie }
    }
}

impl IntoResponse for TokensReply {
    fn into_response(self) -> Response {
        let mut response = Json(self.answer).into_response();
        if let Some(cookie) = self.cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }
}

/// Makes a browser forget the cookie.
pub(in crate::auth) fn no_cookie() -> Option<HeaderValue> {
    set_cookie(NAME, "", Duration::ZERO)
}

/// The page that a call comes from, as far as the browser tells.
pub(in crate::auth) struct Page {
    refused: Option<&'static str>,
}

impl Page {
    /// Whether the page may use the cookie.
    pub(in crate::auth) fn check(&self) -> Result<(), Problem> {
        self.refused.map_or(Ok(()), |detail| Err(Problem::new(Code::CsrfRejected, detail)))
    }

    /// Whether the page may get its tokens like this.
    pub(in crate::auth) fn check_for(&self, delivery: TokenDelivery) -> Result<(), Problem> {
        if delivery == TokenDelivery::Cookie { self.check() } else { Ok(()) }
    }

    fn of(headers: &HeaderMap, auth: &Auth) -> Page {
        let only = |name: header::HeaderName| {
            let mut values = headers.get_all(name).iter();
            let first = values.next().and_then(|value| value.to_str().ok());
            first.filter(|_| values.next().is_none()).unwrap_or_default()
        };
        let essence = only(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        let site = only(header::HeaderName::from_static("sec-fetch-site"));
        let refused = if !auth.is_allowed_origin(only(header::ORIGIN)) {
            Some("The origin of the page is not an allowed one.")
        } else if !matches!(site, "same-origin" | "same-site") {
            Some("The page is on another site, or the browser does not say (`Sec-Fetch-Site`).")
        } else if !essence.eq_ignore_ascii_case("application/json") {
            Some("Calls that use the refresh cookie are sent with `content-type: application/json`.")
        } else {
            None
        };
        Page { refused }
    }
}

impl FromRequestParts<Auth> for Page {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, auth: &Auth) -> Result<Self, Self::Rejection> {
        Ok(Page::of(&parts.headers, auth))
    }
}

/// The refresh token in the cookie of a call that reads it. A page that may not use the cookie is refused before its body
/// is read.
pub(in crate::auth) struct RefreshCookie(pub(in crate::auth) Option<SecretString>);

impl FromRequestParts<Auth> for RefreshCookie {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, auth: &Auth) -> Result<Self, Problem> {
        let token = read_cookie(&parts.headers)?;
        if token.is_some() {
            Page::of(&parts.headers, auth).check()?;
        }
        Ok(RefreshCookie(token))
    }
}

impl RefreshCookie {
    /// The one refresh token of a call, and how it came. Two are one too many: which was meant, nobody knows.
    pub(in crate::auth) fn or(
        self,
        body: Option<SecretString>,
    ) -> Result<Option<(SecretString, TokenDelivery)>, Problem> {
        let RefreshCookie(cookie) = self;
        match (cookie, body) {
            (Some(_), Some(_)) => Err(Problem::new(
                Code::BadRequest,
                "There is a refresh token in the cookie and another in the body.",
            )),
            (Some(token), None) => Ok(Some((token, TokenDelivery::Cookie))),
            (None, Some(token)) => Ok(Some((token, TokenDelivery::Body))),
            (None, None) => Ok(None),
        }
    }
}

fn read_cookie(headers: &HeaderMap) -> Result<Option<SecretString>, Problem> {
    let mut found = cookies(headers, NAME).filter(|value| !value.is_empty());
    let token = found.next().map(SecretString::from);
    if found.next().is_some() {
        return Err(Problem::new(Code::BadRequest, "The refresh cookie is there twice."));
    }
    Ok(token)
}
