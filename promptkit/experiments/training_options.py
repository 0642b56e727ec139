"""Define the options of training that all verbs share, and refuse those that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from promptkit.errors import PromptkitError

#: Settings of every training, by the names that they have in all verbs.
TRAINING = (
    *("kind", "rank", "alpha", "dropout", "targets", "top_layers", "learning_rate", "epochs", "batch_size"),
    *("micro_batch", "checkpointing"),
)
_OPTIONS = {"kind": "adapter-kind", "templates": "template", "demo_labels": "demo-labels", "rationales": "rationale"}
#: The largest seed that a training takes, and one more.
_SEEDS = 2**32


@dataclass(frozen=True)
class Scene:
    """What is run, as far as it decides which settings matter.

    `methods` are those that are run, `shots` the numbers of demonstrations asked for. `learns_shown` says whether
    adapters are trained on as many records as prompts show.
    """

    methods: Collection[str]
    shots: tuple[int, ...] = ()
    train_sizes: tuple[int, ...] = ()
    models: tuple[object, ...] = ()
    budget: object = None
    kind: str = "lora"
    overlong: str | None = None
    retrieves: bool = False
    learns_shown: bool = False

    @property
    def trains(self) -> bool:
        """Whether adapters are trained."""
        return "lora" in self.methods

    @property
    def shows(self) -> bool:
        """Whether prompts have demonstrations."""
        return any(self.shots) and any(method.startswith("few-shot") for method in self.methods)


#: (settings, what has to be there for them to change anything, whether it is there): one line per rule, for every verb.
_NEEDS: tuple[tuple[tuple[str, ...], str, Callable[[Scene], bool]], ...] = (
    (("seeds", *TRAINING), "the method lora", lambda scene: scene.trains),
    (("rank", "alpha", "dropout"), "another adapter kind than ia3", lambda scene: scene.kind != "ia3"),
    (("train_sizes",), "the method lora", lambda scene: scene.trains or (scene.retrieves and scene.shows)),
    (("retrieval",), "a few-shot method and -k of 1 or more", lambda scene: scene.shows),
    (("draws", "order", "orders", "demo_labels"), "a few-shot method and -k of 1 or more", lambda scene: scene.shows),
    (
        ("selection", "selections"),
        "a few-shot method and -k of 1 or more",
        lambda scene: scene.shows or (scene.trains and scene.learns_shown and any(scene.shots)),
    ),
    (
        ("shots",),
        "a few-shot method",
        lambda scene: scene.shows or (scene.trains and scene.learns_shown) or not any(scene.shots),
    ),
    (("rationales",), "the method few-shot-cot", lambda scene: "few-shot-cot" in scene.methods),
    (
        ("train_limit",),
        "demonstrations or the method lora",
        lambda scene: scene.shows or scene.trains,
    ),
    (
        ("overlong",),
        "a few-shot method and -k of 1 or more",
        lambda scene: scene.shows or scene.overlong in (None, "error"),
    ),
    (
        ("calibrate",),
        "a method that scores choices, which is none of chain of thought",
        lambda scene: not all(method.endswith("-cot") for method in scene.methods),
    ),
    (("strategy",), "--budget", lambda scene: scene.budget is not None),
    (("model",), "no --models beside it: name all models there", lambda scene: not scene.models),
)


def check_effects(given: Iterable[str], scene: Scene) -> None:
    """Raise PromptkitError for the first of the settings that were given which changes nothing in this scene."""
    names = set(given)
    for settings, needed, is_there in _NEEDS:
        for name in settings:
            if name in names and not is_there(scene):
                option = _OPTIONS.get(name, name.replace("_", "-"))
                raise PromptkitError(f"--{option} changes nothing here: it needs {needed}; leave it out")


def check_seeds_of_runs(methods: Collection[str], seed: int, seeds: int) -> None:
    """Raise PromptkitError where the seed of a later LoRA run would be beyond those that a training takes."""
    if "lora" in methods and seed + seeds > _SEEDS:
        raise PromptkitError(
            f"seed is {seed} and seeds is {seeds}: the last LoRA run would have the seed {seed + seeds - 1}, and "
            f"{_SEEDS - 1} is the largest; take a smaller seed"
        )
