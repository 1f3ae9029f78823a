//! Tests of diagnostics for common mistakes: each has a position and help.

use super::shipped_config::uncommented;
use super::*;

/// Technical words of the parser libraries that a user cannot act on.
const LIBRARY_WORDS: [&str; 12] = [
    "invalid",
    "struct ",
    "wanted",
    "friendly",
    "u32",
    "u64",
    "usize",
    "f64",
    "i128",
    "$__",
    "sequence",
    "any value",
];

#[test]
fn a_wrong_value_of_any_key_has_a_position_and_a_plain_message() {
    let mut heading = "";
    let mut rejected = 0;
    let text = uncommented(&["# ", "#e.g. "]);
    for line in text.lines() {
        if line.starts_with('[') {
            heading = line;
        }
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) else {
            continue;
        };
        for wrong in [
            "'ten'",
            "''",
            "'10%'",
            "'2y'",
            "-3",
            "0.5",
            "nan",
            "true",
            "[1]",
            "{ a = 1 }",
            "{}",
            "2024-01-01",
            "99999999999999",
            "99999999999999999999",
        ] {
            let Err(diagnostics) = Config::parse("c", &format!("{heading}\n{key} = {wrong}\n"), &empty_env)
            else {
                continue;
            };
            rejected += 1;
            for diagnostic in &diagnostics.0 {
                let shown = diagnostic.to_string();
                assert!(!LIBRARY_WORDS.iter().any(|word| shown.contains(word)), "{key} = {wrong}: {shown}");
                assert!(diagnostic.span.is_some(), "{key} = {wrong}: {shown}");
                let has_help =
                    diagnostic.help.is_some() || shown.contains("expected ") || shown.contains(": write ");
                assert!(has_help, "{key} = {wrong}: {shown}");
            }
        }
    }
    assert!(rejected > 500, "{rejected}");
}

/// Parses a configuration with one provider and one model with these lines, and returns its notes or its errors.
fn notes_or_errors(provider: &str, model: &str, rest: &str) -> Result<Vec<String>, String> {
    let text = format!(
        "[provider.a]\nbase_url = 'http://x/v1/y'\n{provider}\n[provider.a.models.m]\n{model}\n{rest}\n"
    );
    let config = Config::parse("c", &text, &empty_env);
    config.map(|config| config.notes).map_err(|errors| errors.to_string())
}

#[test]
fn settings_that_can_never_work_are_rejected() {
    let reservation = "output_reservation = 'max_tokens'\nlimits = { tokens_per_minute = 1000 }";
    for (provider, model, rest, expected) in [
        (reservation, "max_tokens = 2000", "", "c:6:14: a call would reserve its max_tokens of 2000"),
        (
            "output_reservation = 'max_tokens'",
            "max_tokens = 9\nlimits = { output_tokens_per_minute = 8 }",
            "",
            "write max_tokens = 8",
        ),
        ("", "context = 100\nmax_tokens = 100", "", "leaves no room for a prompt"),
        ("", "", "[route.r]\ntargets = ['a/m']\nfailover_refusals = true", "there is no second target"),
        (
            "",
            "",
            "[simulator.limits]\nrequests_per_minute = 60\nbackground_requests_per_minute = 61",
            "other clients use 61 of requests_per_minute = 60; write less",
        ),
        (
            "breaker = { min_requests = 2000 }",
            "",
            "",
            "that a window can store; write min_requests = 1000 or less",
        ),
        (
            "limits = { concurrency = { min = 9, max = 8 } }",
            "",
            "",
            "c:3:26: `min` is 9 and `max` is 8; write",
        ),
        ("limits = { concurrency = { start = 9, max = 8 } }", "", "", "`start` is 9; write one from 1"),
        ("drop_parameters = ['seed', 'seed']", "", "", "c:3:28: `seed` is listed twice; remove one of them"),
        ("", "extra = { n = 2 }", "", "c:5:15: n must be 1; send one request per answer"),
        (
            "",
            "extra = { model = 'x' }",
            "",
            "c:5:19: the field \"model\" is set by each request itself; write it as",
        ),
        (
            "",
            "extra.generationConfig = { responseLogprobs = true }",
            "",
            "c:5:47: responseLogprobs is not supported: a response could not return its result; remove it",
        ),
    ] {
        let errors = notes_or_errors(provider, model, rest).unwrap_err();
        assert!(errors.contains(expected) && errors.lines().count() == 1, "{expected}\n{errors}");
    }
}

