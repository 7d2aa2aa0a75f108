//! The filter between a provider and everybody who listens.

use std::sync::{Arc, Mutex};

use digitalmistress::chat::ReplyFilter;

use crate::support::{
    app::{Seams, TestApp},
    upstream::{Upstream, delta, finish, reply, route, stream_head},
};

/// Refuses a text once it would hold a word, and remembers all that it was asked.
struct Refuses {
    word: &'static str,
    asked: Mutex<Vec<(String, String)>>,
}

impl ReplyFilter for Refuses {
    fn allows(&self, so_far: &str, piece: &str) -> bool {
        self.asked.lock().unwrap().push((so_far.to_owned(), piece.to_owned()));
        !format!("{so_far}{piece}").contains(self.word)
    }
}

async fn filtered(upstream: &Upstream, word: &'static str) -> (TestApp, Arc<Refuses>) {
    let filter = Arc::new(Refuses { word, asked: Mutex::default() });
    let seams = Seams { reply_filter: filter.clone(), ..Seams::default() };
    (TestApp::with_seams(&upstream.settings(), seams).await, filter)
}

#[tokio::test]
async fn a_filter_stops_a_reply_before_anybody_hears_the_refused_piece() {
    let upstream =
        Upstream::start(vec![stream_head(), delta("The tide "), delta("is sec"), delta("ret."), finish()])
            .await;
    let (t, filter) = filtered(&upstream, "secret").await;
    let ann = t.sign_up("ann@example.com").await;
    let chunks = ann.stream(&t, "c", "m1", "hello").await.rest().await;
    assert_eq!(chunks.text(), "The tide is sec");
    assert_eq!(chunks.problem()["code"], "content_refused");
    assert_eq!(ann.texts(&t, "c").await, ["hello", "The tide is sec"]);
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "interrupted"]);
    assert_eq!(ann.used(&t).await, 1, "what was heard is paid for");
    let asked = filter.asked.lock().unwrap().clone();
    let seen: Vec<(&str, &str)> = asked.iter().map(|(before, piece)| (&**before, &**piece)).collect();
    assert_eq!(seen, [("", "The tide "), ("The tide ", "is sec"), ("The tide is sec", "ret.")]);

    // Sent again, it ends as it did.
    let again = ann.say(&t, "c", "m1", "hello").await.ok();
    assert_eq!(again["message"]["metadata"]["status"], "interrupted");
    let again = ann.stream(&t, "c", "m1", "hello").await.rest().await;
    assert_eq!(again.problem()["code"], "content_refused");
    assert_eq!(upstream.received().len(), 1);
}

#[tokio::test]
async fn a_reply_whose_first_piece_is_refused_costs_nothing_and_no_other_provider_is_asked() {
    let upstream = Upstream::start(vec![stream_head(), delta("secret"), finish()]).await;
    let next = Upstream::start(reply("Good evening.")).await;
    let filter = Arc::new(Refuses { word: "secret", asked: Mutex::default() });
    let settings = route(&[("first", &upstream), ("next", &next)]);
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let t = TestApp::with_seams(&settings, Seams { reply_filter: filter, ..Seams::default() }).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.problem(422, "content_refused");
    assert_eq!(ann.statuses(&t, "c").await, ["complete", "failed"]);
    assert_eq!((ann.used(&t).await, upstream.asked(), next.asked()), (0, 1, 0));
}
