//! Settings: layered, strict, and every fault at once.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

use digitalmistress::config::{Config, KeyPlace, Profile, ProviderKind, Sources};
use secrecy::ExposeSecret as _;

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn load(profile: Profile, pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let sources = Sources { profile, file: None, env: env(pairs) };
    Config::load(&sources).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

const KEY: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The least that production needs.
fn production() -> Vec<(&'static str, &'static str)> {
    vec![
        ("DM__SERVER__PUBLIC_URL", "https://api.example.com"),
        ("DM__SERVER__FRONTEND_URL", "https://www.example.com"),
        ("DM__SECURITY__MASTER_KEYS", KEY),
        ("DM__CHAT__ROUTE", "main"),
        ("DM__CHAT__PROVIDERS__MAIN__KIND", "openai"),
        ("DM__CHAT__PROVIDERS__MAIN__BASE_URL", "https://provider.example.com/v1"),
        ("DM__CHAT__PROVIDERS__MAIN__API_KEY", "sk-canary-key"),
        ("DM__CHAT__PROVIDERS__MAIN__MODEL", "m"),
        ("DM__CHAT__PROVIDERS__MAIN__CONTEXT_TOKENS", "8192"),
        ("DM__CHAT__PROVIDERS__MAIN__MAX_OUTPUT_TOKENS", "1024"),
        ("DM__MAIL__SMTP_URL", "smtps://user:canary-password@mail.example.com"),
        ("DM__MAIL__FROM", "Example <no-reply@example.com>"),
    ]
}

fn with(
    mut pairs: Vec<(&'static str, &'static str)>,
    more: &[(&'static str, &'static str)],
) -> Vec<(&'static str, &'static str)> {
    pairs.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    pairs.extend(more);
    pairs
}

#[test]
fn the_defaults_are_sound_in_development_and_incomplete_in_production() {
    let config = load(Profile::Development, &[]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.public_url.as_str(), "http://localhost:8080/");
    assert_eq!(config.database.url.expose_secret(), "sqlite:data/digitalmistress.sqlite");

    let faults = load(Profile::Production, &[]).unwrap_err().join("\n");
    for missing in ["PUBLIC_URL", "FRONTEND_URL", "MASTER_KEYS", "ROUTE", "SMTP_URL"] {
        assert!(faults.contains(missing), "{missing} is not missed:\n{faults}");
    }
    load(Profile::Production, &production()).unwrap();
}

#[test]
fn the_example_file_names_settings_that_exist() {
    let text = std::fs::read_to_string("config/example.env").unwrap();
    let pairs: Vec<(OsString, OsString)> = text
        .lines()
        .filter(|line| line.starts_with("DM__"))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    assert!(pairs.len() > 10);
    let sources = Sources { profile: Profile::Production, file: None, env: pairs };
    let faults: Vec<String> = Config::load(&sources).unwrap_err().iter().map(ToString::to_string).collect();
    assert!(!faults.iter().any(|fault| fault.contains("is not a setting")), "{faults:#?}");
}

#[test]
fn the_files_of_deployment_name_settings_that_exist() {
    for file in ["deploy/compose.yaml", "deploy/Dockerfile"] {
        let text = std::fs::read_to_string(file).unwrap();
        let pairs: Vec<(OsString, OsString)> = text
            .lines()
            .filter_map(|line| line.find("DM__").map(|at| line.split_at(at).1))
            .filter_map(|set| set.split_once(": ").or_else(|| set.split_once('=')))
            .map(|(name, value)| (name.into(), value.trim_end_matches([' ', '\\']).into()))
            .collect();
        assert!(pairs.len() >= 2, "{file}");
        let sources = Sources { profile: Profile::Production, file: None, env: pairs };
        let faults: Vec<String> =
            Config::load(&sources).unwrap_err().iter().map(ToString::to_string).collect();
        assert!(!faults.iter().any(|fault| fault.contains("is not a setting")), "{file}: {faults:#?}");
        assert!(!faults.iter().any(|fault| fault.contains("SERVER__LISTEN")), "{file}: {faults:#?}");
    }
}

#[test]
fn later_layers_win_and_variables_always() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("own.toml");
    std::fs::write(
        &file,
        "[server]\ndata_dir = \"from-file\"\nmax_connections = 7\n[chat.companions.roz]\navailable = false\n",
    )
    .unwrap();
    let load = |pairs: &[(&str, &str)]| {
        Config::load(&Sources { profile: Profile::Development, file: Some(file.clone()), env: env(pairs) })
            .unwrap()
    };
    let config = load(&[]);
    assert_eq!(
        (config.server.data_dir.clone(), config.server.max_connections),
        (PathBuf::from("from-file"), 7)
    );
    assert!(!config.companions.get("roz").unwrap().card.available);
    assert!(config.companions.get("octavia").unwrap().card.available);
    let config = load(&[
        ("DM__SERVER__DATA_DIR", "from-variable"),
        ("DM__SERVER__ALLOWED_ORIGINS", " https://a.example , https://b.example,"),
    ]);
    assert_eq!(config.server.data_dir, PathBuf::from("from-variable"));
    assert_eq!(config.server.allowed_origins, ["https://a.example", "https://b.example"]);
}

