//! The authorisation matrix: what each operation of the document answers to each kind of caller.
//!
//! `docs/pentest/authorisation.csv` says what, and is read here; `docs/pentest/README.md` explains its columns.

use std::{collections::BTreeMap, fs};

use digitalmistress::{
    auth::{Administrator, SuspensionForm},
    billing::GrantForm,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{but, operations, rows};
use crate::support::{
    app::{Person, TestApp},
    http::Call,
    pages::press,
    postback,
    requests::{PAGE, Request, prepared, with_bodies},
};

const FILE: &str = "docs/pentest/authorisation.csv";

/// The columns after method and path, as they stand in the file.
const COLUMNS: [&str; 8] =
    ["nobody", "user", "user_other", "suspended", "ended_session", "admin_stale", "admin_fresh", "step_up"];

/// The order of trying: first those who are most likely refused. What was refused has changed nothing, so the same request
/// is good for the next caller, and that its owner succeeds with it shows that nothing else was wrong with it.
const ORDER: [&str; 8] =
    ["nobody", "user_other", "admin_stale", "admin_fresh", "user", "suspended", "ended_session", "step_up"];

/// A reply is still being made when others ask for it.
const PACE: &str = "100ms";

/// How long a fresh sign-in lasts by default, in microseconds.
const FRESH_US: i64 = 15 * 60 * 1_000_000;

/// A row of the file.
struct Rule {
    method: String,
    path: String,
    cells: BTreeMap<String, String>,
}

impl Rule {
    fn cell(&self, column: &str) -> &str {
        &self.cells[column]
    }

    fn is_public(&self) -> bool {
        self.cell("nobody") == "public"
    }

    fn is_administration(&self) -> bool {
        self.path.starts_with("/v1/admin/")
    }
}

fn rules() -> Vec<Rule> {
    let text = fs::read_to_string(FILE).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap(), format!("method,path,{}", COLUMNS.join(",")));
    lines
        .map(|line| {
            let mut cells = line.split(',').map(str::to_owned);
            let (method, path) = (cells.next().unwrap(), cells.next().unwrap());
            let cells: Vec<String> = cells.collect();
            assert_eq!(cells.len(), COLUMNS.len(), "{line}");
            Rule { method, path, cells: COLUMNS.map(str::to_owned).into_iter().zip(cells).collect() }
        })
        .collect()
}

#[test]
fn the_matrix_has_the_operations_of_the_document_and_no_others() {
    let document = digitalmistress::app::document();
    let declared: Vec<_> = operations(&document)
        .into_iter()
        .map(|(method, path, operation)| (method, path, operation["security"] == json!([])))
        .collect();
    let listed: Vec<_> =
        rules().iter().map(|rule| (rule.method.clone(), rule.path.clone(), rule.is_public())).collect();
    for one in &declared {
        assert!(listed.contains(one), "{one:?} is in the document and not so in {FILE}");
    }
    for one in &listed {
        assert!(declared.contains(one), "{one:?} is in {FILE} and not so in the document");
    }
    assert_eq!(listed.len(), declared.len(), "an operation is listed twice");
    for rule in rules() {
        let step_up = rule.cell("step_up");
        assert!(matches!(step_up, "yes" | "no"), "{} {}: {step_up}", rule.method, rule.path);
        assert!(!rule.is_public() || step_up == "no", "{} {}", rule.method, rule.path);
    }
}

