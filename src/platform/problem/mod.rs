//! Errors as callers see them: RFC 9457 `application/problem+json`.
//!
//! A [`Problem`] carries its cause for the log and never into the body. It is rendered by one middleware
//! ([`super::edge`]), which knows the request's id and logs the cause once.

mod codes;

use std::{borrow::Cow, error::Error, sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use codes::Code;

use super::db;

/// Seconds that a caller is asked to wait where we cannot know better.
const SOON: Duration = Duration::from_secs(1);

/// An error on its way to a caller.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    more: Map<String, Value>,
    allow: Option<HeaderValue>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// One field that is not valid.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct FieldError {
    /// Where it is, as a JSON pointer (RFC 6901) into the body.
    pub pointer: String,
    /// What is wrong, as a stable name.
    pub code: &'static str,
    /// What is wrong, in words.
    pub detail: Cow<'static, str>,
}

impl Problem {
    /// A problem with a sentence that may be shown to anybody.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem(Box::new(Parts {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            more: Map::new(),
            allow: None,
            cause: None,
        }))
    }

    /// What does not exist, or is not the caller's: the same answer, whatever it was.
    pub fn not_found() -> Problem {
        Problem::new(Code::NotFound, "There is nothing at this address, or it is not yours.")
    }

    /// Fields that are not valid.
    pub fn validation(errors: Vec<FieldError>) -> Problem {
        let detail = match errors.as_slice() {
            [only] => Cow::Owned(format!("{}: {}", only.pointer, only.detail)),
            _ => Cow::Borrowed("Several fields are not valid."),
        };
        let mut problem = Problem::new(Code::ValidationFailed, detail);
        problem.0.errors = errors;
        problem
    }

    /// A fault of ours.
    pub fn internal(cause: impl Error + Send + Sync + 'static) -> Problem {
        Problem::new(Code::Internal, "The fault was recorded.").caused_by(cause)
    }

    /// A failure of the data layer: "later" where that helps, a fault of ours where it does not.
    pub fn storage(error: db::Error) -> Problem {
        if error.is_temporary() || matches!(error, db::Error::Closed) {
            Problem::new(Code::Unavailable, "The data cannot be reached at the moment.")
                .retry_after(SOON)
                .caused_by(error)
        } else {
            Problem::internal(error)
        }
    }

    /// Keeps the cause for the log.
    pub fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Problem {
        self.0.cause = Some(Arc::new(cause));
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self, wait: Duration) -> Problem {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds a member of our own to the body.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Problem {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// Names the methods that are allowed.
    pub fn allowing(mut self, methods: HeaderValue) -> Problem {
        self.0.allow = Some(methods);
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The cause, with its own causes, for the log.
    pub fn cause(&self) -> Option<String> {
        let cause = self.0.cause.as_deref()?;
        let mut text = cause.to_string();
        let mut next = cause.source();
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        Some(text)
    }

    /// The body.
    pub fn body(&self, request_id: &str) -> Value {
        let code = self.0.code.as_str();
        let mut body = json!({
            "type": format!("/problems/{code}"),
            "title": self.0.code.title(),
            "status": self.0.code.status().as_u16(),
            "code": code,
            "detail": self.0.detail,
            "request_id": request_id,
        });
        if let Some(fields) = body.as_object_mut() {
            if !self.0.errors.is_empty() {
                fields.insert("errors".into(), json!(self.0.errors));
            }
            if let Some(wait) = self.wait() {
                fields.insert("retry_after_s".into(), wait.into());
            }
            fields.extend(self.0.more.clone());
        }
        body
    }

    /// Whole seconds, rounded up: waiting that long is enough. Every 429 and 503 says so.
    fn wait(&self) -> Option<u64> {
        let status = self.0.code.status().as_u16();
        let wait = self.0.retry_after.or((status == 429 || status == 503).then_some(SOON))?;
        Some(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    /// The answer, for the middleware that knows the request's id.
    pub fn render(&self, request_id: &str) -> Response {
        let mut response = (self.0.code.status(), self.body(request_id).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.wait() {
            headers.insert(header::RETRY_AFTER, wait.into());
        }
        if let Some(methods) = &self.0.allow {
            headers.insert(header::ALLOW, methods.clone());
        }
        if self.0.code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Only a placeholder that carries the problem to the middleware which renders it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Collects what is wrong with a body, so that a caller learns all of it at once.
#[derive(Default)]
pub struct Faults(Vec<FieldError>);

impl Faults {
    /// Nothing found yet.
    pub fn new() -> Faults {
        Faults::default()
    }

    /// Notes a fault.
    pub fn add(
        &mut self,
        pointer: impl Into<String>,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.0.push(FieldError { pointer: pointer.into(), code, detail: detail.into() });
    }

    /// Takes a parsed field, or notes why it could not be parsed.
    pub fn take<T>(&mut self, pointer: &'static str, parsed: Result<T, Invalid>) -> Option<T> {
        parsed.map_err(|invalid| self.add(pointer, invalid.code, invalid.detail)).ok()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was found.
    pub fn into_errors(self) -> Vec<FieldError> {
        self.0
    }

    /// What was found, as an answer.
    pub fn into_problem(self) -> Problem {
        Problem::validation(self.0)
    }
}

/// Why a value could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// A stable name.
    pub code: &'static str,
    /// In words.
    pub detail: Cow<'static, str>,
}

impl Invalid {
    /// A reason.
    pub fn new(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Invalid {
        Invalid { code, detail: detail.into() }
    }
}