#[test]
fn settings_of_the_route_are_judged_together() {
    let faults = |more: &[(&'static str, &'static str)]| {
        load(Profile::Production, &with(production(), more)).unwrap_err()
    };
    let twice = faults(&[("DM__CHAT__ROUTE", "main, main")]);
    assert_eq!(twice, ["DM__CHAT__ROUTE names “main” twice"]);
    let never = faults(&[("DM__CHAT__BREAKER_FAILURES", "11")]);
    assert_eq!(never, ["DM__CHAT__BREAKER_FAILURES is more than chat.breaker_window"]);
    let once = faults(&[("DM__CHAT__BREAKER_FAILURES", "1")]);
    assert_eq!(once, ["DM__CHAT__BREAKER_FAILURES is 1; it must be 0, which is never, or at least 2"]);
    assert_eq!(faults(&[("DM__CHAT__IDLE_TIMEOUT", "0s")]).len(), 1);
}

#[test]
fn a_contact_is_a_mailbox_or_a_page() {
    for (given, read) in [
        ("", None),
        ("mailto:security@example.com", Some("mailto:security@example.com")),
        (" https://www.example.com/security ", Some("https://www.example.com/security")),
    ] {
        let config = load(Profile::Development, &[("DM__SERVER__SECURITY_CONTACT", given)]).unwrap();
        assert_eq!(config.server.security_contact.as_ref().map(url::Url::as_str), read);
    }
    let broken = "mailto:a@example.com\nContact:";
    for given in ["security@example.com", "http://www.example.com", "mailto:", "mailto:nobody", "tel:+1"] {
        let faults = load(Profile::Development, &[("DM__SERVER__SECURITY_CONTACT", given)]).unwrap_err();
        assert!(faults[0].contains("SECURITY_CONTACT"), "{faults:?}");
    }
    // Nothing that is set adds a line to the page.
    let config = load(Profile::Development, &[("DM__SERVER__SECURITY_CONTACT", broken)]).unwrap();
    assert!(!config.server.security_contact.unwrap().as_str().contains('\n'));
}

