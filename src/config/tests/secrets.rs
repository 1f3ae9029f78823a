//! Tests that a key is not shown, wherever it is written by mistake.

use super::*;

const KEYS: [&str; 4] = [
    "sk-ant-api03-5kQ0x7Zr2WmN4tVb",
    "sk-live-some-secret-words",
    "AIzaSyD0123456789abcdefghijklmnopqrst",
    "d41d8cd98f00b204e9800998ecf8427e",
];

/// An error that each configuration has besides the key, so that none is valid.
const OTHER_ERROR: &str = "wrong_key = 3\n";

#[track_caller]
fn assert_not_shown(text: &str, secret: &str) {
    let result = Config::parse("config.toml", &format!("{OTHER_ERROR}{text}\n"), &empty_env);
    assert!(result.is_err(), "{text}");
    let shown = everything_shown(&result);
    assert!(!shown.to_lowercase().contains(&secret.to_lowercase()), "{text}\n{shown}");
}

#[test]
fn a_key_in_place_of_any_setting_is_not_shown() {
    let provider = "[provider.a]\nbase_url = 'http://x'\nmodels.m = {}\n";
    for key in KEYS {
        for text in [
            "openai = \"KEY\"",
            "provider = \"KEY\"",
            "[provider]\nclaude = \"KEY\"",
            "foo = 1 # KEY",
            "\"KEY\" = 1",
            "KEY = 1",
            "[KEY]\na = 1",
            "[provider.KEY]\nbase_url = 'http://x'",
            "[provider.a]\nbase_url = \"KEY\"",
            "[provider.a]\nkeys = {\"KEY\" = 1}",
            "[provider.a]\nkeys = {KEY = 1}",
            "[budget]\nrun = \"KEY\"",
            "[store]\nurl = \"KEY\"",
            "[store]\nurl = \"postgres://u:KEY@h/db\"",
            "[defaults]\nroute = \"KEY\"",
            "[route.r]\ntargets = [\"KEY\"]",
            "[route.r]\ntargets = [\"KEY/m\"]",
            "[route.r]\ntargets = [\"a/KEY\"]",
            "[files]\nallow_hosts = [\"u:KEY@h\"]",
            "[serve]\nlisten = \"KEY\"",
            "[serve]\nlisten = \"KEY:80\"",
            "[serve]\ntokens = \"KEY\"",
            "[serve]\npipelines = [\"KEY/**\"]",
            "[serve]\nitems = [\"KEY\"]",
            "[serve]\ntls.key = \"KEY\"",
            "openai = \"KEY\" oops",
            "foo = = 1 # KEY",
        ] {
            assert_not_shown(&text.replace("KEY", key), key);
        }
        for line in [
            "format = \"KEY\"",
            "api_version = \"KEY\"",
            "rotate_every = \"KEY\"",
            "timeouts.connect = \"KEY\"",
            "queue = \"KEY\"",
            "models.m.price = \"KEY\"",
            "models.\"KEY\" = 3",
            "keys = \"KEY\"",
            "keys = [\"env:A\", \"KEY\"]",
            "headers = { KEY = 5 }",
            "headers = { \"KEY x\" = 'y' }",
            "max_tokens_field = \"KEY\"",
            "limits = 3 # KEY",
        ] {
            assert_not_shown(&format!("{provider}{}", line.replace("KEY", key)), key);
        }
    }
}

#[test]
fn a_key_that_is_written_with_escapes_is_not_shown() {
    let key = KEYS[0];
    let escaped = key.replacen('k', "\\u006b", 1);
    assert_not_shown(&format!("openai = \"{escaped}\""), key);
    assert_not_shown(&format!("openai = \"{escaped}\""), &escaped);
    assert_not_shown(&format!("[provider.\"{escaped}\"]\nbase_url = 'http://x'"), key);
}

