//! Sessions under any interleaving: an owner and a thief refresh, use, lose answers and let time pass, in every order that
//! a generator thinks of. In this model an answer arrives within ten seconds or never, and the owner keeps the tokens of
//! the highest generation that has arrived.

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    app::{TestApp, claims},
    http::Answer,
};

/// The window in which owner and thief cannot be told apart.
const WINDOW: i64 = 10;
/// The longest that a case may last: nothing ends by its age then.
const LONGEST: i64 = 12 * 86_400;

#[derive(Clone, Debug)]
enum Step {
    /// Presents the refresh token; the answer takes so many seconds, or is lost.
    Refresh(Who, Option<i64>),
    /// Calls something with the access token.
    Use(Who),
    /// Copies what the owner has.
    Steal,
    /// Lets seconds pass.
    Wait(i64),
    /// The owner leaves.
    LogOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Owner,
    Thief,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = prop_oneof![3 => Just(Who::Owner), 2 => Just(Who::Thief)];
    let answer = prop_oneof![4 => Just(Some(0)), 2 => (1..=WINDOW).prop_map(Some), 3 => Just(None)];
    let wait = prop_oneof![
        Just(1),
        Just(4),
        Just(9),
        Just(10),
        Just(11),
        Just(70),
        Just(500),
        Just(3_600),
        Just(86_400)
    ];
    let step = prop_oneof![
        8 => (who.clone(), answer).prop_map(|(who, answer)| Step::Refresh(who, answer)),
        5 => who.prop_map(Step::Use),
        1 => Just(Step::Steal),
        7 => wait.prop_map(Step::Wait),
        1 => Just(Step::LogOut),
    ];
    prop::collection::vec(step, 1..40)
}

#[derive(Clone, Debug)]
struct Tokens {
    access: String,
    refresh: String,
    generation: i64,
    until: Timestamp,
}

impl From<Value> for Tokens {
    fn from(answer: Value) -> Tokens {
        let access = answer["access_token"].as_str().unwrap().to_owned();
        let claims = claims(&access);
        Tokens {
            generation: claims["gen"].as_i64().unwrap(),
            until: Timestamp::from_second(claims["exp"].as_i64().unwrap()).unwrap(),
            refresh: answer["refresh_token"].as_str().unwrap().to_owned(),
            access,
        }
    }
}

/// One case: what everybody has, and what the model knows.
struct Case<'t> {
    t: &'t TestApp,
    session: Uuid,
    owner: Tokens,
    thief: Option<Tokens>,
    /// Answers on their way to the owner.
    coming: Vec<(Timestamp, Tokens)>,
    /// Every refresh token that was ever handed out, in the order in which each was the newest.
    handed_out: Vec<String>,
    owner_refreshed: Vec<Timestamp>,
    thief_refreshed: Option<Timestamp>,
    /// Whether the thief has ever sent anything.
    attacked: bool,
    over: bool,
}