#[test]
fn every_fault_is_reported_at_once_and_no_secret_is_shown() {
    let pairs = with(
        production(),
        &[
            ("DM__SERVER__LISTEN", "everywhere"),
            ("DM__SERVER__PUBLIC_URL", "http://api.example.com"),
            ("DM__SERVER__ALLOWED_ORIGINS", "*"),
            ("DM__SERVER__TYPO", "1"),
            ("DM__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, proxy.example.com"),
            ("DM__AUTH__THROTTLE__LOGIN_ACCOUNT__BURST", "0"),
            ("DM__AUTH__THROTTLE__SIGNUP_ADDRESS__EVERY", "0s"),
            ("DM__SECURITY__MASTER_KEYS", "k1:c2VjcmV0LWNhbmFyeQ=="),
            ("DM__AUTH__ACCESS_TOKEN_TTL", "ten minutes"),
            ("DM__AUTH__PASSWORD_MIN_LENGTH", "3"),
            ("DM__CHAT__LEASE", "0s"),
            ("DM__CHAT__PROVIDERS__MAIN__MAX_OUTPUT_TOKENS", "8000"),
            ("DM__DATABASE__URL", "mysql://user:canary-password@db.example.com"),
            ("DM__LOG__LEVEL", "loud"),
            ("DM__CHAT__ROUTE", "main, typo"),
            ("DM__CHAT__COMPANIONS__ROZ__AVAILABLE", "perhaps"),
            ("DM__CHAT__COMPANIONS__ROZ__FOLLOW", "perhaps"),
            ("DM__CHAT__PROVIDERS__TYPO__KIND", "opneai"),
            ("DM__CHAT__PROVIDERS__TYPO__BASE_URL", "https://provider.example.com/v1"),
            ("DM__CHAT__PROVIDERS__TYPO__API_KEY", "sk-canary-key"),
            ("DM__CHAT__PROVIDERS__TYPO__MODEL", "m"),
            ("DM__CHAT__PROVIDERS__TYPO__CONTEXT_TOKENS", "8192"),
            ("DM__CHAT__PROVIDERS__TYPO__MAX_OUTPUT_TOKENS", "1024"),
            ("DM__CHAT__PROVIDERS__TYPO__PACE", "1s"),
        ],
    );
    let faults = load(Profile::Production, &pairs).unwrap_err();
    let text = faults.join("\n");
    let all = [
        "DM__SERVER__LISTEN",
        "DM__SERVER__PUBLIC_URL",
        "DM__SERVER__ALLOWED_ORIGINS",
        "DM__SERVER__TYPO",
        "DM__SERVER__TRUSTED_PROXIES",
        "DM__AUTH__THROTTLE__LOGIN_ACCOUNT__BURST",
        "DM__AUTH__THROTTLE__SIGNUP_ADDRESS__EVERY",
        "DM__SECURITY__MASTER_KEYS",
        "DM__AUTH__ACCESS_TOKEN_TTL",
        "DM__AUTH__PASSWORD_MIN_LENGTH",
        "DM__CHAT__LEASE",
        "DM__CHAT__PROVIDERS__MAIN__MAX_OUTPUT_TOKENS",
        "DM__DATABASE__URL",
        "DM__LOG__LEVEL",
        "DM__CHAT__COMPANIONS__ROZ__AVAILABLE",
        "DM__CHAT__COMPANIONS__ROZ__FOLLOW",
        "DM__CHAT__PROVIDERS__TYPO__KIND",
    ];
    for named in all {
        assert!(faults.iter().any(|fault| fault.starts_with(&format!("{named} "))), "{named}:\n{text}");
    }
    assert_eq!(faults.len(), all.len(), "something is called wrong that is not:\n{text}");
    assert!(!text.contains("canary") && !text.contains("c2VjcmV0"), "{text}");
}

#[test]
fn one_wrong_key_does_not_make_its_neighbours_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("own.toml");
    for (text, fault) in [
        ("[server]\npublic_url = 7", "server.public_url"),
        ("[database]\nurl = 7", "database.url"),
        ("[chat]\nroute = 7", "chat.route"),
        ("[chat]\nfree_companions = 7", "chat.free_companions"),
        ("[mail]\ntransport = \"pigeon\"", "mail.transport"),
        ("[chat.providers.demo]\nkind = \"dmeo\"", "chat.providers.demo.kind"),
        ("[chat.companions.roz]\navailable = 7", "chat.companions.roz.available"),
    ] {
        std::fs::write(&file, text).unwrap();
        let sources = Sources { profile: Profile::Development, file: Some(file.clone()), env: Vec::new() };
        let faults = Config::load(&sources).unwrap_err();
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert_eq!(faults[0].name, format!("{fault} ({})", file.display()));
    }
}

