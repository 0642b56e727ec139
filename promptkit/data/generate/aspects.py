"""List the vocabulary of restaurant reviews: aspects, praise and complaints for each, closing words.

Alternatives stand between bars. A subject after "*" is a plural.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aspect:
    """What can be said about one side of a visit.

    `subjects` are things that can be good or bad in the words of `good` and `bad` ("the soup was lukewarm");
    `praise` and `blame` are whole clauses; `name` is what the aspect is called when it decides.
    """

    name: str
    subjects: str
    good: str
    bad: str
    praise: str
    blame: str


FOOD = Aspect(
    "food",
    """the food | the soup | my burger | the lamb | the risotto | the pizza | the curry | my steak
    | the salmon | the bread
    | the pie | the stew | the duck | the paella | my omelette | the goulash | the salad | the tart
    | the fish | the roast
    | *the noodles | *the dumplings | *the tacos | *the ribs | *the pancakes | *the vegetables | *the mussels
    | *the starters | *the desserts | *the chips | *the oysters | *the pastries""",
    """fresh | tender | delicious | full of flavour | perfectly seasoned | juicy | a delight | wonderful
    | tasty | crisp
    | excellent | well balanced | generous | cooked to the minute | rich and warming | superb | spot on
    | home-made
    | light | beautifully presented""",
    """stale | soggy | bland | overcooked | lukewarm | greasy | undercooked | oversalted | rubbery | burnt
    | tasteless
    | dry | tough | cold in the middle | watery | a mess | awful | straight from the freezer | chewy
    | sour""",
    """every plate went back empty | I would have licked the plate | we fought over the last bite
    | the chef knows how to season | I still dream of the dessert | even my picky son asked for seconds
    | the kitchen does simple things right | each course topped the one before""",
    """half of it stayed on the plate | I found a hair in my soup | it tasted of nothing
    | the chef must have been asleep
    | my stomach complained all night | we left hungry | the kitchen drowned everything in oil
    | I sent my plate back twice""",
)
SERVICE = Aspect(
    "service",
    """the service | the waiter | the waitress | the owner | the host | our server | the barman
    | the manager | the welcome
    | *the staff | *the waiters | *the people behind the counter | *both waitresses
    | *the girls at the bar""",
    """friendly | attentive | charming | warm | helpful | patient | kind | polite | professional
    | cheerful | lovely
    | thoughtful | on the ball | wonderful with our children | quick to smile | courteous | discreet""",
    """rude | curt | careless | distracted | arrogant | grumpy | impatient | clueless | unfriendly
    | sloppy | cold
    | pushy | absent | bored | condescending | overwhelmed | indifferent""",
    """they remembered our names | someone ran after us with my forgotten scarf
    | they found a high chair in no time
    | our glasses were never empty | they swapped the dish without a question
    | we were greeted like old friends
    | they explained every dish""",
    """nobody looked at us | they forgot our drinks | they argued with us about the bill
    | we had to beg for cutlery
    | they rolled their eyes at my question | the wrong dishes came twice | someone spilled wine on my coat
    | they chatted among themselves""",
)
PRICE = Aspect(
    "price",
    """the price | the bill | the lunch menu | the wine list | the set menu | *the prices | *the drinks
    | *the portions for the money""",
    """fair | reasonable | a bargain | more than fair | a pleasant surprise | good value
    | easy on the wallet | modest
    | honest | worth every penny""",
    """steep | outrageous | inflated | a rip-off | hard to justify | shameless | far too high | poor value
    | a shock
    | out of all proportion""",
    """you get a lot for your money | four of us ate for thirty euros | coffee is on the house
    | I expected to pay double
    | the wine costs what it should""",
    """they charge extra for tap water | twelve euros for a slice of cake | I paid double for half
    | a second bill came with hidden fees
    | my wallet still hurts""",
)
PLACE = Aspect(
    "place",
    """the room | the terrace | the dining room | the garden | the decor | our table | the atmosphere
    | the music | the view
    | the bar | *the toilets | *the seats | *the tables | *the lights""",
    """cosy | charming | spotless | comfortable | pleasant | bright | relaxed | inviting | lovely | tasteful
    | romantic | well kept | calm | beautiful | a joy""",
    """dirty | gloomy | cramped | shabby | unbearable | sticky | freezing | ugly | depressing
    | uncomfortable | deafening
    | neglected | draughty | smelly | a disgrace""",
    """you can hear each other talk | candles on every table | we sat under old chestnut trees
    | it feels like a friend's kitchen
    | the sunset alone pays for the trip""",
    """we had to shout across the table | a door banged all evening | the carpet stank of smoke
    | flies were everywhere
    | we sat next to the bins""",
)
WAITING = Aspect(
    "waiting",
    """the kitchen | the queue | the wait | getting a table | ordering | the bar service | paying""",
    """quick | fast | over in a minute | no trouble | smooth | prompt | swift | short | painless""",
    """slow | endless | an ordeal | a pain | chaotic | far too long | a test of patience | a nightmare
    | tedious""",
    """our food came within ten minutes | we were seated at once | everything arrived together and on time
    | no sooner said than served | dessert was there before we asked""",
    """we waited an hour for a salad | our starters came after the mains | they lost our booking
    | we sat forty minutes without a menu
    | I gave up on dessert""",
)
CHOICE = Aspect(
    "menu",
    """the menu | the choice of dishes | the beer list | the breakfast buffet | the selection
    | *the vegetarian dishes | *the options for children
    | *the daily specials""",
    """varied | inventive | well chosen | impressive | full of ideas | clever | generous | original
    | interesting""",
    """tiny | boring | uninspired | meagre | confusing | limited | the same as ever | out of date | dull""",
    """there is something for everyone | you could come ten times and never repeat a dish
    | the specials change every day
    | they cook without gluten on request""",
    """half the menu was sold out | vegetarians get a side salad | nothing on it has changed in years
    | the specials were gone by seven""",
)
ASPECTS = (FOOD, SERVICE, PRICE, PLACE, WAITING, CHOICE)

GOOD = """good | great | excellent | wonderful | terrific | enjoyable | first-rate | brilliant
| delightful | a treat | impressive
 | fantastic | a pleasure | very good | perfect | lovely | satisfying | remarkable | solid | charming
 | beautiful | a joy"""
BAD = """bad | terrible | awful | poor | disappointing | a mess | dreadful | mediocre | a disaster | lousy
| weak | horrible
 | dull | tired | a bore | pathetic | boring | the worst | unpleasant | lame | hopeless | silly"""

OPENERS = """we stopped by on a Tuesday | went here for my birthday | first visit last weekend
| my sister picked the place
 | we came with six people | a late lunch on the way home | dinner before the theatre | we booked for two
 | our third time here
 | a colleague told me about it | we walked in without a booking | Sunday brunch with the family
 | a quick bite after work
 | I had read about it in the paper | we were passing through town | a farewell meal for a friend
 | it was raining
 | date night | we came straight from the station | the children were with us"""
PLACES = """the Blue Door | Luigi's | the Old Mill | Chez Anna | the Harbour Grill | Casa Verde
| the Lemon Tree | Mama Rosa
 | the Copper Pot | Number Nine | the Golden Carp | Tandoori Corner | the Station Cafe | Bistro Lou
 | the Red Barn"""

WILL_RETURN = """we will be back | I have already booked again | see you next week
| I cannot wait to return | I would go again tomorrow
 | you should try it | I have told all my friends to go | this is our new regular | put it on your list
 | count us in for next time
 | I would not hesitate to return | do not miss it | I only regret not coming sooner"""
WILL_NOT_RETURN = """never again | we will not be back | once was enough | I want my evening back
| there are better places round the corner
 | save yourself the trip | next time we cook at home | I would not go again if it were free | give it a miss
 | I cannot send anyone there | my friends have been warned | that was our last visit
 | good luck to whoever tries it next"""

DECIDES = """the {name} is what counts for me | in the end I judge by the {name} | for us the {name} decides
| and I go out for the {name}
 | to me only the {name} matters | the {name} settles it for me | what I remember is the {name}
 | nothing matters more to us than the {name}"""
DISMISSES = """I can live with that | I do not care about that | that hardly matters to me | who cares
| that is a detail
 | I have no use for that anyway | that was soon forgotten"""
