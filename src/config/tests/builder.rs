//! Tests of configurations that are built in code: they equal those of a file, and so do their errors.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroU64};

use super::shipped_config::uncommented;
use super::*;
use crate::diagnostics::{Diagnostic, key_path};
use crate::guard::ScopeSettings;

/// Literals that are wrong for most keys. An empty inline table is not among them: a file and a builder write it
/// differently, and errors in it count for other keys.
const WRONG: [&str; 13] = [
    "'ten'",
    "''",
    "'10%'",
    "'2y'",
    "'sk-0123456789abcdef'",
    "-3",
    "0",
    "0.5",
    "true",
    "[1]",
    "['env:A', 'env:A']",
    "{ a = 1 }",
    "99999999999999",
];

/// One line of the shipped configuration: its heading, its key and its value.
struct ShippedLine {
    heading: String,
    key: String,
    value: String,
}

fn shipped_lines() -> Vec<ShippedLine> {
    let mut heading = String::new();
    let mut lines = Vec::new();
    for line in uncommented(&["# ", "#e.g. "]).lines() {
        if line.starts_with('[') {
            line.split_inclusive(']').next().unwrap().clone_into(&mut heading);
        }
        if let Some((key, value)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) {
            let heading = heading.clone();
            lines.push(ShippedLine { heading, key: key.trim().to_owned(), value: value.to_owned() });
        }
    }
    assert!(lines.len() > 80, "{}", lines.len());
    lines
}

/// Sets every value below `value` with its own call.
fn with_values(builder: ConfigBuilder, path: &mut Vec<String>, value: &toml::Value) -> ConfigBuilder {
    let Some(table) = value.as_table().filter(|table| !table.is_empty()) else {
        return builder.with(&key_path(path), value);
    };
    let mut builder = builder;
    for (key, value) in table {
        path.push(key.clone());
        builder = with_values(builder, path, value);
        path.pop();
    }
    builder
}

/// Builds the configuration of a file in code.
fn build(text: &str) -> Result<Config, Diagnostics> {
    let root: toml::Table = text.parse().unwrap();
    let mut builder = Config::builder();
    for (key, value) in &root {
        builder = with_values(builder, &mut vec![key.clone()], value);
    }
    builder.build_with(&empty_env)
}

/// Returns the messages and help of diagnostics, without their positions.
fn messages(diagnostics: &Diagnostics) -> BTreeSet<String> {
    let without_position = |diagnostic: &Diagnostic| {
        let help = diagnostic.help.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{}; {help}", diagnostic.message)
    };
    diagnostics.0.iter().map(without_position).collect()
}

/// Removes the notes of a configuration and returns them without their positions.
fn take_notes(config: &mut Config) -> BTreeSet<String> {
    let notes = std::mem::take(&mut config.notes);
    notes.iter().map(|note| note.split_once(": ").unwrap().1.to_owned()).collect()
}

/// Asserts that a file and the same settings in code have the same result. Returns whether they are valid.
fn assert_same_result(text: &str) -> bool {
    match (Config::parse("config.toml", text, &empty_env), build(text)) {
        (Ok(mut of_file), Ok(mut built)) => {
            assert_eq!(take_notes(&mut built), take_notes(&mut of_file), "{text}");
            assert_eq!(built, of_file, "{text}");
            assert!(built.targets().eq(of_file.targets()), "{text}");
            true
        }
        (Err(of_file), Err(built)) => {
            assert_eq!(messages(&built), messages(&of_file), "{text}");
            assert!(built.0.iter().all(|diagnostic| diagnostic.span.is_none()), "{built:?}");
            // An error at the start of the file may belong to no key.
            let is_at_key = |diagnostic: &&Diagnostic| {
                diagnostic.span.as_ref().is_some_and(|span| span.line_and_column() != (1, 1))
            };
            let at_key = Diagnostics(of_file.0.iter().filter(is_at_key).cloned().collect());
            let has_path = |diagnostic: &&Diagnostic| diagnostic.key_path.is_some();
            let with_path = Diagnostics(built.0.iter().filter(has_path).cloned().collect());
            assert!(messages(&with_path).is_superset(&messages(&at_key)), "{text}\n{built}");
            false
        }
        (of_file, built) => panic!("{text}\n{:?}\n{:?}", of_file.err(), built.err()),
    }
}

