//! Diagnostics of invalid pipelines.

use std::path::Path;

use crate::diagnostics::Diagnostics;
use crate::types::RouteName;

use super::super::load::{MAX_CHOICES, MAX_SCHEMA_BYTES, MAX_STEPS};
use super::super::{Defaults, Pipeline};
use super::parse;

fn diagnostics(text: &str) -> Diagnostics {
    parse(text).map(|pipeline| pipeline.name().to_owned()).unwrap_err()
}

/// Returns each diagnostic as `line:column message`.
fn messages(text: &str) -> Vec<String> {
    let describe = |diagnostic: &crate::diagnostics::Diagnostic| {
        let (line, column) = diagnostic.span.as_ref().map_or((0, 0), |span| span.line_and_column());
        format!("{line}:{column} {}", diagnostic.message)
    };
    diagnostics(text).0.iter().map(describe).collect()
}

#[test]
fn the_numbers_of_steps_and_of_choices_and_the_size_of_a_schema_are_limited() {
    let steps = |count: usize| {
        let step = |number: usize| format!("[[step]]\nname = 's{number}'\nprompt = 'x'\n");
        format!("name = 'p'\n{}", (0..count).map(step).collect::<String>())
    };
    assert_eq!(parse(&steps(MAX_STEPS)).unwrap().steps().len(), MAX_STEPS);
    let found = messages(&steps(MAX_STEPS + 1));
    let line = 2 + 3 * MAX_STEPS + 1;
    assert_eq!(found, [format!("{line}:8 the pipeline has 1001 steps; the maximum is 1000")]);

    let choices = |count: usize| {
        let texts: Vec<String> = (0..count).map(|number| format!("'c{number}'")).collect();
        format!("name = 'p'\n[[step]]\nname = 's'\nprompt = 'x'\nchoice = [{}]\n", texts.join(","))
    };
    assert!(parse(&choices(MAX_CHOICES)).is_ok());
    let found = messages(&choices(MAX_CHOICES + 1));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("`choice` has 10001 texts; the maximum is 10000"), "{found:?}");

    let schema = |bytes: usize| {
        let description = "d".repeat(bytes);
        format!(
            "name = 'p'\n[[step]]\nname = 's'\nprompt = 'x'\nschema = {{ description = '{description}' }}\n"
        )
    };
    // `{"description":""}` has 18 bytes.
    assert!(parse(&schema(MAX_SCHEMA_BYTES - 18)).is_ok());
    let found = messages(&schema(MAX_SCHEMA_BYTES));
    assert_eq!(found, ["5:1 the schema has 257 KiB; the maximum is 256 KiB"]);
}

#[test]
fn of_many_errors_the_first_are_listed() {
    let names: String = (0..2_000).map(|number| format!("{{{{ name{number:04} }}}}")).collect();
    let found = messages(&format!("name = 'p'\n[[step]]\nname = 's'\nprompt = '{names}'\n"));
    assert_eq!(found.len(), 101);
    assert!(found[0].ends_with("unknown name `name0000`"), "{}", found[0]);
    assert!(found[100].contains("and more errors"), "{}", found[100]);
    let needs: String = (0..2_000).map(|number| format!("'name{number:04}',")).collect();
    let found = messages(&format!("name = 'p'\n[[step]]\nname = 's'\nprompt = 'x'\nneeds = [{needs}]\n"));
    assert_eq!(found.len(), 101);
    let keys: String = (0..5_000).map(|number| format!("key{number:04} = 1\n")).collect();
    let found = messages(&format!("name = 'p'\n[[step]]\nname = 's'\nprompt = 'x'\n{keys}"));
    assert_eq!(found.len(), 101);
    assert!(found[0].ends_with("unknown key `key0000`"), "{}", found[0]);
}

#[test]
fn all_errors_of_an_invalid_pipeline_are_reported_at_once() {
    let text = r#"nmae = "email"

[input]
schema = { type = "object", properties = { sender = {}, content = {} }, additionalProperties = false }

[defaults]
temperature = 3.5
system = "You help {{ itme.sender }}."

[[step]]
name   = "category"
route  = "cheep"
prompt = "Subject: {{ item.contents }}\n\n{{ item.content }}"
choice = ["URGENT", "OTHER", "urgent"]

[[step]]
name   = "action items"
prompt = "List.\n\n{{ item.content | jion(', ') }}"
schema = { type = "arry" }
max_tokens = 0

[[step]]
name   = "reply"
when   = "categry != 'MARKETING'"
needs  = ["summary"]
prompt = """
Draft a reply
to {{ item.sender } now.
"""

[[step]]
name   = "first"
prompt = "{{ second }}"

[[step]]
name   = "second"
prompt = 'Go: {{ third }}'
choice = ["a", "b"]
schema = "missing.json"

[[step]]
name   = "third"
when   = "first == 'x"
prompt = "{{ first }}"
deadline = "soon"

[[step]]
name   = "third"
"#;
    insta::assert_snapshot!(diagnostics(text).render(false));
}

