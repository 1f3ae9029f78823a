//! Rendering of valid templates, and errors of invalid ones.

use serde_json::json;

use super::*;
use crate::pipeline::symbols::NoSymbols;

mod golden;
mod limits;

const OPTIONS: RenderOptions =
    RenderOptions { allowance: Allowance::MAX, max_bytes: 4 << 20, none_is_empty: false };

fn scope(item: serde_json::Value) -> (Arc<Scope>, Value) {
    let scope = Arc::new(Scope::new([StepName::from("category")].into(), Arc::new(item)));
    (scope.clone(), scope.view(&[0]))
}

fn render(source: &str, item: serde_json::Value) -> Result<String, String> {
    render_with(source, item, OPTIONS).map_err(|error| match error {
        RenderError::AllowanceExceeded => "allowance exceeded".to_owned(),
        RenderError::Failed(reason) | RenderError::Undefined { reason, .. } => reason,
    })
}

fn render_with(source: &str, item: serde_json::Value, options: RenderOptions) -> Result<String, RenderError> {
    let mut templates = Templates::new();
    templates.add("t", source, &NoSymbols).unwrap();
    templates.render("t", &scope(item).1, options)
}

fn errors(source: &str) -> Vec<String> {
    let errors = Templates::new().add("t", source, &NoSymbols).err().unwrap_or_default();
    errors.into_iter().map(|error| error.message).collect()
}

#[track_caller]
fn assert_fails(source: &str, item: serde_json::Value, why: &str) {
    let failed = render(source, item).expect_err(source);
    assert!(failed.contains(why), "{source}: {failed}");
}

#[test]
fn a_template_is_rendered_with_the_item_and_answers() {
    let mut templates = Templates::new();
    templates
        .add(
            "t",
            "{{ item.a.b }} {{ item.list | join(', ') }} {{ category }} <{{ item | tojson }}>",
            &NoSymbols,
        )
        .unwrap();
    let (answers, value) = scope(json!({ "a": { "b": 1 }, "list": ["x", "y"] }));
    answers.set_answer(0, &json!("URGENT"));
    assert_eq!(
        templates.render("t", &value, OPTIONS).unwrap(),
        r#"1 x, y URGENT <{"a": {"b": 1}, "list": ["x", "y"]}>"#
    );
}

#[test]
fn an_undefined_name_is_reported_with_its_line() {
    assert_eq!(
        render("a\n{{ item.nickname }}", json!({})).unwrap_err(),
        "line 2: `item.nickname` is undefined"
    );
    assert_eq!(render("{{ item.a.b }}", json!({})).unwrap_err(), "line 1: `item.a` is undefined");
    for (template, undefined, meant) in [
        ("{{ item.nmae }}", "item.nmae", "name"),
        ("{{ item.Name | upper }}", "item.Name", "name"),
        ("{{ item.nmae.first }}", "item.nmae", "name"),
        ("{{ item.owner.adress }}", "item.owner.adress", "address"),
        ("{% if item.nmae == 'x' %}y{% endif %}", "item.nmae", "name"),
    ] {
        let item = json!({ "name": "x", "id": 1, "owner": { "address": "y" } });
        let expected = format!("line 1: `{undefined}` is undefined; did you mean `{meant}`?");
        assert_eq!(render(template, item).unwrap_err(), expected, "{template}");
    }
    let long = "é".repeat(100);
    let many: serde_json::Map<String, serde_json::Value> =
        (0..25).map(|number| (format!("field_{number}"), json!(1))).collect();
    let ten: Vec<String> = (0..10).map(|number| format!("`field_{number}`")).collect();
    for (template, item, has) in [
        ("{{ item.zzz }}", json!({ "id": 1, "text": "x" }), "the item has `id`, `text`".to_owned()),
        ("{{ item[\"Z z\"] }}", json!({ "E-Mail": 1 }), "the item has `E-Mail`".to_owned()),
        ("{{ item.owner.zzz }}", json!({ "owner": { "name": 1 } }), "`item.owner` has `name`".to_owned()),
        ("{{ item.zzz }}", json!(many), format!("the item has {}, and 15 more", ten.join(", "))),
        ("{{ item.zzz }}", json!({ (long.as_str()): 1 }), format!("the item has `{}…`", "é".repeat(60))),
    ] {
        let error = render(template, item).unwrap_err();
        assert!(error.ends_with(&format!(" is undefined; {has}")), "{template}: {error}");
    }
    assert_eq!(
        render("{{ item.a + 1 }}", json!({ "a": {} })).unwrap_err(),
        "line 1: cannot calculate a map + a number, in `item.a + 1`"
    );
    assert!(render("{{ category }}", json!({})).unwrap_err().contains("`category`"));
}