#[test]
fn a_file_of_the_operators_is_named_wherever_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    // A path that begins like those of the files that are compiled in.
    let up = "../".repeat(std::env::current_dir().unwrap().components().count());
    let file = PathBuf::from("config").join(up).join(dir.path().strip_prefix("/").unwrap()).join("own.toml");
    std::fs::write(&file, "[server]\ntypo = 1\n").unwrap();
    let sources = Sources { profile: Profile::Development, file: Some(file.clone()), env: Vec::new() };
    let faults = Config::load(&sources).unwrap_err();
    assert_eq!(faults[0].to_string(), format!("server.typo ({}) is not a setting", file.display()));
}

#[test]
fn a_variable_of_ours_that_is_not_utf_8_is_a_fault() {
    let odd = || OsString::from_vec(b"x\xff".to_vec());
    let env = vec![
        ("DM__SERVER__DATA_DIR".into(), odd()),
        (OsString::from_vec(b"DM__SERVER__\xff".to_vec()), "x".into()),
        ("PATH".into(), odd()),
        (odd(), odd()),
    ];
    let faults = Config::load(&Sources { profile: Profile::Development, file: None, env }).unwrap_err();
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults, ["DM__SERVER__DATA_DIR is not UTF-8", "DM__SERVER__\u{fffd} is not a setting"]);
}

#[test]
fn the_free_tier_names_companions_that_exist_and_need_no_plan() {
    let refused = |pairs: &[(&str, &str)]| load(Profile::Development, pairs).unwrap_err().join("\n");
    for ids in ["nobody", "roz, nobody", "*, nobody"] {
        let faults = refused(&[("DM__CHAT__FREE_COMPANIONS", ids)]);
        assert!(faults.contains("FREE_COMPANIONS names “nobody”"), "{ids}: {faults}");
    }
    let plan = ("DM__CHAT__COMPANIONS__ROZ__REQUIRES_PLAN", "plus");
    for ids in ["*", "roz", "octavia, roz"] {
        let faults = refused(&[plan, ("DM__CHAT__FREE_COMPANIONS", ids)]);
        assert!(faults.contains("ROZ__REQUIRES_PLAN is set"), "{ids}: {faults}");
    }
    load(Profile::Development, &[plan, ("DM__CHAT__FREE_COMPANIONS", "octavia, tamsin")]).unwrap();
    load(Profile::Development, &[("DM__CHAT__FREE_COMPANIONS", "")]).unwrap();
}

