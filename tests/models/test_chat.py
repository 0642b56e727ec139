"""Chat templates: rendered as transformers renders them, and refused where they lose what turns say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from transformers import PreTrainedTokenizerFast

import promptkit
from promptkit.adapters.loading import load_model
from promptkit.analysis.cell_figures import LOW_MASS, measure_mass
from promptkit.cli import cli
from promptkit.cli.verbs.predicting import open_labeller
from promptkit.errors import ModelError, PromptkitError, PromptkitWarning, RunError
from promptkit.models.chat import Chat
from promptkit.models.tokens import Encoder
from promptkit.prompts.prompt import Message, place_system
from promptkit.report.findings import describe_mass
from promptkit.scoring import score
from promptkit.scoring.decoding_state import GenerationRequest, find_ends
from promptkit.scoring.prompt_rows import read_prompts
from promptkit.scoring.scoring_request import open_requests
from promptkit.training.batches import encode_pairs, read_pairs
from tests.conftest import Project
from tests.helpers.naive import model, naive_logprobs, tokenizer
from tests.helpers.training_fakes import model as random_model
from tests.helpers.training_fakes import saved

INSTRUCTION, USER = Message("system", "Label it: <good> & 'bad'."), Message("user", "the soup\n\n  was {{ hot }}")
SHOWN = (Message("user", "the bread"), Message("assistant", "good"))
PLAIN, TOLD, FEW = (USER,), (INSTRUCTION, USER), (INSTRUCTION, *SHOWN, *SHOWN, USER)

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = """\
{%- if messages[0]['role'] == 'system' -%}
  {%- set rest = messages[1:] -%}{%- set system = messages[0]['content'] -%}
{%- else -%}
  {%- set rest = messages -%}{%- set system = false -%}
{%- endif -%}
{%- for message in rest -%}
  {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
  {%- endif -%}
  {%- if loop.index0 == 0 and system -%}
    {%- set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + message['content'] -%}
  {%- else -%}{%- set content = message['content'] -%}{%- endif -%}
  {%- if message['role'] == 'user' -%}{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' -}}
  {%- else -%}{{- ' ' + content.strip() + ' ' + eos_token -}}{%- endif -%}
{%- endfor -%}"""
LLAMA_3 = """\
{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\nToday Date: " + date_string + "\n\n" }}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}
"""
GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for message in messages -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}
"""
PHI_3 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set ns = namespace(index=0) %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- set ns.index = ns.index + 1 %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
        {%- continue %}
    {%- endif %}
    {{- " " + message["content"] + eos_token }}
{%- endfor %}
"""
QWEN_3 = """\
{%- set ns = namespace(last=0) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
        {%- if loop.index0 > ns.last %}
            {{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + content }}
        {%- else %}{{- '<|im_start|>assistant\n' + content }}{%- endif %}
        {{- '<|im_end|>\n' }}
    {%- else %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}
"""
DEEPSEEK_R1 = """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}\
{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}{% endif %}\
{% if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{% endif %}\
{% if message['role'] == 'assistant' %}{{ '<|Assistant|>' + message['content'].split('</think>')[-1] + eos_token }}\
{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"""
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<a>{{ m.content }}</a>{% endgeneration %}"
    "{% else %}<{{ m.role }}>{{ m.content }}</u>{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
#: Name -> template, and the token texts that end a turn in it.
KINDS = {
    "chatml": CHATML,
    "llama-2": LLAMA_2,
    "mistral": MISTRAL,
    "qwen-3": QWEN_3,
    "generation-tag": MARKED,
}
WITHOUT_SYSTEM = {"gemma": GEMMA, "phi-3": PHI_3}


def encoder(template: Any, **options: Any) -> Encoder:
    """An encoder whose tokenizer has this chat template."""
    return Encoder(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer().backend_tokenizer,
            bos_token="<s>",
            eos_token="</s>",
            chat_template=template,
            **options,
        )
    )


def theirs(own: Encoder, messages: tuple[Message, ...], **options: Any) -> str:
    """What transformers makes of the same turns."""
    turns = [{"role": message.role, "content": message.content} for message in messages]
    rendered = own.tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False, **options)
    assert isinstance(rendered, str)
    return rendered


@pytest.mark.parametrize("name", [*KINDS, *WITHOUT_SYSTEM])
@pytest.mark.parametrize("messages", [PLAIN, TOLD, FEW], ids=["user", "system", "demonstrations"])
def test_turns_are_what_transformers_makes_of_them(name: str, messages: tuple[Message, ...]) -> None:
    """Prompt and answer together are transformers' rendering of the turns, up to the end of the answer's turn."""
    own = encoder({**KINDS, **WITHOUT_SYSTEM}[name])
    if name in WITHOUT_SYSTEM:
        messages = place_system(messages, "user")
    prefix = own.chat_prefix(messages)
    assert prefix.rstrip(" ") == theirs(own, messages, add_generation_prompt=True)
    whole = theirs(own, (*messages, Message("assistant", "negative")), add_generation_prompt=False)
    if name == "mistral" and messages != PLAIN:  # which puts the instruction into the last turn, if that is a user's
        prefix = prefix.replace(f"{INSTRUCTION.content}\n\n", "")
    assert whole.startswith(prefix + own.chat_completion(messages, " negative"))


@pytest.mark.parametrize("name", WITHOUT_SYSTEM)
def test_a_template_without_a_system_turn_names_the_way_out(name: str) -> None:
    """Whether it refuses the turn or drops it: one line that says how to keep the instruction."""
    own = encoder(WITHOUT_SYSTEM[name])
    with pytest.raises(ModelError, match=r"refuses or drops the system turn, .*: give --system user .* \(--plain\)$"):
        own.chat_prefix(TOLD)
    assert INSTRUCTION.content in own.chat_prefix(place_system(TOLD, "user"))


def test_thoughts_that_are_not_closed_are_refused() -> None:
    """A label is no first word of a block of thoughts; where past answers have the closed block, it is the prompt's."""
    with pytest.raises(ModelError, match=r"ends its generation prompt in '<think>', which its own answers do not have"):
        encoder(DEEPSEEK_R1).chat_prefix(TOLD)
    always = QWEN_3.replace("{{- '<|im_start|>assistant\\n' }}", "{{- '<|im_start|>assistant\\n<think>\\n' }}")
    own = encoder(always.replace("enable_thinking is false", "enable_thinking is none"))
    assert own.chat_prefix(TOLD).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    kept = CHATML.replace("m['content'] +", "('<think>' if m.role == 'assistant' else '') + m['content'] +")
    with pytest.raises(ModelError, match="opens a block of thoughts before the answer and does not close it"):
        encoder(kept).chat_prefix(PLAIN)


def test_an_opening_that_every_answer_has_is_part_of_the_prompt() -> None:
    """Per-byte, per-token and first-token scores count the label alone, and the longer label is not favoured."""
    opening = "<think></think>"
    source = CHATML.replace("m['content'] +", f"('{opening}' if m.role == 'assistant' else '') + m['content'] +")
    own = encoder(source)
    assert own.chat_prefix(TOLD) == theirs(own, TOLD, add_generation_prompt=True) + opening
    scored = model()
    asked = {"prompt": "", "choices": [" x", " the soup"], "messages": [{"role": "user", "content": "the bread"}]}
    scored = type(scored).of("fake", scored.network, own.tokenizer)
    (prediction,) = score(scored, [asked], chat=True).predictions
    assert prediction.bytes == (1, 8)
    prefix, turns = (
        own.chat_prefix((Message("user", "the bread"),)),
        [own.encode(t, chat=True) for t in ("x", "the soup")],
    )
    assert prefix.endswith(opening)
    assert prediction.tokens == tuple(map(len, turns))


def test_the_date_stands_still() -> None:
    """A template that prints today's date prints the same day always, and the table says so."""
    own = encoder(LLAMA_3)
    prefix = own.chat_prefix(FEW)
    assert "Today Date: 26 Jul 2024\n" in prefix
    assert prefix == theirs(own, FEW, add_generation_prompt=True, date_string="26 Jul 2024")
    base = model()
    scored = type(base).of("fake", base.network, own.tokenizer)
    row = {"prompt": "", "choices": ["a", "b"], "messages": [{"role": "user", "content": "x"}]}
    assert "prints the date: it is always told 26 July 2024" in score(scored, [row], chat=True).notes[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("m['content']", "m['content'][:20]"), "does not print turn 1 .* whole"),
        (("m['content']", "(m['content'] | e)"), "does not print turn 1 .* whole"),
        (("m['content']", "(m['content'] | replace('\\n', ' '))"), "does not print turn 1 .* whole"),
        (("m['content']", "(m['content'] | tojson)"), "does not print turn 1 .* whole"),
        (("in messages", "in messages[-1:]"), "does not print turn 1 .* whole"),
        (("in messages", "in messages if m.role != 'assistant'"), r"does not print turn 3 \(assistant\) whole"),
        (("in messages", "in messages | reverse"), "does not print turn"),
        (("'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>'", "m['content']"), "puts nothing between"),
        (("assistant\n' }}", "' }}{{ 1/0 }}"), "chat template, line \\d: division by zero"),
        (("assistant\n' }}", "' }}{{ 'x' + 1 }}"), "chat template, line \\d: can only concatenate str"),
        (
            ("assistant\n' }}", "' }}{{ ('x' * 3000000000) | length }}"),
            "chat template, line \\d: the sandbox refuses this: repetition",
        ),
        (("assistant\n' }}", "' }}{{ messages.index }}"), "chat template, line \\d: prints the function 'index'"),
        (("assistant\n' }}", "' }}{{ a.b.c }}"), "chat template, line \\d: 'a' is undefined"),
        (
            ("assistant\n' }}", "' }}{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
            "chat template, line \\d: calls itself without end",
        ),
        (("{% endfor %}", ""), "chat template, line 4: Unexpected end of template"),
        (
            ("assistant\n' }}", "' }}{{ raise_exception('no\nway') }}"),
            r"no way \(asked for the turns system, user, assistant",
        ),
    ],
)
def test_whatever_is_wrong_with_a_template_is_one_line(change: tuple[str, str], message: str) -> None:
    """Contents cut, escaped, merged or dropped, and every fault of the file: the tokenizer's name and the way out."""
    assert change[0] in CHATML
    own = encoder(CHATML.replace(*change), name_or_path="some/model")
    with pytest.raises(ModelError, match=message) as caught:
        own.chat_prefix(FEW)
    assert "some/model" in str(caught.value)
    assert "--plain" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_template_that_takes_long_is_tried_once() -> None:
    """One that the sandbox's limits end is refused by them, and not tried in other ways."""
    own = encoder("{% for a in range(9000) %}{% for b in range(9000) %}{% endfor %}{% endfor %}" + CHATML)
    with pytest.raises(ModelError, match=r"not allowed for one text: .* \(asked for the turns system, user\)"):
        own.chat_prefix(TOLD)


def test_a_text_that_the_template_cuts_is_named() -> None:
    """A template that cuts answers at a mark of its own is fine until a content has the mark."""
    own = encoder(QWEN_3)
    turns = (Message("user", "a"), Message("assistant", "b</think>c"), Message("user", "d"))
    with pytest.raises(
        ModelError, match=r"does not print turn 2 \(assistant\) whole and in its place: 'b</think>c'; change"
    ):
        own.chat_prefix(turns)
    with pytest.raises(ModelError, match="does not print the answer 'b</think>c' as it is"):
        own.chat_completion(PLAIN, "b</think>c")


def test_contents_are_given_as_parts_where_texts_are_passed_over() -> None:
    """A template that reads lists of parts gets these."""
    own = encoder(
        "{% for m in messages %}<{{ m.role }}>{% if m.content is not string %}{% for part in m.content %}"
        "{{ part.text }}{% endfor %}{% endif %}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert own.chat_prefix(TOLD).endswith(f"<system>{INSTRUCTION.content}<end><user>{USER.content}<end><assistant>")
    assert own.chat_completion(TOLD, " x") == "x"


def test_a_template_without_a_generation_prompt_has_its_turn_opened() -> None:
    """What the template writes before an answer is part of the prompt, asked for or not."""
    own = encoder(CHATML.partition("{% if add_generation_prompt")[0])
    assert own.chat_prefix(PLAIN) == f"<|im_start|>user\n{USER.content}<|im_end|>\n<|im_start|>assistant\n"


def test_several_templates_are_asked_by_the_name_default() -> None:
    """Of named templates `default` is taken; without it, the error names those that are there."""
    named = encoder({"default": CHATML, "tool_use": "{{ 1/0 }}"})
    assert named.chat_prefix(TOLD) == encoder(CHATML).chat_prefix(TOLD)
    with pytest.raises(ModelError, match=r"no chat template named 'default' \(it has: rag, tool_use\)"):
        Chat(encoder({"tool_use": CHATML, "rag": CHATML}).tokenizer)


def test_the_end_of_a_turn_is_the_templates_own() -> None:
    """An added token ends an answer also where no list of special tokens names it; without one, the EOS does."""
    own = encoder(GEMMA)
    own.tokenizer.add_tokens(["<end_of_turn>"])
    assert own.tokenizer.convert_ids_to_tokens(list(own.answer_end(PLAIN))) == ["<end_of_turn>"]
    assert own.answer_end() == (own.tokenizer.eos_token_id,)
    assert encoder(CHATML).answer_end(PLAIN) == (encoder(CHATML).tokenizer.eos_token_id,)


def test_white_space_at_the_beginning_of_an_answer_is_the_plain_forms() -> None:
    """All of it is left out of a turn; white space within and an answer of white space alone stay."""
    own = encoder(CHATML)
    for text, answer in ((" a b", "a b"), ("\n\n a\n", "a\n"), ("a", "a"), ("\n", "\n")):
        assert own.chat_completion(PLAIN, text) == answer


@pytest.fixture
def films(project: Project) -> Project:
    """A project with a model whose chat template trims nothing, and one without a system turn."""
    base = random_model(window=256)
    for name, template in (("small", CHATML), ("phi", PHI_3)):
        base.tokenizer.chat_template, before = template, base.tokenizer.chat_template
        saved(base, project.root / name)
        base.tokenizer.chat_template = before
    return project


def run(*words: str) -> Any:
    """Run a command line in this process and return what it printed as JSON; an error of promptkit is raised."""
    return json.loads(CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False).stdout)


def test_every_verb_asks_for_the_same_answer(films: Project) -> None:
    """What show marks, score scores, build writes and train learns in a chat are the tokens of one turn."""
    (view,) = run("show", "films", "--data", "data", "--model", "small", "--chat", "-k", "1")["prompts"]
    assert view["choices"] == ["negative", "positive"]
    shown = "".join(text for text, _ in view["tokens"])
    assert "".join(text for text, loss in view["tokens"] if loss) in view["choices"]
    assert shown.count("<|im_start|>assistant\nnegative") + shown.count("<|im_start|>assistant\npositive") == 2
    loaded = load_model("small")
    common = ("--data", "data", "--chat", "--out")
    promptkit.build_prompts("films", "films/plain", data="data", chat=True).to_json("prompts.jsonl")
    run("build", "films", "--as", "pairs", *common, "own.jsonl")
    run("build", "films", "--as", "pairs", "--format", "messages", *common, "messages.jsonl")
    rows = [json.loads(line) for line in Path("messages.jsonl").read_text().splitlines()]
    assert {row["messages"][-1]["content"] for row in rows} == {"negative", "positive"}
    own = [json.loads(line) for line in Path("own.jsonl").read_text().splitlines()]
    lessons = [encode_pairs(loaded, read_pairs(each, chat=True), chat=True) for each in (rows, own)]
    assert lessons[0] == lessons[1]
    for lesson in lessons[0]:
        assert loaded.tokenizer.decode(list(lesson.ids[lesson.start :])) in ("negative", "positive")
    task = run("score", "films", "--model", "small", "--scores", *common, "run")["rows"]
    file = run("score", "prompts.jsonl", "--model", "small", "--chat", "--scores")["rows"]
    assert {row["id"]: row["logprobs"] for row in task} == {row["id"]: row["logprobs"] for row in file}
    lines = Path("prompts.jsonl").read_text().splitlines()
    by_hand = [
        naive_logprobs(loaded, loaded.encoder.chat_prefix(turns), ["negative", "positive"])
        for turns in ([Message(**turn) for turn in json.loads(line)["messages"]] for line in lines)
    ]
    for row, wanted in zip(file, by_hand, strict=True):
        assert row["logprobs"] == pytest.approx(wanted, abs=1e-4)


def test_the_instruction_may_stand_in_the_first_users_turn(films: Project) -> None:
    """--system user goes through every verb, into cells and cards; without it, such a template is refused."""
    common = ("--data", "data", "--model", "phi", "--chat")
    for verb in ("show", "score", "compare", "study", "train"):
        with pytest.raises(PromptkitError, match="give --system user"):
            run(verb, "films", *common)
    told = (*common, "--system", "user")
    (view,) = run("show", "films", *told)["prompts"]
    assert "".join(text for text, _ in view["tokens"]).startswith("<|user|>\nLabel the following review")
    result = run("score", "films", *told, "--out", "scored")
    (cell,) = Path("scored/cells").glob("*.json")
    assert json.loads(cell.read_text())["spec"]["system"] == "user"
    assert result["cells"][0]["n"] == 6
    assert run("study", "films", *told, "--draws", "1", "--orders", "1", "-k", "1")["cells"]
    adapter = run("train", "films", *told, "--epochs", "1", "--out", "adapter")
    assert (adapter["settings"]["system"], adapter["settings"]["join"]) == ("user", "turn")
    Path("new.jsonl").write_text('{"sentence": "good"}\n')
    assert run("predict", "new.jsonl", "--adapter", "adapter")["rows"][0]["predicted"] in ("negative", "positive")
    run("build", "films", "--as", "pairs", "--data", "data", "--chat", "--out", "own.jsonl")
    assert run("train", "own.jsonl", *told[2:], "--epochs", "1", "--out", "again")["losses"] == adapter["losses"]
    for words in (("build", "films", "--as", "pairs"), ("show", "films"), ("score", "films"), ("train", "films")):
        with pytest.raises(PromptkitError, match=r"system 'user' is for chat turns|system: .*chat turns"):
            run(*words, "--data", "data", "--system", "user")


def test_rows_with_a_system_turn_are_folded_too() -> None:
    """In Python, ready-made rows are scored as those that were built with the instruction in the user's turn."""
    base = model()
    scored = type(base).of("fake", base.network, encoder(PHI_3).tokenizer)
    turns = [{"role": "system", "content": "Label it."}, {"role": "user", "content": "the soup"}]
    folded = [{"role": "user", "content": "Label it.\n\nthe soup"}]
    rows = [{"prompt": "", "choices": ["a", "b"], "messages": each, "content_free": [each]} for each in (turns, folded)]
    (own,), (wanted,) = (
        score(scored, [row], chat=True, system=system).predictions
        for row, system in zip(rows, ("user", "system"), strict=True)
    )
    assert (own.logprobs, own.content_free) == (wanted.logprobs, wanted.content_free)


def test_adapters_of_another_join_are_refused(films: Project) -> None:
    """A card of a chat from before answers began as turns do: predict refuses it, and loading warns."""
    run("train", "films", "--data", "data", "--model", "small", "--chat", "--epochs", "1", "--out", "adapter")
    card = json.loads(Path("adapter/promptkit.json").read_text())
    del card["settings"]["join"], card["settings"]["system"]
    Path("adapter/promptkit.json").write_text(json.dumps(card))
    with pytest.raises(RunError, match=r"^adapter: was trained on chat turns whose .*; train it again"):
        open_labeller("adapter")
    with pytest.warns(PromptkitWarning, match="train it again"):
        load_model("adapter", on_flip="ignore")


def test_mass_is_the_probability_of_all_choices(films: Project) -> None:
    """It is the mean over prompts of the choices' joint probability, the same resumed, and said where it is low."""
    words = ("score", "films", "--data", "data", "--model", "small", "--chat", "--scores", "--out", "run")
    first, again = run(*words), run(*words)
    masses = [math.fsum(map(math.exp, row["logprobs"])) for row in first["rows"]]
    assert first["cells"][0]["choice_mass"] == pytest.approx(math.fsum(masses) / len(masses), abs=1e-6)
    assert again["cells"] == first["cells"]
    assert first["methods"][0]["choice_mass"] == first["cells"][0]["choice_mass"] < LOW_MASS
    assert any("the choices together have less than 10 % of the probability" in note for note in first["notes"])
    printed = CliRunner().invoke(cli, list(words[:-3]), catch_exceptions=False).stdout
    assert "Probability of the choices together: zero-shot 0." in printed
    assert measure_mass([{"logprobs": [-1.0, -0.5]}, {"logprobs": [0.0, 0.0]}]) == pytest.approx(
        (math.exp(-1) + math.exp(-0.5) + 1) / 2, abs=1e-6
    )
    assert measure_mass([{"logprobs": [], "samples": [{"logprobs": [-1.0]}]}]) == pytest.approx(math.exp(-1), abs=1e-6)
    assert measure_mass([{"logprobs": []}]) is None


def test_writing_ends_with_the_turn() -> None:
    """What the template ends a turn with ends a text in a chat, also where it is no EOS and on no list."""
    base, own = model(), encoder(GEMMA)
    own.tokenizer.add_tokens(["<end_of_turn>"])
    scored = type(base).of("fake", base.network, own.tokenizer)
    generation = {"stop": [], "max_tokens": 8, "answer": "(.*)"}
    asked = read_prompts([{"prompt": "", "messages": [{"role": "user", "content": "a"}], "generation": generation}])
    (request,) = [sheet.request for sheet in open_requests(scored, asked, True)]
    assert request is not None
    end = own.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert request.ends == (end,)
    assert end in find_ends(scored, request.stop, request.ends)
    assert open_requests(scored, [replace(asked[0], text="a")], False)[0].request == GenerationRequest(
        tuple(own.encode("a")), (), 8
    )


def test_a_small_mass_is_not_shown_as_none() -> None:
    """A share far below a percent is told with two digits, not as 0.0 %."""
    method = {"method": "zero-shot", "template": "films/plain", "k": 0, "train_rows": None, "pool_rows": None}
    lines = [describe_mass({"methods": [method]}, [{**method, "choice_mass": mass}])[0] for mass in (0.054, 0.000019)]
    assert [line.split("zero-shot ")[1] for line in lines] == ["5.4 %.", "0.0019 %."]
