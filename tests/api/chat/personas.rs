//! A conversation goes on with the persona and the model that it was begun with, whatever happens to the settings.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use digitalmistress::{
    platform::db::{Db, Error},
    queries, record,
};
use serde_json::json;

use crate::support::{
    app::{Person, TestApp},
    logs::Logs,
    upstream::{Step, Upstream, reply},
};

const PROMPT: &str = "DM__CHAT__COMPANIONS__OCTAVIA__PROMPT";
const NAME: &str = "DM__CHAT__COMPANIONS__OCTAVIA__NAME";
const FOLLOW: &str = "DM__CHAT__COMPANIONS__OCTAVIA__FOLLOW";
/// Whom the operator has added.
const ADA: &[(&str, &str)] = &[
    ("DM__CHAT__COMPANIONS__ADA__ORDER", "40"),
    ("DM__CHAT__COMPANIONS__ADA__NAME", "Ada"),
    ("DM__CHAT__COMPANIONS__ADA__TAGLINE", "New here"),
    ("DM__CHAT__COMPANIONS__ADA__GREETING", "Hello."),
    ("DM__CHAT__COMPANIONS__ADA__AVATAR_URL", ""),
    ("DM__CHAT__COMPANIONS__ADA__AVAILABLE", "true"),
    ("DM__CHAT__COMPANIONS__ADA__REQUIRES_PLAN", ""),
    ("DM__CHAT__COMPANIONS__ADA__PROMPT", "You are Ada."),
];

queries! {
    scan fn personas() -> Kept = "SELECT companion_id, version, body FROM persona";
    scan fn forget_personas() = "DELETE FROM persona";
    scan fn forget_versions() = "UPDATE conversation SET persona_version = NULL";
}

record! {
    struct Kept {
        companion_id: String,
        version: String,
        body: Vec<u8>,
    }
}

async fn kept(db: &Db) -> Vec<Kept> {
    let read = async |c| personas().all(&c).await;
    let mut kept = db.read_slow::<_, Error, _>(async move |c| read(c).await).await.unwrap();
    kept.sort_by(|a, b| (&a.companion_id, &a.version).cmp(&(&b.companion_id, &b.version)));
    kept
}

/// Says something in a conversation, and tells which instructions the model was given.
async fn persona_in(t: &TestApp, upstream: &Upstream, who: &Person, conversation: &str, id: &str) -> String {
    who.say(t, conversation, id, "hello").await.ok();
    let last = upstream.received().pop().unwrap();
    let (role, text) = last.told()[0];
    assert_eq!(role, "system");
    text.to_owned()
}

