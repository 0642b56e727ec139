"""Generate a word problem of one to three steps of arithmetic, its steps and its answer.

A story starts with a number, changes it up to three times and asks for the outcome. All numbers stay between 0 and
99. The rationale states each step as "12 + 7 = 19."; its last number is the answer.
"""

import random
from dataclasses import dataclass

from promptkit.data.generate.generator import Generator, Row, chance, pick, sentence
from promptkit.data.generate.stories import STORIES, Story

LIMIT = 99
STEPS = {1: 0.15, 2: 0.45, 3: 0.4}
"""How many problems have how many steps."""

SIGNS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


@dataclass(frozen=True, slots=True)
class StoryStep:
    """One operation on the number of the story."""

    left: int
    sign: str
    right: int

    @property
    def result(self) -> int:
        """What comes out, a whole number: 12 + 7 is 19."""
        return SIGNS[self.sign](self.left, self.right)

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right} = {self.result}."


def write_problem(rng: random.Random, label: str = "") -> Row:
    """One word problem: question, answer (digits as text), rationale. The answer is free, so `label` is unused."""
    story = rng.choice(STORIES)
    words = story.draw_words(rng)
    length = rng.choices(list(STEPS), weights=list(STEPS.values()))[0]
    clause, number, steps = _start(rng, story)
    told = [sentence(clause.format_map(words | number))]
    while len(steps) < length - 1:
        clause, step = _change(rng, story, _outcome(steps, number))
        told.append(sentence(clause.format_map(words | {"n": step.right})))
        steps.append(step)
    told.append(_finish(rng, story, words, _outcome(steps, number), steps, length))
    return {
        "question": " ".join(told),
        "answer": str(steps[-1].result),
        "rationale": " ".join(str(step) for step in steps),
    }


def _start(rng: random.Random, story: Story) -> tuple[str, dict[str, int], list[StoryStep]]:
    if chance(rng, 0.35):
        a, b = rng.randint(2, 9), rng.randint(2, 11)
        return pick(rng, story.product), {"a": a, "b": b}, [StoryStep(a, "*", b)]
    return pick(rng, story.start), {"a": rng.randint(5, 79)}, []


def _outcome(steps: list[StoryStep], number: dict[str, int]) -> int:
    return steps[-1].result if steps else number["a"]


def _change(rng: random.Random, story: Story, running: int) -> tuple[str, StoryStep]:
    step = _add_or_take(rng, running)
    return pick(rng, story.more if step.sign == "+" else story.less), step


def _finish(
    rng: random.Random, story: Story, words: dict[str, str], running: int, steps: list[StoryStep], length: int
) -> str:
    """The end of the story with its question; adds the missing last step to `steps`."""
    if len(steps) == length:
        return sentence(pick(rng, story.ask).format_map(words), "?")
    step = _share(rng, running) if chance(rng, 0.2) else None
    if step is not None:
        ending = story.share
    elif chance(rng, 0.25):
        step = _add_or_take(rng, running)
        ending = story.compare_more if step.sign == "+" else story.compare_less
    else:
        clause, step = _change(rng, story, running)
        told = sentence(clause.format_map(words | {"n": step.right}))
        steps.append(step)
        return f"{told} {sentence(pick(rng, story.ask).format_map(words), '?')}"
    steps.append(step)
    return sentence(pick(rng, ending).format_map(words | {"n": step.right}), "?")


def _add_or_take(rng: random.Random, running: int) -> StoryStep:
    room = min(LIMIT - running, 40)
    if room >= 2 and (running < 3 or chance(rng, 0.5)):
        return StoryStep(running, "+", rng.randint(2, room))
    return StoryStep(running, "-", rng.randint(min(2, running), min(running, 60)))


def _share(rng: random.Random, running: int) -> StoryStep | None:
    """A division without remainder by 2 to 9, or None where there is none."""
    divisors = [divisor for divisor in range(2, 10) if running and running % divisor == 0]
    return StoryStep(running, "/", rng.choice(divisors)) if divisors else None


WORD_PROBLEMS = Generator(write_problem, (), key="question")
