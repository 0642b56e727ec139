"""List the frames of word problems: how a story starts, what changes its number, what is asked.

Alternatives stand between bars. {who} and {friend} are people; {n} is the operand of a change, {a} and {b} the
numbers of a start; the other words are drawn from `words`.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from promptkit.data.generate.generator import alternatives

PEOPLE = """Anna | Ben | Carla | David | Emma | Farid | Grace | Hugo | Ines | Jonas | Kira | Liam | Mina
| Noah | Olga | Paul | Rosa | Sam
 | Tara | Umar | Vera | Will | Yusuf | Zoe | Aisha | Boris | Chloe | Dara | Elif | Finn | Gita | Hana
 | Ivan | Julia | Kofi | Lena
 | Marco | Nadia | Omar | Priya | Ravi | Sofia | Tom | Uma | Victor | Wanda | Xenia | Yara"""
THINGS = """apples | stickers | marbles | books | coins | shells | cards | buttons | pens | balloons
| stamps | candles | cookies | beads
 | oranges | pencils | toy cars | badges | postcards | flowers | crayons | ribbons | magnets | puzzles
 | eggs | plums | nuts | keys
 | tickets | bottles | lemons | photos"""
BOXES = "boxes | bags | baskets | trays | packs | crates | jars | drawers | rows | piles | shelves | baskets"
PLACES = """at the market | at school | in the park | at the fair | in the attic | at the beach | at a shop
| in the garden | on the way home"""


@dataclass(frozen=True, slots=True)
class Story:
    """One kind of story; every field but `words` holds alternatives between bars.

    `start` gives the first number {a}, `product` gives it as {a} times {b}; `more` and `less` change it by {n};
    `ask` asks for it; `share` and `compare` change it a last time and ask in one breath (`share` divides it by {n},
    `compare_more` and `compare_less` ask for somebody else's number).
    """

    start: str
    product: str
    more: str
    less: str
    ask: str
    share: str = ""
    compare_more: str = ""
    compare_less: str = ""
    words: Mapping[str, str] | None = None

    def draw_words(self, rng: random.Random) -> dict[str, str]:
        """Names and things for one story; {who} and {friend} differ."""
        who, friend = rng.sample(alternatives(PEOPLE), 2)
        drawn = {word: rng.choice(alternatives(choices)) for word, choices in (self.words or {}).items()}
        return {"who": who, "friend": friend, **drawn}


OWNING = Story(
    start="""{who} has {a} {things} | {who} owns {a} {things} | there are {a} {things} in the bag of {who}
    | {who} starts the day with {a} {things} | {who} brings {a} {things} to class
    | {who} counts {a} {things}""",
    product="""{who} has {a} {boxes} with {b} {things} in each
    | {who} fills {a} {boxes} with {b} {things} each
    | {who} buys {a} {boxes} of {b} {things} each
    | there are {b} {things} in each of the {a} {boxes} that {who} owns""",
    more="""{who} buys {n} more {things} | {friend} gives {who} {n} {things}
    | {who} finds {n} {things} {place} | {who} gets {n} more {things}
    | {who} wins {n} {things} {place} | then {n} more {things} come in the post
    | {who} collects another {n} {things}
    | for a birthday {who} is given {n} {things} | {who} picks up {n} {things} {place}""",
    less="""{who} gives {n} {things} to {friend} | {who} loses {n} {things} {place}
    | {who} sells {n} {things} {place} | {friend} takes {n} of them
    | {n} of the {things} break | {who} leaves {n} {things} {place} | {who} swaps {n} {things} for a cake
    | {who} throws {n} of the {things} away | {who} uses {n} of them for a present""",
    ask="""how many {things} does {who} have now | how many {things} are left with {who}
    | how many {things} does {who} have in the end
    | what is the number of {things} at the end""",
    share="""{who} shares all {things} equally among {n} friends. How many {things} does each friend get
    | {who} puts all {things} into {n} {boxes}, the same number in each. How many {things} are in each
    | {who} and others, {n} people in all, split the {things} fairly. How many {things} does each get""",
    compare_more="""{friend} has {n} {things} more than {who}. How many {things} does {friend} have
    | {friend} owns {n} more than that. How many {things} does {friend} own""",
    compare_less="""{friend} has {n} {things} fewer than {who}. How many {things} does {friend} have
    | {friend} owns {n} less than that. How many {things} does {friend} own""",
    words={"things": THINGS, "boxes": BOXES, "place": PLACES},
)
RIDING = Story(
    start="""a {bus} leaves with {a} people on board | there are {a} passengers on the {bus}
    | {a} people sit in the {bus} that {who} drives
    | {who} drives a {bus} with {a} people""",
    product="""a {bus} has {a} rows with {b} people in each
    | {a} groups of {b} people each get on a {bus}
    | {who} counts {a} full rows of {b} people on the {bus}""",
    more="""{n} more people get on {stop} | {stop} {n} people board | {stop} {n} passengers join
    | a school class of {n} gets on {stop}""",
    less="""{n} people get off {stop} | {stop} {n} people leave the {bus}
    | {stop} {n} passengers step out | {n} of them get out {stop}""",
    ask="""how many people are on the {bus} now | how many passengers are left | how many people ride on
    | how many are on board then""",
    share="""then all of them change to {n} vans, the same number in each. How many people ride in each van
    | the people form {n} equal groups. How many are in a group""",
    compare_more="""the next {bus} carries {n} people more. How many people does it carry
    | {friend} drives a {bus} with {n} more people. How many is that""",
    compare_less="""the next {bus} carries {n} people fewer. How many people does it carry
    | {friend} drives a {bus} with {n} people less. How many is that""",
    words={
        "bus": "bus | train | tram | ferry | boat | coach",
        "stop": """at the first stop | at the station | at the bridge | at the museum | at the next stop
        | in town | at the hospital | by the lake""",
    },
)
SPENDING = Story(
    start="""{who} has {a} {euros} | {who} saved {a} {euros}
    | there are {a} {euros} in the purse of {who} | {who} got {a} {euros} from {friend}""",
    product="""{who} works {a} hours for {b} {euros} an hour | {who} sells {a} {goods} at {b} {euros} each
    | {who} saves {b} {euros} a week for {a} weeks
    | {a} neighbours pay {who} {b} {euros} each""",
    more="""{who} earns {n} {euros} {job} | {friend} pays back {n} {euros}
    | {who} finds {n} {euros} in a coat | an aunt adds {n} {euros}
    | {who} gets {n} {euros} {job} | a prize brings {n} {euros}""",
    less="""{who} spends {n} {euros} on {treat} | {who} pays {n} {euros} for {treat}
    | {treat} costs {who} {n} {euros} | {who} lends {friend} {n} {euros}
    | {who} gives {n} {euros} away | a fine of {n} {euros} has to be paid""",
    ask="""how many {euros} does {who} have now | how much money is left, in {euros}
    | how many {euros} remain | what is left in {euros}""",
    share="""{who} splits the money evenly with others, {n} people in all. How many {euros} does each get
    | the money has to last for {n} days, the same each day. How many {euros} a day is that""",
    compare_more="""{friend} has {n} {euros} more. How many {euros} does {friend} have
    | a bicycle costs {n} {euros} more than that. How many {euros} does it cost""",
    compare_less="""{friend} has {n} {euros} less. How many {euros} does {friend} have
    | a lamp costs {n} {euros} less than that. How many {euros} does it cost""",
    words={
        "euros": "euros | dollars | pounds | crowns",
        "goods": "cakes | drawings | kites | pots | scarves | mugs",
        "job": """for mowing a lawn | for washing cars | for walking dogs | for babysitting
        | for painting a fence""",
        "treat": "a book | a ticket | lunch | a game | a gift | new socks | a haircut | a plant | paint",
    },
)
MEASURING = Story(
    start="""{who} reads {a} {pages} on Monday | by noon {who} has done {a} {pages}
    | {who} begins with {a} {pages} | {friend} helped {who} with the first {a} {pages}""",
    product="""{who} does {b} {pages} a day for {a} days
    | for {a} weeks {who} manages {b} {pages} a week
    | on each of {a} mornings {who} gets through {b} {pages}""",
    more="""on {day} {who} adds {n} {pages} | {day} brings {n} more {pages}
    | {who} does {n} more {pages} on {day} | with {friend} there come {n} {pages} on top""",
    less="""{n} {pages} do not count | {n} {pages} have to be taken off again
    | on {day} {n} {pages} turn out to be wrong and go | {friend} strikes out {n} {pages}""",
    ask="""how many {pages} is that in all | how many {pages} has {who} done
    | how many {pages} count in the end | what is the total of {pages}""",
    share="""the {pages} are spread evenly over {n} folders. How many {pages} is that per folder
    | {n} helpers check them, the same number each. How many {pages} does each helper check""",
    compare_more="""{friend} has done {n} {pages} more. How many {pages} is that
    | the plan asks for {n} more. How many {pages} does the plan ask for""",
    compare_less="""{friend} has done {n} {pages} fewer. How many {pages} is that
    | the plan asks for {n} less. How many {pages} does the plan ask for""",
    words={
        "pages": "pages | exercises | questions | letters | sketches | forms | verses | lines",
        "day": "Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday",
    },
)
KEEPING = Story(
    start="""a {farm} has {a} {animals} | {who} keeps {a} {animals} | {a} {animals} live on the {farm}
    | there are {a} {animals} on the {farm} of {who}""",
    product="""a {farm} has {a} pens with {b} {animals} in each
    | {who} looks after {a} groups of {b} {animals}
    | {b} {animals} live in each of the {a} pens of a {farm}""",
    more="""{n} {animals} are born in {month} | {who} buys {n} {animals}
    | {n} more {animals} arrive in {month} | {friend} brings {n} {animals}""",
    less="""{who} sells {n} {animals} | {n} {animals} run away in {month}
    | {friend} takes {n} of the {animals} | {n} {animals} move to another {farm}""",
    ask="""how many {animals} are there now | how many {animals} does that leave | how many {animals} stay
    | how many {animals} does that make""",
    share="""they are put into {n} equal groups. How many {animals} are in each group
    | {n} stables hold the same number each. How many {animals} are in a stable""",
    compare_more="""the {farm} next door has {n} more. How many {animals} does it have
    | {friend} keeps {n} {animals} more than that. How many {animals} is that""",
    compare_less="""the {farm} next door has {n} fewer. How many {animals} does it have
    | {friend} keeps {n} {animals} fewer. How many {animals} is that""",
    words={
        "farm": "farm | zoo | shelter | park",
        "animals": """sheep | goats | hens | ducks | horses | rabbits | geese | cows | ponies | cats | dogs
        | parrots""",
        "month": "March | April | May | June | July | autumn | winter | spring",
    },
)
STORIES = (OWNING, OWNING, RIDING, SPENDING, MEASURING, KEEPING)
