//! Calls that read like sentences.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use serde_json::Value;

/// A request; awaiting it sends it.
pub struct Call(reqwest::RequestBuilder);

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Call {
    pub fn new(request: reqwest::RequestBuilder) -> Call {
        Call(request)
    }

    pub fn bearer(self, token: &str) -> Call {
        Call(self.0.bearer_auth(token))
    }

    pub fn accept_json(self) -> Call {
        self.header("accept", "application/json")
    }

    pub fn header(self, name: &str, value: &str) -> Call {
        Call(self.0.header(name, value))
    }

    /// Sends it without reading the body.
    pub async fn send(self) -> reqwest::Response {
        self.0.send().await.expect("the server answers")
    }
}

impl IntoFuture for Call {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async {
            let response = self.send().await;
            let (code, headers) = (response.status().as_u16(), response.headers().clone());
            Answer { code, headers, text: response.text().await.expect("the body can be read") }
        })
    }
}

/// Sends calls at the same time.
pub async fn all(calls: impl IntoIterator<Item = Call>) -> Vec<Answer> {
    futures_util::future::join_all(calls.into_iter().map(IntoFuture::into_future)).await
}

impl Answer {
    pub fn json(&self) -> Value {
        if self.text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&self.text).expect("the body is JSON")
        }
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub fn status(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json()
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        self.status(200)
    }

    /// Compares an answer that is not JSON.
    #[track_caller]
    pub fn answers(self, text: &str) {
        assert_eq!((self.code, self.text.as_str()), (200, text));
    }

    /// The problem of an answer with this status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let body = self.status(status);
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], format!("/problems/{code}"));
        body
    }

    /// The problem of an answer that names one invalid field.
    #[track_caller]
    pub fn invalid(self, pointer: &str, code: &str) {
        let body = self.problem(422, "validation_failed");
        let errors = body["errors"].as_array().expect("there are errors");
        let found = errors.iter().any(|error| error["pointer"] == pointer && error["code"] == code);
        assert!(found, "no {code} at {pointer}: {body}");
    }

    /// Whether it names a field, or what is in it, and no other.
    pub fn is_about(&self, pointer: &str) -> bool {
        let body = self.json();
        let errors = body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let within = |named: &str| {
            named.strip_prefix(pointer).is_some_and(|rest| matches!(rest.get(..1), None | Some("/")))
        };
        !errors.is_empty() && errors.iter().all(|error| within(error["pointer"].as_str().unwrap()))
    }

    /// The code of a problem, if it is one.
    pub fn problem_code(&self) -> Option<String> {
        let is_problem = self.header("content-type") == "application/problem+json";
        is_problem.then(|| self.json()["code"].as_str().unwrap_or_default().to_owned())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
