//! Tests of configurations: diagnostics, environment variables, missing keys.

mod builder;
mod diagnostics;
mod secrets;
mod shipped_config;

use proptest::prelude::*;

use super::*;
use crate::diagnostics::Diagnostics;
use crate::types::{RouteName, TargetName};

fn empty_env(_: &str) -> Option<String> {
    None
}

fn env_of<'a>(rows: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| rows.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn error_text(text: &str) -> String {
    Config::parse("config.toml", text, &empty_env).unwrap_err().to_string()
}

fn target_names(resolved: &ResolvedConfig, route: &str) -> Vec<String> {
    let route = resolved.route(&RouteName::from(route)).unwrap();
    route.targets.iter().map(|target| target.name.to_string()).collect()
}

const INVALID_CONFIG: &str = r#"[provider.claude]
format = "antropic"
keys = ["env:CLAUDE_API_KEY", "sk-ant-live-0123456789"]
limits = { requests_per_minute = 0, tokens = 5 }
timeouts = { connect = "10", total = "ten minutes" }
breaker = { open_duration = "3m", failure_rate = 50 }

[provider.claude.models.haiku]
context = "200k"
price = { input = -1.0, output = 5.0 }

[provider.claude.models.opus]
price = { input = 5.0 }

[provider.open]
api_key = "sk-proj-9876543210"
base_url = "api.example.com/v1"
headers = { "x team" = "crew", x-ok = "yes" }

[provider.gemini]
format = "gemini"
max_tokens_field = "max_tokens"
api_version = "v2"

[provider.simulated]
base_url = "simulator"
keys = ["env:A"]

[route.cheap]
targets = ["claude/haiku", "cluade/haiku", "claude/haiku", { target = "simulated/some", weight = 2 }, { weight = 1 }]

[route.default]
targets = ["claude/sonnet", { target = "simulated/some", weight = 2 }, "simulated/some"]

[route.empty]
policy = "wieghted"

[retry]
initial_backoff = "1m"
"#;

#[test]
fn all_errors_of_a_file_are_shown_with_their_positions_and_help() {
    let diagnostics = Config::parse("config.toml", INVALID_CONFIG, &empty_env).unwrap_err();
    let shown = diagnostics.render(false);
    assert!(!shown.contains("0123456789") && !shown.contains("9876543210"), "{shown}");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_syntax_error_does_not_show_a_key() {
    let shown = Config::parse("config.toml", "[provider.a]\nkeys = [sk-live-1]\n", &empty_env)
        .unwrap_err()
        .render(false);
    assert!(shown.contains("config.toml:2:") && !shown.contains("sk-live-1"), "{shown}");
}

#[test]
fn hedging_without_a_second_target_is_rejected() {
    let route = |after| {
        format!(
            "[provider.a]\nbase_url = 'http://x'\nmodels.m = {{}}\n[route.r]\ntargets = ['a/m']\nhedge_after = '{after}'"
        )
    };
    assert!(error_text(&route("p95")).contains("there is no second target"));
    assert!(error_text(&route("p99")).contains("write \"p95\", \"off\", or a time"));
    assert!(Config::parse("config.toml", &route("off"), &empty_env).is_ok());
}

#[test]
fn one_wrong_value_results_in_one_error() {
    for text in [
        "[provider.a]\nkeys = ['sk-1']\nmodels.m = {}\n[route.r]\ntargets = ['a/m']",
        "[provider.a]\nkeys = ['env:A']\nmodels.m.context = 0\n[route.r]\ntargets = ['a/m']",
        "[provider.a]\nkeys = ['env:A']\nmodels = 3\n[route.r]\ntargets = ['a/m']",
        "[provider.a]\nbase_url = 'x'\nmodels.m = {}\n[route.r]\ntargets = ['a/m']",
        "[provider.a]\nbase_url = 'http://x'\nmodels.m = {}\n[route.r]\ntargets = 'a/m'",
        "[provider.a]\nbase_url = 'http://x'\nmodels.m = {}\n[route.r]\nlanes = ['a/m']",
        "[provider.a]\nbase_url = 'http://x'\nmodels.m.name = ''",
        "[provider.a]\nkeys = ['env:A', 'env:A']\nmodels.m = {}",
        "[provider.a]\nkeys = ['env:A']\nrotate_every = '1h'\nmodels.m = {}",
        "[provider.a]\nbase_url = 'http://x'\nmodels.m = {}\ntimeouts = { idle = '2m', total = '1m' }",
        "[provider.'a/b']\nbase_url = 'simulator'",
        "[defaults]\nroute = 'no'",
        "[provider.a]\nformat = 'anthropic'\nkeys = ['env:A']\napi_version = '2026-10-21'\nmodels.m.temperature = 0",
        "[provider.a]\nbase_url = 'http://x'\napi_version = '1'\nmodels.m = {}",
        "[provider.a]\nformat = 'gemini'\nbase_url = 'http://x/v1beta/'\nmodels.m = {}",
    ] {
        let diagnostics = error_text(text);
        assert_eq!(diagnostics.lines().count(), 1, "{text}\n{diagnostics}");
        assert!(diagnostics.starts_with("config.toml:"), "{diagnostics}");
    }
}

#[test]
fn the_default_name_of_a_model_is_its_alias() {
    let text =
        "[provider.local]\nbase_url = 'http://localhost:11434/v1'\nmodels.llama = {}\nmodels.b.name = 'big'";
    let config = Config::parse("c", text, &empty_env).unwrap();
    let names: Vec<_> = config.providers["local"].models.values().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["llama", "big"]);
}

