//! What a whole configuration does: faults, the environment, keys that are missing.

use proptest::prelude::*;

use super::*;
use crate::document::Faults;
use crate::types::{LaneName, RouteName};

fn nothing(_: &str) -> Option<String> {
    None
}

fn table<'a>(rows: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| rows.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn faults(text: &str) -> String {
    Config::parse("config.toml", text, &nothing).unwrap_err().to_string()
}

fn lanes(usable: &Usable, route: &str) -> Vec<String> {
    let route = usable.route(&RouteName::from(route)).unwrap();
    route.lanes.iter().map(|lane| lane.name.to_string()).collect()
}

const BAD: &str = r#"[provider.claude]
format = "antropic"
keys = ["env:CLAUDE_API_KEY", "sk-ant-live-0123456789"]
limits = { requests_per_minute = 0, tokens = 5 }
timeouts = { connect = "10", total = "ten minutes" }
breaker = { pause = "3m", failure_share = 50 }

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

[provider.practice]
base_url = "simulator"
keys = ["env:A"]

[route.cheap]
lanes = ["claude/haiku", "cluade/haiku", "claude/haiku", { lane = "practice/some", weight = 2 }, { weight = 1 }]

[route.default]
lanes = ["claude/sonnet", { lane = "practice/some", weight = 2 }, "practice/some"]

[route.empty]
policy = "wieghted"

[retry]
base = "1m"
"#;

#[test]
fn every_fault_of_a_bad_file_is_shown_with_its_place_and_advice() {
    let faults = Config::parse("config.toml", BAD, &nothing).unwrap_err();
    let shown = faults.render(false);
    assert!(!shown.contains("0123456789") && !shown.contains("9876543210"), "{shown}");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_text_that_is_no_toml_is_refused_without_showing_the_key_in_it() {
    let shown = Config::parse("config.toml", "[provider.a]\nkeys = [sk-live-1]\n", &nothing)
        .unwrap_err()
        .render(false);
    assert!(shown.contains("config.toml:2:") && !shown.contains("sk-live-1"), "{shown}");
}

#[test]
fn hedging_without_a_second_lane_is_refused_and_off_is_not() {
    let route = |after| {
        format!(
            "[provider.a]\nbase_url = 'http://x'\nmodels.m = {{}}\n[route.r]\nlanes = ['a/m']\nhedge_after = '{after}'"
        )
    };
    assert!(faults(&route("p95")).contains("there is no second lane to ask"));
    assert!(faults(&route("p99")).contains("write \"p95\", \"off\", or a time"));
    assert!(Config::parse("config.toml", &route("off"), &nothing).is_ok());
}

#[test]
fn one_wrong_value_gives_one_fault() {
    for text in [
        "[provider.a]\nkeys = ['sk-1']\nmodels.m = {}\n[route.r]\nlanes = ['a/m']",
        "[provider.a]\nkeys = ['env:A']\nmodels.m.context = 0\n[route.r]\nlanes = ['a/m']",
        "[provider.a]\nkeys = ['env:A']\nmodels = 3\n[route.r]\nlanes = ['a/m']",
        "[provider.a]\nbase_url = 'x'\nmodels.m = {}\n[route.r]\nlanes = ['a/m']",
        "[provider.a]\nbase_url = 'http://x'\nmodels.m = {}\n[route.r]\nlanes = 'a/m'",
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
        let faults = faults(text);
        assert_eq!(faults.lines().count(), 1, "{text}\n{faults}");
        assert!(faults.starts_with("config.toml:"), "{faults}");
    }
}

#[test]
fn a_model_without_a_name_is_sent_as_it_is_called() {
    let text =
        "[provider.local]\nbase_url = 'http://localhost:11434/v1'\nmodels.llama = {}\nmodels.b.name = 'big'";
    let config = Config::parse("c", text, &nothing).unwrap();
    let names: Vec<_> = config.providers["local"].models.values().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["llama", "big"]);
}

#[test]
fn without_a_route_there_is_one_over_every_lane_in_the_order_of_the_file() {
    let text = "[provider.z]\nbase_url = 'http://z'\nmodels.m = {}\nmodels.a = {}\n[provider.b]\nbase_url = 'http://b'\nmodels.any = {}";
    let config = Config::parse("c", text, &nothing).unwrap();
    let lanes: Vec<_> = config.routes["default"].lanes.iter().map(|lane| lane.name.to_string()).collect();
    assert_eq!(lanes, ["z/m", "z/a", "b/any"]);
}