#[test]
fn a_wrong_setting_has_its_position_and_help() {
    let step = "name = 'p'\n[[step]]\nname = 'a'\nprompt = 'x'\n";
    let many = format!("stop = {:?}", vec!["x"; 17]);
    for (line, expected) in [
        (
            "stop = ''",
            "pipeline.toml:5:8: this text is empty; write the text before which the answer ends, or remove it",
        ),
        ("stop = ['a', '']", "pipeline.toml:5:14: this text is empty; write"),
        ("stop = 3", "pipeline.toml:5:8: expected text in quotes, or a list of such texts, found `3`"),
        ("stop = [3]", "pipeline.toml:5:9: expected text in quotes, found `3`; write \"3\""),
        (&many, "pipeline.toml:5:8: 17 texts are too many; write at most 16"),
        ("seed = 1.5", "pipeline.toml:5:8: expected a whole number without quotes, found `1.5`"),
        ("top_p = 1.5", "pipeline.toml:5:9: a top_p of 1.5 is not possible; choose one from 0 to 1"),
        (
            "reasoning_effort = 'extreme'",
            "pipeline.toml:5:20: unknown value `extreme`; known here: none, minimal, low",
        ),
        (
            "keep_reasoning = 1",
            "pipeline.toml:5:18: expected true or false, found `1`; write keep_reasoning = true",
        ),
        ("prompt_cache = 'autp'", "pipeline.toml:5:16: unknown value `autp`; did you mean `auto`?"),
        ("prompt_cache = 'always'", "pipeline.toml:5:16: unknown value `always`; known here: auto, off, 1h"),
        ("prompt_cach = 'off'", "pipeline.toml:5:1: unknown key `prompt_cach`; did you mean `prompt_cache`?"),
        (
            "keep_reasonning = true",
            "pipeline.toml:5:1: unknown key `keep_reasonning`; did you mean `keep_reasoning`?",
        ),
    ] {
        let found = diagnostics(&format!("{step}{line}\n")).to_string();
        assert!(found.starts_with(expected) && found.lines().count() == 1, "{line}\n{found}");
    }
}

#[test]
fn a_file_without_steps_or_name_is_refused() {
    assert_eq!(messages(""), ["1:1 the pipeline has no name", "1:1 the pipeline has no steps"]);
    assert_eq!(messages("name = 'x'\nstep = []"), ["2:8 the pipeline has no steps"]);
}

#[test]
fn a_value_of_a_wrong_type_is_not_reported_as_missing() {
    assert_eq!(
        messages("name = 'x'\n[[step]]\nname = 'a'\nprompt = 3"),
        ["4:10 expected text in quotes, found `3`"]
    );
}

#[test]
fn a_step_name_that_templates_cannot_reference_is_refused() {
    for name in ["item", "none", "1st", "two words", "", "loop", "a-b", "naïve"] {
        let text = format!("name = 'x'\n[[step]]\nname = '{name}'\nprompt = 'p'");
        assert_eq!(messages(&text), [format!("3:8 a step cannot be called {name:?}")]);
    }
}

#[test]
fn an_error_in_a_template_has_its_own_line_and_column() {
    let text = "name = 'x'\n[[step]]\nname = 'a'\nprompt = '''\nDear\n  {{ itme.name }}'''\n";
    assert_eq!(messages(text), ["6:6 unknown name `itme`"]);
    let text = "name = 'x'\n[[step]]\nname = 'a'\nprompt = \"\\u00e4\\n{{ item.a | nope }}\"\n";
    assert_eq!(messages(text), ["4:31 invalid template: unknown filter `nope`"]);
}

