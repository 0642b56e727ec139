"""Vectors of texts: from a model's hidden states, each text by itself."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy
import pytest
import torch

from promptkit.adapters.loading import load_model
from promptkit.data.record import Record
from promptkit.demonstrations import Selector
from promptkit.demonstrations.sentence_encoder import SentenceEncoder
from promptkit.errors import ModelError
from promptkit.models import Model
from promptkit.models.embedding import HiddenStates

TEXTS = ["a warm little film", "the jokes never land", "", "two hours of grey soup"]


@pytest.fixture(scope="module")
def tiny() -> Model:
    """The model that ships."""
    return load_model("tiny")


def test_vectors_are_the_means_of_the_last_hidden_states(tiny: Model) -> None:
    """As a plain pass over the text's tokens gives them."""
    found = HiddenStates(tiny)(TEXTS[:2])
    for row, text in zip(found, TEXTS, strict=False):
        with torch.inference_mode():
            ids = torch.tensor([tiny.encoder.encode(text)])
            states = tiny.network(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        numpy.testing.assert_allclose(row, states[0].mean(0).numpy(), rtol=1e-5, atol=1e-5)


def test_a_vector_depends_on_its_text_alone(tiny: Model) -> None:
    """The same bytes in another company, sequence or call, and after other texts were encoded; also for no text."""
    embed = HiddenStates(tiny)
    together = embed(TEXTS)
    assert together.shape == (4, embed(["another"]).shape[1])
    assert embed(TEXTS[::-1]).tobytes() == together[::-1].tobytes()
    assert HiddenStates(tiny)(TEXTS[2:]).tobytes() == together[2:].tobytes()
    assert len(embed([])) == 0


def test_texts_beyond_the_window_are_read_window_by_window(tiny: Model) -> None:
    """Every token counts the same, whichever window it falls in; nothing is left out."""
    ids = tiny.encoder.encode(TEXTS[0])
    narrow = replace(tiny, window=2)
    parts = [ids[start : start + 2] for start in range(0, len(ids), 2)]
    with torch.inference_mode():
        states = [
            tiny.network(input_ids=torch.tensor([part]), output_hidden_states=True).hidden_states[-1][0]
            for part in parts
        ]
    expected = torch.cat(states).mean(0).numpy()
    numpy.testing.assert_allclose(HiddenStates(narrow)(TEXTS[:1])[0], expected, rtol=1e-5, atol=1e-5)


def test_the_networks_mode_is_put_back_and_its_name_is_the_models(tiny: Model) -> None:
    """Encoding is without dropout and leaves the network as it was; two models' encoders have two names."""
    tiny.network.train()
    try:
        HiddenStates(tiny)(TEXTS)
        assert tiny.network.training
    finally:
        tiny.network.eval()
    assert HiddenStates(tiny).name != HiddenStates(replace(tiny, hash="other")).name


def test_hidden_states_choose_demonstrations(tiny: Model) -> None:
    """A dense selection with the model's own states shows a record's near-twin first."""
    pool = [Record(str(number), {"text": text}, 0) for number, text in enumerate(TEXTS)]
    query = Record("q", {"text": "two hours of green soup"}, None)
    assert Selector(pool, "dense", embed=HiddenStates(tiny)).select(query, 1)[0].id == "3"


@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is not None, reason="it is installed")
def test_sentence_encoders_say_what_to_install() -> None:
    """Without the extra, the error names it."""
    with pytest.raises(ModelError, match=r"needs sentence-transformers: pip install 'promptkit\[dense\]'"):
        SentenceEncoder()
