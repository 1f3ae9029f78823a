"""Writes the golden files beside this script: what Python's jinja2, csv and json make of inputs.

    pip install jinja2 && python3 tests/data/python/generate.py

The tests read the files alone; they need no Python.
"""

import csv
import io
import json
import pathlib

import jinja2

HERE = pathlib.Path(__file__).parent

ITEM = {
    "name": "Ann Lee",
    "text": "one\ntwo\n\nthree",
    "html": "<a href='x'>&\"</a>",
    "n": 7,
    "f": 2.5,
    "big": 123456789012345678901234567890,
    "neg": -3,
    "yes": True,
    "no": False,
    "nothing": None,
    "empty": "",
    "list": [3, 1, 2],
    "words": ["b", "a", "C"],
    "map": {"x": 1, "y": [True, None]},
    "days": [{"date": "mon", "spend": 5}, {"date": "tue", "spend": 2}, {"date": "wed", "spend": 5}],
    "unicode": "žluťoučký 日本 🙂",
}

TEMPLATES = [
    "{{ item.name }}", "a {{ item.n }} b", "{{ item.f }} {{ item.neg }} {{ item.big }}", "{{ item.yes }} {{ item.no }}",
    "{{ item.nothing }}", "[{{ item.empty }}]", "{{ item.list }}", "{{ item.words | join(', ') }}",
    "{{ item.unicode | upper }} {{ item.unicode | length }}", "{{ item.name | lower | replace('ann', 'Bob') }}",
    "{{ item.list | sort | join(',') }} {{ item.list | sort(reverse=true) | join(',') }}", "{{ item.words | sort | join }}",
    "{{ item.list | sum }} {{ item.list | min }} {{ item.list | max }}", "{{ item.list | first }}{{ item.list | last }}",
    "{{ item.list | length }} {{ item.map | length }} {{ item.name | length }}", "{{ item.text | indent(2) }}",
    "{{ item.text | indent(2, true) }}", "{{ item.missing | default('-') }}", "{{ item.empty | default('-', true) }}",
    "{{ item.name | title }} {{ item.name | capitalize }}", "{{ ' a ' | trim }}|", "{{ item.f | round }} {{ 2.567 | round(2) }}",
    "{{ item.n | float }} {{ item.f | int }} {{ '3.9' | float }} {{ '42' | int }}", "{{ item.neg | abs }}",
    "{{ item.days | map(attribute='date') | join(' ') }}", "{{ item.days | selectattr('spend', 'eq', 5) | map(attribute='date') | join }}",
    "{{ item.days | sum(attribute='spend') }}", "{{ item.days | sort(attribute='spend') | map(attribute='date') | join(' ') }}",
    "{% for group in item.days | groupby('spend') %}{{ group.grouper }}:{{ group.list | length }} {% endfor %}",
    "{{ item.list | select('gt', 1) | list }}", "{{ item.list | reject('odd') | list }}", "{{ item.words | map('upper') | join }}",
    "{% for w in item.words %}{{ loop.index }}{{ w }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for k, v in item.map.items() %}{{ k }}={{ v }};{% endfor %}", "{% for d in item.days if d.spend > 3 %}{{ d.date }} {% else %}none{% endfor %}",
    "{% for x in [] %}a{% else %}b{% endfor %}", "{% if item.n > 5 and item.yes %}a{% elif item.no %}b{% else %}c{% endif %}",
    "{{ 'a' if item.yes else 'b' }}", "{{ item.n + 1 }} {{ item.n - 1 }} {{ item.n * 2 }} {{ item.n / 2 }} {{ item.n // 2 }} {{ item.n % 4 }} {{ 2 ** 10 }}",
    "{{ item.neg // 2 }} {{ item.neg % 2 }} {{ -item.n }}", "{{ 'a' ~ item.n ~ 'b' }}", "{{ 'ab' * 3 }}", "{{ 'a' + 'b' }}", "{{ [1] + [2, 3] }}",
    "{{ item.n == 7 }} {{ item.n != 7 }} {{ item.n < 8 }} {{ 1 < item.n <= 7 }} {{ 'a' < 'b' }} {{ item.big > 1 }}",
    "{{ 1 in item.list }} {{ 9 not in item.list }} {{ 'Ann' in item.name }} {{ 'x' in item.map }}",
    "{{ item.name is string }} {{ item.n is number }} {{ item.list is iterable }} {{ item.map is mapping }} {{ item.nothing is none }}",
    "{{ item.x is defined }} {{ item.n is even }} {{ item.n is odd }} {{ item.n is divisibleby(7) }}", "{{ item.list[0] }}{{ item.list[-1] }}{{ item['name'] }}",
    "{{ item.list[1:] }} {{ item.name[:3] }} {{ item.name[::-1] }}", "{% set x = item.n + 1 %}{{ x }}", "{% set x %}a{{ item.n }}{% endset %}{{ x }}",
    "{% set ns = namespace(n=0) %}{% for x in item.list %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}",
    "{% macro m(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}",
    "{% filter upper %}a{{ item.name }}{% endfilter %}", "{% raw %}{{ no }}{% endraw %}", "a{# comment #}b", "a\n{%- if true %} b {% endif -%}\nc",
    "{{ item.name.upper() }} {{ item.name.split(' ')[1] }} {{ ', '.join(item.words) }}", "{{ item.map.get('z', 'd') }} {{ item.map.keys() | list }}",
    "{{ item.list | batch(2) | list }}", "{{ item.list | slice(2) | list }}", "{{ '%s is %d' | format(item.name, item.n) }}", "{{ '{} {}'.format(1, 2) }}",
    "{{ range(3) | list }} {{ range(5, 1, -2) | list }}", "{{ item.html }}", "{{ item.html | e }}", "{{ [1, 2, 2] | unique | list }}", "{{ item.list | reverse | list }}",
    "{{ (1, 2) }} {{ {'a': 1} }} {{ [none, true] }}", "{{ dict(a=1).a }}", "{{ item.map | dictsort }}", "trailing newline\n", "two\n\n", "\n a",
]

CSVS = [
    "id,text\n1,a\n2,b\n", "id,text\r\n1,a\r\n", "a,b\n\"x,y\",\"he said \"\"hi\"\"\"\n", "a,b\n\"line\nbreak\",z\n", "a,b\n1,\n,2\n",
    "a\n\"\"\n\" \"\n", "a,b\nž,日本\n", "a,b\n 1 , 2 \n", "a,b\n1,2", "\"a b\",c\n1,2\n", "a,b\n\"x\ny\r\nz\",2\n",
]

JSONS = [
    '{"a": 1, "b": [true, false, null], "c": {"d": "e"}}', '{"a": 1.5e3, "b": -0.25, "c": 1E-2}', '{"a": "\\u00e9\\ud83d\\ude42\\n\\"\\\\"}',
    '{"a": 9007199254740993, "b": -9223372036854775808, "c": 18446744073709551615}', ' { "a" : [ ] , "b" : { } } ', '{"a": "ž日本"}', '{"": 0}',
    '{"a": [[[[1]]]]}', '{"a": 1, "a": 2}',
]


def main():
    env = jinja2.Environment(undefined=jinja2.StrictUndefined)
    rendered = [{"template": text, "text": env.from_string(text).render(item=ITEM)} for text in TEMPLATES]
    write("jinja2.json", {"item": ITEM, "rendered": rendered})
    write("csv.json", [{"csv": text, "rows": list(csv.DictReader(io.StringIO(text, newline="")))} for text in CSVS])
    write("json.json", [{"json": text, "python_json": json.dumps(json.loads(text), ensure_ascii=False)} for text in JSONS])


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


main()