#[test]
fn production_refuses_what_is_dangerous_there() {
    for (name, value, complaint) in [
        ("DM__SERVER__PUBLIC_URL", "http://api.example.com", "is not https"),
        ("DM__SERVER__FRONTEND_URL", "http://www.example.com", "is not https"),
        ("DM__AUTH__BREACH_CHECK_URL", "http://breaches.example.com/range", "is not https"),
        ("DM__SERVER__ALLOWED_ORIGINS", "*", "origin"),
        ("DM__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 0.0.0.0/0", "trusts everybody"),
        ("DM__SERVER__TRUSTED_PROXIES", "::/0", "trusts everybody"),
        ("DM__SERVER__ALLOWED_ORIGINS", "https://www.example.com,http://www.example.com", "not https"),
        ("DM__AUTH__ACCESS_TOKEN_TTL", "3650d", "more than an hour"),
        ("DM__MAIL__SMTP_URL", "smtp://mail.example.com?tls=opportunistic&tls=required", "is not encrypted"),
        ("DM__MAIL__FROM", "", "is missing"),
        ("DM__MAIL__TRANSPORT", "mailbox", "development helper"),
        ("DM__MAIL__SMTP_URL", "smtp://mail.example.com", "is not encrypted"),
        ("DM__CHAT__PROVIDERS__MAIN__BASE_URL", "http://provider.example.com/v1", "is not https"),
        ("DM__DATABASE__URL", "postgres://app@db.example.com/dm", "without a password"),
        ("DM__DATABASE__URL", "postgres://app:p@db.example.com/dm?sslmode=disable", "without TLS"),
        ("DM__DATABASE__URL", "postgres://app:p@db.example.com/dm?sslmode=prefer", "without TLS"),
        ("DM__SECURITY__MASTER_KEYS", "", "is missing"),
        ("DM__SECURITY__MASTER_KEYS", "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "not random"),
    ] {
        let faults = load(Profile::Production, &with(production(), &[(name, value)])).unwrap_err();
        assert!(faults.iter().any(|fault| fault.contains(complaint)), "{name}={value}: {faults:?}");
    }
    let demo = with(
        production(),
        &[
            ("DM__CHAT__ROUTE", "main,toy"),
            ("DM__CHAT__PROVIDERS__TOY__KIND", "demo"),
            ("DM__CHAT__PROVIDERS__TOY__MODEL", "demo"),
            ("DM__CHAT__PROVIDERS__TOY__CONTEXT_TOKENS", "8192"),
            ("DM__CHAT__PROVIDERS__TOY__MAX_OUTPUT_TOKENS", "1024"),
            ("DM__CHAT__PROVIDERS__TOY__PACE", "0s"),
        ],
    );
    let faults = load(Profile::Production, &demo).unwrap_err();
    assert!(faults.iter().any(|fault| fault.contains("development helper")), "{faults:?}");
    for (name, value) in [
        ("DM__DATABASE__URL", "postgres://app:p@db.example.com/dm"),
        ("DM__DATABASE__URL", "postgres://app@127.0.0.1/dm"),
        ("DM__CHAT__PROVIDERS__MAIN__BASE_URL", "http://127.0.0.1:8000/v1"),
        ("DM__MAIL__SMTP_URL", "smtp://mail.example.com?tls=required"),
    ] {
        load(Profile::Production, &with(production(), &[(name, value)])).unwrap();
    }
}

#[test]
fn what_a_profile_refuses_is_told_beside_what_cannot_be_read() {
    let broken = with(
        production(),
        &[
            ("DM__SERVER__PUBLIC_URL", "http://api.example.com"),
            ("DM__SERVER__MAX_CONNECTIONS", "many"),
            ("DM__MAIL__SMTP_URL", ""),
            ("DM__MAIL__FROM", ""),
            ("DM__CHAT__ROUTE", "nobody,main,toy"),
            ("DM__CHAT__PROVIDERS__TOY__KIND", "demo"),
            ("DM__CHAT__PROVIDERS__TOY__MODEL", ""),
            ("DM__CHAT__PROVIDERS__MAIN__BASE_URL", "http://provider.example.com/v1"),
        ],
    );
    let faults = load(Profile::Production, &broken).unwrap_err().join("\n");
    for named in [
        "PUBLIC_URL is not https",
        "MAX_CONNECTIONS is “many”",
        "SMTP_URL is missing",
        "FROM is missing",
        "names “nobody”",
        "names “toy”, which is a development helper",
        "BASE_URL is not https",
    ] {
        assert!(faults.contains(named), "{named}:\n{faults}");
    }
}

#[test]
fn a_fault_does_not_show_what_an_address_carries() {
    for url in [
        "https://user:canary@provider.example.com/v1",
        "https://provider.example.com/v1?key=canary",
        "https://provider.example.com/v1?api-version=1&key=canary",
        "https://user:canary@",
        "ftp://user:canary@provider.example.com",
    ] {
        let settings = with(production(), &[("DM__CHAT__PROVIDERS__MAIN__BASE_URL", url)]);
        let faults = load(Profile::Production, &settings).unwrap_err().join("\n");
        assert!(faults.contains("BASE_URL") && !faults.contains("canary"), "{faults}");
    }
}

/// Settings of the provider of [`production`], in place of those that it has.
fn with_provider(
    more: &[(&'static str, &'static str)],
    without: &[&str],
) -> Result<Vec<ProviderKind>, String> {
    let mut settings = with(production(), more);
    settings.retain(|(name, _)| !without.iter().any(|field| name.ends_with(field)));
    let config = load(Profile::Production, &settings).map_err(|faults| faults.join("\n"))?;
    let text = format!("{config:?}");
    assert!(!text.contains("canary"), "{text}");
    Ok(config.route.into_iter().map(|provider| provider.kind).collect())
}

#[test]
fn anthropic_needs_a_key_and_has_an_address() {
    const KIND: (&str, &str) = ("DM__CHAT__PROVIDERS__MAIN__KIND", "anthropic");

    let kinds = with_provider(&[KIND], &["MAIN__BASE_URL"]).unwrap();
    let [ProviderKind::Anthropic(settings)] = &kinds[..] else { panic!("{kinds:?}") };
    assert_eq!(settings.base_url.as_str(), "https://api.anthropic.com/");
    assert_eq!(settings.api_key.expose_secret(), "sk-canary-key");

    let kinds = with_provider(&[KIND], &[]).unwrap();
    let [ProviderKind::Anthropic(settings)] = &kinds[..] else { panic!("{kinds:?}") };
    assert_eq!(settings.base_url.as_str(), "https://provider.example.com/v1");

    let faults = with_provider(&[KIND], &["MAIN__API_KEY"]).unwrap_err();
    assert_eq!(faults, "DM__CHAT__PROVIDERS__MAIN__API_KEY is missing");
    let exposed = ("DM__CHAT__PROVIDERS__MAIN__BASE_URL", "http://provider.example.com");
    let faults = with_provider(&[KIND, exposed], &[]).unwrap_err();
    assert_eq!(faults, "DM__CHAT__PROVIDERS__MAIN__BASE_URL is not https, and not on this machine");
    let auth = ("DM__CHAT__PROVIDERS__MAIN__AUTH", "api-key");
    let faults = with_provider(&[KIND, auth], &[]).unwrap_err();
    assert_eq!(faults, "DM__CHAT__PROVIDERS__MAIN__AUTH is not a setting");
}

#[test]
fn azure_is_openai_with_a_version_and_a_header_of_its_own() {
    const AZURE: &str = "https://r.openai.azure.com/openai/deployments/d?api-version=2024-10-21";
    let address = ("DM__CHAT__PROVIDERS__MAIN__BASE_URL", AZURE);
    let place = |more: &[(&'static str, &'static str)]| {
        let kinds = with_provider(more, &[])?;
        let [ProviderKind::OpenAi(settings)] = &kinds[..] else { panic!("{kinds:?}") };
        Ok::<_, String>((settings.auth, settings.base_url.to_string()))
    };
    let auth = |value| ("DM__CHAT__PROVIDERS__MAIN__AUTH", value);
    assert_eq!(place(&[address, auth("api-key")]).unwrap(), (KeyPlace::ApiKey, AZURE.to_owned()));
    assert_eq!(place(&[address, auth("bearer")]).unwrap().0, KeyPlace::Bearer);
    assert_eq!(place(&[address]).unwrap().0, KeyPlace::Bearer);
    assert_eq!(place(&[address, auth("")]).unwrap().0, KeyPlace::Bearer);
    let faults = place(&[auth("basic")]).unwrap_err();
    assert_eq!(faults, "DM__CHAT__PROVIDERS__MAIN__AUTH is “basic”; one of bearer, api-key is needed");
}

#[test]
fn development_listens_on_this_machine_only() {
    for address in ["0.0.0.0:8080", "[::]:8080", "192.168.0.1:80"] {
        let faults = load(Profile::Development, &[("DM__SERVER__LISTEN", address)]).unwrap_err();
        assert!(faults[0].contains("not this machine"), "{faults:?}");
    }
    let faults = load(Profile::Development, &[("DM__SERVER__METRICS_LISTEN", "0.0.0.0:9000")]).unwrap_err();
    assert!(faults[0].starts_with("DM__SERVER__METRICS_LISTEN is not this machine"), "{faults:?}");
    load(Profile::Development, &[("DM__SERVER__METRICS_LISTEN", "127.0.0.1:9000")]).unwrap();
    load(Profile::Development, &[("DM__SERVER__LISTEN", "[::1]:8080")]).unwrap();
    load(Profile::Development, &[("DM__SERVER__LISTEN", "127.0.0.2:8080")]).unwrap();
}

/// Development has more of everything.
#[test]
fn production_has_the_throttles_that_the_documents_name() {
    use digitalmistress::platform::rate::Rate;
    use std::time::Duration;

    let throttle = load(Profile::Production, &production()).unwrap().auth.throttle;
    let rate = |burst, seconds| Rate { burst, every: Duration::from_secs(seconds) };
    assert_eq!(throttle.login_account, rate(10, 60));
    assert_eq!(throttle.login_pair, rate(5, 60));
    assert_eq!(throttle.login_address, rate(30, 3));
    assert_eq!(throttle.signup_address, rate(5, 1200));
    assert_eq!(throttle.mail_recipient, rate(3, 3600));
    assert_eq!(throttle.mail_address, rate(5, 60));
    assert_eq!(throttle.code_address, rate(20, 6));
    let one = with(production(), &[("DM__AUTH__THROTTLE__LOGIN_ACCOUNT__BURST", "3")]);
    assert_eq!(load(Profile::Production, &one).unwrap().auth.throttle.login_account, rate(3, 60));
}

#[test]
fn a_secret_may_stand_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let path: &'static str = file.to_str().unwrap().to_owned().leak();
    let mut pairs = production();
    pairs.retain(|(name, _)| *name != "DM__SECURITY__MASTER_KEYS");
    let from_file = with(pairs.clone(), &[("DM__SECURITY__MASTER_KEYS_FILE", path)]);
    assert_eq!(load(Profile::Production, &from_file).unwrap().master_keys.unwrap().expose_secret(), KEY);

    let both = with(production(), &[("DM__SECURITY__MASTER_KEYS_FILE", path)]);
    assert!(load(Profile::Production, &both).unwrap_err()[0].contains("both set"));
    let nowhere = with(pairs, &[("DM__SECURITY__MASTER_KEYS_FILE", "/nowhere/keys")]);
    assert!(
        load(Profile::Production, &nowhere).unwrap_err().iter().any(|fault| fault.contains("cannot be read"))
    );
}