#[test]
fn a_field_of_an_answer_is_unknown_if_its_schema_forbids_it() {
    let text = "name = 'x'\n[[step]]\nname = 'facts'\nprompt = 'p'\n\
        schema = { properties = { city = {} }, additionalProperties = false }\n\
        [[step]]\nname = 'b'\nprompt = 'In {{ facts.town }}'\n";
    let diagnostics = diagnostics(text);
    assert_eq!(
        diagnostics.to_string(),
        "pipeline.toml:8:17: `facts.town` cannot exist: the schema of `facts` has no `town`; it has `city`"
    );
}

#[test]
fn a_step_without_a_route_is_refused_if_several_routes_are_configured() {
    let text = "name = 'x'\n[[step]]\nname = 'a'\nprompt = 'p'\n[[step]]\nname = 'b'\nprompt = 'p'\n";
    let parse = |routes: &[&str]| {
        let routes: Vec<RouteName> = routes.iter().map(|route| RouteName::from(*route)).collect();
        Pipeline::parse("p.toml", text, Path::new(""), &Defaults::default(), &routes)
    };
    let only = parse(&["one"]).unwrap();
    assert_eq!(only.steps()[1].route, RouteName::from("one"));
    let diagnostics = parse(&["one", "two"]).unwrap_err().to_string();
    assert!(diagnostics.contains("no route is set for `a`, `b`; set `route`"), "{diagnostics}");
    assert!(parse(&[]).unwrap_err().to_string().contains("no route is configured"));
}

#[test]
fn a_default_system_prompt_cannot_use_the_answer_of_a_step() {
    let text = "name = 'x'\n[defaults]\nsystem = 'It is {{ a }}.'\n[[step]]\nname = 'a'\nprompt = 'p'\n";
    assert_eq!(messages(text), ["3:20 a default system prompt cannot use the answer of `a`"]);
}

#[test]
fn an_unknown_name_is_explained_as_a_field_and_never_as_its_own_step() {
    let routes = ["r".into()];
    let help = |text: &str| {
        let text = format!("name = 'x'\n{text}");
        let parsed = Pipeline::parse("p.toml", &text, Path::new(""), &Defaults::default(), &routes);
        parsed.unwrap_err().to_string()
    };
    let step = |prompt: &str| format!("[[step]]\nname = 'answer'\nprompt = '{prompt}'\n");
    let found = help(&step("{{ text }}"));
    let field = "fields of the item are written item.NAME, such as `item.text`; known here: `item`";
    assert!(found.ends_with(field), "{found}");
    let found = help(&step("{{ answers }}"));
    assert!(found.contains("such as `item.answers`") && !found.contains("`answer`"), "{found}");
    let input = "[input]\nschema = { properties = { body = {} } }\n";
    let found = help(&format!("{input}{}", step("{{ body }}")));
    assert!(found.ends_with("did you mean `item.body`?"), "{found}");
    let found = help(&format!("{}needs = ['answr']\n", step("p")));
    assert!(found.ends_with("there is no step `answr`; the pipeline has no other step"), "{found}");
    let two = format!("{}[[step]]\nname = 'reply'\nprompt = '{{{{ anser }}}} {{{{ repyl }}}}'\n", step("p"));
    let found = help(&two);
    assert!(found.contains("did you mean `answer`?") && !found.contains("`reply`"), "{found}");
}

#[test]
fn an_error_in_the_configurations_defaults_has_its_position() {
    let defaults = Defaults { system: Some("{{ itme }}".to_owned()), ..Defaults::default() };
    let text = "name = 'x'\n[[step]]\nname = 'a'\nprompt = 'p'\n";
    let diagnostics = Pipeline::parse("p.toml", text, Path::new(""), &defaults, &["r".into()]).unwrap_err();
    assert_eq!(
        diagnostics.to_string(),
        "in the configuration's [defaults]: unknown name `itme`; did you mean `item`?"
    );
}

#[test]
fn the_error_of_an_unreadable_pipeline_contains_its_path() {
    let diagnostics = Pipeline::load(Path::new("/nowhere/p.toml"), &Defaults::default(), &[]).unwrap_err();
    assert!(
        diagnostics.to_string().starts_with("cannot read the pipeline /nowhere/p.toml: "),
        "{diagnostics}"
    );
}

#[test]
fn assigning_to_the_name_of_a_step_is_refused() {
    for template in [
        "{% set category = category | default('OTHER') %}",
        "{% set category %}x{% endset %}",
        "{% set a, category = 1, 2 %}",
        "{% if true %}{% set category = 1 %}{% endif %}",
        "{% macro category() %}{% endmacro %}",
        "{% set item = 1 %}",
    ] {
        let two = format!(
            "name = 'two'\n[[step]]\nname = 'category'\nprompt = 'p'\n\
             [[step]]\nname = 'b'\nprompt = \"\"\"{template} text\"\"\"\n"
        );
        assert!(
            messages(&two).iter().any(|diagnostic| diagnostic.contains("cannot be assigned")),
            "{template}: {:?}",
            messages(&two)
        );
    }
}

