//! Templates that would exhaust memory, time or the stack.

use super::*;

#[test]
fn numbers_that_would_build_too_much_or_overflow_are_errors() {
    let item = json!({ "n": 4_000_000_000_u64, "m": -9_223_372_036_854_775_808_i64, "text": "a\nb", "z": 0 });
    for source in [
        "{{ item.text | indent(item.n) }}",
        "{{ item.text | indent(width=item.n) }}",
        "{{ [1] | batch(item.n, 'x') | list }}",
        "{{ [1] | slice(item.n) | list }}",
        "{{ '%*d' | format(item.n, 1) }}",
        "{{ '%4000000000d' | format(1) }}",
        "{{ '%.4000000000f' | format(1.5) }}",
        "{{ '{:>4000000000}'.format('a') }}",
        "{{ '{:>{}}'.format('a', item.n) }}",
        "{{ [1] | tojson(indent=item.n) }}",
        "{{ 'a' * item.n }}",
        "{{ item.n * 'a' }}",
        "{{ [1] * item.n }}",
        "{{ range(item.n) | list }}",
        "{{ range(item.m, item.n, -1) | list }}",
        "{{ 1 is divisibleby(item.z) }}",
        "{{ 1 // item.z }}",
        "{{ 1 % item.z }}",
        "{{ item.n ** item.n }}",
        "{{ ('x' * 10000) | replace('', 'y' * 100000) }}",
    ] {
        render(source, item.clone()).expect_err(source);
    }
}

#[test]
fn a_deeply_nested_value_is_an_error() {
    for source in [
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x={}) %}{% for i in range(99999) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
        "{% set ns = namespace(x=(1,)) %}{% for i in range(99999) %}{% set ns.x = (ns.x,) %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = ns.x | batch(1) | list %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns }}",
        "{% set ns = namespace(x=1) %}{% set ns.x = [ns] %}{{ ns }}",
        "{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}",
    ] {
        render(source, json!({})).expect_err(source);
    }
    let reversed = "{% set ns = namespace(x=[1, 2]) %}{% for i in range(9999) %}{% set ns.x = ns.x | reverse %}\
                    {% endfor %}{{ ns.x | join }}";
    assert_eq!(render(reversed, json!({})).unwrap(), "21");
}

#[test]
fn memory_and_time_of_a_template_are_limited() {
    let item = json!({ "text": "x".repeat(100_000), "list": vec![0; 1000] });
    for source in [
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in item.list %}{% for b in item.list %}{{ item.text }}{% endfor %}{% endfor %}",
        "{% set x %}{% for a in item.list %}{% for b in item.list %}{{ item.text }}{% endfor %}{% endfor %}{% endset %}",
        "{% set x %}{% for a in item.list %}{% for b in item.list %}a long text without any code{% endfor %}\
         {% endfor %}{% endset %}{% for a in item.list %}{% for b in item.list %}{{ x | length }}{% endfor %}{% endfor %}",
        "{% macro m(n) %}{{ item.text }}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% filter upper %}{% for a in item.list %}{% for b in item.list %}{{ item.text }}{% endfor %}{% endfor %}{% endfilter %}",
        "{% set ns = namespace(s='x') %}{% for a in item.list %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for a in item.list %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for a in item.list %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{{ item.list | join(item.text * 1000) | length }}",
    ] {
        render(source, item.clone()).expect_err(source);
    }
}

#[test]
fn rendering_stops_when_the_prompt_is_too_long() {
    let options = RenderOptions { max_bytes: 1000, ..OPTIONS };
    let item = json!({ "list": vec!["0123456789"; 100] });
    let source = "{% for text in item.list %}{{ text }}{% endfor %}";
    assert_eq!(render_with(source, item.clone(), options).unwrap().len(), 1000);
    let longer = render_with(&format!("{source}."), item, options).unwrap_err();
    assert_eq!(longer, RenderError::Failed(Excess::Prompt.message().to_owned()));
}

#[test]
fn a_slow_template_exceeds_the_quick_allowance_and_not_the_maximum() {
    let quick = RenderOptions { allowance: Allowance::QUICK, ..OPTIONS };
    let long = "{% for a in range(30000) %}{% endfor %}done";
    assert_eq!(render_with(long, json!({}), quick), Err(RenderError::AllowanceExceeded));
    assert_eq!(render_with(long, json!({}), OPTIONS), Ok("done".to_owned()));
    let large = json!({ "text": "x".repeat(2 << 20) });
    assert_eq!(
        render_with("{{ item.text | length }}", large.clone(), quick),
        Err(RenderError::AllowanceExceeded)
    );
    assert_eq!(render_with("{{ item.text | length }}", large, OPTIONS), Ok((2 << 20).to_string()));
    assert!(matches!(render_with("{{ item.x }}", json!({}), quick), Err(RenderError::Undefined { .. })));
}