#[tokio::test]
async fn every_operation_answers_every_caller_as_the_matrix_says() {
    let secret_path = [
        ("DM__BILLING__PROVIDERS__OTHER__KIND", "postback"),
        ("DM__BILLING__PROVIDERS__OTHER__BASE_URL", "https://other.example.com/join"),
        ("DM__BILLING__PROVIDERS__OTHER__WEBHOOK_SECRETS", postback::SECRET),
        ("DM__BILLING__PROVIDERS__OTHER__PATH_SECRET", "only-the-processor-knows"),
        ("DM__BILLING__CHECKOUT", "dev"),
        ("DM__CHAT__PROVIDERS__DEMO__PACE", PACE),
    ];
    let t = TestApp::with(&[postback::SETTINGS, &secret_path].concat()).await;
    let fields: BTreeMap<(String, String), Vec<String>> = with_bodies(&t.get("/openapi.json").await.ok())
        .into_iter()
        .map(|(method, path, fields)| ((method, path), fields))
        .collect();
    let mut matrix = Matrix { t, cast: BTreeMap::new(), people: 0, tried: 0, wrong: Vec::new() };
    let rules = rules();
    for rule in &rules {
        let fields = fields.get(&(rule.method.clone(), rule.path.clone()));
        matrix.drive(rule, fields.map(Vec::as_slice)).await;
    }
    let public = rules.iter().filter(|rule| rule.is_public()).count();
    // Who needs no session needs no fresh sign-in either.
    assert_eq!(matrix.tried, rules.len() * COLUMNS.len() - public);
    assert!(matrix.wrong.is_empty(), "{:#?}", matrix.wrong);
}

/// The matrix while it is tried.
struct Matrix {
    t: TestApp,
    /// Callers to whom the object does not belong, and since when they are there. Who has changed something is not used again.
    cast: BTreeMap<&'static str, (Timestamp, Person)>,
    people: usize,
    tried: usize,
    wrong: Vec<String>,
}

impl Matrix {
    fn name(&mut self) -> String {
        self.people += 1;
        format!("person{}", self.people)
    }

    async fn drive(&mut self, rule: &Rule, fields: Option<&[String]>) {
        let mut unused: Option<(Request, String)> = None;
        for column in ORDER {
            if column == "step_up" && rule.is_public() {
                continue;
            }
            let (request, name) = match unused.take() {
                Some(unused) => unused,
                None => {
                    let name = self.name();
                    (ready(&self.t, rule, fields, &name).await, name)
                }
            };
            let refused = self.attempt(rule, column, &request, &format!("{name}@example.com")).await;
            self.tried += 1;
            let owner_is_well = !matches!(column, "suspended" | "ended_session" | "step_up");
            unused = (refused && owner_is_well).then_some((request, name));
        }
    }

    /// Tries one cell and says whether the caller was refused.
    async fn attempt(&mut self, rule: &Rule, column: &'static str, request: &Request, email: &str) -> bool {
        let expected = match (column, rule.cell(column)) {
            ("step_up", "yes") => "403 reauthentication_required",
            ("step_up", _) if rule.is_administration() => rule.cell("admin_fresh"),
            ("step_up", _) => rule.cell("user"),
            (_, expected) => expected,
        };
        let is_own = match column {
            "user" => !rule.is_administration(),
            "suspended" | "ended_session" | "step_up" => true,
            _ => false,
        };
        let mut caller = match column {
            "nobody" => None,
            _ if is_own => Some(request.owner.clone()),
            _ => Some(self.bystander(column).await),
        };
        let t = &self.t;
        let is_effective = matches!(expected, "2xx" | "public");
        // What belongs to somebody is as it was after everything that others tried, and after what was refused to the owner.
        let is_looked_at = !(rule.is_public() || is_own && is_effective);
        let seen = if is_looked_at { view(t, &request.owner).await } else { Vec::new() };
        let mut eyes = request.owner.clone();
        match column {
            "suspended" => suspend(t, &request.owner).await,
            "ended_session" => {
                if is_looked_at {
                    eyes = t.log_in(email).await;
                }
                let session = json!({"refresh_token": request.owner.refresh_token});
                t.post("/v1/auth/logout", session).await.status(204);
            }
            "step_up" => {
                eyes = long_ago(t, &request.owner).await;
                caller = Some(eyes.clone());
            }
            _ => {}
        }
        let before = rows(t).await;
        let (code, problem) = send(t, rule, column, request, caller.as_ref()).await;
        let after = rows(t).await;
        let what = format!("{} {} by {column}", rule.method, rule.path);
        if !fits(rule, expected, code, problem.as_deref()) {
            self.wrong.push(format!("{what}: {code} {} and not {expected}", problem.unwrap_or_default()));
        }
        // A login that was refused is written down.
        let written: &[&str] = if rule.is_public() { &["audit_event", "password_failure"] } else { &[] };
        let is_same = but(before, written) == but(after, written);
        if !(is_same || is_effective && code < 300) {
            self.wrong.push(format!("{what}: changes something"));
        }
        if is_looked_at && column == "suspended" {
            t.background.auth.unsuspend(Administrator::Command, id(&request.owner)).await.unwrap();
            eyes = t.log_in(email).await;
        }
        if is_looked_at && view(t, &eyes).await != seen {
            self.wrong.push(format!("{what}: changes what the owner sees"));
        }
        if code < 300 && rule.method != "GET" {
            self.cast.remove(column);
        }
        code >= 400 || is_same && !is_effective
    }

