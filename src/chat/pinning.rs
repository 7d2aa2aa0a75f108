//! What a conversation keeps of the day on which it began: its companion's persona and its model. Settings change; whoever
//! somebody talks to does not become another overnight.

use std::{fmt::Write as _, sync::atomic::Ordering};

use serde::Deserialize;
use serde_json::json;

use super::{
    Chat, ChatError, Companion, NamedProvider,
    store::{self, ConversationRow},
};
use crate::platform::{
    db,
    digest::sha256,
    keyring::{KeyError, Service},
    seal::{DataKey, DoesNotOpen, Place, Sealed},
};

/// Bytes of a hash that name a version. It tells apart what one operator has written, so eight are plenty.
const VERSION_LEN: usize = 8;

/// What a model is told of a companion. The operator's secret.
#[derive(Deserialize)]
struct Persona {
    name: String,
    prompt: String,
}

/// What a conversation is begun with, and keeps.
#[derive(Clone)]
pub struct Beginning {
    /// The companion's id.
    pub companion: String,
    /// The version of its persona: equal for equal texts, on every machine.
    pub persona_version: String,
    /// The model.
    pub model: String,
}

impl Persona {
    /// As it is stored. A version is the hash of exactly this: another form would be another version of everybody.
    fn text(companion: &Companion) -> String {
        json!({"name": companion.card.name, "prompt": companion.prompt}).to_string()
    }

    fn version(companion: &Companion) -> String {
        let hash = sha256(Persona::text(companion).as_bytes());
        hash.iter().take(VERSION_LEN).fold(String::new(), |mut version, byte| {
            let _ = write!(version, "{byte:02x}"); // Writing to a string cannot fail.
            version
        })
    }

    fn open(key: &DataKey, place: Place<'_>, sealed: &Sealed) -> Result<Persona, DoesNotOpen> {
        let text = key.open(place, sealed)?;
        serde_json::from_slice(&text).map_err(|_| DoesNotOpen("persona.body"))
    }
}

impl Chat {
    /// Keeps the personas of the settings, so that conversations that begin with them can go on with them when the
    /// settings have changed. At start, and by every instance: what is there already is left alone.
    pub async fn keep_personas(&self) -> Result<(), KeyError> {
        let key = self.parts().keyring.service(Service::Personas)?;
        let seal = |companion: &Companion| {
            let (id, version) = (companion.card.id.clone(), Persona::version(companion));
            let text = Persona::text(companion);
            let body = key.seal(place(&id, &version), text.as_bytes(), &*self.parts().random);
            (id, version, body)
        };
        let personas: Vec<_> = self.companions().all().iter().map(seal).collect();
        let now = self.parts().clock.now();
        let keep = async move |c| {
            for (id, version, body) in &personas {
                store::add_persona(id, version, body, now).exec(&c).await?;
            }
            Ok::<_, db::Error>(())
        };
        Ok(self.parts().db.write(keep).await?)
    }

    /// What a conversation that is begun now keeps.
    pub(super) fn beginning(&self, companion: &Companion) -> Beginning {
        Beginning {
            companion: companion.card.id.clone(),
            persona_version: Persona::version(companion),
            model: self.model().to_owned(),
        }
    }

    /// The companion as it was when a conversation began, unless the operator wants it to follow the settings.
    pub(super) async fn as_it_was(
        &self,
        companion: &Companion,
        conversation: &ConversationRow,
    ) -> Result<Companion, ChatError> {
        let mut companion = companion.clone();
        let version = match &conversation.persona_version {
            Some(version) if !companion.follow && *version != Persona::version(&companion) => version,
            _ => return Ok(companion),
        };
        let id = companion.card.id.as_str();
        let stored = self.parts().db.read(async |c| store::find_persona(id, version).opt(&c).await).await?;
        let Some(stored) = stored else {
            // Of a database that was put together from others. To answer as today is better than not to answer.
            if !self.persona_missed.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    companion = id,
                    version,
                    "a persona is not stored; the current one speaks instead"
                );
            }
            return Ok(companion);
        };
        let key = self.parts().keyring.service(Service::Personas)?;
        let Persona { name, prompt } = Persona::open(key, place(id, version), &stored.body)?;
        companion.card.name = name;
        companion.prompt = prompt;
        Ok(companion)
    }
}

fn place<'a>(companion: &'a str, version: &'a str) -> Place<'a> {
    Place::inside("persona.body", companion.as_bytes(), version.as_bytes())
}

/// The route for a conversation that began with `model`: who offers that model first, then the others, both in their
/// order. Nobody offers it any more: the route as it is. Pure.
pub fn route_for<'r>(route: &'r [NamedProvider], model: &str) -> Vec<&'r NamedProvider> {
    let offers = |candidate: &&NamedProvider| candidate.provider.model().name == model;
    let (first, then): (Vec<_>, Vec<_>) = route.iter().partition(offers);
    [first, then].concat()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::chat::{
        CompanionCard,
        breaker::BreakerSettings,
        provider::Model,
        providers::demo::{Demo, DemoSettings},
    };

    fn companion(name: &str, prompt: &str) -> Companion {
        let card = CompanionCard {
            id: "ada".into(),
            name: name.into(),
            tagline: String::new(),
            greeting: String::new(),
            avatar_url: None,
            available: true,
            requires_plan: None,
        };
        Companion { card, prompt: prompt.into(), follow: false }
    }

    #[test]
    fn a_version_is_what_the_model_is_told_and_nothing_else() {
        let version = |name, prompt| Persona::version(&companion(name, prompt));
        // Stored in databases: it must not change with the program. SHA-256 of {"name":"Ada","prompt":"Be kind."}.
        assert_eq!(version("Ada", "Be kind."), "3adbe0cd58754df0");
        assert_ne!(version("Ada", "Be kind."), version("Ada", "Be brief."));
        assert_ne!(version("Ada", "Be kind."), version("Eva", "Be kind."));
        let mut shown = companion("Ada", "Be kind.");
        shown.card.tagline = "Another line".into();
        assert_eq!(Persona::version(&shown), version("Ada", "Be kind."));
    }

    #[test]
    fn who_offers_the_model_comes_first_in_the_order_of_the_route() {
        let provider = |(name, model): &(&str, &str)| {
            let model = Model { name: (*model).into(), context_tokens: 8_000, max_output_tokens: 1_000 };
            let demo = Demo::new(DemoSettings { model, pace: Duration::ZERO });
            let never = BreakerSettings { failures: 0, window: 1, pause: Duration::ZERO };
            NamedProvider::new(name, Arc::new(demo), never)
        };
        let route: Vec<_> =
            [("a", "new"), ("b", "old"), ("c", "other"), ("d", "old")].iter().map(provider).collect();
        for (model, order) in
            [("old", "bdac"), ("new", "abcd"), ("other", "cabd"), ("gone", "abcd"), ("", "abcd")]
        {
            let names: String = route_for(&route, model).iter().map(|found| found.name.as_str()).collect();
            assert_eq!(names, order, "{model}");
        }
        assert!(route_for(&[], "old").is_empty());
    }
}
