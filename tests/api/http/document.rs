//! The API document: checked in, and true.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::operations;
use crate::support::{
    app::{PASSWORD, Person, TestApp, message},
    http::{Answer, Call},
    pages::press,
    postback,
    requests::PAGE,
};

/// The password that the tour changes to.
const CHANGED: &str = "nine loud lanterns at dawn";

/// Compares with a file that is checked in. `UPDATE_GOLDEN=1` writes it.
pub fn assert_golden(path: &str, content: &str) {
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        std::fs::write(path, content).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == content, "{path} is not what the code says; `make golden` writes it anew");
}

#[tokio::test]
async fn the_document_is_the_one_that_is_checked_in() {
    let t = TestApp::start().await;
    let document = t.get("/openapi.json").await.ok();
    assert_eq!(document["openapi"], "3.1.0");
    assert_golden("docs/openapi.json", &format!("{document:#}\n"));
}

/// Collects which operations a tour has visited, and checks every answer against the document.
struct Tour {
    document: Value,
    visited: BTreeSet<(String, String)>,
}

impl Tour {
    fn check(&mut self, method: &str, path: &str, answer: &Answer) {
        let operation = &self.document["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not in the document");
        let declared = &operation["responses"][answer.code.to_string()];
        let response = if declared.is_object() {
            declared
        } else {
            &self.document["components"]["responses"]["Problem"]
        };
        assert!(
            declared.is_object() || answer.code >= 400,
            "{method} {path} answers {} undeclared",
            answer.code
        );
        let essence = answer.header("content-type").split(';').next().unwrap();
        match &response["content"] {
            Value::Null => assert!(answer.text.is_empty(), "{method} {path}: {}", answer.text),
            content => {
                let media = &content[essence];
                assert!(media.is_object(), "{method} {path} answers {essence} undeclared");
                if !matches!(essence, "text/event-stream" | "text/plain") {
                    self.validate(&media["schema"], &answer.json(), &format!("{method} {path}"));
                }
            }
        }
        if answer.code < 400 {
            self.visited.insert((method.to_owned(), path.to_owned()));
        }
    }

    fn validate(&self, schema: &Value, value: &Value, what: &str) {
        let mut root = schema.clone();
        root["components"] = self.document["components"].clone();
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .build(&root)
            .unwrap();
        let errors: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
        self.no_undeclared_fields(schema, value, what);
    }

    /// Schemas allow more fields; we send none that are not declared.
    fn no_undeclared_fields(&self, schema: &Value, value: &Value, what: &str) {
        let schema = self.resolve(schema);
        match value {
            Value::Object(fields) if schema["properties"].is_object() => {
                for (name, value) in fields {
                    let declared = &schema["properties"][name];
                    assert!(declared.is_object(), "{what}: `{name}` is not declared");
                    self.no_undeclared_fields(declared, value, what);
                }
            }
            Value::Array(items) => {
                items.iter().for_each(|item| self.no_undeclared_fields(&schema["items"], item, what))
            }
            _ => {}
        }
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let one = schema["oneOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null"));
        let schema = one.unwrap_or(schema);
        match schema["$ref"].as_str() {
            Some(reference) => self.document.pointer(&reference[1..]).unwrap(),
            None => schema,
        }
    }
}

