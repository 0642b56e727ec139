"""Turn texts into vectors by an encoder of sentence-transformers, each text by itself and once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from promptkit.errors import ModelError
from promptkit.storage.libraries import quiet_transformers

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Vector = NDArray[numpy.float32]

#: The encoder of sentences that is taken where sentence-transformers is installed: 22 million weights.
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


class SentenceEncoder:
    """An `embed` for selections: an encoder of sentence-transformers, by hub id or folder.

    Raises ModelError where it cannot be loaded.
    """

    def __init__(self, name: str = ENCODER, *, device: str | None = None) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ModelError(f"{name}: needs sentence-transformers: pip install 'promptkit[dense]'") from error
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
        return encode_once(lambda text: self._encoder.encode([text], show_progress_bar=False)[0], texts, self._known)


def encode_once(encode: Callable[[str], Vector], texts: Sequence[str], known: dict[str, Vector]) -> Vector:
    """Return the vectors [texts, D], encoding those that are not known yet."""
    import numpy

    for text in texts:
        if text not in known:
            known[text] = encode(text)
    return numpy.stack([known[text] for text in texts]) if texts else numpy.zeros((0, 1), dtype=numpy.float32)
