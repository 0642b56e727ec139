"""Texts into vectors: a model's own hidden states, or a sentence encoder's.

Every text is encoded by itself and remembered, so that its vector depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from promptkit.errors import ModelError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from promptkit.models import Model

    Vector = NDArray[numpy.float32]

#: The encoder of sentences that is taken where sentence-transformers is installed: 22 million weights.
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


class HiddenStates:
    """An `embed` for selections: the mean over a text's tokens of a model's last hidden states.

    A text longer than the model's window is read window by window. `name` tells models apart.
    """

    def __init__(self, model: Model) -> None:
        self.name = f"hidden states of {model.hash or model.name}"
        self._model = model
        self._known: dict[str, Vector] = {}

    def __call__(self, texts: Sequence[str]) -> Vector:
        """Return the vectors [texts, D]."""
        return _remember(self._encode, texts, self._known)

    def _encode(self, text: str) -> Vector:
        import numpy
        import torch

        from promptkit.models import check_ids

        ids = self._model.encoder.encode(text) or [self._model.encoder.opening_token()]
        check_ids(self._model, [ids])
        network: Any = self._model.network
        training, window = network.training, self._model.window
        network.eval()
        total: Any = 0.0
        try:
            with torch.inference_mode():
                for start in range(0, len(ids), window):
                    part = torch.tensor([ids[start : start + window]], device=self._model.device)
                    states = network(input_ids=part, output_hidden_states=True, use_cache=False).hidden_states[-1]
                    total += states[0].double().sum(0).cpu().numpy()
        finally:
            network.train(training)
        return numpy.asarray(total / len(ids), dtype=numpy.float32)


@lru_cache(maxsize=2)
def hidden_states(model: Model) -> HiddenStates:
    """Return the `HiddenStates` of a model; of the last two models they are kept, with the texts they have read."""
    return HiddenStates(model)


class SentenceEncoder:
    """An `embed` for selections: an encoder of sentence-transformers, by hub id or folder.

    Raises ModelError where it cannot be loaded.
    """

    def __init__(self, name: str = ENCODER, *, device: str | None = None) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ModelError(f"{name}: needs sentence-transformers: pip install 'promptkit[dense]'") from error
        from promptkit.models import quiet_transformers

        try:
            with quiet_transformers():
                self._encoder: Any = SentenceTransformer(name, device=device)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"{name}: the sentence encoder cannot be loaded: {reason[:300]}") from error
        self.name = name
        self._known: dict[str, Vector] = {}

    def __call__(self, texts: Sequence[str]) -> Vector:
        """Return the vectors [texts, D]."""
        return _remember(lambda text: self._encoder.encode([text], show_progress_bar=False)[0], texts, self._known)


def _remember(encode: Callable[[str], Vector], texts: Sequence[str], known: dict[str, Vector]) -> Vector:
    """Return the vectors [texts, D], encoding those that are not known yet."""
    import numpy

    for text in texts:
        if text not in known:
            known[text] = encode(text)
    return numpy.stack([known[text] for text in texts]) if texts else numpy.zeros((0, 1), dtype=numpy.float32)
