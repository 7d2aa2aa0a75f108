//! The development mailbox: mail that goes nowhere but to a page on this machine.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use minijinja::{AutoEscape, Environment, context};
use serde::Serialize;
use uuid::Uuid;

use super::{Mail, MailError, Mailer};
use crate::platform::{
    clock::SharedClock,
    extract::{ApiPath, ApiQuery},
    page::List,
    problem::Problem,
};

/// Mails that are kept; older ones are forgotten.
const CAPACITY: usize = 200;

/// A page of ours: its own style, and mails in frames that may do nothing.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const FRAME_POLICY: HeaderValue = HeaderValue::from_static(
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'",
);

/// Keeps mails in memory and shows them.
#[derive(Clone)]
pub struct Mailbox {
    clock: SharedClock,
    mails: Arc<Mutex<VecDeque<StoredMail>>>,
}

/// A mail in the mailbox.
#[derive(Clone, Serialize)]
pub struct StoredMail {
    /// The recipient.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The HTML.
    pub html: String,
    /// When it was sent.
    pub created_at: String,
    #[serde(skip)]
    id: Uuid,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new(clock: SharedClock) -> Mailbox {
        Mailbox { clock, mails: Arc::default() }
    }

    /// The mails, newest first; only those to `to` if it is given.
    pub fn mails(&self, to: Option<&str>) -> Vec<StoredMail> {
        let mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |mail: &&StoredMail| to.is_none_or(|to| mail.to.eq_ignore_ascii_case(to.trim()));
        mails.iter().rev().filter(wanted).cloned().collect()
    }

    /// The page and its JSON, under `/dev/mailbox`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/dev/mailbox", get(page))
            .route("/dev/mailbox/messages", get(messages))
            .route("/dev/mailbox/messages/{id}", get(message))
            .with_state(self)
    }
}

#[async_trait]
impl Mailer for Mailbox {
    async fn send(&self, id: Uuid, mail: &Mail) -> Result<(), MailError> {
        let created_at = format_time(self.clock.now());
        let Mail { to, subject, text, html } = mail.clone();
        let mut mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        mails.retain(|mail| mail.id != id);
        if mails.len() >= CAPACITY {
            mails.pop_front();
        }
        mails.push_back(StoredMail { to, subject, text, html, created_at, id });
        Ok(())
    }
}

fn format_time(time: Timestamp) -> String {
    crate::platform::time::rfc3339(time)
}

async fn messages(State(mailbox): State<Mailbox>, query: ApiQuery) -> Json<List<StoredMail>> {
    Json(List { data: mailbox.mails(query.get("to")) })
}

async fn page(State(mailbox): State<Mailbox>, query: ApiQuery) -> Result<Response, Problem> {
    let mails: Vec<_> = mailbox
        .mails(query.get("to"))
        .into_iter()
        .map(|mail| context! { id => mail.id.to_string(), to => mail.to, subject => mail.subject, text => mail.text, at => mail.created_at })
        .collect();
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let html = environment
        .render_str(include_str!("mailbox.html"), context! { mails })
        .map_err(Problem::internal)?;
    Ok(([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(html)).into_response())
}

async fn message(State(mailbox): State<Mailbox>, ApiPath(id): ApiPath<Uuid>) -> Result<Response, Problem> {
    let mail = mailbox.mails(None).into_iter().find(|mail| mail.id == id).ok_or_else(Problem::not_found)?;
    Ok(([(header::CONTENT_SECURITY_POLICY, FRAME_POLICY)], Html(mail.html)).into_response())
}
