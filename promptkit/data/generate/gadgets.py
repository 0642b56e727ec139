"""Generate a short opinion on a gadget for a label: what is said of most parts decides."""

import random

from promptkit.data.generate.generator import Row, chance, pick, sentence

PARTS = {
    "screen": ("sharp | bright | vivid | clear | smooth", "dim | blurry | scratched | dull | flickering"),
    "battery": (
        "long-lasting | strong | reliable | tireless",
        "weak | drained by noon | faulty | swollen | dead after a day",
    ),
    "sound": (
        "rich | clear | full | loud enough | balanced",
        "tinny | muffled | distorted | hollow | scratchy",
    ),
    "case": ("sturdy | light | elegant | well made | solid", "flimsy | heavy | ugly | badly made | cracked"),
    "software": (
        "quick | stable | simple | up to date | clever",
        "buggy | slow | confusing | full of ads | out of date",
    ),
    "keyboard": ("comfortable | precise | quiet | a pleasure", "cramped | sticky | noisy | a pain"),
    "camera": ("superb | sharp | fast | great at night", "grainy | slow | useless at night | blurred"),
    "delivery": ("prompt | careful | early | free", "late | careless | lost for a week | expensive"),
    "manual": (
        "clear | helpful | complete | well written",
        "useless | missing | full of mistakes | unreadable",
    ),
    "support": ("kind | quick | patient | helpful", "rude | slow | clueless | never there"),
}
GADGETS = """phone | laptop | tablet | speaker | watch | printer | radio | drone | headset | projector
| e-reader | console | router
 | toaster | vacuum | heater | kettle | scale | lamp | bike computer"""
OPENERS = """Bought this {} last month. | This {} was a gift. | I use the {} every day.
| My second {} of this brand. | About the {}: | A {} for my parents.
 | Here is my view of the {}. | We tried the {} for a week. | Got the {} on sale."""
DEGREES = "very | really | so | quite | rather | truly"
MAJORITIES = ((1,), (1, 1), (1, 1, 1), (1, 1, -1), (1, 1, -1), (1, 1, 1, -1))


def write_gadget_review(rng: random.Random, label: str) -> Row:
    """One opinion of this label ("negative" or "positive"): text, label, rationale that walks through the parts."""
    signs = list(rng.choice(MAJORITIES))
    rng.shuffle(signs)
    praised = [(sign > 0) == (label == "positive") for sign in signs]
    parts = rng.sample(list(PARTS), len(praised))
    clauses = [_clause(rng, part, praise) for part, praise in zip(parts, praised, strict=True)]
    opener = f"{pick(rng, OPENERS).format(pick(rng, GADGETS))} " if chance(rng, 0.7) else ""
    walk = " ".join(
        f"The {part} is {'good' if praise else 'bad'}." for part, praise in zip(parts, praised, strict=True)
    )
    return {
        "text": opener + _join(rng, clauses, praised),
        "label": label,
        "rationale": f"{walk} {_count(praised)}",
    }


def _clause(rng: random.Random, part: str, praise: bool) -> str:
    words = pick(rng, PARTS[part][0 if praise else 1])
    return f"the {part} is {f'{pick(rng, DEGREES)} ' if ' ' not in words and chance(rng, 0.3) else ''}{words}"


def _join(rng: random.Random, clauses: list[str], praised: list[bool]) -> str:
    text = clauses[0]
    for clause, before, after in zip(clauses[1:], praised, praised[1:], strict=False):
        link = pick(rng, ", and | ; | ." if before == after else ", but | , though | .")
        text += f". {sentence(clause, '')}" if link == "." else f"{link} {clause}"
    return sentence(text)


def _count(praised: list[bool]) -> str:
    praises, blames = sum(praised), len(praised) - sum(praised)
    if not blames:
        return "There is only praise."
    if not praises:
        return "There is only blame."
    return "Praise outweighs blame." if praises > blames else "Blame outweighs praise."