#[test]
fn a_comparison_of_incompatible_known_types_is_refused_with_help() {
    let steps = "name = 'n'\n[input.schema]\nproperties = { amount = { type = 'string' }, n = { type = 'number' } }\n\
        [[step]]\nname = 'score'\nprompt = 'p'\nchoice = ['1', '2', '10']\n\
        [[step]]\nname = 'text'\nprompt = 'p'\n\
        [[step]]\nname = 'facts'\nprompt = 'p'\nschema = { properties = { age = { type = 'integer' } } }\n\
        [[step]]\nname = 'b'\nprompt = 'p'\n";
    for wrong in [
        "score > 7",
        "7 == score",
        "text >= 1",
        "item.amount > 100",
        "item.n == '5'",
        "facts.age < '18'",
        "1 < score < 5",
        "score is gt 3",
        "score in 5",
        "text < none",
        "score + 1 > 2",
        "(text | upper) == 1",
    ] {
        let found = messages(&format!("{steps}when = \"{wrong}\"\n"));
        assert!(found.iter().any(|diagnostic| diagnostic.contains("cannot")), "{wrong}: {found:?}");
    }
    assert!(messages(&format!("{steps}when = 'score > 7'\n"))[0].contains("`| float`"));
    for right in [
        "(score | int) > 7",
        "score == '7'",
        "score in ['1', '2']",
        "(item.amount | float) > 100",
        "item.n > 5 and facts.age >= 18",
        "text is none or text == none",
        "item.other > 5",
        "score ~ 1 == '11'",
    ] {
        super::pipeline(&format!("{steps}when = \"{right}\"\n"));
    }
}

/// Returns each diagnostic as `line message`, in the order of the lines.
fn messages_by_line(text: &str) -> Vec<String> {
    let without_column = |message: String| {
        let (line, rest) = message.split_once(':').unwrap();
        (line.parse().unwrap(), rest.split_once(' ').unwrap().1.to_owned())
    };
    let mut found: Vec<(usize, String)> = messages(text).into_iter().map(without_column).collect();
    found.sort();
    found.into_iter().map(|(line, message)| format!("{line} {message}")).collect()
}

#[test]
fn a_key_that_has_no_meaning_beside_embed_is_refused_by_name() {
    let keys = [
        "system = 's'",
        "choice = ['a', 'b']",
        "schema = { type = 'array' }",
        "attach = ['{{ item.file }}']",
        "max_tokens = 5",
        "temperature = 0",
        "top_p = 1",
        "stop = ['x']",
        "seed = 1",
        "reasoning_effort = 'low'",
        "keep_reasoning = false",
        "prompt_cache = 'off'",
        "max_validation_retries = 0",
    ];
    let start = "name = 'p'\n[[step]]\nname = 'v'\nembed = '{{ item.text }}'\nprompt = 'p'\n";
    let mut expected = vec!["5 a step has `prompt` or `embed`, not both".to_owned()];
    for (line, key) in (6..).zip(keys) {
        let (key, _) = key.split_once(' ').unwrap();
        expected.push(format!("{line} a step with `embed` has no `{key}`: its answer is a list of numbers"));
    }
    assert_eq!(messages_by_line(&format!("{start}{}\n", keys.join("\n"))), expected);
    let help = diagnostics("name = 'p'\n[[step]]\nname = 'v'\nembed = 'x'\nseed = 1\n").render(false);
    assert!(help.contains("remove `seed`, or write `prompt` instead of `embed`"), "{help}");
}

#[test]
fn the_keys_of_a_step_with_embed_are_checked() {
    let step = |keys: &str| messages_by_line(&format!("name = 'p'\n[[step]]\nname = 'v'\n{keys}\n"));
    assert_eq!(step("embed = ' '"), ["4 `embed` is empty"]);
    assert_eq!(step("prompt = 'x'\ndimensions = 8"), ["5 `dimensions` belongs to a step with `embed`"]);
    for (keys, problem) in [
        ("embed = '{{ nope }}'", "4 unknown name `nope`"),
        ("embed = '{{ v }}'", "a step cannot need its own answer: v → v"),
        ("embed = 'x'\ndimensions = 0", "5 "),
        ("embed = 'x'\nroute = 'none'", "5 unknown route `none`"),
    ] {
        let found = step(keys);
        assert!(found.iter().any(|message| message.contains(problem)), "{keys}: {found:?}");
    }
}