#[test]
fn settings_without_effect_are_noted_with_their_position() {
    let limits = |inside: &str| format!("limits = {{ {inside} }}");
    let notes = |provider: &str, model: &str, rest: &str| notes_or_errors(provider, model, rest).unwrap();
    for (found, expected) in [
        (notes(&limits("burst = '10s'"), "", ""), "c:3:20: no limit per minute is set with this burst"),
        (notes(&limits("burst = '10s', requests_per_second = 3"), "", ""), "no limit per minute"),
        (
            notes(&limits("tokens_per_minute = 5"), &limits("tokens_per_minute = 6"), ""),
            "tokens_per_minute = 6 of this model is never reached: the limit of the account is 5",
        ),
        (
            notes(&limits("tokens_per_minute = 5, input_tokens_per_minute = 6"), "", ""),
            "input_tokens_per_minute = 6 is never reached: tokens_per_minute is 5",
        ),
        (
            notes("limits.requests_per_minute = 10\nbreaker.min_requests = 50", "", ""),
            "at 10 calls per minute there are never 50 calls within 30s",
        ),
        (
            notes("stream = 'never'\ntimeouts.first_token = '5m'", "", ""),
            "c:4:24: this does nothing: with stream = \"never\" an answer arrives in one piece; remove it",
        ),
        (
            notes("format = 'openai_responses'\nembedding_inputs = 10", "", ""),
            "c:4:20: this does nothing: the format openai_responses has no embeddings; remove it",
        ),
        (notes("", "", "[retry]\nfailover_refusals = true"), "no route has a second target"),
        (notes("", "", "[retry]\nhedge_ratio = 0.5"), "hedge_after is \"off\" everywhere"),
        (notes("", "context = 10", "[defaults]\nmax_tokens = 10"), "leaves no room for a prompt"),
        (
            notes(
                "output_reservation = 'max_tokens'\nlimits.tokens_per_minute = 9",
                "",
                "[defaults]\nmax_tokens = 10",
            ),
            "this target is used only by steps with a smaller max_tokens",
        ),
        (
            notes(
                "format = 'anthropic'\noutput_reservation = 'max_tokens'\nlimits.tokens_per_minute = 9",
                "",
                "",
            ),
            "the default max_tokens of this format is 4096, and tokens_per_minute is 9",
        ),
        (notes("", "", "[simulator]\nlimits.per_model = true"), "per_model does nothing without a limit"),
        (
            notes("", "", "[simulator]\nlimits.background_requests_per_minute = 5"),
            "nothing without requests_per_minute",
        ),
        (
            notes(
                "",
                "",
                "[simulator]\nlimits = { background_requests_per_minute = 5, requests_per_minute = 5 }",
            ),
            "other clients use all 5 requests per minute",
        ),
    ] {
        assert!(matches!(found.as_slice(), [note] if note.contains(expected)), "{expected}\n{found:?}");
    }
    let without_notes =
        "limits = { requests_per_minute = 60, burst = '10s' }\noutput_reservation = 'max_tokens'";
    assert_eq!(notes(without_notes, "max_tokens = 10\ncontext = 20", ""), Vec::<String>::new());
    let whole = "stream = 'never'\ntimeouts = { idle = '1m', total = '5m' }";
    assert_eq!(notes(whole, "", ""), Vec::<String>::new());
    assert_eq!(notes("stream = 'auto'\ntimeouts.first_token = '5m'", "", ""), Vec::<String>::new());
}

#[test]
fn a_model_inherits_unset_burst_and_concurrency_from_the_account() {
    let text = "[provider.a]\nbase_url = 'http://x'\nlimits = { concurrency = 8, burst = '5s', requests_per_minute = 9 }\n\
                [provider.a.models]\nquiet = { limits = { requests_per_minute = 5 } }\n\
                loud = { limits = { concurrency = 64, burst = 'auto' } }\n";
    let config = Config::parse("c", text, &empty_env).unwrap();
    let limits = |model: &str| config.providers["a"].models[model].limits.clone().unwrap();
    assert_eq!((limits("quiet").concurrency.max.get(), limits("loud").concurrency.max.get()), (8, 64));
    assert_eq!(limits("quiet").burst, config.providers["a"].limits.burst);
    assert_eq!(limits("loud").burst, crate::guard::BurstSettings::Auto);
}