#[test]
fn the_default_route_has_all_targets_in_the_order_of_the_file() {
    let text = "[provider.z]\nbase_url = 'http://z'\nmodels.m = {}\nmodels.a = {}\n[provider.b]\nbase_url = 'http://b'\nmodels.any = {}";
    let config = Config::parse("c", text, &empty_env).unwrap();
    let targets: Vec<_> =
        config.routes["default"].targets.iter().map(|target| target.name.to_string()).collect();
    assert_eq!(targets, ["z/m", "z/a", "b/any"]);
}

#[test]
fn steps_use_the_route_default_or_the_only_route() {
    let chosen = |routes: &str| {
        let text = format!("[provider.p]\nbase_url = 'simulator'\n{routes}");
        Config::parse("c", &text, &empty_env).unwrap().defaults.route.map(|route| route.to_string())
    };
    let a = "[route.a]\ntargets = ['p/any']\n";
    let b = "[route.default]\ntargets = ['p/any']\n";
    assert_eq!(chosen("").as_deref(), Some("default"));
    assert_eq!(chosen(a).as_deref(), Some("a"));
    assert_eq!(chosen(&format!("{a}{b}")).as_deref(), Some("default"));
    assert_eq!(chosen(&format!("{a}{b}[defaults]\nroute = 'a'")).as_deref(), Some("a"));
    assert_eq!(chosen(&format!("{a}{}", a.replace(".a]", ".c]"))), None);
}

#[test]
fn each_vendor_with_a_key_in_the_environment_is_a_provider() {
    let env = env_of(&[
        ("OPENAI_API_KEY", "sk-1"),
        ("OPENAI_MODEL", "gpt-x"),
        ("OPENAI_BASE_URL", "http://localhost:11434/v1/"),
        ("OPENAI_MAX_TOKENS", "500"),
        ("OPENAI_TEMPERATURE", "0.2"),
        ("CLAUDE_API_KEY", "sk-2"),
        ("ANTHROPIC_MODEL", "claude-x"),
        ("GOOGLE_API_KEY", "sk-3"),
        ("GEMINI_API_KEY", " "),
        ("GOOGLE_MODEL", "gemini-x"),
    ]);
    let config = Config::from_env_with(&env).unwrap();
    let openai = &config.providers["openai"];
    let model = &openai.models["default"];
    assert_eq!(openai.base_url.as_deref(), Some("http://localhost:11434/v1"));
    assert_eq!(
        (model.name.as_str(), model.max_tokens.unwrap().get(), model.temperature),
        ("gpt-x", 500, Some(0.2))
    );
    let resolved = config.resolve(&env).unwrap();
    let keys: Vec<_> = resolved
        .providers
        .values()
        .flat_map(|ready| ready.keys.iter().map(|key| key.label.to_string()))
        .collect();
    assert_eq!(keys, ["env:OPENAI_API_KEY", "env:CLAUDE_API_KEY", "env:GOOGLE_API_KEY"]);
    assert_eq!(target_names(&resolved, "default"), ["openai/default", "anthropic/default", "gemini/default"]);
    assert_eq!(resolved.notes, Vec::<String>::new());
}

