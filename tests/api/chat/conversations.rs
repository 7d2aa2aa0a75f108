//! Conversations and their history: one's own, in pages, and gone when they are deleted.

use serde_json::{Value, json};

use crate::support::{
    app::{Person, TestApp},
    http::Call,
};

fn ids(page: &Value) -> Vec<String> {
    page["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_conversation_is_begun_named_and_deleted() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let body = json!({"id": "mine", "companion_id": "tamsin", "title": " About rain "});
    let created = ann.post(&t, "/v1/conversations", body.clone()).await.status(201);
    assert_eq!((&created["id"], &created["title"]), (&json!("mine"), &json!("About rain")));
    assert_eq!(
        (&created["companion_id"], &created["model"], &created["message_count"]),
        (&json!("tamsin"), &json!("demo"), &json!(0))
    );
    ann.post(&t, "/v1/conversations", body).await.problem(409, "conflict");
    assert_eq!(ann.get(&t, "/v1/conversations/mine").await.ok(), created);

    let path = "/v1/conversations/mine";
    assert_eq!(ann.patch(&t, path, json!({"title": "About snow"})).await.ok()["title"], "About snow");
    assert_eq!(ann.patch(&t, path, json!({})).await.ok()["title"], "About snow");
    assert_eq!(ann.patch(&t, path, json!({"title": null})).await.ok()["title"], Value::Null);
    let merge_patch = t.request("PATCH", path).header("content-type", "application/merge-patch+json");
    let merge_patch = Call::new(merge_patch.body(r#"{"title":"About hail"}"#)).bearer(&ann.access_token);
    assert_eq!(merge_patch.await.ok()["title"], "About hail");
    ann.patch(&t, path, json!({"title": ""})).await.invalid("/title", "too_short");
    ann.patch(&t, path, json!({"title": "x".repeat(201)})).await.invalid("/title", "too_long");
    ann.patch(&t, path, json!({"companion_id": "roz"})).await.invalid("/companion_id", "unknown_field");

    ann.say(&t, "mine", "m1", "hello").await.ok();
    assert_eq!(ann.get(&t, path).await.ok()["message_count"], 2);
    ann.delete(&t, path).await.status(204);
    ann.delete(&t, path).await.problem(404, "not_found");
    ann.get(&t, path).await.problem(404, "not_found");
    ann.get(&t, "/v1/conversations/mine/messages").await.problem(404, "not_found");
    ann.patch(&t, path, json!({"title": "back?"})).await.problem(404, "not_found");
    ann.say(&t, "mine", "m2", "hello?").await.problem(404, "not_found");
    ann.say(&t, "mine", "m1", "hello").await.problem(404, "not_found");
    ann.post(&t, "/v1/conversations", json!({"id": "mine"})).await.problem(409, "conflict");
    assert_eq!(ids(&ann.get(&t, "/v1/conversations").await.ok()), Vec::<String>::new());
}

#[tokio::test]
async fn a_conversation_without_a_name_gets_an_id_and_the_default_companion() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let created = ann.post(&t, "/v1/conversations", json!({})).await.status(201);
    assert_eq!(created["id"].as_str().unwrap().len(), 36);
    assert_eq!((&created["companion_id"], &created["title"]), (&json!("octavia"), &Value::Null));
    ann.post(&t, "/v1/conversations", json!({"id": "a b"})).await.invalid("/id", "invalid_format");
    ann.post(&t, "/v1/conversations", json!({"companion_id": "nobody"}))
        .await
        .invalid("/companion_id", "unknown_value");
}

#[tokio::test]
async fn deleting_removes_the_messages_from_the_database_and_stops_the_reply() {
    let t = TestApp::with(&[("DM__CHAT__PROVIDERS__DEMO__PACE", "20ms")]).await;
    let ann = t.sign_up("ann@example.com").await;
    let mut stream = ann.stream(&t, "c", "m1", "!long").await;
    stream.first_word().await;
    ann.delete(&t, "/v1/conversations/c").await.status(204);
    assert_eq!(stream.rest().await.types().last(), Some(&"[DONE]"));
    t.background.run_due().await.unwrap();

    digitalmistress::queries! {
        scan fn all_messages() -> i64 = "SELECT COUNT(*) FROM message";
    }
    let left: Result<i64, digitalmistress::platform::db::Error> =
        t.db().read(async |c| all_messages().one(&c).await).await;
    assert_eq!(left.unwrap(), 0);
}

#[tokio::test]
async fn lists_come_in_pages_newest_first() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 0..7 {
        ann.post(&t, "/v1/conversations", json!({"id": format!("c{n}")})).await.status(201);
    }
    ann.say(&t, "c2", "m1", "hello").await.ok(); // Last used.
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for expected in [3, 3, 1] {
        let page = ann.get(&t, &format!("/v1/conversations?limit=3{cursor}")).await.ok();
        assert_eq!(page["data"].as_array().unwrap().len(), expected);
        seen.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => assert_eq!(expected, 1),
        }
    }
    assert_eq!(seen, ["c2", "c6", "c5", "c4", "c3", "c1", "c0"]);
}