#[test]
fn no_secret_shows_in_debug() {
    let config = load(Profile::Production, &production()).unwrap();
    let shown = format!("{config:?}");
    for secret in ["canary", "AAECAwQF"] {
        assert!(!shown.contains(secret), "{secret} shows");
    }
}

#[test]
fn a_signing_key_is_known_before_it_signs() {
    for (name, value, complaint) in [
        ("DM__AUTH__SIGNING_KEY_LEAD", "19m", "less than 20m"),
        ("DM__AUTH__SIGNING_KEY_ROTATION", "39m", "less than twice"),
    ] {
        let faults = load(Profile::Development, &[(name, value)]).unwrap_err();
        assert!(faults.iter().any(|fault| fault.contains(name) && fault.contains(complaint)), "{faults:?}");
    }
    load(Profile::Development, &[("DM__AUTH__SIGNING_KEY_ROTATION", "40m")]).unwrap();
}

/// A provider of each kind, with a plan that both sell.
const PAYMENTS: &[(&str, &str)] = &[
    ("DM__BILLING__PROVIDERS__CARDS__KIND", "stripe"),
    ("DM__BILLING__PROVIDERS__CARDS__MODE", "live"),
    ("DM__BILLING__PROVIDERS__CARDS__SECRET_KEY", "sk_live_canary_key"),
    ("DM__BILLING__PROVIDERS__CARDS__WEBHOOK_SECRETS", "whsec_canary_one_, whsec_canary_two_"),
    ("DM__BILLING__PROVIDERS__PAY__KIND", "postback"),
    ("DM__BILLING__PROVIDERS__PAY__MODE", "live"),
    ("DM__BILLING__PROVIDERS__PAY__BASE_URL", "https://pay.example.com/join?site=7"),
    ("DM__BILLING__PROVIDERS__PAY__WEBHOOK_SECRETS", "canary-of-the-processor"),
    ("DM__BILLING__PLANS__GOLD__NAME", "Gold"),
    ("DM__BILLING__PLANS__GOLD__MESSAGES_PER_DAY", "500"),
    ("DM__BILLING__PLANS__GOLD__COMPANIONS", "roz, octavia"),
    ("DM__BILLING__PLANS__GOLD__PRICES__CARDS", "price_gold"),
    ("DM__BILLING__PLANS__GOLD__PRICES__PAY", "19.99"),
    ("DM__BILLING__CHECKOUT", "pay"),
];