#[test]
fn the_shipped_configuration_in_code_equals_the_file() {
    for prefixes in [&[][..], &["# "], &["# ", "#e.g. "]] {
        assert!(assert_same_result(&uncommented(prefixes)), "{prefixes:?}");
    }
}

#[test]
fn each_key_in_code_has_the_result_of_the_same_key_in_a_file() {
    let mut rejected = 0;
    for ShippedLine { heading, key, value } in shipped_lines() {
        assert_same_result(&format!("{heading}\n{key} = {value}\n"));
        for (key, value) in WRONG.map(|wrong| (key.clone(), wrong)).into_iter().chain([
            (format!("{key}x"), value.as_str()),
            (format!("{key}_x_y"), "1"),
            ("\"a.b c\"".to_owned(), "1"),
        ]) {
            rejected += usize::from(!assert_same_result(&format!("{heading}\n{key} = {value}\n")));
        }
    }
    assert!(rejected > 500, "{rejected}");
}

#[test]
fn the_limits_of_a_scope_in_code_equal_those_of_a_file() {
    let limits = ScopeSettings::new()
        .with_requests_per_minute(const { NonZeroU64::new(60).unwrap() })
        .with_tokens_per_minute(const { NonZeroU64::new(9_000).unwrap() })
        .with_queue(const { NonZeroU32::new(7).unwrap() });
    let built = Config::builder().with_scope("team.a", limits).build_with(&empty_env).unwrap();
    let text = "[scope.\"team.a\"]\nrequests_per_minute = 60\ntokens_per_minute = 9000\nqueue = 7";
    assert_eq!(built, Config::parse("config.toml", text, &empty_env).unwrap());
    let unlimited = Config::builder().with_scope("a", ScopeSettings::new()).build_with(&empty_env).unwrap();
    assert_eq!(unlimited.scopes["a"], ScopeSettings::default());
}

#[test]
fn vendor_fields_of_a_model_are_set_together_or_one_by_one() {
    let build = |model: ModelBuilder| {
        let provider =
            ProviderBuilder::openai().with_base_url("http://x/v1").with("drop_parameters", ["seed"]);
        Config::builder().with_provider("a", provider.with_model("m", model)).build_with(&empty_env)
    };
    let fields = serde_json::json!({ "service_tier": "flex", "metadata": { "a": 1 } });
    let together = build(ModelBuilder::new().with("extra", &fields)).unwrap();
    let model = ModelBuilder::new().with("extra.service_tier", "flex").with("extra.metadata.a", 1);
    assert_eq!(build(model).unwrap().providers, together.providers);
    assert_eq!(together.providers["a"].models["m"].extra.as_deref(), fields.as_object());
    let error = build(ModelBuilder::new().with("extra.n", 2)).unwrap_err().to_string();
    assert_eq!(error, "provider.a.models.m.extra.n: n must be 1; send one request per answer");
}

/// What a test does with a line of the shipped configuration.
#[derive(Debug, Clone)]
enum Change {
    Keep,
    Omit,
    Misspell,
    Replace(&'static str),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        14 => Just(Change::Keep),
        4 => Just(Change::Omit),
        1 => Just(Change::Misspell),
        1 => prop::sample::select(WRONG.to_vec()).prop_map(Change::Replace),
    ]
}