#[tokio::test]
async fn a_companion_does_not_change_overnight() {
    let upstream = Upstream::start(reply("I see.")).await;
    let t = TestApp::with(&[upstream.settings(), vec![(PROMPT, "The first persona.")]].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    assert_eq!(persona_in(&t, &upstream, &ann, "old", "m1").await, "The first persona.");
    ann.post(&t, "/v1/conversations", json!({"id": "empty"})).await.status(201);

    let t = t.restart_with(&[(PROMPT, "The second persona.")]).await;
    assert_eq!(persona_in(&t, &upstream, &ann, "old", "m2").await, "The first persona.");
    assert_eq!(persona_in(&t, &upstream, &ann, "empty", "m1").await, "The first persona.");
    assert_eq!(persona_in(&t, &upstream, &ann, "new", "m1").await, "The second persona.");

    let t = t.restart_with(&[(PROMPT, "The third persona.")]).await;
    assert_eq!(persona_in(&t, &upstream, &ann, "old", "m3").await, "The first persona.");
    assert_eq!(persona_in(&t, &upstream, &ann, "new", "m2").await, "The second persona.");

    // What was written by mistake can be taken back.
    let t = t.restart_with(&[(PROMPT, "The first persona.")]).await;
    assert_eq!(persona_in(&t, &upstream, &ann, "old", "m4").await, "The first persona.");
    assert_eq!(persona_in(&t, &upstream, &ann, "new", "m3").await, "The second persona.");
}

#[tokio::test]
async fn another_name_is_another_persona() {
    // The demo speaks under the name that it is told.
    let t = TestApp::with(ADA).await;
    let ann = t.sign_up("ann@example.com").await;
    let ask = async |t: &TestApp, conversation: &str, id: &str| {
        let message = json!({"id": id, "role": "user", "parts": [{"type": "text", "text": "Who are you?"}]});
        let body = json!({"id": conversation, "companion_id": "ada", "message": message});
        ann.post(t, "/v1/chat", body).accept_json().await.ok()["message"]["parts"][0]["text"].to_string()
    };
    assert!(ask(&t, "old", "m1").await.contains("Ada"));
    let t = t.restart_with(&[("DM__CHAT__COMPANIONS__ADA__NAME", "Eva")]).await;
    assert!(ask(&t, "old", "m2").await.contains("Ada"));
    assert!(ask(&t, "new", "m1").await.contains("Eva"));
    // What everybody sees is of today.
    assert!(t.get("/v1/companions").await.ok()["data"].to_string().contains("Eva"));
}

#[tokio::test]
async fn a_companion_can_follow_the_settings() {
    let upstream = Upstream::start(reply("I see.")).await;
    let t = TestApp::with(&[upstream.settings(), vec![(PROMPT, "The first persona.")]].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    persona_in(&t, &upstream, &ann, "c", "m1").await;
    let t = t.restart_with(&[(PROMPT, "The second persona."), (FOLLOW, "true")]).await;
    assert_eq!(persona_in(&t, &upstream, &ann, "c", "m2").await, "The second persona.");
    // What the conversation began with is not lost.
    let t = t.restart_with(&[(FOLLOW, "false")]).await;
    assert_eq!(persona_in(&t, &upstream, &ann, "c", "m3").await, "The first persona.");
}

#[tokio::test]
async fn a_conversation_from_before_hears_the_persona_of_today() {
    let upstream = Upstream::start(reply("I see.")).await;
    let t = TestApp::with(&[upstream.settings(), vec![(PROMPT, "The first persona.")]].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    persona_in(&t, &upstream, &ann, "c", "m1").await;
    t.db().write::<_, Error, _>(async |c| forget_versions().exec(&c).await).await.unwrap();
    let t = t.restart_with(&[(PROMPT, "The second persona.")]).await;
    assert_eq!(persona_in(&t, &upstream, &ann, "c", "m2").await, "The second persona.");
}

#[tokio::test]
async fn where_a_persona_is_missing_the_one_of_today_speaks_and_the_log_says_so_once() {
    let logs = Logs::listen();
    let upstream = Upstream::start(reply("I see.")).await;
    let t = TestApp::with(&[upstream.settings(), vec![(PROMPT, "The first persona.")]].concat()).await;
    let ann = t.sign_up("ann@example.com").await;
    persona_in(&t, &upstream, &ann, "c", "m1").await;
    t.db().write::<_, Error, _>(async |c| forget_personas().exec(&c).await).await.unwrap();
    let t = t.restart_with(&[(PROMPT, "The second persona.")]).await;
    for id in ["m2", "m3"] {
        assert_eq!(persona_in(&t, &upstream, &ann, "c", id).await, "The second persona.");
    }
    let said = logs.lines_with("a persona is not stored");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("octavia") && !said[0].contains("The first persona"), "{said:?}");
}

#[tokio::test]
async fn instances_with_other_settings_speak_alike() {
    let upstream = Upstream::start(reply("I see.")).await;
    let old = TestApp::with(&[upstream.settings(), vec![(PROMPT, "The first persona.")]].concat()).await;
    let new = old.beside_with(&[(PROMPT, "The second persona.")]).await;
    let ann = old.sign_up("ann@example.com").await;
    persona_in(&old, &upstream, &ann, "begun by the old one".replace(' ', "-").as_str(), "m1").await;
    assert_eq!(persona_in(&new, &upstream, &ann, "begun-by-the-old-one", "m2").await, "The first persona.");
    persona_in(&new, &upstream, &ann, "begun-by-the-new-one", "m1").await;
    assert_eq!(persona_in(&old, &upstream, &ann, "begun-by-the-new-one", "m2").await, "The second persona.");
}

#[tokio::test]
async fn each_version_is_kept_once_sealed_and_never_told() {
    let upstream = Upstream::start(reply("I see.")).await;
    let prompts = ["canary-persona-one", "canary-persona-two"];
    let t = TestApp::with(&[upstream.settings(), vec![(PROMPT, prompts[0]), (NAME, "Canary-Name")]].concat())
        .await;
    let ann = t.sign_up("ann@example.com").await;
    persona_in(&t, &upstream, &ann, "c", "m1").await;
    let first = kept(t.db()).await;
    assert_eq!(
        first.iter().map(|kept| kept.companion_id.as_str()).collect::<Vec<_>>(),
        ["octavia", "roz", "tamsin"]
    );
    drop(t.beside().await);
    let t = t.restart().await;
    let again = kept(t.db()).await;
    assert!(
        first.iter().map(|kept| &kept.body).eq(again.iter().map(|kept| &kept.body)),
        "nothing is written twice"
    );

    let t = t.restart_with(&[(PROMPT, prompts[1])]).await;
    persona_in(&t, &upstream, &ann, "c", "m2").await;
    let both = kept(t.db()).await;
    let of_octavia: Vec<_> = both.iter().filter(|kept| kept.companion_id == "octavia").collect();
    assert_eq!((both.len(), of_octavia.len()), (4, 2));
    assert!(of_octavia.iter().all(|kept| kept.version.len() == 16));
    for persona in &both {
        let readable = String::from_utf8_lossy(&persona.body);
        for canary in prompts.iter().chain(&["Canary-Name", "You are"]) {
            assert!(!readable.contains(canary), "{canary} is readable in the database");
        }
    }
    for path in ["/v1/companions", "/v1/conversations", "/v1/conversations/c", "/v1/conversations/c/messages"]
    {
        let answer = ann.get(&t, path).await.ok().to_string();
        assert!(!answer.contains("canary-persona"), "{path} tells a prompt");
    }
}

#[tokio::test]
async fn a_companion_that_is_gone_is_gone_although_its_persona_is_kept() {
    let t = TestApp::with(ADA).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.post(&t, "/v1/conversations", json!({"id": "c", "companion_id": "ada"})).await.status(201);
    ann.say(&t, "c", "m1", "hello").await.ok();
    let t = t.restart_without("DM__CHAT__COMPANIONS__ADA").await;
    ann.say(&t, "c", "m2", "hello").await.problem(409, "conflict");
    assert!(kept(t.db()).await.iter().any(|kept| kept.companion_id == "ada"));
}

#[tokio::test]
async fn a_conversation_goes_to_the_model_that_it_was_begun_with() {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = broken.clone();
    let old =
        Upstream::answering(move |_| if breaks.load(SeqCst) { vec![Step::Reset] } else { reply("old") })
            .await;
    let new = Upstream::start(reply("new")).await;
    let providers = [old.settings_named("ONE", "model-one"), new.settings_named("TWO", "model-two")].concat();
    let mut settings: Vec<(&str, &str)> = providers.iter().map(|(name, value)| (&**name, &**value)).collect();
    settings.push(("DM__CHAT__ROUTE", "one"));
    let t = TestApp::with(&settings).await;
    let ann = t.sign_up("ann@example.com").await;
    let answer = async |t: &TestApp, conversation: &str, id: &str| {
        let answer = ann.say(t, conversation, id, "hello").await.ok();
        answer["message"]["parts"][0]["text"].as_str().unwrap().to_owned()
    };
    let model = async |t: &TestApp, conversation: &str| {
        let conversation = ann.get(t, &format!("/v1/conversations/{conversation}")).await.ok();
        conversation["model"].as_str().unwrap().to_owned()
    };
    assert_eq!(answer(&t, "old", "m1").await, "old");

    let t = t.restart_with(&[("DM__CHAT__ROUTE", "two,one")]).await;
    assert_eq!(answer(&t, "old", "m2").await, "old", "though another model is preferred now");
    assert_eq!(answer(&t, "new", "m1").await, "new");
    broken.store(true, SeqCst);
    assert_eq!(answer(&t, "old", "m3").await, "new", "the others are there for failures");

    // Nobody offers it any more.
    let t = t.restart_with(&[("DM__CHAT__ROUTE", "two")]).await;
    assert_eq!(answer(&t, "old", "m4").await, "new");
    assert_eq!((model(&t, "old").await, model(&t, "new").await), ("model-one".into(), "model-two".into()));
}