#[test]
fn two_models_of_the_same_name_have_their_own_fields_and_prices() {
    let text = "[provider.openai]\nkeys = ['env:K']\ndrop_parameters = ['seed']\n\
                [provider.openai.models.gpt-6-luna]\n\
                [provider.openai.models.gpt-flex]\nname = 'gpt-6-luna'\nextra = { service_tier = 'flex' }\n\
                price = { input = 0.05, output = 0.25 }\n";
    let config = Config::parse("config.toml", text, &empty_env).unwrap();
    let models = &config.providers["openai"].models;
    let standard = &models["gpt-6-luna"];
    let flex = &models["gpt-flex"];
    assert_eq!((standard.name.as_str(), flex.name.as_str()), ("gpt-6-luna", "gpt-6-luna"));
    assert!(standard.has_builtin_price && !flex.has_builtin_price);
    assert_ne!(standard.price, flex.price);
    assert_eq!(flex.price.map(|price| (price.input, price.output)), Some((0.05, 0.25)));
    assert_eq!(standard.extra, None);
    assert_eq!(flex.extra.as_deref(), serde_json::json!({ "service_tier": "flex" }).as_object());
    assert_eq!(config.notes, Vec::<String>::new());

    let without_price = text.replace("price = { input = 0.05, output = 0.25 }\n", "");
    let config = Config::parse("config.toml", &without_price, &empty_env).unwrap();
    let note = "config.toml:7:26: the built-in price of this model is that of the standard tier; write the price of \
                this tier: price = { input = ..., output = ... }";
    assert_eq!(config.notes, [note]);
}

#[test]
fn an_environment_without_keys_is_rejected_with_help() {
    let config = Config::from_env_with(&empty_env).unwrap();
    let error = config.resolve(&empty_env).unwrap_err().to_string();
    assert_eq!(
        error,
        "no provider is configured; write a configuration, or name another \
         configuration file, or set OPENAI_API_KEY and OPENAI_MODEL, or ANTHROPIC_API_KEY and ANTHROPIC_MODEL, or \
         GEMINI_API_KEY and GEMINI_MODEL, or simulate the answers"
    );
    let resolved = config.simulated().resolve(&empty_env).unwrap();
    assert_eq!(target_names(&resolved, "default"), ["simulated/any"]);
    assert_eq!(
        resolved.notes,
        ["simulated: answers on route default come from the simulator on this machine"]
    );
}

#[test]
fn a_simulated_configuration_keeps_its_targets_and_reads_no_key() {
    let text = THREE_PROVIDERS.replace("env:GEMINI_API_KEY", "command:touch /nowhere/ran; echo key");
    let config = Config::parse("c", &text, &empty_env).unwrap().simulated();
    let resolved = config.resolve(&|name| panic!("{name} was read")).unwrap();
    assert_eq!(target_names(&resolved, "cheap"), ["claude/haiku", "gemini/flash"]);
    for ready in resolved.providers.values() {
        assert!(ready.settings.is_simulated() && ready.keys.is_empty() && ready.headers.is_empty());
        assert!(ready.settings.models.values().all(|model| model.price.is_none()));
    }
    let note =
        "simulated: answers on routes cheap, simulated and real come from the simulator on this machine";
    assert_eq!(resolved.notes, [note]);
}

