//! Mistakes that people make, and what is said of them: always a place, and what to write instead.

use super::shipped::uncommented;
use super::*;

fn nothing(_: &str) -> Option<String> {
    None
}

fn faults(text: &str) -> String {
    Config::parse("config.toml", text, &nothing).unwrap_err().to_string()
}

/// Words of the libraries that nobody can act on.
const FOREIGN: [&str; 12] = [
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
fn whatever_stands_at_a_key_the_fault_has_a_place_and_plain_words() {
    let mut heading = "";
    let mut read = 0;
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
            let Err(found) = Config::parse("c", &format!("{heading}\n{key} = {wrong}\n"), &nothing) else {
                continue;
            };
            read += 1;
            for fault in &found.0 {
                let said = fault.to_string();
                assert!(!FOREIGN.iter().any(|word| said.contains(word)), "{key} = {wrong}: {said}");
                assert!(fault.place.is_some(), "{key} = {wrong}: {said}");
                let tells =
                    fault.advice.is_some() || said.contains("expected ") || said.contains("is written");
                assert!(tells, "{key} = {wrong}: {said}");
            }
        }
    }
    assert!(read > 500, "{read}");
}

/// Reads a provider with one model, each with these lines, and gives its notes or its faults.
fn notes_or_faults(provider: &str, model: &str, rest: &str) -> Result<Vec<String>, String> {
    let text = format!(
        "[provider.a]\nbase_url = 'http://x/v1/y'\n{provider}\n[provider.a.models.m]\n{model}\n{rest}\n"
    );
    let config = Config::parse("c", &text, &nothing);
    config.map(|config| config.notes).map_err(|faults| faults.to_string())
}

#[test]
fn what_can_never_work_is_refused() {
    let kept = "reserve = 'max_tokens'\nlimits = { tokens_per_minute = 1000 }";
    for (provider, model, rest, says) in [
        (kept, "max_tokens = 2000", "", "c:6:14: a call would take its max_tokens of 2000"),
        (
            "reserve = 'max_tokens'",
            "max_tokens = 9\nlimits = { output_tokens_per_minute = 8 }",
            "",
            "write max_tokens = 8",
        ),
        ("", "context = 100\nmax_tokens = 100", "", "leaves no room for a prompt"),
        ("", "", "[route.r]\nlanes = ['a/m']\nfailover_refusals = true", "there is no second lane to ask"),
        (
            "",
            "",
            "[simulator.limits]\nrequests_per_minute = 60\nothers_per_minute = 61",
            "somebody else takes 61 of requests_per_minute = 60; write less",
        ),
        ("breaker = { min_calls = 2000 }", "", "", "so it never holds 2000; write min_calls = 1000 or less"),
        (
            "limits = { concurrency = { min = 9, max = 8 } }",
            "",
            "",
            "c:3:26: `min` is 9 and `max` is 8; write",
        ),
        ("limits = { concurrency = { start = 9, max = 8 } }", "", "", "`start` is 9; write one from 1"),
    ] {
        let faults = notes_or_faults(provider, model, rest).unwrap_err();
        assert!(faults.contains(says) && faults.lines().count() == 1, "{says}\n{faults}");
    }
}

#[test]
fn what_changes_nothing_is_noted_with_its_place() {
    let limits = |inside: &str| format!("limits = {{ {inside} }}");
    let notes = |provider: &str, model: &str, rest: &str| notes_or_faults(provider, model, rest).unwrap();
    for (found, says) in [
        (notes(&limits("burst = '10s'"), "", ""), "c:3:20: no limit a minute stands beside this burst"),
        (notes(&limits("burst = '10s', requests_per_second = 3"), "", ""), "no limit a minute"),
        (
            notes(&limits("tokens_per_minute = 5"), &limits("tokens_per_minute = 6"), ""),
            "tokens_per_minute = 6 of this model is never reached: the account's is 5",
        ),
        (
            notes(&limits("tokens_per_minute = 5, input_tokens_per_minute = 6"), "", ""),
            "input_tokens_per_minute = 6 is never reached: tokens_per_minute is 5",
        ),
        (
            notes("limits.requests_per_minute = 10\nbreaker.min_calls = 50", "", ""),
            "at 10 calls a minute no 30s hold 50 calls",
        ),
        (notes("", "", "[retry]\nfailover_refusals = true"), "no route has a second lane to ask"),
        (notes("", "", "[retry]\nhedge_share = 0.5"), "hedge_after is \"off\" everywhere"),
        (notes("", "context = 10", "[defaults]\nmax_tokens = 10"), "leaves no room for a prompt"),
        (
            notes("reserve = 'max_tokens'\nlimits.tokens_per_minute = 9", "", "[defaults]\nmax_tokens = 10"),
            "this lane answers only steps with a smaller max_tokens",
        ),
        (
            notes("format = 'anthropic'\nreserve = 'max_tokens'\nlimits.tokens_per_minute = 9", "", ""),
            "where nobody says, 4096 max_tokens are asked for, and tokens_per_minute is 9",
        ),
        (notes("", "", "[simulator]\nlimits.per_model = true"), "per_model does nothing without a limit"),
        (notes("", "", "[simulator]\nlimits.others_per_minute = 5"), "nothing without requests_per_minute"),
        (
            notes("", "", "[simulator]\nlimits = { others_per_minute = 5, requests_per_minute = 5 }"),
            "takes all 5 requests a minute",
        ),
    ] {
        assert!(matches!(found.as_slice(), [note] if note.contains(says)), "{says}\n{found:?}");
    }
    let sensible = "limits = { requests_per_minute = 60, burst = '10s' }\nreserve = 'max_tokens'";
    assert_eq!(notes(sensible, "max_tokens = 10\ncontext = 20", ""), Vec::<String>::new());
}