impl<'t> Case<'t> {
    async fn begin(t: &'t TestApp) -> Case<'t> {
        t.clock.advance(SignedDuration::from_hours(1));
        let login = json!({"email": "ann@example.com", "password": crate::support::app::PASSWORD});
        let answer = t.post("/v1/auth/login", login).await.ok();
        let session = Uuid::parse_str(answer["session"]["id"].as_str().unwrap()).unwrap();
        let owner = Tokens::from(answer);
        Case {
            t,
            session,
            handed_out: vec![owner.refresh.clone()],
            owner,
            thief: None,
            coming: Vec::new(),
            owner_refreshed: Vec::new(),
            thief_refreshed: None,
            attacked: false,
            over: false,
        }
    }

    async fn run(&mut self, steps: &[Step]) {
        let end = self.t.now() + SignedDuration::from_secs(LONGEST);
        for step in steps {
            match step {
                Step::Refresh(Who::Owner, answer) => self.owner_refreshes(*answer).await,
                Step::Refresh(Who::Thief, answer) => self.thief_refreshes(*answer).await,
                Step::Use(who) => self.uses(*who).await,
                Step::Steal => {
                    self.thief = Some(self.owner.clone());
                    self.thief_refreshed = None;
                }
                Step::Wait(seconds) => {
                    if self.t.now() + SignedDuration::from_secs(*seconds) < end {
                        self.wait(*seconds);
                    }
                }
                Step::LogOut => self.log_out().await,
            }
            self.check_what_is_stored().await;
        }
        // What an honest client can do in the end, whatever it has lost.
        if !self.attacked && !self.over {
            self.owner_refreshes(Some(0)).await;
            self.uses(Who::Owner).await;
        }
    }

    async fn refresh(&mut self, token: &str) -> Answer {
        let answer = self.t.refresh(token).await;
        if answer.code == 200 {
            let tokens = Tokens::from(answer.json());
            match self.handed_out.iter().position(|known| *known == tokens.refresh) {
                Some(place) => assert_eq!(place + 1, self.handed_out.len(), "an old token is handed out"),
                None => self.handed_out.push(tokens.refresh),
            }
        } else {
            let code = answer.problem_code().unwrap();
            assert!(matches!(code.as_str(), "invalid_grant" | "refresh_token_reused"), "{code}");
            assert!(self.over || self.attacked, "somebody who only lost answers is out: {code}");
            self.over = true;
        }
        answer
    }

    async fn owner_refreshes(&mut self, takes: Option<i64>) {
        let now = self.t.now();
        let answer = self.refresh(&self.owner.refresh.clone()).await;
        let hidden = self.thief_refreshed.is_some_and(|acted| {
            let mut near = self.owner_refreshed.iter().chain([&now]);
            !near.any(|at| at.duration_since(acted).abs() <= SignedDuration::from_secs(WINDOW))
        });
        self.owner_refreshed.push(now);
        if hidden {
            self.thief_is_out().await;
            return;
        }
        if let (200, Some(takes)) = (answer.code, takes) {
            self.coming.push((now + SignedDuration::from_secs(takes), answer.ok().into()));
            self.deliver();
        }
    }

    /// The thief got tokens when the owner was far, and the owner has refreshed since.
    async fn thief_is_out(&mut self) {
        let thief = self.thief.clone().unwrap();
        self.t.get("/v1/me").bearer(&thief.access).await.problem(401, "unauthenticated");
        let answer = self.refresh(&thief.refresh).await;
        assert_eq!(answer.code, 401, "the thief is still in");
        self.over = true;
    }

    async fn thief_refreshes(&mut self, answer_takes: Option<i64>) {
        let Some(thief) = self.thief.clone() else { return };
        self.attacked = true;
        let answer = self.refresh(&thief.refresh).await;
        if answer.code == 200 && answer_takes.is_some() {
            self.thief = Some(answer.ok().into());
            self.thief_refreshed = Some(self.t.now());
        }
    }

    async fn uses(&mut self, who: Who) {
        let tokens = match who {
            Who::Owner => self.owner.clone(),
            Who::Thief => match &self.thief {
                Some(thief) => thief.clone(),
                None => return,
            },
        };
        self.attacked |= who == Who::Thief;
        if self.t.now() >= tokens.until {
            return;
        }
        let answer = self.t.get("/v1/me").bearer(&tokens.access).await;
        assert!(answer.code == 200 || answer.code == 401, "{}", answer.text);
        assert!(answer.code == 401 || !self.over, "a session that is over answers");
    }

    fn wait(&mut self, seconds: i64) {
        for _ in 0..seconds.min(WINDOW + 1) {
            self.t.clock.advance(SignedDuration::from_secs(1));
            self.deliver();
        }
        self.t.clock.advance(SignedDuration::from_secs((seconds - WINDOW - 1).max(0)));
    }

    fn deliver(&mut self) {
        let now = self.t.now();
        let (arrived, coming) = self.coming.drain(..).partition(|(at, _)| *at <= now);
        self.coming = coming;
        let arrived: Vec<(Timestamp, Tokens)> = arrived;
        for (_, tokens) in arrived {
            if tokens.generation >= self.owner.generation {
                self.owner = tokens;
            }
        }
    }

    async fn log_out(&mut self) {
        let body = json!({"refresh_token": self.owner.refresh});
        self.t.post("/v1/auth/logout", body).await.status(204);
        self.over = true;
    }

    /// One refresh token is live: the newest that was handed out.
    async fn check_what_is_stored(&self) {
        digitalmistress::queries! {
            fn newest(id: Uuid) -> Vec<u8> = "SELECT refresh_hash FROM session WHERE id = $1";
        }
        let session = self.session;
        let read = async move |c| newest(session).opt(&c).await;
        let stored: Result<Option<Vec<u8>>, digitalmistress::platform::db::Error> =
            self.t.db().read(read).await;
        let last = digest(&SHA256, self.handed_out.last().unwrap().as_bytes());
        match stored.unwrap() {
            Some(hash) => {
                assert!(!self.over, "a session that is over has a row");
                assert_eq!(hash, last.as_ref(), "another token is the live one");
            }
            None => assert!(self.over, "a session has ended by itself"),
        }
        let different: HashSet<&String> = self.handed_out.iter().collect();
        assert_eq!(different.len(), self.handed_out.len());
    }
}

/// As in Rauthy: each use of an old token within its grace made another pair, and nobody could tell them apart later.
#[test]
fn no_interleaving_forks_a_session_or_throws_an_honest_client_out() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let t = runtime.block_on(async {
        let t = TestApp::start().await;
        t.clock.stop();
        t.sign_up("ann@example.com").await;
        t
    });
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let tried = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            let mut case = Case::begin(&t).await;
            case.run(&steps).await;
        });
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}