#[test]
fn a_long_number_in_place_of_any_setting_is_not_shown() {
    for number in ["1234567890123456", "12345678901234567890"] {
        for text in [
            "openai = NUMBER",
            "[provider.a]\nkeys = [NUMBER]",
            "[provider.a]\nkeys = NUMBER",
            "[provider.a]\nqueue = NUMBER",
            "[provider.a]\nheaders = { X-Key = NUMBER }",
            "[provider.a]\ntimeouts.connect = NUMBER",
        ] {
            assert_not_shown(&text.replace("NUMBER", number), number);
        }
    }
    for written in ["1234_5678_9012_3456", "0x462d53c8abac0"] {
        let text = format!("[provider.a]\nkeys = [{written}]");
        assert_not_shown(&text, "1234567890123456");
        assert_not_shown(&text, written);
    }
}

#[test]
fn ordinary_names_stay_readable() {
    for (text, name) in [
        ("[provider.a.models]\n\"claude-haiku-4-5-20251001\" = 3", "claude-haiku-4-5-20251001"),
        ("[provider.a.models]\n\"gpt-4.1-mini-2025-04-14\" = 3", "gpt-4.1-mini-2025-04-14"),
        ("[route.r]\ntargets = ['a/gpt-4.1-mini-2025-04-14']", "`gpt-4.1-mini-2025-04-14`"),
        ("[store]\nurl = '/var/lib/pointsman/runs-of-team-2.db'", "/var/lib/pointsman/runs-of-team-2.db"),
        (
            "[provider.a]\nbase_url = 'ftp://host-2.example.com/openai/v1'",
            "ftp://host-2.example.com/openai/v1",
        ),
        ("[provider.a]\nmodels.m = { name = 'claude-haiku-4-5-20251001' oops", "claude-haiku-4-5-20251001"),
    ] {
        let provider = "[provider.a]\nbase_url = 'http://x'\nmodels.m = {}\n";
        let text = if text.starts_with("[route") { format!("{provider}{text}") } else { text.to_owned() };
        let shown = Config::parse("config.toml", &text, &empty_env).unwrap_err().render(false);
        assert!(shown.contains(name), "{name}\n{shown}");
    }
}

#[test]
fn a_key_in_place_of_the_path_of_a_key_file_is_not_shown() {
    for key in KEYS {
        for line in ["keys = ['file:KEY']", "headers = { x-org = 'file:KEY' }"] {
            let line = line.replace("KEY", key);
            let text = format!("[provider.a]\nbase_url = 'http://x'\nmodels.m = {{}}\n{line}\n");
            let config = Config::parse("config.toml", &text, &empty_env).unwrap();
            let errors = config.resolve(&empty_env).unwrap_err();
            assert!(errors.to_string().contains("cannot read the key file ***"), "{errors}");
            let shown = format!("{config:?}\n{errors}\n{errors:?}\n{}", errors.render(false));
            assert!(!shown.contains(key), "{shown}");
        }
    }
}

#[test]
fn a_key_in_code_is_not_shown() {
    for key in KEYS {
        for builder in [
            Config::builder().with(&format!("provider.{key}.queue"), -1),
            Config::builder().with(&format!("provider.{key}.queue"), f64::NAN),
            Config::builder().with(&format!("{key} x"), 1),
            Config::builder().with_provider(key, ProviderBuilder::openai()),
            Config::builder().with("run.max_hold", key),
        ] {
            let errors = builder.build_with(&empty_env).unwrap_err();
            let shown = format!("{errors}\n{errors:?}\n{}", errors.render(false));
            assert!(!shown.contains(key), "{shown}");
        }
    }
}

#[test]
fn a_key_in_a_variable_is_not_shown() {
    for key in KEYS {
        for variable in ["OPENAI_MAX_TOKENS", "OPENAI_TEMPERATURE", "OPENAI_BASE_URL"] {
            let rows = [("OPENAI_API_KEY", "sk-1"), ("OPENAI_MODEL", "gpt-x"), (variable, key)];
            let errors = Config::from_env_with(&env_of(&rows)).unwrap_err().to_string();
            assert!(errors.contains(variable) && !errors.contains(key), "{errors}");
        }
    }
}