#[tokio::test]
async fn history_begins_with_the_newest_page_each_in_order() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    for n in 0..4 {
        ann.say(&t, "c", &format!("m{n}"), &format!("message {n}")).await.ok();
    }
    let newest = ann.get(&t, "/v1/conversations/c/messages?limit=3").await.ok();
    let texts = |page: &Value| {
        let users = page["data"].as_array().unwrap().iter().filter(|message| message["role"] == "user");
        users.map(|message| message["parts"][0]["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(newest["data"].as_array().unwrap().len(), 3);
    assert_eq!(texts(&newest), ["message 3"]);
    let cursor = newest["next_cursor"].as_str().unwrap();
    let older = ann.get(&t, &format!("/v1/conversations/c/messages?limit=100&cursor={cursor}")).await.ok();
    assert_eq!(texts(&older), ["message 0", "message 1", "message 2"]);
    assert_eq!(older["data"].as_array().unwrap().len(), 5);
    assert_eq!(older["next_cursor"], Value::Null);
}

#[tokio::test]
async fn limits_clamp_and_cursors_are_ones_own() {
    let t = TestApp::start().await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    for n in 0..3 {
        for person in [&ann, &bob] {
            person.post(&t, "/v1/conversations", json!({"id": format!("c{n}")})).await.status(201);
        }
    }
    let list = |person: &Person, query: &str| person.get(&t, &format!("/v1/conversations?{query}"));
    assert_eq!(list(&ann, "limit=0").await.ok()["data"].as_array().unwrap().len(), 1);
    assert_eq!(list(&ann, "limit=-5").await.ok()["data"].as_array().unwrap().len(), 1);
    assert_eq!(list(&ann, "limit=1000000").await.ok()["data"].as_array().unwrap().len(), 3);
    list(&ann, "limit=many").await.invalid("/limit", "wrong_type");
    list(&ann, "limit=1&limit=2").await.problem(400, "bad_request");

    let page = list(&ann, "limit=1").await.ok();
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    list(&ann, &format!("cursor={cursor}")).await.ok();
    list(&bob, &format!("cursor={cursor}")).await.problem(400, "invalid_cursor");
    ann.get(&t, &format!("/v1/conversations/c0/messages?cursor={cursor}"))
        .await
        .problem(400, "invalid_cursor");
    let other_first = if cursor.starts_with('A') { "B" } else { "A" };
    for forged in ["x", "", "AAAA", &cursor[1..], &format!("{other_first}{}", &cursor[1..])] {
        list(&ann, &format!("cursor={forged}")).await.problem(400, "invalid_cursor");
    }
}

#[tokio::test]
async fn what_belongs_to_somebody_else_looks_like_nothing() {
    let t = TestApp::start().await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    ann.say(&t, "secret", "m1", "between us").await.ok();
    let answers = async |id: &str| {
        let path = format!("/v1/conversations/{id}");
        let mut all = vec![
            bob.get(&t, &path).await,
            bob.get(&t, &format!("{path}/messages")).await,
            bob.patch(&t, &path, json!({"title": "mine"})).await,
            bob.delete(&t, &path).await,
            bob.get(&t, &format!("/v1/chat/{id}/stream")).await,
            bob.post(&t, &format!("/v1/chat/{id}/stop"), json!({})).await,
        ];
        all.drain(..)
            .map(|answer| {
                let mut body = answer.json();
                if let Some(fields) = body.as_object_mut() {
                    fields.remove("request_id");
                }
                (answer.code, body)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(answers("secret").await, answers("never-used").await);
    assert_eq!(ann.texts(&t, "secret").await[0], "between us");

    // The same id names another conversation for another person.
    bob.say(&t, "secret", "m1", "mine alone").await.ok();
    assert_eq!(bob.texts(&t, "secret").await[0], "mine alone");
    assert_eq!(ann.texts(&t, "secret").await[0], "between us");
}

#[tokio::test]
async fn companions_are_public_and_their_prompts_are_not() {
    let t = TestApp::start().await;
    let answer = t.get("/v1/companions").await;
    assert!(!answer.text.contains("Rules that nothing"), "a prompt left the server");
    let companions = answer.ok();
    assert_eq!(ids(&companions), ["octavia", "tamsin", "roz"]);
    let names: Vec<&str> = companions["data"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["id", "name", "tagline", "greeting", "avatar_url", "available", "requires_plan"]);
}
