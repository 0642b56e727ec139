"""Train the shipped model's tokenizer: byte-level BPE with single digits and newlines, and a chat template."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from promptkit.models.recipe.documents import END, ROLES
from promptkit.models.recipe.label_names import SETS, SYNONYMS

VOCABULARY = 8_192
EMPHASIS = 60
"""How often a label's word counts beyond the corpus, so that each becomes one token with its leading space."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '" + END + "' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ROLES["assistant"] + "' }}{% endif %}"
)


def train_tokenizer(
    corpus: Iterable[str], words: Iterable[str], *, window: int, vocabulary: int = VOCABULARY
) -> PreTrainedTokenizerFast:
    """The tokenizer of a corpus; `words` (labels) are emphasised.

    Any text comes back exactly from its tokens. Nothing is put before or after a text; `<|end|>` ends and pads.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, *ROLES.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    emphasised = [f" {word}" for word in words for _ in range(EMPHASIS)]
    tokenizer.train_from_iterator([*corpus, *emphasised], trainer)
    return _wrap(tokenizer, window)


def label_words(own: Iterable[Mapping[str, str]]) -> list[str]:
    """Every word a label may have: synonyms, arbitrary words, and those that templates and tasks use themselves."""
    phrases = [word for labels in own for word in labels.values()]
    phrases += [word for table in SYNONYMS.values() for words in table.values() for word in words]
    phrases += [word for words in SETS for word in words]
    return sorted({word for phrase in phrases for word in phrase.split()})


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer.save_pretrained(folder)


def _wrap(tokenizer: Tokenizer, window: int) -> PreTrainedTokenizerFast:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        extra_special_tokens=list(ROLES.values()),
        clean_up_tokenization_spaces=False,
        model_max_length=window,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
