"""Turn texts into vectors by a model's own hidden states.

Every text is encoded by itself and remembered, so that its vector depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from promptkit.demonstrations.sentence_encoder import encode_once

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from promptkit.models import Model

    Vector = NDArray[numpy.float32]


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
        return encode_once(self._encode, texts, self._known)

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