#[test]
fn steps_use_the_default_route_or_the_only_one() {
    let chosen = |routes: &str| {
        let text = format!("[provider.p]\nbase_url = 'simulator'\n{routes}");
        Config::parse("c", &text, &nothing).unwrap().defaults.route.map(|route| route.to_string())
    };
    let (a, b) = ("[route.a]\nlanes = ['p/any']\n", "[route.default]\nlanes = ['p/any']\n");
    assert_eq!(chosen("").as_deref(), Some("default"));
    assert_eq!(chosen(a).as_deref(), Some("a"));
    assert_eq!(chosen(&format!("{a}{b}")).as_deref(), Some("default"));
    assert_eq!(chosen(&format!("{a}{b}[defaults]\nroute = 'a'")).as_deref(), Some("a"));
    assert_eq!(chosen(&format!("{a}{}", a.replace(".a]", ".c]"))), None);
}

#[test]
fn the_environment_makes_a_provider_of_every_vendor_with_a_key() {
    let env = table(&[
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
    let config = Config::from_environment(&env).unwrap();
    let openai = &config.providers["openai"];
    let model = &openai.models["default"];
    assert_eq!(openai.base_url.as_deref(), Some("http://localhost:11434/v1"));
    assert_eq!(
        (model.name.as_str(), model.max_tokens.unwrap().get(), model.temperature),
        ("gpt-x", 500, Some(0.2))
    );
    let usable = config.usable(&env).unwrap();
    let keys: Vec<_> = usable
        .providers
        .values()
        .flat_map(|ready| ready.keys.iter().map(|key| key.label.to_string()))
        .collect();
    assert_eq!(keys, ["env:OPENAI_API_KEY", "env:CLAUDE_API_KEY", "env:GOOGLE_API_KEY"]);
    assert_eq!(lanes(&usable, "default"), ["openai/default", "anthropic/default", "gemini/default"]);
    assert_eq!(usable.notes, Vec::<String>::new());
}

#[test]
fn an_environment_without_any_key_is_refused_with_the_variables_and_the_option() {
    let config = Config::from_environment(&nothing).unwrap();
    let refused = config.usable(&nothing).unwrap_err().to_string();
    assert_eq!(
        refused,
        "no provider is configured; add one to config.toml in the directory of this command, or name a \
         configuration with --config, or set OPENAI_API_KEY and OPENAI_MODEL, or \
         ANTHROPIC_API_KEY and ANTHROPIC_MODEL, or GEMINI_API_KEY and GEMINI_MODEL, or add --simulate for \
         simulated answers"
    );
    let usable = config.simulated().usable(&nothing).unwrap();
    assert_eq!(lanes(&usable, "default"), ["simulated/any"]);
    assert_eq!(usable.notes, ["simulated: answers on route default come from the simulator on this machine"]);
}

#[test]
fn a_simulated_configuration_keeps_its_targets_and_reads_no_key() {
    let text = THREE.replace("env:GEMINI_API_KEY", "command:touch /nowhere/ran; echo key");
    let config = Config::parse("c", &text, &nothing).unwrap().simulated();
    let usable = config.usable(&|name| panic!("{name} was read")).unwrap();
    assert_eq!(lanes(&usable, "cheap"), ["claude/haiku", "gemini/flash"]);
    for ready in usable.providers.values() {
        assert!(ready.settings.is_practice() && ready.keys.is_empty() && ready.headers.is_empty());
        assert!(ready.settings.models.values().all(|model| model.price.is_none()));
    }
    let note =
        "simulated: answers on routes cheap, simulated and real come from the simulator on this machine";
    assert_eq!(usable.notes, [note]);
}

#[test]
fn a_route_that_mixes_real_and_simulated_targets_is_refused_with_its_place() {
    let providers =
        "[provider.a]\nbase_url = 'http://a'\nmodels.m = {}\n[provider.s]\nbase_url = 'simulator'\n";
    let mixed = "[route.r]\nlanes = ['a/m', 's/any', { lane = 's/any', weight = 1 }]";
    let said = faults(&format!("{providers}{mixed}"));
    assert!(
        said.starts_with("config.toml:7:17: route `r` mixes real targets with the simulated `s/any`; "),
        "{said}"
    );
    assert!(said.contains("take it out, or give it a route of its own"), "{said}");
    let implied = faults(providers);
    assert!(
        implied.starts_with("config.toml:5:12: provider `s` is simulated and others are real"),
        "{implied}"
    );
    let apart = format!("{providers}[route.r]\nlanes = ['a/m']\n[route.s]\nlanes = ['s/any']");
    assert!(Config::parse("c", &apart, &nothing).is_ok());
}

#[test]
fn a_wrong_environment_is_refused_with_every_fault() {
    let env = table(&[
        ("OPENAI_API_KEY", "sk-secret"),
        ("ANTHROPIC_BASE_URL", "https://me:sk-secret@host"),
        ("ANTHROPIC_MAX_TOKENS", "0"),
        ("ANTHROPIC_TEMPERATURE", "hot"),
        ("ANTHROPIC_MODEL", "claude-x"),
        ("GEMINI_MODEL", "gemini-x"),
    ]);
    let faults = Config::from_environment(&env).unwrap_err().to_string();
    insta::assert_snapshot!(faults, @r#"
    OPENAI_MODEL is not set; say which model to use, such as OPENAI_MODEL=gpt-6-luna
    ANTHROPIC_BASE_URL: an address shows in logs and may hold no password; put it into `headers` or `keys`
    ANTHROPIC_MAX_TOKENS: expected a whole number above 0, found "0"
    ANTHROPIC_TEMPERATURE: expected a number from 0 to 2, found "hot"
    "#);
}

#[test]
fn a_local_server_in_the_environment_needs_no_key() {
    let env = table(&[("OPENAI_BASE_URL", "http://localhost:11434/v1"), ("OPENAI_MODEL", "llama")]);
    let usable = Config::from_environment(&env).unwrap().usable(&env).unwrap();
    assert_eq!(lanes(&usable, "default"), ["openai/default"]);
    assert!(usable.providers["openai"].keys.is_empty());
}

#[test]
fn a_file_without_a_provider_takes_them_from_the_environment() {
    let env = table(&[("OPENAI_API_KEY", "sk-1"), ("OPENAI_MODEL", "gpt-x")]);
    let config =
        Config::parse("c", "[run]\nwindow = 5\n[route.r]\nlanes = ['openai/default']", &env).unwrap();
    assert_eq!(config.run.window.unwrap().get(), 5);
    assert_eq!(lanes(&config.usable(&env).unwrap(), "r"), ["openai/default"]);
}

const THREE: &str = "
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
lanes = ['claude/haiku', 'gemini/flash']
[route.simulated]
lanes = ['local/any']
[route.real]
lanes = ['claude/haiku']
";

#[test]
fn a_key_that_is_there_leaves_out_what_lacks_one() {
    let env = table(&[("CLAUDE_SPARE_KEY", "sk-1")]);
    let usable = Config::parse("c", THREE, &nothing).unwrap().usable(&env).unwrap();
    assert_eq!(lanes(&usable, "cheap"), ["claude/haiku"]);
    assert_eq!(
        usable.notes,
        [
            "claude: CLAUDE_API_KEY is not set, going on with env:CLAUDE_SPARE_KEY",
            "gemini: skipped, TEAM is not set, and GEMINI_API_KEY is not set",
            "simulated: answers on route simulated come from the simulator on this machine",
        ]
    );
}

#[test]
fn a_provider_without_its_key_is_skipped_with_the_name_of_the_variable() {
    let usable = Config::parse("c", THREE, &nothing).unwrap().usable(&nothing).unwrap();
    assert_eq!(
        usable.notes,
        [
            "claude: skipped, neither CLAUDE_API_KEY nor CLAUDE_SPARE_KEY is set",
            "gemini: skipped, TEAM is not set, and GEMINI_API_KEY is not set",
            "route cheap: closed, none of its targets has a usable key",
            "route real: closed, none of its targets has a usable key",
            "simulated: answers on route simulated come from the simulator on this machine",
        ]
    );
    let closed = usable.route(&"real".into()).unwrap_err().to_string();
    assert_eq!(
        closed,
        "route `real` has no usable key; set CLAUDE_API_KEY or CLAUDE_SPARE_KEY, or add --simulate for simulated answers"
    );
    let both = [RouteName::from("real"), "cheap".into(), "simulated".into(), "real".into()];
    let both = usable.check(both.iter()).unwrap_err();
    assert_eq!(both.0.len(), 1, "one message for all of them");
    let both = both.to_string();
    assert!(both.starts_with("routes `real`, `cheap` have no usable key; set CLAUDE_API_KEY or "), "{both}");
    assert!(both.contains("GEMINI_API_KEY") && both.contains("--simulate"), "{both}");
    let unknown = usable.route(&"cheep".into()).unwrap_err().to_string();
    assert!(unknown.contains("did you mean `cheap`?"), "{unknown}");
}

#[test]
fn keys_that_look_alike_are_told_apart_and_a_key_counts_once() {
    let text = "[provider.a]\nkeys = ['command:echo one', 'command:echo two', 'command: echo  one', 'env:TWO']\nmodels.m = {}";
    let usable = Config::parse("c", text, &nothing).unwrap().usable(&table(&[("TWO", "two")])).unwrap();
    let labels: Vec<_> = usable.providers["a"].keys.iter().map(|key| key.label.as_str()).collect();
    assert_eq!(labels, ["command:echo", "command:echo#2"]);
}

#[test]
fn a_key_file_that_is_not_there_is_a_fault() {
    let text = "[provider.a]\nkeys = ['file:/nowhere/key']\nmodels.m = {}";
    let faults = Config::parse("c", text, &nothing).unwrap().usable(&nothing).unwrap_err().to_string();
    assert!(faults.starts_with("c:2:9: provider `a`: cannot read the key file /nowhere/key: "), "{faults}");
}

#[test]
fn advice_is_never_cut_out_of_a_path() {
    let text = "[provider.a]\nkeys = ['file:/nowhere; really/key']\nmodels.m = {}";
    let config = Config::parse("config.toml", text, &nothing).unwrap();
    let faults = config.usable(&nothing).unwrap_err();
    let advice = "put the key into this file, let it be read, or name another under `keys`";
    assert_eq!(faults.0[0].advice.as_deref(), Some(advice));
    assert!(faults.0[0].message.contains("/nowhere; really/key"), "{faults}");
}

#[test]
fn a_file_that_is_not_there_or_no_text_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let load = || Config::load(Some(&path), &nothing).map(|config| config.lanes().collect::<Vec<LaneName>>());
    assert!(load().unwrap_err().to_string().contains("cannot read the configuration"));
    std::fs::write(&path, b"\xff\xfe").unwrap();
    assert!(load().unwrap_err().to_string().contains("utf-8"));
    std::fs::write(&path, "provider.p.base_url = 'simulator'").unwrap();
    assert_eq!(load().unwrap(), ["p/any".parse::<LaneName>().unwrap()]);
}

fn everything_shown(result: &Result<Config, Faults>) -> String {
    match result {
        Ok(config) => format!("{config:?}"),
        Err(faults) => format!("{faults}\n{faults:?}\n{}\n{}", faults.render(false), faults.render(true)),
    }
}

proptest! {
    /// Wherever a key is written by mistake, and however wrong the rest.
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
        let shown = everything_shown(&Config::parse("config.toml", &text, &nothing));
        prop_assert!(!shown.contains(&key), "{}", shown);
    }

    #[test]
    fn a_key_that_was_read_is_never_shown(key in "[A-Za-z0-9]{12,40}") {
        let env = |name: &str| (name != "TEAM2").then(|| key.clone());
        let config = Config::parse("c", THREE, &nothing).unwrap();
        let usable = config.usable(&env).unwrap();
        prop_assert_eq!(usable.providers["claude"].keys[0].secret.expose(), key.as_str());
        let shown = format!("{usable:?}{config:?}");
        prop_assert!(!shown.contains(&key), "{}", shown);
    }

    #[test]
    fn no_text_at_all_makes_it_panic(text in "\\PC{0,200}") {
        let _ = Config::parse("config.toml", &text, &nothing).map_err(|faults| faults.render(false));
    }

    #[test]
    fn no_toml_at_all_makes_it_panic(
        lines in prop::collection::vec(prop::sample::select(vec![
            "[provider.a]", "[provider.a.models.m]", "[route.r]", "[[route.r]]", "lanes = ['a/m', {}]", "lanes = [{ lane = 3 }, {}]",
            "keys = []", "format = 'gemini'", "provider = 3", "[provider]", "models = {}", "price = {}", "[retry]", "max = '1ms'",
            "[simulator]", "'' = 1", "[provider.'']", "breaker.pause = '1h'", "[defaults]", "route = 'x'",
        ]), 0..12),
    ) {
        let _ = Config::parse("config.toml", &lines.join("\n"), &nothing).map_err(|faults| faults.render(false));
    }
}
