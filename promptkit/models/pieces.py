"""Cut a text into pieces that its tokenizer encodes one by one as it would encode them together.

Prompts share most of their lines, so most pieces are encoded once. Where it is not certain that a tokenizer may be
fed in pieces, there is one piece: the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Between a letter or digit and a newline: none of the patterns below matches across it or looks past it.
_CUT = re.compile(r"(?<=[A-Za-z0-9])(?=\n)")
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
#: What splits text before byte pairs are merged, in Llama 3 and in Qwen.
_PATTERNS = {_HEAD + r"\p{N}{1,3}" + _TAIL, _HEAD + r"\p{N}" + _TAIL}


def find_splitter(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[str]] | None:
    """Return what splits a text into pieces for this tokenizer; None where its texts must stay whole.

    Taken apart are the texts of byte-level BPE tokenizers that split as those of GPT-2, Llama 3 or Qwen do: a cut
    stands between a letter or digit and a newline, where their patterns always split.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    parts = json.loads(backend.to_str())
    whole = (
        parts["model"].get("type") != "BPE"
        or parts["model"].get("dropout")
        or (parts["normalizer"] or {"type": "NFC"})["type"] != "NFC"
        or not _splits_at_cuts(parts["pre_tokenizer"] or {"type": None})
        or any(
            token["rstrip"] or token["single_word"] or _CUT.search(token["content"]) for token in parts["added_tokens"]
        )
    )
    return None if whole else _CUT.split


def _splits_at_cuts(step: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer, or one of a sequence, splits at every cut, and the others look at single characters."""
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    known = [_is_known(each) for each in steps]
    return all(kind is not None for kind in known) and any(known)


def _is_known(step: dict[str, Any]) -> bool | None:
    """Whether a pre-tokenizer splits at every cut; None where it may look across one."""
    if step["type"] == "ByteLevel":
        return None if step["add_prefix_space"] else bool(step["use_regex"])
    if step["type"] == "Digits":
        return False
    if step["type"] != "Split" or step["behavior"] != "Isolated" or step["invert"]:
        return None
    pattern = next(iter(step["pattern"].values()))
    return True if pattern == "\n" or pattern in _PATTERNS else None