    /// Somebody who does not own what the request is about.
    async fn bystander(&mut self, column: &'static str) -> Person {
        let t = &self.t;
        if let Some((since, person)) = self.cast.get(column)
            && t.now().duration_since(*since) < SignedDuration::from_mins(5)
        {
            return person.clone();
        }
        let email = format!("{}@example.com", self.name());
        let t = &self.t;
        let person = match column {
            "admin_stale" => long_ago(t, &t.administrator(&email).await).await,
            "admin_fresh" => t.administrator(&email).await,
            _ => t.sign_up(&email).await,
        };
        self.cast.insert(column, (t.now(), person.clone()));
        person
    }
}

fn id(person: &Person) -> Uuid {
    person.id.parse().unwrap()
}

async fn suspend(t: &TestApp, person: &Person) {
    let form = SuspensionForm { reason: "a chargeback".into(), until: None };
    t.background.auth.suspend(Administrator::Command, id(person), form).await.unwrap();
}

/// The same session with a sign-in that is not fresh any more.
async fn long_ago(t: &TestApp, person: &Person) -> Person {
    digitalmistress::queries! {
        fn age(id: Uuid, by: i64) = "UPDATE session SET auth_time = auth_time - $2 WHERE id = $1";
    }
    let session = person.session.parse().unwrap();
    t.db().write(async move |c| age(session, FRESH_US).exec(&c).await).await.unwrap();
    person.refreshed(t).await
}

/// What somebody has, in their own eyes. A reply that is being made changes from moment to moment; that it is being made does not.
async fn view(t: &TestApp, person: &Person) -> Vec<(u16, String)> {
    let stream = person.get(t, "/v1/chat/c/stream").send().await.status().as_u16();
    let mut seen = vec![(stream, String::new())];
    for path in ["/v1/me", "/v1/subscription", "/v1/conversations", "/v1/conversations/c/messages"] {
        if stream == 200 && path.starts_with("/v1/conversations") {
            continue;
        }
        let answer = person.get(t, path).await;
        // Problems name their request.
        let text = if answer.code < 400 { answer.text } else { String::new() };
        seen.push((answer.code, text));
    }
    seen
}

/// Whether an answer is what a cell says. Who may read gets something to read: 204 is what others get of a reply.
fn fits(rule: &Rule, cell: &str, code: u16, problem: Option<&str>) -> bool {
    let (status, named) = cell.split_once(' ').unwrap_or((cell, ""));
    let named = match status {
        "public" | "2xx" if rule.method == "GET" => return named.is_empty() && code == 200,
        "public" | "2xx" => return named.is_empty() && (200..300).contains(&code),
        "401" if named.is_empty() => "unauthenticated",
        "404" if named.is_empty() => "not_found",
        _ => named,
    };
    status.parse() == Ok::<u16, _>(code) && problem.unwrap_or_default() == named
}

/// Status and, where it is a problem, its code.
async fn send(
    t: &TestApp,
    rule: &Rule,
    column: &str,
    request: &Request,
    caller: Option<&Person>,
) -> (u16, Option<String>) {
    let mut url = request.url.clone();
    // Where operators act on users, a user tries it on themselves, too.
    if column == "user"
        && rule.is_administration()
        && let Some(own) = caller
    {
        let target = request.url.split(['/', '=']).find(|part| Uuid::try_parse(part).is_ok());
        url = target.map_or(url.clone(), |target| url.replace(target, &own.id));
    }
    let sent = t.request(&rule.method, &url);
    let sent = match &request.body {
        Value::Null => sent,
        Value::String(form) => {
            sent.header("content-type", "application/x-www-form-urlencoded").body(form.clone())
        }
        body => sent.json(body),
    };
    let call = Call::new(sent);
    let call = match caller {
        Some(person) => call.bearer(&person.access_token),
        None => call,
    };
    let response = call.send().await;
    let code = response.status().as_u16();
    // The rest of a stream is not waited for.
    if response.headers().get("content-type").is_none_or(|kind| kind != "application/problem+json") {
        return (code, None);
    }
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    (code, Some(problem["code"].as_str().unwrap().to_owned()))
}