#[test]
fn a_route_with_real_and_simulated_targets_is_rejected() {
    let providers =
        "[provider.a]\nbase_url = 'http://a'\nmodels.m = {}\n[provider.s]\nbase_url = 'simulator'\n";
    let mixed = "[route.r]\ntargets = ['a/m', 's/any', { target = 's/any', weight = 1 }]";
    let text = error_text(&format!("{providers}{mixed}"));
    assert!(
        text.starts_with("config.toml:7:19: route `r` mixes real targets with the simulated `s/any`; "),
        "{text}"
    );
    assert!(text.contains("remove it, or give it its own route"), "{text}");
    let default_route_error = error_text(providers);
    assert!(
        default_route_error.starts_with("config.toml:5:12: provider `s` is simulated and others are real"),
        "{default_route_error}"
    );
    let separate = format!("{providers}[route.r]\ntargets = ['a/m']\n[route.s]\ntargets = ['s/any']");
    assert!(Config::parse("c", &separate, &empty_env).is_ok());
}

#[test]
fn all_errors_of_the_environment_are_shown() {
    let env = env_of(&[
        ("OPENAI_API_KEY", "sk-secret"),
        ("ANTHROPIC_BASE_URL", "https://me:sk-secret@host"),
        ("ANTHROPIC_MAX_TOKENS", "0"),
        ("ANTHROPIC_TEMPERATURE", "hot"),
        ("ANTHROPIC_MODEL", "claude-x"),
        ("GEMINI_MODEL", "gemini-x"),
    ]);
    let diagnostics = Config::from_env_with(&env).unwrap_err().to_string();
    insta::assert_snapshot!(diagnostics, @r#"
    OPENAI_MODEL is not set; set the model to use, such as OPENAI_MODEL=gpt-6-luna, write a configuration, or name the model
    ANTHROPIC_BASE_URL: the address appears in logs and must not contain a password; put the password into `headers` or `keys`
    ANTHROPIC_MAX_TOKENS: expected a whole number above 0, found "0"
    ANTHROPIC_TEMPERATURE: expected a number from 0 to 2, found "hot"
    "#);
}

#[test]
fn a_local_server_in_the_environment_needs_no_key() {
    let env = env_of(&[("OPENAI_BASE_URL", "http://localhost:11434/v1"), ("OPENAI_MODEL", "llama")]);
    let resolved = Config::from_env_with(&env).unwrap().resolve(&env).unwrap();
    assert_eq!(target_names(&resolved, "default"), ["openai/default"]);
    assert!(resolved.providers["openai"].keys.is_empty());
}

#[test]
fn a_file_without_providers_uses_those_of_the_environment() {
    let env = env_of(&[("OPENAI_API_KEY", "sk-1"), ("OPENAI_MODEL", "gpt-x")]);
    let config =
        Config::parse("c", "[run]\nmax_in_flight_items = 5\n[route.r]\ntargets = ['openai/default']", &env)
            .unwrap();
    assert_eq!(config.run.max_in_flight_items.unwrap().get(), 5);
    assert_eq!(target_names(&config.resolve(&env).unwrap(), "r"), ["openai/default"]);
}

const THREE_PROVIDERS: &str = "
[provider.claude]
format = 'anthropic'
keys = ['env:CLAUDE_API_KEY', 'env:CLAUDE_SPARE_KEY']
models.haiku = {}
[provider.gemini]
format = 'gemini'
keys = ['env:GEMINI_API_KEY']
headers = { x-team = 'env:TEAM' }
models.flash = {}
[provider.local]
base_url = 'simulator'
[route.cheap]
targets = ['claude/haiku', 'gemini/flash']
[route.simulated]
targets = ['local/any']
[route.real]
targets = ['claude/haiku']
";

#[test]
fn providers_without_a_key_are_removed() {
    let env = env_of(&[("CLAUDE_SPARE_KEY", "sk-1")]);
    let resolved = Config::parse("c", THREE_PROVIDERS, &empty_env).unwrap().resolve(&env).unwrap();
    assert_eq!(target_names(&resolved, "cheap"), ["claude/haiku"]);
    assert_eq!(
        resolved.notes,
        [
            "claude: CLAUDE_API_KEY is not set, using env:CLAUDE_SPARE_KEY",
            "gemini: skipped, TEAM is not set, and GEMINI_API_KEY is not set",
            "simulated: answers on route simulated come from the simulator on this machine",
        ]
    );
}

#[test]
fn a_removed_provider_is_noted_with_its_variables() {
    let resolved = Config::parse("c", THREE_PROVIDERS, &empty_env).unwrap().resolve(&empty_env).unwrap();
    assert_eq!(
        resolved.notes,
        [
            "claude: skipped, neither CLAUDE_API_KEY nor CLAUDE_SPARE_KEY is set",
            "gemini: skipped, TEAM is not set, and GEMINI_API_KEY is not set",
            "route cheap: disabled, none of its targets has a usable key",
            "route real: disabled, none of its targets has a usable key",
            "simulated: answers on route simulated come from the simulator on this machine",
        ]
    );
    let closed = resolved.route(&"real".into()).unwrap_err().to_string();
    assert_eq!(
        closed,
        "route `real` has no usable key; set CLAUDE_API_KEY or CLAUDE_SPARE_KEY, or simulate the answers"
    );
    let routes = [RouteName::from("real"), "cheap".into(), "simulated".into(), "real".into()];
    let both = resolved.check(routes.iter()).unwrap_err();
    assert_eq!(both.0.len(), 1, "one message for all of them");
    let both = both.to_string();
    assert!(both.starts_with("routes `real`, `cheap` have no usable key; set CLAUDE_API_KEY or "), "{both}");
    assert!(both.contains("GEMINI_API_KEY") && both.ends_with(", or simulate the answers"), "{both}");
    let unknown_route = resolved.route(&"cheep".into()).unwrap_err().to_string();
    assert!(unknown_route.contains("did you mean `cheap`?"), "{unknown_route}");
}

#[test]
fn keys_with_the_same_label_are_numbered_and_duplicates_are_skipped() {
    let text = "[provider.a]\nkeys = ['command:echo one', 'command:echo two', 'command: echo  one', 'env:TWO']\nmodels.m = {}";
    let resolved = Config::parse("c", text, &empty_env).unwrap().resolve(&env_of(&[("TWO", "two")])).unwrap();
    let labels: Vec<_> = resolved.providers["a"].keys.iter().map(|key| key.label.as_str()).collect();
    assert_eq!(labels, ["command:echo", "command:echo#2"]);
}

#[test]
fn a_missing_key_file_is_an_error() {
    let text = "[provider.a]\nkeys = ['file:/nowhere/key']\nmodels.m = {}";
    let diagnostics =
        Config::parse("c", text, &empty_env).unwrap().resolve(&empty_env).unwrap_err().to_string();
    assert!(
        diagnostics.starts_with("c:2:9: provider `a`: cannot read the key file /nowhere/key: "),
        "{diagnostics}"
    );
}

#[test]
fn help_is_separate_from_a_message_with_a_semicolon() {
    let text = "[provider.a]\nkeys = ['file:/nowhere; really/key']\nmodels.m = {}";
    let config = Config::parse("config.toml", text, &empty_env).unwrap();
    let diagnostics = config.resolve(&empty_env).unwrap_err();
    let help = "write the key into this file and make the file readable, or name another source in `keys`";
    assert_eq!(diagnostics.0[0].help, Some(help.into()));
    assert!(diagnostics.0[0].message.contains("/nowhere; really/key"), "{diagnostics}");
}

#[test]
fn a_missing_file_or_invalid_utf_8_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let load = || {
        Config::load_with(Some(&path), &empty_env).map(|config| config.targets().collect::<Vec<TargetName>>())
    };
    assert!(load().unwrap_err().to_string().contains("cannot read the configuration"));
    std::fs::write(&path, b"\xff\xfe").unwrap();
    assert!(load().unwrap_err().to_string().contains("utf-8"));
    std::fs::write(&path, "provider.p.base_url = 'simulator'").unwrap();
    assert_eq!(load().unwrap(), ["p/any".parse::<TargetName>().unwrap()]);
}

