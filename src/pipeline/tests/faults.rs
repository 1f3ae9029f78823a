//! Bad pipelines, and what their authors are told.

use std::path::Path;

use crate::document::Faults;
use crate::types::RouteName;

use super::super::{Defaults, Pipeline};
use super::parse;

fn faults(text: &str) -> Faults {
    parse(text).map(|pipeline| pipeline.name().to_owned()).unwrap_err()
}

/// Returns each fault as `line:column message`.
fn said(text: &str) -> Vec<String> {
    let said = |fault: &crate::document::Fault| {
        let (line, column) = fault.place.as_ref().map_or((0, 0), |place| place.line_and_column());
        format!("{line}:{column} {}", fault.message)
    };
    faults(text).0.iter().map(said).collect()
}

#[test]
fn every_mistake_of_a_bad_pipeline_is_told_at_once() {
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
    insta::assert_snapshot!(faults(text).render(false));
}

#[test]
fn a_file_without_steps_or_name_is_refused() {
    assert_eq!(said(""), ["1:1 the pipeline has no name", "1:1 the pipeline has no steps"]);
    assert_eq!(said("name = 'x'\nstep = []"), ["2:8 the pipeline has no steps"]);
}

#[test]
fn a_value_of_a_wrong_type_is_not_called_missing() {
    assert_eq!(
        said("name = 'x'\n[[step]]\nname = 'a'\nprompt = 3"),
        ["4:10 expected text in quotes, found `3`"]
    );
}

#[test]
fn a_name_that_a_template_cannot_use_is_refused() {
    for name in ["item", "none", "1st", "two words", "", "loop", "a-b", "naïve"] {
        let text = format!("name = 'x'\n[[step]]\nname = '{name}'\nprompt = 'p'");
        assert_eq!(said(&text), [format!("3:8 a step cannot be called {name:?}")]);
    }
}

#[test]
fn a_fault_inside_a_template_has_its_own_line_and_column() {
    let text = "name = 'x'\n[[step]]\nname = 'a'\nprompt = '''\nDear\n  {{ itme.name }}'''\n";
    assert_eq!(said(text), ["6:6 unknown name `itme`"]);
    let text = "name = 'x'\n[[step]]\nname = 'a'\nprompt = \"\\u00e4\\n{{ item.a | nope }}\"\n";
    assert_eq!(said(text), ["4:31 broken template: unknown filter `nope`"]);
}

#[test]
fn a_field_is_unknown_in_an_answer_too_when_its_schema_is_closed() {
    let text = "name = 'x'\n[[step]]\nname = 'facts'\nprompt = 'p'\n\
        schema = { properties = { city = {} }, additionalProperties = false }\n\
        [[step]]\nname = 'b'\nprompt = 'In {{ facts.town }}'\n";
    let faults = faults(text);
    assert_eq!(
        faults.to_string(),
        "pipeline.toml:8:17: `facts.town` cannot exist: the schema of `facts` has no `town`; it has `city`"
    );
}

#[test]
fn without_a_default_several_routes_leave_a_step_unanswered() {
    let text = "name = 'x'\n[[step]]\nname = 'a'\nprompt = 'p'\n[[step]]\nname = 'b'\nprompt = 'p'\n";
    let parse = |routes: &[&str]| {
        let routes: Vec<RouteName> = routes.iter().map(|route| RouteName::from(*route)).collect();
        Pipeline::parse("p.toml", text, Path::new(""), &Defaults::default(), &routes)
    };
    let only = parse(&["one"]).unwrap();
    assert_eq!(only.steps()[1].route, RouteName::from("one"));
    let faults = parse(&["one", "two"]).unwrap_err().to_string();
    assert!(faults.contains("nobody is named to answer `a`, `b`; set `route`"), "{faults}");
    assert!(parse(&[]).unwrap_err().to_string().contains("no route is configured"));
}

#[test]
fn a_default_system_prompt_cannot_wait_for_a_step() {
    let text = "name = 'x'\n[defaults]\nsystem = 'It is {{ a }}.'\n[[step]]\nname = 'a'\nprompt = 'p'\n";
    assert_eq!(said(text), ["3:20 a default system prompt cannot use the answer of `a`"]);
}

#[test]
fn a_fault_in_the_configurations_own_defaults_says_so() {
    let defaults = Defaults { system: Some("{{ itme }}".to_owned()), ..Defaults::default() };
    let text = "name = 'x'\n[[step]]\nname = 'a'\nprompt = 'p'\n";
    let faults = Pipeline::parse("p.toml", text, Path::new(""), &defaults, &["r".into()]).unwrap_err();
    assert_eq!(
        faults.to_string(),
        "in the configuration's [defaults]: unknown name `itme`; did you mean `item`?"
    );
}

#[test]
fn a_pipeline_that_cannot_be_read_says_which() {
    let faults = Pipeline::load(Path::new("/nowhere/p.toml"), &Defaults::default(), &[]).unwrap_err();
    assert!(faults.to_string().starts_with("cannot read the pipeline /nowhere/p.toml: "), "{faults}");
}

#[test]
fn assigning_a_steps_name_is_refused() {
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
            said(&two).iter().any(|fault| fault.contains("cannot be assigned")),
            "{template}: {:?}",
            said(&two)
        );
    }
}

#[test]
fn a_comparison_of_kinds_that_are_known_is_refused_with_advice() {
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
        let found = said(&format!("{steps}when = \"{wrong}\"\n"));
        assert!(found.iter().any(|fault| fault.contains("cannot")), "{wrong}: {found:?}");
    }
    assert!(said(&format!("{steps}when = 'score > 7'\n"))[0].contains("`| float`"));
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
