"""Name what scores and trains, so that answers of one are never taken for those of another."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from promptkit.errors import PromptkitError

if TYPE_CHECKING:
    from promptkit.analysis.cells import PlannedCell
    from promptkit.models import Model

AnyStep = TypeVar("AnyStep", bound="PlannedCell")

#: What a callable says of itself that gives the same as promptkit's own: its cells are those of the model.
OWN = {"scorer": "promptkit.score", "trainer": "promptkit.train"}
_TOKENS: dict[int, tuple[weakref.ref[Any], str]] = {}


@dataclass(frozen=True)
class Identity:
    """Who scores and who trains where it is not promptkit: a text each, None for promptkit itself."""

    scorer: str | None = None
    trainer: str | None = None

    @classmethod
    def of(cls, scorer: Callable[..., Any] | None, trainer: Callable[..., Any] | None) -> Identity:
        """Return the identity of what is given in place of promptkit's own; None is promptkit's own.

        It is the text in the callable's attribute `identity`. Without one, a name is made up that no other object ever
        has, so that nothing is shared. Raises PromptkitError for an `identity` that is no text.
        """
        return cls(_identify(scorer, "scorer"), _identify(trainer, "trainer"))

    @property
    def settings(self) -> dict[str, str]:
        """What run.json says of it; nothing where promptkit scores and trains."""
        given = {"scorer": self.scorer, "trainer": self.trainer}
        return {role: name for role, name in given.items() if name is not None}

    def mark(self, step: AnyStep) -> AnyStep:
        """Return the step with everything in its spec that gives its answers."""
        marks = (
            self.settings if step.rows else {role: self.settings[role] for role in self.settings if role == "scorer"}
        )
        return replace(step, spec={**step.spec, **marks}) if marks else step

    def name(self, model: str, among: int = 1) -> str:
        """Return the name that a result of so many models gives this one: whose answers they are."""
        if self.scorer is None:
            return model
        return f"{self.scorer} on {model}" if among > 1 else self.scorer

    def notes(self) -> list[str]:
        """Return what a result says of it in words."""
        said = {"scorer": "answers are those of", "trainer": "adapters are trained by"}
        return [f"{said[role]} {name}, not of promptkit" for role, name in self.settings.items()]


def _identify(given: Callable[..., Any] | None, role: str) -> str | None:
    if given is None or given is _promptkits_own(role):
        return None
    said = getattr(given, "identity", None)
    if said is None:
        return make_identity(given)
    if not isinstance(said, str) or not said.strip():
        raise PromptkitError(
            f"the {role}'s `identity` is {said!r:.60}; give a text that names it and everything its answers depend on"
        )
    return None if said == OWN[role] else said


def _promptkits_own(role: str) -> Any:
    if role == "scorer":
        from promptkit.scoring import score

        return score
    from promptkit.training import train

    return train


def make_identity(given: object) -> str:
    """Return a name for an object that says nothing of itself: the same while it lives, and no other object's ever."""
    kind = given if hasattr(given, "__qualname__") else type(given)
    name = f"{getattr(kind, '__module__', None) or '?'}.{getattr(kind, '__qualname__', '?')}"
    known = _TOKENS.get(id(given))
    if known and known[0]() is given:
        return known[1]
    made = f"{name} (without identity, {uuid.uuid4().hex[:16]})"
    with suppress(TypeError):  # what cannot be recognised again has another name every time
        _TOKENS[id(given)] = weakref.ref(given), made
    return made


def name_model(model: Model | str) -> str:
    """Return a model's name as run.json has it: of a folder the last part, which tells nothing of the machine."""
    name = model if isinstance(model, str) else model.name
    return Path(name).name if Path(name).exists() else name


def complete(model: Model) -> Model:
    """Return a model that has a fingerprint: one that was not read from files is told from every other."""
    return model if model.hash else replace(model, hash=make_identity(model))