/// A call that succeeds, by somebody who was signed up for it.
async fn ready(t: &TestApp, rule: &Rule, fields: Option<&[String]>, name: &str) -> Request {
    let email = format!("{name}@example.com");
    let path = rule.path.as_str();
    let mut request = match fields {
        Some(fields) => prepared(t, &(rule.method.clone(), path.to_owned(), fields.to_vec()), name).await,
        None => without_body(t, rule, &email).await,
    };
    let owner = request.owner.clone();
    match path {
        "/v1/sessions/{id}" => request.url = path.replace("{id}", &t.log_in(&email).await.session),
        "/v1/chat/{id}/stream" | "/v1/chat/{id}/stop" => {
            owner.stream(t, "c", "m", "!long").await;
            request.url = path.replace("{id}", "c");
        }
        "/v1/conversations/{id}" | "/v1/conversations/{id}/messages" if request.url == path => {
            owner.post(t, "/v1/conversations", json!({"id": "c", "title": "Evenings"})).await.status(201);
            request.url = path.replace("{id}", "c");
        }
        "/v1/conversations/{id}" => request.body = json!({"title": "Mornings"}),
        "/v1/subscription/cancel" => {
            let order = json!({"plan": "plus", "success_url": PAGE, "cancel_url": PAGE});
            let opened = owner.post(t, "/v1/subscription/checkout", order).await.ok();
            press(t, opened["url"].as_str().unwrap(), "pay").await;
        }
        "/v1/webhooks/{provider}" | "/v1/webhooks/{provider}/{secret}" => {
            notice(t, rule, name, &mut request);
        }
        _ if rule.is_administration() && fields.is_none() => {
            let target = t.sign_up(&format!("{name}.other@example.com")).await;
            request.url = on_somebody(t, path, &target).await;
        }
        _ => {}
    }
    request
}

async fn without_body(t: &TestApp, rule: &Rule, email: &str) -> Request {
    let owner = match rule.is_administration() {
        true => t.administrator(email).await,
        false => t.sign_up(email).await,
    };
    Request {
        method: rule.method.clone(),
        operation: rule.path.clone(),
        url: rule.path.clone(),
        caller: (!rule.is_public()).then(|| owner.clone()),
        owner,
        body: Value::Null,
        fields: Vec::new(),
    }
}

/// What a processor sends: signed, and, where it is so agreed, under a path that only it knows.
fn notice(t: &TestApp, rule: &Rule, name: &str, request: &mut Request) {
    let url = rule.path.replace("{provider}/{secret}", "other/only-the-processor-knows");
    let sale = postback::Sale { id: name.into(), reference: None, price: "9.99".into() };
    let said = postback::signed(postback::SECRET, &sale.says("initial", name, t.now().as_second()));
    request.url = url.replace("{provider}", "pay");
    match rule.method.as_str() {
        "GET" => request.url = format!("{}?{said}", request.url),
        _ => request.body = Value::String(said),
    }
}

/// The address under which an operator acts on somebody.
async fn on_somebody(t: &TestApp, path: &str, target: &Person) -> String {
    let url = path.replace("{id}", &target.id);
    match path {
        "/v1/admin/users" => format!("{url}?query={}", target.id),
        "/v1/admin/audit" => format!("{url}?subject={}", target.id),
        "/v1/admin/users/{id}/unsuspend" => {
            suspend(t, target).await;
            url
        }
        "/v1/admin/users/{id}/grants/{grant_id}" => {
            let form = GrantForm {
                plan: "plus".into(),
                ends_at: "2100-01-01T00:00:00Z".into(),
                reason: "an apology".into(),
            };
            let given = t.background.billing.grant(Administrator::Command, id(target), &form).await.unwrap();
            url.replace("{grant_id}", &given.id.to_string())
        }
        _ => url,
    }
}