#[test]
fn an_undefined_field_may_have_a_default_or_be_tested() {
    assert_eq!(render("[{{ item.nickname | default('-') }}]", json!({})).unwrap(), "[-]");
    assert_eq!(render("{% if item.x is defined %}a{% else %}b{% endif %}", json!({})).unwrap(), "b");
}

#[test]
fn none_is_equal_to_none_and_comparing_it_with_other_values_is_an_error() {
    let evaluate = |source: &str| {
        let mut templates = Templates::new();
        templates.add_condition("c", source, &NoSymbols).unwrap();
        let (answers, value) = scope(json!({ "absent": null }));
        answers.set_answer(0, &json!(null));
        templates.evaluate_condition("c", &value, Allowance::MAX)
    };
    for true_of_none in [
        "category is none",
        "category == none",
        "none == category",
        "category == item.absent",
        "category in [none]",
        "not (category is not none and category == 'MARKETING')",
        "category | default('OTHER', true) == 'OTHER'",
    ] {
        assert_eq!(evaluate(true_of_none), Ok(true), "{true_of_none}");
    }
    assert_eq!(evaluate("category != none or category is not none"), Ok(false));
    for source in [
        "category != 'MARKETING'",
        "category == 'MARKETING'",
        "category < 5",
        "category in ['a']",
        "5 > category",
        "category is eq 'a'",
        "category < none",
        "0 < category < 5",
    ] {
        let Err(RenderError::Failed(why)) = evaluate(source) else { panic!("{source} was evaluated") };
        assert!(why.contains("none"), "{source}: {why}");
    }
    let mut templates = Templates::new();
    templates.add("t", "{{ category | join(', ') }}", &NoSymbols).unwrap();
    let (answers, value) = scope(json!({}));
    answers.set_answer(0, &json!(null));
    assert_eq!(templates.render("t", &value, OPTIONS), Ok(String::new()));
}

#[test]
fn a_condition_is_one_expression_and_nothing_else() {
    for wrong in ["a %}x{% if b", "a) or (b", "a =", "", "{{ a }}", "set a = 1"] {
        assert!(Templates::new().add_condition("c", wrong, &NoSymbols).is_err(), "{wrong}");
    }
    for right in
        ["item.a == '%}'", "not (item.a or item.b)", "'x' if item.a else 'y'", "item.a\n  and item.b"]
    {
        assert!(Templates::new().add_condition("c", right, &NoSymbols).is_ok(), "{right}");
    }
}

#[test]
fn what_the_engine_would_find_too_late_is_found_while_compiling() {
    let errors = Templates::new().add("t", "{{ item | jion(',') }} {{ 1 is od }}", &NoSymbols).unwrap_err();
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(messages, ["unknown filter `jion`", "unknown test `od`"]);
    assert_eq!(errors[0].range, Some(10..14));
    assert!(Templates::new().add("t", "{% include 'x' %}", &NoSymbols).is_err());
    assert!(
        Templates::new().add("t", "{% if 1 is not in [2] and 1 is eq 1 %}{% endif %}", &NoSymbols).is_ok()
    );
}

#[test]
fn unknown_filters_tests_and_methods_and_wrong_arguments_are_compile_errors() {
    for (source, error) in [
        ("{{ item.l | map('uper') }}", "unknown filter `uper`"),
        ("{{ item.l | map('replace', 'a') }}", "the filter `replace` takes 2 arguments"),
        ("{{ item.l | select('biggr', 3) }}", "unknown test `biggr`"),
        ("{{ item.l | select('gt') }}", "the test `gt` takes one argument"),
        ("{{ item.l | rejectattr('a', 'nope') }}", "unknown test `nope`"),
        ("{{ item.x.upperr() }}", "unknown method `upperr`; filters follow `|`"),
        ("{{ item.x.upper(1) }}", "the method `upper` takes no argument"),
        ("{{ item.x | lower('a') }}", "the filter `lower` takes no argument"),
        ("{{ item.x | replace('a') }}", "the filter `replace` takes 2 arguments"),
        ("{{ item.l | sort(revers=true) }}", "the filter `sort` has no argument `revers`"),
        ("{{ item.x is divisibleby }}", "the test `divisibleby` takes one argument"),
        ("{{ item() }}", "`item` is not a function"),
        (
            "{{ item.x | upper | round }}",
            "the value of the filter `round` must be a number, not a text; make the text a number with `| float` or `| int`",
        ),
        ("{{ [1] | abs }}", "the value of the filter `abs` must be a number, not a list"),
        (
            "{{ item.l | batch('2') }}",
            "the first argument of the filter `batch` must be a number, not a text; make the text a number with `| float` or `| int`",
        ),
    ] {
        assert_eq!(errors(source), [error], "{source}");
    }
}

