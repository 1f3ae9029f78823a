//! Templates that would take memory, time or the stack.

use super::*;

#[test]
fn numbers_that_would_build_or_overflow_are_template_errors() {
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
        fill(source, item.clone()).expect_err(source);
    }
}

#[test]
fn nesting_that_a_template_builds_is_a_template_error() {
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
        fill(source, json!({})).expect_err(source);
    }
    let reversed = "{% set ns = namespace(x=[1, 2]) %}{% for i in range(9999) %}{% set ns.x = ns.x | reverse %}\
                    {% endfor %}{{ ns.x | join }}";
    assert_eq!(fill(reversed, json!({})).unwrap(), "21");
}

#[test]
fn a_template_takes_neither_memory_nor_time_without_bound() {
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
        fill(source, item.clone()).expect_err(source);
    }
}

#[test]
fn a_prompt_that_grows_too_long_ends_while_it_is_written() {
    let how = Filled { most: 1000, ..HOW };
    let item = json!({ "list": vec!["0123456789"; 100] });
    let source = "{% for text in item.list %}{{ text }}{% endfor %}";
    assert_eq!(fill_with(source, item.clone(), how).unwrap().len(), 1000);
    let longer = fill_with(&format!("{source}."), item, how).unwrap_err();
    assert_eq!(longer, Unfilled::Failed(Excess::Prompt.message().to_owned()));
}

#[test]
fn what_takes_long_is_left_for_another_thread() {
    let brief = Filled { allowance: Allowance::BRIEF, ..HOW };
    let long = "{% for a in range(30000) %}{% endfor %}done";
    assert_eq!(fill_with(long, json!({}), brief), Err(Unfilled::TooLong));
    assert_eq!(fill_with(long, json!({}), HOW), Ok("done".to_owned()));
    let large = json!({ "text": "x".repeat(2 << 20) });
    assert_eq!(fill_with("{{ item.text | length }}", large.clone(), brief), Err(Unfilled::TooLong));
    assert_eq!(fill_with("{{ item.text | length }}", large, HOW), Ok((2 << 20).to_string()));
    assert!(matches!(fill_with("{{ item.x }}", json!({}), brief), Err(Unfilled::Failed(_))));
}
