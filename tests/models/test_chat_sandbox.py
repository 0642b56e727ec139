"""A model's own chat template in the sandbox: what it renders, and that what it does wrong is one line."""

from __future__ import annotations

import datetime

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from promptkit.errors import TemplateError
from promptkit.models.chat_sandbox import ChatTemplate

MESSAGES = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Is 5 > 3? {{ x }} <b>"},
    {
        "role": "assistant",
        "content": "<think>hm</think>Yes",
        "tool_calls": [{"name": "f", "arguments": {"a": [1, None]}}],
    },
    {"role": "user", "content": "Thanks\n"},
]
LIKE_THOSE_IN_USE = [
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{{- bos_token }}\n{%- if messages[0].role == 'system' %}\n    {%- set system = messages[0].content | trim %}\n"
    "    {%- set messages = messages[1:] %}\n{%- endif %}\n{{- system }}\n{%- for m in messages %}\n"
    "    {%- if m.tool_calls is defined and m.tool_calls is not none %}\n    {{- m.tool_calls | tojson(indent=4) }}\n"
    "    {%- endif %}\n    {{- m['content'].split('</think>')[-1].lstrip('\\n') }}\n{%- endfor %}",
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages[::-1] %}{% if m.role == 'user' and not ns.found %}"
    "{% set ns.found = true %}{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ m.content }}{% endfor %}",
    "{% for m in messages %}\n  {% if m.role == 'assistant' %}\n{% generation %}{{ m.content }}{% endgeneration %}\n"
    "  {% else %}\n{{ m.content | upper }}{% break %}\n  {% endif %}\n{% endfor %}{{ missing }}{{ none }}{{ tools }}",
    "{% macro show(x) %}{{ x.name }}: {{ x.arguments }}{% endmacro %}{{ show(messages[2].tool_calls[0]) }}"
    "{{ dict(a=1).items() | list }}{{ '%s' | format(messages | length) }}{{ messages[0].get('name', 'nobody') }}",
]


@pytest.mark.parametrize("text", LIKE_THOSE_IN_USE)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_a_chat_template_renders_as_in_transformers(text: str, add_generation_prompt: bool) -> None:
    """What templates of models in use do gives the same text, byte for byte."""
    (expected,), _ = render_jinja_template(
        [MESSAGES], chat_template=text, add_generation_prompt=add_generation_prompt, bos_token="<s>"
    )
    shown = ChatTemplate(text, "model 'm'").render(
        MESSAGES, add_generation_prompt=add_generation_prompt, bos_token="<s>"
    )
    assert shown == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ raise_exception('Only user and\nassistant roles!') }}", "line 1: Only user and assistant roles!"),
        ("\n{% if %}", "line 2: Expected an expression"),
        ("\n{{ messages[0].content.upper }}", "line 2: prints the function 'upper' itself"),
        ("{{ [messages[0].content.upper] }}", "line 1: prints a list or mapping of what is no text or number"),
        ("{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3, "line 1: the sandbox refuses this: more than"),
        ("{{ 'a'.expandtabs(1).translate({97: 'b'}) }}", "the method 'translate' of the type str is not allowed"),
        ("{{ messages.append(1) }}", "line 1: the sandbox refuses this: access to attribute 'append'"),
        ("{{ ''.__class__.name }}", "line 1: the sandbox refuses this: access to attribute '__class__'"),
        ("{{ 1 / 0 }}", "line 1: division by zero"),
        ("{{ missing.name }}", "line 1: 'missing' is undefined"),
        ("{{ messages | nothing }}", "line 1: No filter named 'nothing'"),
        ("{% include 'x.jinja' %}", "line 1: no loader for this environment"),
        ("{{ " + "(" * 3000 + ")" * 3000 + " }}", "nested too deeply"),
    ],
)
def test_what_a_chat_template_does_wrong_is_one_line(text: str, message: str) -> None:
    """The line begins with the model's name."""
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(text, "model 'm'").render(MESSAGES)
    assert str(caught.value).startswith("model 'm': its chat template")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_time_is_what_the_caller_says() -> None:
    """A template that prints today's date prints the one that it is given."""
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", "m", now=lambda: datetime.datetime(2024, 7, 26))
    assert template.render([]) == "26 Jul 2024"