#[test]
fn methods_of_texts_and_maps_work_as_in_python() {
    let item = json!({ "name": "Ann Lee", "tags": ["a", "b"], "map": { "x": 1 } });
    for (source, text) in [
        ("{% for key, value in item.map.items() %}{{ key }}={{ value }}{% endfor %}", "x=1"),
        ("{{ item.map.get('x') }}{{ item.map.get('y', '-') }}", "1-"),
        ("{{ item.name.upper() }} {{ item.name.split()[0] }} {{ ', '.join(item.tags) }}", "ANN LEE Ann a, b"),
        ("{{ '{} of {}'.format(1, 2) }} {{ item.name.replace('Lee', 'Ray') }}", "1 of 2 Ann Ray"),
        ("{{ item.name.startswith('Ann') }}", "True"),
    ] {
        assert_eq!(render(source, item.clone()).as_deref(), Ok(text), "{source}");
    }
}

#[test]
fn an_undefined_field_is_an_error_in_every_expression() {
    for source in [
        "{{ item.tags | join }}",
        "{{ item.tags | join(', ') }}",
        "{{ item.x | tojson }}",
        "{{ [item.x] }}",
        "{{ {'a': item.x} }}",
        "{{ (item.x, 1) }}",
        "{% set y = item.x %}",
        "{% set y %}{{ item.x }}{% endset %}",
        "{% if item.x %}{% endif %}",
        "{% if item.x or true %}{% endif %}",
        "{% if item.x == none %}{% endif %}",
        "{% if item.x is none %}{% endif %}",
        "{% for y in item.x %}{% endfor %}",
        "{{ 'a' if item.x else 'b' }}",
        "{{ 'a' ~ item.x }}",
        "{{ 'a' | replace('a', item.x) }}",
        "{{ item.list | map(attribute='x') | join }}",
        "{{ item.list | map(attribute='x') | list }}",
        "{{ item.list | selectattr('x') | list }}",
        "{{ item.list | sort(attribute='x') }}",
        "{{ item.list | groupby('x') }}",
        "{{ item.list | sum(attribute='x') }}",
        "{{ item.list | join(', ', attribute='x') }}",
        "{{ item['x'] | upper }}",
        "{{ item.list[9] | upper }}",
        "{{ [] | first | upper }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(item.x) }}",
        "{{ item.x.upper() }}",
    ] {
        let failed = render(source, json!({ "list": [{ "a": 1 }] })).expect_err(source);
        assert!(failed.contains("undefined") || failed.contains("has no `x`"), "{source}: {failed}");
    }
    assert_eq!(render("{{ item.tags | join }}", json!({})).unwrap_err(), "line 1: `item.tags` is undefined");
    assert_eq!(
        render("{{ item.l | map(attribute='x', default='-') | join }}", json!({ "l": [{}] })).unwrap(),
        "-"
    );
}

#[test]
fn comparing_values_of_different_types_is_an_error() {
    let item = json!({ "amount": "7", "number": 7, "mixed": [1, "a"], "texts": ["1", "10"], "none": null });
    for source in [
        "{% if item.amount > 100 %}{% endif %}",
        "{% if item.amount == 7 %}{% endif %}",
        "{% if item.number != '7' %}{% endif %}",
        "{% if 1 <= item.amount < 9 %}{% endif %}",
        "{% if item.number in item.texts %}{% endif %}",
        "{% if 7 in item.amount %}{% endif %}",
        "{{ item.texts | select('gt', 3) | list }}",
        "{{ [{'a': '5'}] | selectattr('a', 'lt', 9) | list }}",
        "{{ item.mixed | sort }}",
        "{{ item.mixed | max }}",
        "{{ [item.none, 1] | min }}",
        "{{ [{'a': 1}, {'a': 'x'}] | sort(attribute='a') }}",
        "{% if ('nan' | float) < 1 %}{% endif %}",
    ] {
        assert_fails(source, item.clone(), "cannot");
    }
    assert_fails("{% if item.amount > 100 %}{% endif %}", item.clone(), "`| float`");
    for known in ["{% if true == 1 %}{% endif %}", "{% if [1] < [2] %}{% endif %}"] {
        assert!(errors(known)[0].contains("cannot compare"), "{known}");
    }
    let valid = "{{ (item.amount | float) > 6.5 }} {{ item.number in [1, 7] }} {{ 'a' in item.mixed }} \
                   {{ item.texts | select('gt', '0') | list | length }} {{ item.number is divisibleby(7) }} \
                   {{ [3, 1.5, 2] | sort | join(',') }} {{ 1 < item.number <= 7 }} {{ 'b' not in item.mixed }}";
    assert_eq!(render(valid, item).unwrap(), "True True True 2 True 1.5,2,3 True True");
}

