//! Every operation that takes a body, as it is meant to be called: what is refused with one field spoilt is refused for
//! that field.

use jiff::SignedDuration;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    app::{PASSWORD, Person, TestApp, message},
    http::{Answer, Call},
};

const NEW: &str = "nine loud lanterns at dawn";

/// A page that callers may name.
pub const PAGE: &str = "http://localhost:3000/account";

/// A call that succeeds.
pub struct Request {
    pub method: String,
    /// The path as the document has it.
    pub operation: String,
    pub url: String,
    /// Whose session it needs.
    pub caller: Option<Person>,
    /// Who was signed up for it, also where it needs no session.
    pub owner: Person,
    pub body: Value,
    /// The fields that the document declares.
    pub fields: Vec<String>,
}

impl Request {
    pub fn call(&self, t: &TestApp) -> Call {
        self.sent(t, &self.body)
    }

    /// The same with another value in one field.
    pub fn with(&self, t: &TestApp, field: &str, value: &Value) -> Call {
        let mut body = self.body.clone();
        if field == "messages" {
            body.as_object_mut().unwrap().remove("message"); // A message comes in one of two forms.
        }
        body[field] = value.clone();
        self.sent(t, &body)
    }

    fn sent(&self, t: &TestApp, body: &Value) -> Call {
        let call = Call::new(t.request(&self.method, &self.url).json(body));
        match &self.caller {
            Some(person) => call.bearer(&person.access_token),
            None => call,
        }
    }

    /// What was called, for a message.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.operation)
    }
}

/// Whether an answer refuses one field, and nothing else.
pub fn refuses(answer: &Answer, field: &str) -> bool {
    match answer.problem_code().as_deref() {
        Some("validation_failed") => answer.is_about(&format!("/{field}")),
        // What cannot be the secret is answered like any other that is not.
        Some("invalid_code" | "invalid_grant") => field == "code" || field.ends_with("token"),
        Some("invalid_credentials") => field.ends_with("password"),
        _ => false,
    }
}

/// The operations of the document that take a body, with the fields of it.
pub fn with_bodies(document: &Value) -> Vec<(String, String, Vec<String>)> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            // A body that may be left out is one of two.
            let kinds = schema["oneOf"].as_array().into_iter().flatten();
            let Some(reference) = kinds.chain([schema]).find_map(|kind| kind["$ref"].as_str()) else {
                assert!(operation["requestBody"].is_null(), "{method} {path}: {schema}");
                continue;
            };
            let declared = document.pointer(&reference[1..]).unwrap();
            let fields = declared["properties"].as_object().unwrap().keys().cloned().collect();
            found.push((method.to_uppercase(), path.clone(), fields));
        }
    }
    found
}