#[test]
fn a_wrong_value_has_help() {
    let provider =
        |line: &str| error_text(&format!("[provider.a]\nbase_url = 'http://x'\nmodels.m = {{}}\n{line}\n"));
    for (line, expected) in [
        ("limits.burst = 10", "write burst = \"10s\""),
        ("breaker.max_pause = '30s'", "`max_pause` is now called `max_open_duration`"),
        ("limits.requests_per_second = 0.5", "write requests_per_minute = 30 instead"),
        ("limits.requests_per_minute = '60/min'", "write requests_per_minute = 60"),
        ("limits.requests_per_minute = 0", "leave the key out for no limit"),
        ("limits.requests_per_minute = 99999999999", "the largest number here is 4294967295"),
        (
            "embedding_inputs = 0",
            "config.toml:4:20: expected a whole number above 0, found `0`; write embedding_inputs = NUMBER",
        ),
        ("limits = [1]", "expected a table, found a list"),
        ("limits = 5", "write limits = { KEY = VALUE }, with any of requests_per_minute, "),
        ("limits.requests_per_hour = 5", "known here: requests_per_minute, "),
        ("limits.a = 5", "known here: "),
        ("limits.rpm = 5", "did you mean `requests_per_minute`?"),
        ("limits.queue = 5", "it belongs under [provider.a]"),
        ("requests_per_minute = 5", "it belongs under [provider.a.limits]"),
        ("context = 5", "it belongs under [provider.a.models.m]"),
        ("retry_budget.ratio = '10%'", "write ratio = 0.1"),
        ("drop_parameters = ['sed']", "did you mean `seed`?"),
        ("drop_parameters = 'seed'", "write drop_parameters = [\"seed\"]"),
        ("drop_params = ['seed']", "did you mean `drop_parameters`?"),
        ("stream = 'nevr'", "unknown value `nevr`; did you mean `never`?"),
        ("stream = false", "expected one of \"auto\" or \"never\", found `false`; write stream = \"never\""),
        ("strem = 'never'", "did you mean `stream`?"),
        ("streaming = 'never'", "did you mean `stream`?"),
        ("models.n.extra = 3", "expected a table, found `3`"),
        (
            "models.n.extra = { a = 2024-01-01 }",
            "config.toml:4:24: a date is not allowed here; write it as text",
        ),
        (
            "[defaults]\nstop = ''",
            "config.toml:5:8: this text is empty; write the text before which the answer ends",
        ),
        ("[defaults]\nstop = ['a', '']", "config.toml:5:14: this text is empty"),
        ("[defaults]\nstop_sequences = ['a']", "did you mean `stop`?"),
        ("[defaults]\nseed = '7'", "config.toml:5:8: expected a whole number without quotes, found \"7\""),
        ("[defaults]\ntop_p = 2", "choose one from 0 to 1"),
        (
            "[defaults]\nreasoning_effort = 'hihg'",
            "config.toml:5:20: unknown value `hihg`; did you mean `high`?",
        ),
        ("[defaults]\nreasoning_effrt = 'high'", "did you mean `reasoning_effort`?"),
        ("[defaults]\nprompt_cache = 'offf'", "config.toml:5:16: unknown value `offf`; did you mean `off`?"),
        ("[defaults]\nprompt_cache = '2h'", "unknown value `2h`; known here: auto, off, 1h"),
        ("[defaults]\npromt_cache = 'off'", "did you mean `prompt_cache`?"),
        ("[defaults]\nkeep_reasoning = 'yes'", "write keep_reasoning = true"),
        ("keys = 'env:A'", "write keys = [\"env:A\"]"),
        (
            "format = 3",
            "expected one of \"openai\", \"openai_responses\", \"anthropic\" or \"gemini\", found `3`",
        ),
        (
            "format = { a = 1 }",
            "expected one of \"openai\", \"openai_responses\", \"anthropic\" or \"gemini\", found a table",
        ),
        ("timeouts.total = '2y'", "the units are ms, s, m, h and d"),
        ("timeouts.total = 30", "write total = \"30s\""),
        ("breaker = 2024-01-01", "expected a table, found a date"),
        ("headers = 2024-01-01", "expected a table, found a date"),
        ("[run]\nmax_hold = 600", "write max_hold = \"600s\""),
        ("[retry]\nhedge_after = 4", "write hedge_after = \"4s\""),
        ("[retry]\nhedge_after = false", "write hedge_after = \"off\""),
        ("[retry]\nfailover_refusals = 'yes'", "write failover_refusals = true"),
        ("[simulator]\nlatency = 'fast'", "the units are ms, s, m, h and d"),
        (
            "[[simulator.faults]]\nkind = 'reset'\nshare = 7",
            "config.toml:6:9: 7 is not a share of the requests; write",
        ),
        ("[[retry]]\nmax_rounds = 2", "a heading has single brackets here"),
        ("limits = { concurrency = 3 } }", "each key has a line of its own"),
    ] {
        let errors = provider(line);
        assert!(errors.contains(expected) && errors.lines().count() == 1, "{line}\n{errors}");
    }
}