#[test]
fn integers_of_any_length_are_rendered_and_compared_exactly() {
    let number = "123456789012345678901234567890";
    let longer = "9".repeat(60);
    let parse = |text: &str| serde_json::from_str::<serde_json::Number>(text).unwrap();
    // Numbers that JSON parses as floats are compared as floats, and integers of any length exactly.
    let rendered = render("{{ item.n }}", json!({ "n": parse("18446744073709551615") })).unwrap();
    assert_eq!(rendered, "18446744073709551615");
    let long = |text: &str| values::parse_integer(text).unwrap();
    assert_eq!(long(number).to_string(), number);
    assert_eq!(long(&longer).to_string(), longer);
    let less = |a: &Value, b: &Value| operators::Comparison::Less.evaluate(a, b).unwrap();
    assert!(less(&long(number), &long(&longer)) && !less(&long(&longer), &long(number)));
    assert!(less(&long(&format!("-{longer}")), &Value::from(1)) && less(&Value::from(1e40), &long(&longer)));
    assert!(operators::Comparison::Equal.evaluate(&long(&longer), &long(&longer)).unwrap());
}

#[test]
fn a_step_can_use_only_the_answers_of_the_steps_it_needs() {
    let mut templates = Templates::new();
    templates.add("t", "{{ category | default('OTHER') }}", &NoSymbols).unwrap();
    let scope = Arc::new(Scope::new([StepName::from("category")].into(), Arc::new(json!({}))));
    scope.set_answer(0, &json!("URGENT"));
    assert_eq!(templates.render("t", &scope.view(&[]), OPTIONS), Ok("OTHER".to_owned()));
    assert_eq!(templates.render("t", &scope.view(&[0]), OPTIONS), Ok("URGENT".to_owned()));
}

#[test]
fn text_is_rendered_unchanged() {
    let source =
        "a {{ '{{' }} b\r\n{% raw %}{{ c }} {% d %}{% endraw %} \"e\" \\n # {# f #}{{ 'g' -}}  h\n\n";
    let text = "a {{ b\r\n{{ c }} {% d %} \"e\" \\n # gh\n";
    assert_eq!(render(source, json!({})).unwrap(), text);
}

#[test]
fn references_do_not_include_names_that_the_template_defines() {
    let referenced = |source: &str| {
        let references = Templates::new().add("t", source, &NoSymbols).unwrap();
        let variables: Vec<String> = references.variables.into_keys().collect();
        let paths: Vec<String> = references.paths.into_keys().collect();
        (variables.join(" "), paths.join(" "))
    };
    let expected = |variables: &str, paths: &str| (variables.to_owned(), paths.to_owned());
    assert_eq!(
        referenced("{% set x = item.a.b %}{{ x.y }}{% for y in item.l %}{{ y.z }}{% endfor %}"),
        expected("item", "item.a.b item.l")
    );
    assert_eq!(referenced("{% set a = a | default('b') %}{{ a }}"), expected("a", ""));
    assert_eq!(referenced("{% set a %}{{ a }}{% endset %}"), expected("a", ""));
    assert_eq!(referenced("{% set a, b = a, b %}"), expected("a b", ""));
    assert_eq!(
        referenced("{% with a = a %}{{ a }}{% endwith %}{% for b in b %}{{ b }}{% endfor %}"),
        expected("a b", "")
    );
    assert_eq!(referenced("{% macro m(a=a) %}{{ a }}{{ c }}{% endmacro %}{{ m() }}"), expected("a c", ""));
    assert_eq!(referenced("{{ item.x.upper() }}{{ item.y[0].z }}"), expected("item", "item.x item.y"));
}