proptest! {
    #[test]
    fn any_part_of_the_shipped_configuration_with_mistakes_has_the_result_of_the_file(
        changes in prop::collection::vec(change(), 1..200),
        headings in prop::collection::vec(any::<bool>(), 30),
    ) {
        let mut text = String::new();
        let mut last_heading = String::new();
        let mut sections = 0;
        // Each heading is kept or omitted with all of its lines.
        let mut is_kept = false;
        for (number, ShippedLine { heading, key, value }) in shipped_lines().into_iter().enumerate() {
            if heading != last_heading {
                last_heading = heading;
                is_kept = headings[sections % headings.len()];
                sections += 1;
                if is_kept {
                    text.push_str(&format!("{last_heading}\n"));
                }
            }
            if !is_kept {
                continue;
            }
            match &changes[number % changes.len()] {
                Change::Keep => text.push_str(&format!("{key} = {value}\n")),
                Change::Omit => {}
                Change::Misspell => text.push_str(&format!("{key}x = {value}\n")),
                Change::Replace(wrong) => text.push_str(&format!("{key} = {wrong}\n")),
            }
        }
        assert_same_result(&text);
    }

    #[test]
    fn a_key_in_code_is_never_shown(
        key in "[A-Za-z0-9]{4}[A-Za-z0-9_\\-]{8,40}",
        place in prop::sample::select(vec![
            "keys", "key", "api_key", "headers.x", "headers", "base_url", "keys.x",
        ]),
    ) {
        let value = if place == "base_url" { format!("https://me:{key}@host/v1") } else { key.clone() };
        let provider = ProviderBuilder::openai().with(place, value).with("queue", -1);
        let builder = Config::builder().with_provider("a", provider);
        let shown = format!("{builder:?}{}", everything_shown(&builder.clone().build_with(&empty_env)));
        prop_assert!(!shown.contains(&key), "{}", shown);
    }
}

/// Returns a valid provider.
fn local() -> ProviderBuilder {
    ProviderBuilder::openai().with_base_url("http://localhost:1/v1").with_model("m", ModelBuilder::new())
}

/// Returns the errors of a configuration with one provider, `a`.
fn provider_errors(provider: ProviderBuilder) -> String {
    Config::builder().with_provider("a", provider).build_with(&empty_env).unwrap_err().to_string()
}

#[test]
fn a_builder_writes_what_a_file_has() {
    let openai = ProviderBuilder::openai()
        .with_key("env:OPENAI_API_KEY")
        .with_key("file:/run/secrets/openai")
        .with("limits.requests_per_minute", 500)
        .with_model(
            "gpt-4.1-mini",
            ModelBuilder::new()
                .with("price.cached", 0.1)
                .with_price(0.4, 1.6)
                .with_name("gpt-4.1-mini-2025-04-14"),
        );
    let claude = ProviderBuilder::anthropic().with_key("env:C").with_model("h", ModelBuilder::new());
    let responses =
        ProviderBuilder::openai_responses().with_key("env:R").with_model("r", ModelBuilder::new());
    let gemini = ProviderBuilder::gemini().with_key("env:G").with_model("f", ModelBuilder::new());
    let built = Config::builder()
        .with_provider("openai", openai)
        .with_provider("claude", claude)
        .with_provider("responses", responses)
        .with_provider("gemini", gemini)
        .with_provider("s", ProviderBuilder::simulated())
        .with("route.default.policy", "weighted")
        .with_route("default", ["openai/gpt-4.1-mini", "claude/h"])
        .with_route("simulated", vec!["s/any".to_owned()])
        .with("run.max_in_flight_items", 100)
        .with("run.max_memory", "2GiB")
        .with("run.max_hold", MaxHold::Unlimited)
        .with("retry.hedge_ratio", 0.1)
        .with("retry.hedge_after", "p95")
        .build_with(&empty_env)
        .unwrap();
    let text = r#"
        [provider.openai]
        format = "openai"
        keys = ["env:OPENAI_API_KEY", "file:/run/secrets/openai"]
        limits.requests_per_minute = 500
        [provider.openai.models."gpt-4.1-mini"]
        name = "gpt-4.1-mini-2025-04-14"
        price = { input = 0.4, output = 1.6, cached = 0.1 }
        [provider.claude]
        format = "anthropic"
        keys = ["env:C"]
        models.h = {}
        [provider.responses]
        format = "openai_responses"
        keys = ["env:R"]
        models.r = {}
        [provider.gemini]
        format = "gemini"
        keys = ["env:G"]
        models.f = {}
        [provider.s]
        base_url = "simulator"
        [route.default]
        policy = "weighted"
        targets = ["openai/gpt-4.1-mini", "claude/h"]
        [route.simulated]
        targets = ["s/any"]
        [run]
        max_in_flight_items = 100
        max_memory = "2GiB"
        max_hold = "none"
        [retry]
        hedge_ratio = 0.1
        hedge_after = "p95"
    "#;
    assert_eq!(built, Config::parse("c", text, &empty_env).unwrap());
    assert_eq!(built.file(), None);
}