fn everything_shown(result: &Result<Config, Diagnostics>) -> String {
    match result {
        Ok(config) => format!("{config:?}"),
        Err(diagnostics) => format!(
            "{diagnostics}\n{diagnostics:?}\n{}\n{}",
            diagnostics.render(false),
            diagnostics.render(true)
        ),
    }
}

proptest! {
    /// A key is written at a wrong place, possibly next to another error.
    #[test]
    fn a_key_in_the_file_is_never_shown(
        key in "[A-Za-z0-9]{4}[A-Za-z0-9_\\-]{8,40}",
        place in prop::sample::select(vec![
            "keys = ['KEY']", "keys = 'KEY'", "keys = ['env:A', 'KEY', 3]", "keys = KEY", "keys = ['KEY", "keys = [\n  KEY,\n]",
            "api_key = 'KEY'", "key = \"KEY\"", "token = 'KEY'", "keys = { a = 'KEY' }", "keys = ['ENV:KEY']",
            "headers = { authorization = 'KEY' }", "headers = 'KEY'", "headers = { 'x y' = 'KEY' }",
            "headers = ['KEY']", "keys = ['KEY'] oops", "base_url = 'https://me:KEY@host/v1'",
            "base_url = 'https://host/v1?key=KEY'", "keys = ['command:echo KEY']", "keys = [\n  'KEY',\n  oops\n]",
            "[provider.a.models.m]\nsecret = 'KEY'", "limits = { concurrency = 0 }\nheaders.x = 'KEY'",
            "pw = 'KEY'", "pw = \"KEY", "db_pw = 'KEY' oops", "pass = KEY", "bearer = '''\nKEY\n'' oops",
            "url = 'https://me:KEY@host' oops", "url = https://me:KEY@host", "headers = { x-team = 'KEY' } oops",
            "[provider.a.headers]\nx-team = \"KEY", "[provider.a.headers]\nx-team = 'ok'\nx-other = 'KEY' oops",
            "headers = { x = 'env:KEY-1' }", "headers = { x = 'Bearer KEY' }",
            "[x]\n[claude]\nkeys = ['KEY']", "[x]\nclaude = { keys = ['KEY'] }",
        ]),
        wrong in prop::sample::select(vec!["", "format = 'x'\n", "limits = 3\n", "queue = -1\n"]),
    ) {
        let text = format!("[provider.a]\n{wrong}{}\n", place.replace("KEY", &key));
        let shown = everything_shown(&Config::parse("config.toml", &text, &empty_env));
        prop_assert!(!shown.contains(&key), "{}", shown);
    }

    #[test]
    fn a_resolved_key_is_never_shown(key in "[A-Za-z0-9]{12,40}") {
        let env = |name: &str| (name != "TEAM2").then(|| key.clone());
        let config = Config::parse("c", THREE_PROVIDERS, &empty_env).unwrap();
        let resolved = config.resolve(&env).unwrap();
        prop_assert_eq!(resolved.providers["claude"].keys[0].secret.expose(), key.as_str());
        let shown = format!("{resolved:?}{config:?}");
        prop_assert!(!shown.contains(&key), "{}", shown);
    }

    #[test]
    fn arbitrary_text_does_not_panic(text in "\\PC{0,200}") {
        let _ = Config::parse("config.toml", &text, &empty_env).map_err(|diagnostics| diagnostics.render(false));
    }

    #[test]
    fn arbitrary_toml_does_not_panic(
        lines in prop::collection::vec(prop::sample::select(vec![
            "[provider.a]", "[provider.a.models.m]", "[route.r]", "[[route.r]]", "targets = ['a/m', {}]", "targets = [{ target = 3 }, {}]",
            "keys = []", "format = 'gemini'", "provider = 3", "[provider]", "models = {}", "price = {}", "[retry]", "max_backoff = '1ms'",
            "[simulator]", "'' = 1", "[provider.'']", "breaker.open_duration = '1h'", "[defaults]", "route = 'x'",
        ]), 0..12),
    ) {
        let _ = Config::parse("config.toml", &lines.join("\n"), &empty_env).map_err(|diagnostics| diagnostics.render(false));
    }
}