#[test]
fn a_model_takes_the_accounts_burst_and_concurrency_where_it_says_nothing() {
    let text = "[provider.a]\nbase_url = 'http://x'\nlimits = { concurrency = 8, burst = '5s', requests_per_minute = 9 }\n\
                [provider.a.models]\nquiet = { limits = { requests_per_minute = 5 } }\n\
                loud = { limits = { concurrency = 64, burst = 'auto' } }\n";
    let config = Config::parse("c", text, &nothing).unwrap();
    let limits = |model: &str| config.providers["a"].models[model].limits.clone().unwrap();
    assert_eq!((limits("quiet").concurrency.max.get(), limits("loud").concurrency.max.get()), (8, 64));
    assert_eq!(limits("quiet").burst, config.providers["a"].limits.burst);
    assert_eq!(limits("loud").burst, crate::guard::BurstSettings::Auto);
}

#[test]
fn a_wrong_value_comes_with_what_to_write_instead() {
    let provider =
        |line: &str| faults(&format!("[provider.a]\nbase_url = 'http://x'\nmodels.m = {{}}\n{line}\n"));
    for (line, says) in [
        ("limits.burst = 10", "write burst = \"10s\""),
        ("breaker.max_pause = '30s'", "did you mean `max_open_duration`?"),
        ("limits.requests_per_second = 0.5", "write requests_per_minute = 30 instead"),
        ("limits.requests_per_minute = '60/min'", "write requests_per_minute = 60"),
        ("limits.requests_per_minute = 0", "leave the key out for no limit"),
        ("limits.requests_per_minute = 99999999999", "the largest number here is 4294967295"),
        ("limits = [1]", "expected a table, found a list"),
        ("limits = 5", "write limits = { KEY = VALUE }, with any of requests_per_minute, "),
        ("limits.requests_per_hour = 5", "known here: requests_per_minute, "),
        ("limits.a = 5", "known here: "),
        ("limits.rpm = 5", "did you mean `requests_per_minute`?"),
        ("limits.queue = 5", "it belongs under [provider.a]"),
        ("requests_per_minute = 5", "it belongs under [provider.a.limits]"),
        ("context = 5", "it belongs under [provider.a.models.m]"),
        ("retries.share = '10%'", "write share = 0.1"),
        ("keys = 'env:A'", "write keys = [\"env:A\"]"),
        ("format = 3", "expected one of \"openai\", \"anthropic\" or \"gemini\", found `3`"),
        ("format = { a = 1 }", "expected one of \"openai\", \"anthropic\" or \"gemini\", found a table"),
        ("timeouts.total = '2y'", "the units are ms, s, m and h"),
        ("timeouts.total = 30", "write total = \"30s\""),
        ("breaker = 2024-01-01", "expected a table, found a date"),
        ("headers = 2024-01-01", "expected a table, found a date"),
        ("[run]\nmax_hold = 600", "write max_hold = \"600s\""),
        ("[retry]\nhedge_after = 4", "write hedge_after = \"4s\""),
        ("[retry]\nhedge_after = false", "write hedge_after = \"off\""),
        ("[retry]\nfailover_refusals = 'yes'", "write failover_refusals = true"),
        ("[simulator]\nlatency = 'fast'", "the units are ms, s, m and h"),
        (
            "[[simulator.faults]]\nkind = 'reset'\nshare = 7",
            "config.toml:6:9: 7 is no share of the requests; write",
        ),
        ("[[retry]]\nrounds = 2", "a heading has single brackets here"),
        ("limits = { concurrency = 3 } }", "each key has a line of its own"),
    ] {
        let faults = provider(line);
        assert!(faults.contains(says) && faults.lines().count() == 1, "{line}\n{faults}");
    }
}