#[test]
fn a_name_may_have_any_character_of_a_target() {
    let name = "llama3.2/\"quoted\" 'x' \\ [a] = #\n\u{1}é";
    let target = format!("a/{name}");
    let config = Config::builder()
        .with_provider("a", local().with_model(name, ModelBuilder::new().with_name(name)))
        .with_route("r.s t", [target.as_str()])
        .build_with(&empty_env)
        .unwrap();
    assert_eq!(config.providers["a"].models[name].name, name);
    assert_eq!(config.routes["r.s t"].targets[0].name.to_string(), target);
}

#[test]
fn an_error_names_the_key_in_toml_syntax() {
    let errors = provider_errors(local().with_model("gpt-4.1", ModelBuilder::new().with("context", "big")));
    assert!(errors.starts_with("provider.a.models.\"gpt-4.1\".context: expected "), "{errors}");
    let errors = provider_errors(local().with("models.\"gpt-4.1\".context", 0));
    assert!(errors.starts_with("provider.a.models.\"gpt-4.1\".context: "), "{errors}");
    let errors = provider_errors(local().with("limits.request_per_minute", 5));
    let expected = "unknown key `request_per_minute`; did you mean `requests_per_minute`?";
    assert_eq!(errors, format!("provider.a.limits.request_per_minute: {expected}"));
    let errors = provider_errors(local().with_key("env:A").with_key("env:A"));
    assert_eq!(errors, "provider.a.keys: this key is listed twice; remove one of them");
    let errors = provider_errors(local().with("timeouts.idle", "2m").with("timeouts.total", "1m"));
    assert!(errors.starts_with("provider.a.timeouts.total: `total` ("), "{errors}");
    assert!(errors.ends_with("; make `total` longer or `idle` shorter"), "{errors}");
    let errors = provider_errors(ProviderBuilder::anthropic().with_model("m", ModelBuilder::new()));
    assert!(errors.starts_with("provider.a: provider `a` has no keys; "), "{errors}");
}

#[test]
fn all_errors_in_code_are_reported_together() {
    let provider = local()
        .with("queue", -1)
        .with("limits requests", 1)
        .with("base_url.x", 1)
        .with_model("m", ModelBuilder::new().with("temperature", f64::NAN));
    let errors = Config::builder()
        .with_provider("a", provider)
        .with_route("r", ["a/m", "b/m"])
        .with("run.max_in_flight_items", u64::MAX)
        .build_with(&empty_env)
        .unwrap_err();
    let keys: Vec<_> = errors.0.iter().filter_map(|diagnostic| diagnostic.key_path.as_deref()).collect();
    assert_eq!(
        keys,
        [
            "provider.a",
            "provider.a.base_url.x",
            "provider.a.models.m.temperature",
            "run.max_in_flight_items",
            "provider.a.queue",
            "route.r.targets",
        ],
        "{errors}"
    );
    assert!(errors.0[0].message.starts_with("\"limits requests\" is not a key"), "{errors}");
    assert!(errors.0[5].message.contains("there is no provider `b`"), "{errors}");
}

