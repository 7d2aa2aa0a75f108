//! The settings of providers, and the order in which they are tried.

use std::time::Duration;

use super::{Profile, ProviderKind, ProviderSettings, checks, reader::Reader};
use crate::chat::{
    provider::Model,
    providers::{
        anthropic::AnthropicSettings,
        demo::DemoSettings,
        openai::{KeyPlace, OpenAiSettings},
    },
};

/// Where Anthropic is.
const ANTHROPIC: &str = "https://api.anthropic.com";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Anthropic,
    Demo,
    OpenAi,
}

pub fn route(r: &mut Reader, profile: Profile) -> Option<Vec<ProviderSettings>> {
    let headers_timeout = r.duration("chat.headers_timeout");
    let mut known = Vec::new();
    for name in r.names_below("chat.providers") {
        let provider = provider(r, profile, &name, headers_timeout);
        known.push((name, provider));
    }
    let names = r.list("chat.route")?;
    if names.is_empty() {
        r.fault("chat.route", "names no provider");
        return None;
    }
    let mut route = Vec::new();
    for (place, name) in names.iter().enumerate() {
        if names.iter().take(place).any(|earlier| earlier == name) {
            r.fault("chat.route", format!("names “{name}” twice"));
        }
        let Some((name, (is_demo, kind))) = known.iter().find(|(known, _)| known == name) else {
            r.fault("chat.route", format!("names “{name}”, which is not among chat.providers"));
            continue;
        };
        if *is_demo {
            checks::routed_demo(r, profile, name);
        }
        route.push(kind.clone().map(|kind| ProviderSettings { name: name.clone(), kind }));
    }
    route.into_iter().collect()
}

/// A provider, and whether it is a demo: that is known also where the rest cannot be read.
fn provider(
    r: &mut Reader,
    profile: Profile,
    name: &str,
    headers_timeout: Option<Duration>,
) -> (bool, Option<ProviderKind>) {
    let key = |field: &str| format!("chat.providers.{name}.{field}");
    let kinds = [("anthropic", Kind::Anthropic), ("demo", Kind::Demo), ("openai", Kind::OpenAi)];
    let kind = r.choice(&key("kind"), &kinds);
    let model = model(r, key);
    let Some(kind) = kind else {
        // Which settings a provider has depends on what it is.
        r.pass_over(&format!("chat.providers.{name}"));
        return (false, None);
    };
    let settings = match kind {
        Kind::Demo => {
            let pace = r.pause(&key("pace"));
            (|| Some(ProviderKind::Demo(DemoSettings { model: model?, pace: pace? })))()
        }
        Kind::Anthropic => anthropic(r, profile, key, model, headers_timeout).map(ProviderKind::Anthropic),
        Kind::OpenAi => openai(r, profile, key, model, headers_timeout).map(ProviderKind::OpenAi),
    };
    (kind == Kind::Demo, settings)
}

fn model(r: &mut Reader, key: impl Fn(&str) -> String) -> Option<Model> {
    let name = r.needed_text(&key("model"));
    let context_tokens = r.number(&key("context_tokens"), 256, 10_000_000);
    let max_output_tokens = r.number(&key("max_output_tokens"), 16, 1_000_000);
    if let (Some(context), Some(output)) = (context_tokens, max_output_tokens)
        && output > context / 2
    {
        r.fault(
            &key("max_output_tokens"),
            "is more than half of context_tokens, and leaves too little for the conversation",
        );
    }
    Some(Model { name: name?, context_tokens: context_tokens?, max_output_tokens: max_output_tokens? })
}

fn openai(
    r: &mut Reader,
    profile: Profile,
    key: impl Fn(&str) -> String,
    model: Option<Model>,
    headers_timeout: Option<Duration>,
) -> Option<OpenAiSettings> {
    let base_url = r.provider_url(&key("base_url"));
    checks::provider_url(r, profile, &key("base_url"), base_url.as_ref());
    let api_key = r.secret(&key("api_key"));
    let places = [("bearer", KeyPlace::Bearer), ("api-key", KeyPlace::ApiKey)];
    let auth = if r.has(&key("auth")) { r.choice(&key("auth"), &places) } else { Some(KeyPlace::Bearer) };
    Some(OpenAiSettings {
        base_url: base_url?,
        api_key: api_key?,
        auth: auth?,
        model: model?,
        headers_timeout: headers_timeout?,
    })
}

fn anthropic(
    r: &mut Reader,
    profile: Profile,
    key: impl Fn(&str) -> String,
    model: Option<Model>,
    headers_timeout: Option<Duration>,
) -> Option<AnthropicSettings> {
    let base_url = if r.has(&key("base_url")) { r.url(&key("base_url")) } else { ANTHROPIC.parse().ok() };
    checks::provider_url(r, profile, &key("base_url"), base_url.as_ref());
    let api_key = r.secret(&key("api_key"));
    if matches!(api_key, Some(None)) {
        r.fault(&key("api_key"), "is missing");
    }
    Some(AnthropicSettings {
        base_url: base_url?,
        api_key: api_key??,
        model: model?,
        headers_timeout: headers_timeout?,
    })
}