#[test]
fn payments_are_read_as_they_are_given() {
    let config = load(Profile::Production, &[&production()[..], PAYMENTS].concat()).unwrap();
    let gold = config.billing.plan("gold").unwrap();
    assert_eq!((gold.name.as_str(), gold.messages_per_day, gold.generations), ("Gold", 500, None));
    assert!(gold.companions.include("roz") && !gold.companions.include("tamsin"));
    assert_eq!(config.billing.plan_of_price("cards", "price_gold"), Some(gold));
    assert_eq!(config.billing.plan_of_price("pay", "price_gold"), None);
    assert_eq!(config.billing.upgrade_url, "https://www.example.com/subscribe");
    let names: Vec<&str> = config.payment_providers.iter().map(|provider| provider.name.as_str()).collect();
    assert_eq!(names, ["cards", "pay"]);
}

#[test]
fn what_is_wrong_with_payments_is_told_and_no_secret_is() {
    for (name, value, what) in [
        ("DM__BILLING__CHECKOUT", "nobody", "is not among billing.providers"),
        ("DM__BILLING__PROVIDERS__PAY__KIND", "paypal", "one of dev, postback, stripe"),
        ("DM__BILLING__PROVIDERS__PAY__KIND", "dev", "development helper"),
        ("DM__BILLING__PROVIDERS__PAY__BASE_URL", "http://pay.example.com/join", "is not https"),
        ("DM__BILLING__PROVIDERS__PAY__MODE", "", "one of test, live"),
        ("DM__BILLING__PROVIDERS__PAY__WEBHOOK_SECRETS", "", "is missing"),
        ("DM__BILLING__PROVIDERS__PAY__WEBHOOK_SECRETS", "canary-of-the-processor,canary", "fewer than 16"),
        ("DM__BILLING__PROVIDERS__PAY__PATH_SECRET", "canary/of/a/path/to/nowhere", "letters, digits"),
        ("DM__BILLING__PROVIDERS__PAY__ALLOWED_PEERS", "pay.example.com", "a network"),
        ("DM__BILLING__PROVIDERS__CARDS__SECRET_KEY", "sk_test_canary_key", "is one of the other mode"),
        ("DM__BILLING__PROVIDERS__CARDS__SECRET_KEY", "", "is missing"),
        ("DM__BILLING__PROVIDERS__CARDS__BASE_URL", "http://stripe.example.com", "is not https"),
        ("DM__BILLING__PLANS__GOLD__MESSAGES_PER_DAY", "0", "from 1"),
        ("DM__BILLING__PLANS__GOLD__COMPANIONS", "nobody", "is not among chat.companions"),
        ("DM__BILLING__PLANS__GOLD__PRICES__NOBODY", "1", "is not among billing.providers"),
        ("DM__BILLING__RETRY_MAX", "1s", "is less than billing.retry_min"),
        ("DM__BILLING__UPGRADE_URL", "http://www.example.com/plans", "is not https"),
    ] {
        let given = PAYMENTS.iter().copied().filter(|(known, _)| *known != name);
        let pairs: Vec<_> = production().into_iter().chain(given).chain([(name, value)]).collect();
        let faults = load(Profile::Production, &pairs).unwrap_err().join("\n");
        assert!(faults.contains(name) && faults.contains(what), "{name} {value}: {faults}");
        assert!(!faults.contains("canary"), "{faults}");
    }
}

#[test]
fn one_price_is_of_one_plan() {
    let twice = [
        ("DM__BILLING__PLANS__RED__NAME", "Red"),
        ("DM__BILLING__PLANS__RED__MESSAGES_PER_DAY", "9"),
        ("DM__BILLING__PLANS__RED__COMPANIONS", "*"),
        ("DM__BILLING__PLANS__RED__PRICES__PAY", "19.99"),
    ];
    let faults = load(Profile::Production, &[&production()[..], PAYMENTS, &twice].concat()).unwrap_err();
    assert_eq!(faults, ["DM__BILLING__PLANS__RED__PRICES__PAY is the price of “gold”, too"]);
}
