//! One call to a vendor: a request goes out, and what comes back is judged before it is read.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{
    RequestBuilder, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    complaint::Complaint,
    reading::{self, Wire},
};
use crate::chat::provider::{ProviderError, ReplyStream, TimeLimit};

/// The most of an error's body that is read.
const MAX_ERROR_BODY: usize = 16 * 1024;
/// The most of an answer that is not a stream.
const MAX_JSON_BODY: usize = 1024 * 1024;
/// How long an error's body may take: its status has said what matters.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// The value of a header that holds a key, such as `Bearer KEY`; it is not shown by `Debug`.
///
/// # Errors
///
/// A sentence for the operator that does not show the key.
pub fn secret_header(prefix: &str, key: &SecretString) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("{prefix}{}", key.expose_secret()))
        .map_err(|_| "the API key holds characters that no header may hold")?;
    value.set_sensitive(true);
    Ok(value)
}

/// The address of a call: the segments of its path added to those of the base URL.
///
/// # Errors
///
/// A sentence for the operator.
pub fn endpoint(base_url: &url::Url, segments: &[&str]) -> Result<url::Url, String> {
    let mut endpoint = base_url.clone();
    endpoint
        .path_segments_mut()
        .map_err(|()| "the base URL cannot have a path")?
        .pop_if_empty()
        .extend(segments);
    Ok(endpoint)
}

/// Sends a request and reads what comes back. `headers_timeout` is how long the response's headers may take.
///
/// # Errors
///
/// When nothing was generated: see [`ProviderError`].
pub async fn send<W: Wire>(
    request: RequestBuilder,
    headers_timeout: Duration,
) -> Result<ReplyStream, ProviderError> {
    let response = timeout(headers_timeout, request.send())
        .await
        .map_err(|_| ProviderError::TimedOut(TimeLimit::Headers))?
        .map_err(|error| transport(&error, TimeLimit::Headers))?;
    if response.status() != StatusCode::OK {
        return Err(refusal::<W>(response).await);
    }
    if response.headers().contains_key(CONTENT_ENCODING) {
        return Err(ProviderError::Protocol("a compressed answer, which was not asked for".into()));
    }
    match content_type(response.headers()).as_str() {
        // Some servers and proxies do not name a stream one. What is none has no end mark and fails.
        "text/event-stream" | "text/plain" | "" => Ok(events::<W>(response)),
        "application/json" => {
            let body = limited(response, MAX_JSON_BODY).await?;
            let answer = serde_json::from_slice(&body)
                .map_err(|_| ProviderError::Protocol("a body that is not JSON".into()))?;
            reading::whole::<W>(&answer)
        }
        _ => Err(ProviderError::Protocol("neither a stream nor JSON".into())),
    }
}

fn events<W: Wire>(response: Response) -> ReplyStream {
    let bytes =
        response.bytes_stream().map(|piece| piece.map_err(|error| transport(&error, TimeLimit::Idle)));
    reading::decode::<W>(bytes.boxed())
}

/// What a status other than 200 means to the caller.
async fn refusal<W: Wire>(response: Response) -> ProviderError {
    let status = response.status();
    if status.is_redirection() {
        return ProviderError::Protocol("a redirect".into());
    }
    let headers = response.headers().clone();
    let body = timeout(ERROR_BODY_TIMEOUT, limited(response, MAX_ERROR_BODY)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    W::judge(&Complaint::answered(status.as_u16(), &headers, &body))
}

async fn limited(response: Response, most: usize) -> Result<Vec<u8>, ProviderError> {
    let mut pieces = response.bytes_stream();
    let mut body = Vec::new();
    while let Some(piece) = pieces.next().await {
        body.extend_from_slice(&piece.map_err(|error| transport(&error, TimeLimit::Idle))?);
        if body.len() > most {
            return Err(ProviderError::Protocol("a body that is too long".into()));
        }
    }
    Ok(body)
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A failure below HTTP. The text names no address: it may hold a password.
fn transport(error: &reqwest::Error, limit: TimeLimit) -> ProviderError {
    if error.is_timeout() {
        return ProviderError::TimedOut(if error.is_connect() { TimeLimit::Connect } else { limit });
    }
    if error.is_connect() {
        return ProviderError::Unreachable("no connection".into());
    }
    ProviderError::Lost("the connection broke".into())
}