#[tokio::test]
async fn live_answers_are_what_the_document_says() {
    let secret_path = [
        ("DM__BILLING__PROVIDERS__OTHER__KIND", "postback"),
        ("DM__BILLING__PROVIDERS__OTHER__BASE_URL", "https://other.example.com/join"),
        ("DM__BILLING__PROVIDERS__OTHER__WEBHOOK_SECRETS", postback::SECRET),
        ("DM__BILLING__PROVIDERS__OTHER__PATH_SECRET", "only-the-processor-knows"),
        ("DM__BILLING__CHECKOUT", "dev"),
    ];
    let t = TestApp::with(&[postback::SETTINGS, &secret_path].concat()).await;
    let document = t.get("/openapi.json").await.ok();
    let mut tour = Tour { document, visited: BTreeSet::new() };

    let signup = t.post("/v1/auth/signup", t.signup_body("ann@example.com").await).await;
    tour.check("POST", "/v1/auth/signup", &signup);
    let started = signup.json();
    t.clock.advance(jiff::SignedDuration::from_mins(2));
    let resend = t.post("/v1/auth/signup/resend", json!({"signup_token": started["signup_token"]})).await;
    tour.check("POST", "/v1/auth/signup/resend", &resend);
    let code = t.code_for("ann@example.com").await;
    let verify = json!({"signup_token": started["signup_token"], "code": code});
    tour.check("POST", "/v1/auth/signup/verify", &t.post("/v1/auth/signup/verify", verify).await);
    let login = t.post("/v1/auth/login", json!({"email": "ann@example.com", "password": PASSWORD})).await;
    tour.check("POST", "/v1/auth/login", &login);
    let refresh = t.post("/v1/auth/refresh", json!({"refresh_token": login.json()["refresh_token"]})).await;
    tour.check("POST", "/v1/auth/refresh", &refresh);
    let token = refresh.json()["access_token"].as_str().unwrap().to_owned();

    let call = |method: &str, path: &str, body: Value| {
        let request = t.request(method, path);
        let request = if body.is_null() { request } else { request.json(&body) };
        Call::new(request.bearer_auth(&token))
    };
    let again = json!({"method": "password", "password": PASSWORD});
    let change = json!({"current_password": PASSWORD, "new_password": CHANGED});
    let consents = json!({"consents": t.consents().await});
    for (method, template, path, body) in [
        ("GET", "/v1/policies", "/v1/policies", Value::Null),
        ("GET", "/v1/companions", "/v1/companions", Value::Null),
        ("GET", "/.well-known/jwks.json", "/.well-known/jwks.json", Value::Null),
        ("GET", "/v1/session", "/v1/session", Value::Null),
        ("PATCH", "/v1/me", "/v1/me", json!({"display_name": "Ann", "locale": "en", "time_zone": "UTC"})),
        ("GET", "/v1/me", "/v1/me", Value::Null),
        ("POST", "/v1/me/consents", "/v1/me/consents", consents),
        ("POST", "/v1/conversations", "/v1/conversations", json!({"id": "named", "title": "A title"})),
        ("POST", "/v1/chat", "/v1/chat", message("c", "m1", "Good evening!")),
        ("GET", "/v1/conversations", "/v1/conversations?limit=1", Value::Null),
        ("GET", "/v1/conversations/{id}", "/v1/conversations/named", Value::Null),
        ("PATCH", "/v1/conversations/{id}", "/v1/conversations/named", json!({"title": null})),
        ("GET", "/v1/conversations/{id}/messages", "/v1/conversations/c/messages?limit=1", Value::Null),
        ("GET", "/v1/chat/{id}/stream", "/v1/chat/c/stream", Value::Null),
        ("POST", "/v1/chat/{id}/stop", "/v1/chat/c/stop", Value::Null),
        ("DELETE", "/v1/conversations/{id}", "/v1/conversations/c", Value::Null),
        ("POST", "/v1/auth/reauthenticate", "/v1/auth/reauthenticate", again),
        ("POST", "/v1/me/password", "/v1/me/password", change),
        ("POST", "/v1/me/email", "/v1/me/email", json!({"email": "new@example.com"})),
        ("GET", "/v1/sessions", "/v1/sessions", Value::Null),
        // Problems, too.
        ("GET", "/v1/conversations/{id}", "/v1/conversations/c", Value::Null),
        ("POST", "/v1/conversations", "/v1/conversations", json!({"title": 7})),
        ("POST", "/v1/conversations", "/v1/conversations", json!({"id": "named"})),
    ] {
        tour.check(method, template, &call(method, path, body).await);
    }
    let as_json = call("POST", "/v1/chat", message("d", "m1", "Good evening!")).accept_json().await;
    tour.check("POST", "/v1/chat", &as_json);
    let code = json!({"code": t.code_for("new@example.com").await});
    tour.check("POST", "/v1/me/email/confirm", &call("POST", "/v1/me/email/confirm", code).await);
    administration(&mut tour, &t).await;
    subscription(&mut tour, &t).await;
    let other = Person::from(t.log_in_with("new@example.com", CHANGED).await.ok());
    let end = call("DELETE", &format!("/v1/sessions/{}", other.session), Value::Null).await;
    tour.check("DELETE", "/v1/sessions/{id}", &end);
    let body = json!({"refresh_token": Person::from(t.log_in_with("new@example.com", CHANGED).await.ok()).refresh_token});
    tour.check("POST", "/v1/auth/logout", &t.post("/v1/auth/logout", body).await);
    tour.check("POST", "/v1/auth/logout-all", &call("POST", "/v1/auth/logout-all", Value::Null).await);
    tour.check("POST", "/v1/auth/unlock", &unlock(&t).await);
    tour.check("GET", "/v1/me", &call("GET", "/v1/me", Value::Null).await);
    for (path, body) in [
        ("/v1/auth/email/undo", json!({"token": t.token_for("ann@example.com", "email-undo").await})),
        ("/v1/auth/password/forgot", json!({"email": "ann@example.com"})),
    ] {
        tour.check("POST", path, &t.post(path, body).await);
    }
    let reset = json!({"token": t.token_for("ann@example.com", "reset").await, "password": PASSWORD});
    tour.check("POST", "/v1/auth/password/reset", &t.post("/v1/auth/password/reset", reset).await);

    let all: BTreeSet<(String, String)> =
        operations(&tour.document).into_iter().map(|(method, path, _)| (method, path)).collect();
    let missed: Vec<_> = all.difference(&tour.visited).collect();
    assert!(missed.is_empty(), "not on the tour: {missed:?}");
}

