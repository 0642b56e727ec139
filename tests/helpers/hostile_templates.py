"""Templates made to take the machine, to print what Python writes, or to fail in ways of their own: all are refused.

Run with a folder, this renders every one there and prints, as JSON, what each was told and the peak of memory.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from promptkit.data.record import Record
from promptkit.data.tasks import load_task
from promptkit.errors import TemplateError
from promptkit.templating.template import load_template
from tests.conftest import Project

TARGET = "{% macro target(label) %} {{ label }}{% endmacro %}"
LOOP, END = "{% for i in range(99999) %}", "{% endfor %}"


def grow(expression: str, start: str = "text") -> str:
    """Return a template that puts a value into an expression again and again."""
    made = "{% set ns = namespace(x=" + start + ") %}"
    return made + LOOP + "{% set ns.x = " + expression + " %}" + END + "{{ ns.x | length }}"


def keep(expression: str) -> str:
    """Return a template that keeps, again and again, what is made of 99,999 numbers `b`."""
    begun = "{% set b = range(99999) | list %}{% set ns = namespace(x=[]) %}"
    return begun + LOOP + "{% set ns.x = [ns.x, " + expression + "] %}" + END


def read(expression: str) -> str:
    """Return a template that goes again and again through a text `t` of nine million characters."""
    return "{% set t = (['a' * 99999] * 95) | join %}" + LOOP + "{% if " + expression + " %}{% endif %}" + END


NESTED = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}"
NESTED += "{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
FOLLOWED = "real." * 20_000 + "real"
KEYS = NESTED.replace("[", "(").replace("]", ",)")
#: What would take gigabytes, or minutes.
GREEDY = [
    "{{ ('\t' * 30000).expandtabs(100000) | length }}",
    "{{ ('a' * 99999).translate({97: 'b' * 99999}) | length }}",
    "{{ '%s' % (('a' * 99999) * 99999) }}",
    "{{ ('%(a)s' * 9999) % {'a': 'b' * 99999} }}",
    "{{ ('%s' * 9999) | format(*(['b' * 99999] * 9999)) }}",
    "{{ ('{0}' * 9999).format('b' * 99999) }}",
    "{{ ('{a}' * 9999).format_map({'a': 'b' * 99999}) }}",
    "{{ ('{0:99999}' * 9999).format(1) }}",
    "{{ ('%99999d' * 9999) % ((1,) * 9999) }}",
    "{{ [text] * 99999 | tojson(indent=99999) }}",
    "{{ ([text] * 99999) | tojson(indent=99999) | length }}",
    "{{ ([['a' * 9999] * 9999] * 99) | tojson | length }}",
    "{{ ('a b ' * 25000) | wordwrap(1, wrapstring='x' * 99999) | length }}",
    "{{ ('a' * 99999) | wordwrap(1, wrapstring='x' * 99999) | length }}",
    "{{ ('<!---->' * 99999) | striptags }}",
    grow("ns.x | center(99999) ~ 'a'", "text"),
    grow("ns.x ~ 'a' * 99999", "text"),
    grow("ns.x.join([ns.x, ns.x])", "text"),
    grow("(ns.x | upper) + ns.x", "text"),
    grow("ns.x + [text[:] * 999]", "[]"),
    grow("ns.x + [('a' * 99999)[i:]]", "[]"),
    grow("ns.x + ns.x", "[text]"),
    NESTED + "{{ ns.x == ns.y }}",
    NESTED + "{{ ns.x in [ns.y] }}",
    NESTED + "{{ ns.x is eq ns.y }}{{ [ns.x].index(ns.y) }}",
    KEYS + "{{ {ns.x: 1} | length }}",
    KEYS + "{{ {}[ns.x] }}",
    NESTED + "{{ ns.x | tojson | length }}",
    NESTED + "{{ ns.x }}",
    grow("ns.x ** 60", "9"),
    grow("ns.x * ns.x", "9"),
    grow("ns.x * 9", "9"),
    LOOP * 5 + "x" + END * 5,
    LOOP * 2 + "{{ text }}" + END * 2,
    LOOP * 2 + "{% if 'zz' in text %}{% endif %}" + END * 2,
    LOOP + "{% for j in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}" + END,
    "{% for i in range(99999) if i > 5 %}" + LOOP * 3 + END * 4,
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}" + "{% call f() %}" * 40 + "x" + "{% endcall %}" * 40,
    "{% set x %}" + "{{ 'x' * 99999 }}" * 400 + "{% endset %}{{ x | length }}",
    "{% filter replace('x', 'y' * 99999) %}{{ 'x' * 99999 }}{% endfilter %}",
    "{% filter center(99999) %}x{% endfilter %}" * 600,
    "{{ (range(99999) | list * 999) | length }}",
    "{{ range(10 ** 9) | list | length }}",
    "{{ (range(9999) | list) | map('center', 99999) | list | length }}",
    "{{ (range(9999) | list) | map('string') | map('center', 9999) | join | length }}",
    "{{ [[1] * 99999] * 9999 | sum(start=[]) | length }}",
    "{{ ([[1] * 99999] * 9999) | sum(start=[]) | length }}",
    "{{ (['a' * 99999] * 9999) | sum(start='') | length }}",
    "{{ (['a' * 99999] * 99999) | sort | length }}",
    "{{ (['a' * 99999] * 99999) | unique | list | length }}",
    "{{ (['a' * 99999] * 99999) | join | length }}",
    "{{ 'b'.join(['a' * 99999] * 99999) | length }}",
    "{{ ('a' * 99999) | list | map('replace', 'a', 'b' * 99999) | list | length }}",
    "{{ ('&' * 99999) | urlencode | urlencode | urlencode | urlencode | urlencode| urlencode | urlencode| length }}",
    "{{ ('a ' * 49999).split() * 3 }}",
    "{% set c = cycler(*(range(99999) | list)) %}" + LOOP * 2 + "{{ c.next() }}" + END * 2,
    "{{ ('f' * 99999) | int(0, 16) }}",
    LOOP * 2 + "{{ (10 ** 60) ** 60 }}" + END * 2,
    "{% set ns = namespace(x=9 ** 64) %}{% for i in range(6) %}{% set ns.x = ns.x * ns.x %}{% endfor %}"
    + LOOP * 2
    + "{{ ns.x }}"
    + END * 2,
    "{% autoescape true %}{{ text }}{% endautoescape %}",
    "{{ 'a' | center(99999) }}" * 9999,
    keep("cycler(*b)"),
    keep("[1] | batch(99999, 0)"),
    keep("b | groupby('real')"),
    keep("b | slice(99999)"),
    keep("namespace(dict(b | batch(2)))"),
    "{% macro f(ns) %}{% set ns.x = [ns.x, varargs] %}{% endmacro %}"
    "{% set b = range(99999) | list %}{% set ns = namespace(x=[]) %}" + LOOP + "{{ f(ns, *b) }}" + END,
    read("'zz' in t"),
    read("t.count('zz')"),
    read("t.isalpha()"),
    read("t | float"),
    read("t | wordcount"),
    read("t is upper"),
    read("t % ()"),
    read("[t].count(t[:-1] ~ 'b')"),
    "{% set t = (['a' * 99999] * 95) | join %}{{ ([t] * 99999) | map('int') | list }}",
    "{% set t = (['a' * 99999] * 95) | join %}{{ ([t] * 99999) | select('eq', t[:-1] ~ 'b') | list }}",
    "{% set t = (['a' * 99999] * 95) | join %}{{ ([t] * 99999) | either }}",
    "{% set t = (['ж ' * 49999] * 90) | join %}{{ t | title | length }}",
    *(
        "{{ range(99999) | list | " + made + "(attribute='" + FOLLOWED + "') }}"
        for made in ("map", "sort", "sum", "join")
    ),
    "{{ range(99999) | list | selectattr('" + FOLLOWED + "') | list }}",
    "{% set n = (9 ** 64) ** 64 %}" + LOOP + "{% if n | string %}{% endif %}" + END,
]
#: What has no text of its own.
PRINTED = [
    "{{ joiner }}",
    "{{ namespace(a=1) }}",
    "{{ text.upper | string }}",
    "{{ text.upper ~ 'a' }}",
    "{{ '%s' % text.upper }}",
    "{{ '%r' % text.upper }}",
    "{{ '{}'.format(text.upper) }}",
    "{{ '{!r}'.format(text.upper) }}",
    "{{ [text.upper] | join }}",
    "{{ [text.upper] | tojson }}",
    "{{ text.upper | pprint }}",
    "{{ text.upper | upper }}",
    "{{ [text.upper] }}",
    "{{ target }}",
    "{{ text.upper | e }}",
    "{{ text.upper | title | trim }}",
    "{{ text.upper | truncate(5) }}",
    "{{ text.upper | urlencode }}",
    "{{ {'a': text.upper} | urlencode }}",
    "{{ {'a': text.upper} | xmlattr }}",
    "{{ text | format(text.upper) }}",
    "{{ '%s' | format(text.upper) }}",
    "{{ '%(a)s' | format(a=text.upper) }}",
    "{{ text | replace('a', text.upper) }}",
    "{{ loop }}",
    "{{ self }}",
    "{{ caller }}",
    "{{ range }}",
    "{{ ''.join([text.upper]) }}",
    "{{ text + text.upper }}",
    "{{ [text.upper] | map('string') | first }}",
    "{{ [text.upper] | either }}",
    "{{ undefined_thing }}",
    "{{ {}.items() }}",
    "{{ {'a':1}.keys() }}",
    "{{ text.nothing }}",
    "{{ text.upper | int }}",
]
#: A null that would be printed as `None`.
NONES = [
    "{{ none }}",
    "{{ none | upper }}",
    "{{ none | string }}",
    "{{ none | title }}",
    "{{ none | e }}",
    "{{ none | trim }}",
    "{{ none | default('x') }}",
    "{{ none | int }}",
    "{{ none | float }}",
    "{{ none | replace('N', 'x') }}",
    "{{ none | urlencode }}",
    "{{ none | center }}",
    "{{ none | wordcount }}",
    "{{ 'a' | replace('a', none) }}",
    "{{ none ~ '' }}",
    "{{ '%s' % none }}",
    "{{ '%s' | format(none) }}",
    "{{ '{}'.format(none) }}",
    "{{ none | safe }}",
    "{{ none | indent }}",
    "{{ none | striptags }}",
    "{{ none | truncate }}",
    "{{ none | join }}",
    "{{ [none] | first }}",
    "{{ [none] | map('string') | join }}",
    "{{ none | lower | capitalize }}",
    "{{ none | wordwrap }}",
]
#: What fails with an error of any kind.
FAILING = [
    "{{ text | truncate(2) }}",
    "{{ 1" + "~1" * 30_000 + " }}",
    "{{ " + "9" * 9000 + " }}",
    "{{ 0x" + "f" * 9000 + " }}",
    "{{ 1 / 0 }}",
    "{{ text.index('zz') }}",
    "{{ 'a' + 1 }}",
    "{{ 10.0 ** 64 ** 64 }}",
    "{{ (10.0 ** 64) ** 64 }}",
    "{{ {}['a'] }}",
    "{{ '\\ud800' }}",
    "{{ '%c' % 55296 }}",
    "{{ '{:c}'.format(55296) }}",
    "{{ '{'.format() }}",
    "{{ '%' % 1 }}",
    "{{ '{a}'.format_map({}) }}",
    "{{ '{0.__class__}'.format(text) }}",
    "{{ text.__class__ }}",
    "{{ text.format.__self__ }}",
    "{{ text | attr('__class__') }}",
    "{{ [] | first }}",
    "{{ [1, 'a'] | sort }}",
    "{{ text | nothing }}",
    "{{ text.encode() }}",
    "{{ text is nothing }}",
    "{{ dict.fromkeys(range(99999)) }}",
    "{{ '{:zz}'.format(5) }}",
    "{{ [1,2] | batch(0) }}",
    "{{ [1,2] | slice(0) | list }}",
    "{{ '%*d' % (text, 1) }}",
    "{{ [].pop() }}",
    "{{ [].append(1) }}",
    "{{ text() }}",
    "{{ 5() }}",
    "{{ none.x }}",
    "{{ text | groupby('x') }}",
    "{{ text | map('nothing') | list }}",
    "{{ text | map(none) | list }}",
    "{{ text[::0] }}",
    "{{ text[99:] is gt 5 }}",
    "{% for a, b in text %}{% endfor %}",
    "{% for a in 5 %}{% endfor %}",
    "{% include 'nothing.jinja' %}",
    "{% include ['a.jinja', 'b.jinja'] %}",
    "{% do x %}",
    "{% block x %}{{ self.x() }}{% endblock %}",
]


def refuse(project: Project, body: str) -> str:
    """Return what is said of a template's body when it is rendered; empty where it is not refused."""
    project.write("templates/films/other.jinja", "{% macro input(text) %}" + body + "{% endmacro %}" + TARGET)
    try:
        load_template("films/other").bind(load_task("films")).input(Record("r", {"text": "a film. " * 999}, 0))
    except TemplateError as error:
        return str(error)
    return ""


def _peak_mebibytes() -> int:
    """Return the peak memory of this program alone: `ru_maxrss` begins with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024


def main() -> None:
    """Print what each template was told, how long it took, and the peak of memory in MiB."""
    project, said = Project(Path.cwd()), []
    for body in GREEDY:
        started = time.process_time()
        message = refuse(project, body)
        said.append((body, message, time.process_time() - started))
    json.dump({"said": said, "peak": _peak_mebibytes()}, sys.stdout)


if __name__ == "__main__":
    main()