#[test]
fn an_error_in_code_is_rendered_without_a_snippet_and_without_a_secret() {
    let secret = "sk-ant-live-0123456789";
    let provider = ProviderBuilder::anthropic().with_key(secret).with_model("m", ModelBuilder::new());
    let builder = Config::builder().with_provider("claude", provider);
    assert!(!format!("{builder:?}").contains(secret));
    let errors = builder.build_with(&empty_env).unwrap_err();
    let rendered = errors.render(false);
    assert!(rendered.starts_with("error: provider.claude.keys: "), "{rendered}");
    assert!(rendered.contains("help: ") && !rendered.contains(" | "), "{rendered}");
    assert!(!format!("{rendered}{errors}{errors:?}").contains(secret), "{rendered}");
}

#[test]
fn a_note_on_a_configuration_in_code_names_the_key() {
    let builder = Config::builder().with_provider("a", local().with("limits.burst", "10s"));
    let config = builder.build_with(&empty_env).unwrap();
    let expected = "provider.a.limits.burst: no limit per minute is set with this burst";
    assert!(matches!(config.notes.as_slice(), [note] if note.starts_with(expected)), "{:?}", config.notes);
}

#[test]
fn an_error_of_a_key_source_in_code_names_the_key() {
    let provider = local().with_key("file:/nowhere/key").with("headers.x-team", "file:/nowhere/team");
    let config = Config::builder().with_provider("a", provider).build_with(&empty_env).unwrap();
    let errors = config.resolve(&empty_env).unwrap_err();
    let keys: Vec<_> = errors.0.iter().filter_map(|diagnostic| diagnostic.key_path.as_deref()).collect();
    assert_eq!(keys, ["provider.a.keys", "provider.a.headers.x-team"], "{errors}");
    assert!(errors.to_string().contains("cannot read the key file /nowhere/key"), "{errors}");
}

#[test]
fn a_configuration_in_code_without_providers_uses_those_of_the_environment() {
    let env = env_of(&[("OPENAI_API_KEY", "sk-1"), ("OPENAI_MODEL", "gpt-x")]);
    let config = Config::builder()
        .with_route("r", ["openai/default"])
        .with("run.max_in_flight_items", 5)
        .build_with(&env)
        .unwrap();
    assert_eq!(config.run.max_in_flight_items.unwrap().get(), 5);
    assert_eq!(target_names(&config.resolve(&env).unwrap(), "r"), ["openai/default"]);
    assert_eq!(Config::builder().build_with(&empty_env), Config::parse("c", "", &empty_env));
}

#[test]
fn a_provider_or_model_that_is_set_again_is_replaced() {
    let config = Config::builder()
        .with_provider("a", local().with("queue", 5))
        .with_provider("a", local().with_model("n", ModelBuilder::new()).with_model("n", ModelBuilder::new()))
        .with("provider.a.models.n.context", 7)
        .build_with(&empty_env)
        .unwrap();
    assert_eq!(config.targets().map(|target| target.to_string()).collect::<Vec<_>>(), ["a/m", "a/n"]);
    assert_eq!(config.providers["a"].models["n"].context.unwrap().get(), 7);
    assert_eq!(config.providers["a"].queue, crate::provider::Settings::default().queue);
}

#[test]
fn a_file_and_a_text_are_read_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, "provider.p.base_url = 'simulator'").unwrap();
    let of_file = Config::from_file(&path).unwrap();
    assert_eq!(of_file.file(), Some(path.as_path()));
    let of_text = Config::from_toml("provider.p.base_url = 'simulator'").unwrap();
    assert!(of_text.file().is_none() && of_text.targets().eq(of_file.targets()));
    let errors = Config::from_toml("provider.p.base_url = 'simulator'\nprovider.p.queue = 0").unwrap_err();
    assert!(errors.to_string().starts_with("configuration:2:20: "), "{errors}");
}