#[test]
fn a_scope_needs_a_name_without_a_slash_and_its_limits_are_checked() {
    let errors = |text: &str| Config::parse("c", text, &empty_env).unwrap_err().to_string();
    for name in ["", "team/a"] {
        for heading in ["scope", "budget.scope"] {
            let text = match heading {
                "scope" => format!("[scope.\"{name}\"]\nqueue = 5\n"),
                _ => format!("[budget.scope]\n\"{name}\" = 5\n"),
            };
            let error = errors(&text);
            assert!(error.contains(&format!("{name:?} cannot name a scope")), "{error}");
            assert!(error.contains("such as team-a"), "{error}");
        }
    }
    let of_token = errors("[scope.\"token:ci\"]\nqueue = 5\n");
    assert!(of_token.contains("\"token:ci\" cannot name a scope"), "{of_token}");
    assert!(of_token.contains("limits are set when a token is created"), "{of_token}");
    assert!(errors("[scope.team-a]\nconcurency = 5").contains("did you mean `concurrency`?"));
    assert!(errors("[scope.team-a]\nqueue = 0").contains("c:2:9: "));
    // A budget without limits and limits without a budget are in order, and no note is printed.
    let text = "[scope.team-a]\nconcurrency = 5\n[budget.scope]\nteam-b = 5";
    let config = Config::parse("c", text, &empty_env).unwrap();
    assert!(config.notes.is_empty(), "{:?}", config.notes);
    assert_eq!(config.scopes["team-a"].concurrency.map(|limit| limit.get()), Some(5));
}

#[test]
fn faults_of_the_daemon_have_a_position_and_advice() {
    for (lines, expected) in [
        (
            "tls.key = 'k.pem'",
            "c:2:11: `key` does nothing without `certificate`; add certificate = \"FILE\" to",
        ),
        ("tls = { certificate = 'c.pem' }", "c:2:23: `certificate` does nothing without `key`; add key"),
        ("drain = '61m'", "c:2:9: `drain` (1h 1m) is longer than an hour; write drain = \"1h\" or less"),
        ("max_body = '2GiB'", "c:2:12: `max_body` (2GiB) is larger than `max_upload` (1GiB); make"),
        ("max_upload = '1MiB'", "c:2:14: `max_body` (4MiB) is larger than `max_upload` (1MiB); make"),
        (
            "pipelines = ['a/*.toml', 'b/**']",
            "c:2:26: a `*` stands only in the name of the file, and once in a",
        ),
        ("pipelines = ['a/?.toml']", "c:2:14: this glob has a wildcard that is not supported; the only"),
        ("pipelines = ['']", "c:2:14: this glob is empty; write one such as"),
        ("items = ['']", "c:2:10: this path is empty; write the path of a folder"),
        ("data = ''", "c:2:8: this path is empty; write a path, or remove the key"),
        ("tokens = 'off'", "c:2:10: tokens cannot be turned off: a caller without one could spend"),
        ("tokens = false", "c:2:10: tokens cannot be turned off"),
        ("tokens = 'requierd'", "c:2:10: unknown value `requierd`; did you mean `required`?"),
        ("listen = '127.0.0.1'", "c:2:10: \"127.0.0.1\" has no port; write listen = \"127.0.0.1:7700\""),
        ("listen = 'localhost:80'", "such as listen = \"127.0.0.1:80\""),
        ("listen = 80", "c:2:10: expected an address with a port such as \"127.0.0.1:7700\", found `80`"),
        ("lisen = '127.0.0.1:80'", "unknown key `lisen`; did you mean `listen`?"),
        ("max_connections = 0", "c:2:19: expected a whole number above 0, found `0`"),
    ] {
        let errors = Config::parse("c", &format!("[serve]\n{lines}\n"), &empty_env).unwrap_err().to_string();
        assert!(errors.contains(expected) && errors.lines().count() == 1, "{lines}\n{errors}");
    }
    let misplaced = Config::parse("c", "listen = '127.0.0.1:80'\n", &empty_env).unwrap_err().to_string();
    assert!(misplaced.contains("it belongs under [serve]"), "{misplaced}");
}

#[test]
fn a_folder_of_items_that_does_not_exist_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("here")).unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, "[serve]\nitems = ['here', 'missing']\n").unwrap();
    let config = Config::load_with(Some(&path), &empty_env).unwrap();
    assert_eq!(config.serve.items, ["here", "missing"].map(|name| folder.path().join(name)));
    let note = format!("there is no folder {}; create it", folder.path().join("missing").display());
    assert!(matches!(config.notes.as_slice(), [one] if one.contains(&note)), "{:?}", config.notes);
    assert!(config.notes[0].contains(":2:18: "), "{:?}", config.notes);
}

#[test]
fn the_key_of_the_certificate_is_a_secret_file() {
    let text = "[serve.tls]\ncertificate = 'c.pem'\nkey = 'k.pem'\n";
    let config = Config::parse("c", text, &empty_env).unwrap();
    assert_eq!(config.secret_files().collect::<Vec<_>>(), [std::path::Path::new("k.pem")]);
}