/// A call of an operation by somebody who was signed up for it and has what it needs. `name` is theirs alone.
pub async fn prepared(
    t: &TestApp,
    (method, path, fields): &(String, String, Vec<String>),
    name: &str,
) -> Request {
    let (email, other) = (format!("{name}@example.com"), format!("{name}.other@example.com"));
    let person = match path.starts_with("/v1/admin/") {
        true => t.administrator(&email).await,
        false => t.sign_up(&email).await,
    };
    let mut url = path.clone();
    let body = match path.as_str() {
        "/v1/auth/signup" | "/v1/auth/signup/verify" | "/v1/auth/signup/resend" => {
            signup(t, path, &other).await
        }
        "/v1/auth/login" => {
            json!({"email": email, "password": PASSWORD, "device_name": "Phone", "token_delivery": "body"})
        }
        "/v1/auth/reauthenticate" => json!({"method": "password", "password": PASSWORD}),
        "/v1/auth/unlock" => json!({"token": locked(t, &person, &email).await}),
        "/v1/auth/refresh" => json!({"refresh_token": person.refresh_token, "token_delivery": "body"}),
        "/v1/auth/logout" | "/v1/auth/logout-all" => json!({"refresh_token": person.refresh_token}),
        "/v1/auth/password/forgot" => json!({"email": email}),
        "/v1/auth/password/reset" => {
            t.post("/v1/auth/password/forgot", json!({"email": email})).await.status(202);
            json!({"token": t.token_for(&email, "reset").await, "password": NEW})
        }
        "/v1/auth/email/undo" => {
            let code = asked_for(t, &person, &other).await;
            person.post(t, "/v1/me/email/confirm", json!({"code": code})).await.ok();
            json!({"token": t.token_for(&email, "email-undo").await})
        }
        "/v1/me" => json!({"display_name": "Ann", "locale": "en-GB", "time_zone": "Europe/London"}),
        "/v1/me/password" => json!({"current_password": PASSWORD, "new_password": NEW}),
        "/v1/me/email" => json!({"email": other}),
        "/v1/me/email/confirm" => json!({"code": asked_for(t, &person, &other).await}),
        "/v1/me/consents" => json!({"consents": t.consents().await}),
        "/v1/chat" => message("c", "m", "hello"),
        "/v1/chat/{id}/stop" | "/v1/conversations/{id}" => {
            person.post(t, "/v1/conversations", json!({"id": "c"})).await.status(201);
            url = path.replace("{id}", "c");
            json!({})
        }
        "/v1/conversations" => json!({"id": "c", "title": "Evenings"}),
        "/v1/admin/users/{id}/suspend" | "/v1/admin/users/{id}/role" => {
            url = path.replace("{id}", &t.sign_up(&other).await.id);
            if path.ends_with("role") { json!({"role": "user"}) } else { json!({"reason": "a chargeback"}) }
        }
        "/v1/admin/users/{id}/grants" => {
            url = path.replace("{id}", &t.sign_up(&other).await.id);
            json!({"plan": "plus", "ends_at": "2100-01-01T00:00:00Z", "reason": "an apology"})
        }
        "/v1/subscription/checkout" => json!({"plan": "plus", "success_url": PAGE, "cancel_url": PAGE}),
        "/v1/subscription/portal" => {
            let body = json!({"plan": "plus", "success_url": PAGE, "cancel_url": PAGE});
            person.post(t, "/v1/subscription/checkout", body).await.ok();
            json!({"return_url": PAGE})
        }
        _ => panic!("nobody has said what {method} {path} takes"),
    };
    let public = path.starts_with("/v1/auth/") && path != "/v1/auth/reauthenticate";
    let caller = (!public).then(|| person.clone());
    let (method, operation, fields) = (method.clone(), path.clone(), fields.clone());
    Request { method, operation, url, caller, owner: person, body, fields }
}

async fn signup(t: &TestApp, path: &str, email: &str) -> Value {
    let mut body = t.signup_body(email).await;
    body["locale"] = json!("en-GB");
    if path == "/v1/auth/signup" {
        return body;
    }
    let started = t.post("/v1/auth/signup", body).await.status(202);
    let code = t.code_for(email).await;
    if path == "/v1/auth/signup/verify" {
        return json!({"signup_token": started["signup_token"], "code": code, "token_delivery": "body"});
    }
    t.clock.advance(SignedDuration::from_secs(60));
    json!({"signup_token": started["signup_token"]})
}

/// The code to change an address with.
async fn asked_for(t: &TestApp, person: &Person, email: &str) -> String {
    person.post(t, "/v1/me/email", json!({"email": email})).await.status(204);
    t.code_for(email).await
}

/// Locks an account and gives the token of the way out; all but two of the wrong passwords are written into the database.
async fn locked(t: &TestApp, person: &Person, email: &str) -> String {
    digitalmistress::queries! {
        fn have_failed(user_id: Uuid) = "UPDATE password_failure SET failures = 99 WHERE user_id = $1";
    }
    let wrong = || t.log_in_with(email, "another long enough password");
    wrong().await.problem(401, "invalid_credentials");
    let id = person.id.parse().unwrap();
    t.db().write(async move |c| have_failed(id).exec(&c).await).await.unwrap();
    wrong().await.problem(401, "invalid_credentials");
    t.token_for(email, "unlock").await
}