async fn subscription(tour: &mut Tour, t: &TestApp) {
    let cleo = t.sign_up("cleo@example.com").await;
    tour.check("GET", "/v1/plans", &t.get("/v1/plans").await);
    tour.check("GET", "/v1/subscription", &cleo.get(t, "/v1/subscription").await);
    let order = json!({"plan": "plus", "success_url": PAGE, "cancel_url": PAGE});
    let checkout = cleo.post(t, "/v1/subscription/checkout", order).await;
    tour.check("POST", "/v1/subscription/checkout", &checkout);
    press(t, checkout.json()["url"].as_str().unwrap(), "pay").await;
    let portal = json!({"return_url": PAGE});
    tour.check("POST", "/v1/subscription/portal", &cleo.post(t, "/v1/subscription/portal", portal).await);
    tour.check("POST", "/v1/subscription/sync", &cleo.post(t, "/v1/subscription/sync", json!({})).await);
    let sale = postback::Sale { id: "s1".into(), reference: None, price: "9.99".into() };
    let query = postback::signed(postback::SECRET, &sale.says("initial", "t1", t.now().as_second()));
    for (method, provider) in [("GET", "pay"), ("POST", "pay"), ("GET", "other"), ("POST", "other")] {
        let (template, path) = match provider {
            "pay" => ("/v1/webhooks/{provider}", "/v1/webhooks/pay"),
            _ => ("/v1/webhooks/{provider}/{secret}", "/v1/webhooks/other/only-the-processor-knows"),
        };
        let call = match method {
            "GET" => t.request("GET", &format!("{path}?{query}")),
            _ => t
                .request("POST", path)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(query.clone()),
        };
        tour.check(method, template, &Call::new(call).await);
    }
    let cancel = cleo.post(t, "/v1/subscription/cancel", json!({})).await;
    tour.check("POST", "/v1/subscription/cancel", &cancel);
}

async fn administration(tour: &mut Tour, t: &TestApp) {
    let boss = t.administrator("boss@example.com").await;
    let bob = t.sign_up("bob@example.com").await;
    let path = |rest: &str| format!("/v1/admin/users/{}{rest}", bob.id);
    let template = |rest: &str| format!("/v1/admin/users/{{id}}{rest}");
    tour.check("GET", "/v1/admin/users", &boss.get(t, "/v1/admin/users?query=bob@example.com").await);
    let suspend = json!({"reason": "a chargeback", "until": "2999-01-01T00:00:00Z"});
    for (rest, body) in [("/suspend", suspend), ("/revoke-sessions", json!({}))] {
        tour.check("POST", &template(rest), &boss.post(t, &path(rest), body).await);
    }
    tour.check("GET", &template(""), &boss.get(t, &path("")).await);
    let grant = json!({"plan": "plus", "ends_at": "2999-01-01T00:00:00Z", "reason": "an apology"});
    let given = boss.post(t, &path("/grants"), grant).await;
    tour.check("POST", &template("/grants"), &given);
    let one = format!("/grants/{}", given.json()["id"].as_str().unwrap());
    tour.check("DELETE", &template("/grants/{grant_id}"), &boss.delete(t, &path(&one)).await);
    tour.check("POST", &template("/unsuspend"), &boss.post(t, &path("/unsuspend"), json!({})).await);
    tour.check("PUT", &template("/role"), &boss.put(t, &path("/role"), json!({"role": "admin"})).await);
    tour.check("GET", "/v1/admin/audit", &boss.get(t, "/v1/admin/audit?limit=3").await);
    tour.check("GET", "/v1/admin/audit", &bob.get(t, "/v1/admin/audit").await);
}

/// Locks an account and unlocks it by the mail.
async fn unlock(t: &TestApp) -> Answer {
    digitalmistress::queries! {
        scan fn have_failed() = "UPDATE password_failure SET failures = 99";
    }
    t.db().write(async |c| have_failed().exec(&c).await).await.unwrap();
    let wrong = json!({"email": "new@example.com", "password": "another long enough password"});
    t.post("/v1/auth/login", wrong).await.problem(401, "invalid_credentials");
    let mail = t.mail_to("new@example.com").await.unwrap().text;
    let token = mail.lines().find_map(|line| Some(line.split_once("#token=")?.1.to_owned())).unwrap();
    t.post("/v1/auth/unlock", json!({"token": token})).await
}

#[tokio::test]
async fn the_command_prints_the_same_document() {
    let t = TestApp::start().await;
    assert_eq!(digitalmistress::app::document(), t.get("/openapi.json").await.ok());
}