#[test]
fn an_embed_that_is_no_text_or_misspelled_is_reported_as_that() {
    let step = |keys: &str| format!("name = 'p'\n[[step]]\nname = 'v'\n{keys}\n");
    let list = messages_by_line(&step("embed = ['{{ item.text }}']\ndimensions = 8"));
    assert_eq!(list, ["4 expected text in quotes, found a list"]);
    for wrong in ["embeded", "embedding", "Embed"] {
        let help = diagnostics(&step(&format!("{wrong} = '{{{{ item.text }}}}'"))).render(false);
        assert!(help.contains(&format!("unknown key `{wrong}`")), "{help}");
        assert!(help.contains("did you mean `embed`?"), "{help}");
    }
}

#[test]
fn the_answer_of_a_step_with_embed_is_known_to_be_a_list_of_numbers() {
    let step = |use_of_answer: &str| {
        let first = "name = 'p'\n[[step]]\nname = 'v'\nembed = '{{ item.text }}'\n";
        format!("{first}[[step]]\nname = 's'\n{use_of_answer}\n")
    };
    for (use_of_answer, problem) in [
        ("prompt = 'x'\nwhen = 'v > 3'", "a list"),
        ("prompt = 'x'\nwhen = \"v == 'a'\"", "a list"),
        ("prompt = '{{ v | round(2) }}'", "must be a number, not a list"),
        ("prompt = '{{ v.foo }}'", "`v.foo` cannot exist: the answer of `v` is a list of numbers"),
        ("prompt = 'x'\nwhen = 'v.foo > 3'", "`v.foo` cannot exist: the answer of `v` is a list of numbers"),
    ] {
        let found = messages(&step(use_of_answer));
        assert!(found.iter().any(|message| message.contains(problem)), "{use_of_answer}: {found:?}");
    }
    for accepted in [
        "prompt = '{{ v | length }} {{ v[0] }} {{ v | first }} {{ v | join(\", \") }} {{ v }}'",
        "prompt = 'x'\nwhen = 'v[0] > 0 and v | length == 8'",
        "prompt = '{% for number in v %}{{ number | round(2) }}{% endfor %}'",
    ] {
        assert!(parse(&step(accepted)).is_ok(), "{accepted}");
    }
}

#[test]
fn a_secret_in_a_file_that_is_read_as_a_pipeline_is_not_shown() {
    let key = "sk-ant-api03-5kQ0x7Zr2WmN4tVb";
    let step = "name = 'p'\n[[step]]\nname = 'a'\nprompt = 'x'\n";
    for (text, secret) in [
        ("OPENAI_API_KEY=sk-ant-api03-5kQ0x7Zr2WmN4tVb\nDB_PASSWORD=hunter2-and-more\n".to_owned(), key),
        ("OPENAI_API_KEY=x\nDB_PASSWORD=hunter2-and-more\n".to_owned(), "hunter2-and-more"),
        (format!("[provider.claude]\nkeys = ['{key}']\n[provider.claude.models.m]\n"), key),
        ("[provider.a]\nkeys = ['hunter2-and-more']\nname = 3\n".to_owned(), "hunter2-and-more"),
        (format!("api_key = '{key}'\n{step}"), key),
        (format!("{step}route = '{key}'\n"), key),
        (format!("{step}max_tokens = '{key}'\n"), key),
        (format!("{step}schema = '{key}'\n"), key),
        (format!("{step}prompt_key = 3 # {key}\n"), key),
        (format!("{step}'{key}' = 3\n"), key),
        (format!("{step}when = 'item.x == \"{key}\" and nope.y'\n"), key),
    ] {
        let found = diagnostics(&text);
        let shown = format!("{found}\n{found:?}\n{}", found.render(false));
        assert!(!shown.contains(secret), "{text}\n{shown}");
    }
}

#[test]
fn the_words_of_a_prompt_stay_readable() {
    let text = "name = 'p'\n[[step]]\nname = 'a'\nprompt = 'The key of author me@example.com at https://example.com: {{ nope }}'\n";
    let shown = diagnostics(text).render(false);
    assert!(shown.contains("The key of author me@example.com at https://example.com"), "{shown}");
}
