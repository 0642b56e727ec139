"""List the frames and words of the small families, by family and label; alternatives stand between bars."""

SHARED = {
    "name": """Anna | Ben | Carla | David | Emma | Farid | Grace | Hugo | Ines | Jonas | Kira | Liam
    | Mina | Noah | Olga | Paul | Rosa | Sam | Tara | Umar""",
    "surname": """Berg | Cole | Diaz | Evans | Frost | Gupta | Hale | Ito | Jensen | Khan | Lopez | Moore
    | Novak | Okafor | Park | Reed | Silva | Tran""",
    "day": "Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday",
    "number": "2 | 3 | 4 | 5 | 7 | 8 | 12 | 15 | 20 | 24 | 30 | 36 | 48 | 50 | 60 | 75 | 90",
    "object": """report | printer | contract | bicycle | invoice | garden | kitchen | laptop | parcel
    | schedule | meeting | budget | car | window | roof | engine | poster | survey | letter | camera
    | heater | door | lamp | bag | ticket | desk""",
    "placename": """the office | the station | the harbour | the library | the school | the garage
    | the clinic | the market | the workshop | the airport | the town hall | the hotel | the lab
    | the warehouse""",
    "time": "noon | one | two | three | four | five | six | seven | eight | nine | ten",
    "friendword": """my brother | my aunt | our neighbour | a colleague | my teacher | the coach | my boss
    | the new tenant | our guide | the plumber | my cousin | a customer | the mayor""",
}

WORD_GROUPS = {
    "animals": """dog | cat | horse | cow | lion | wolf | goat | sheep | duck | mouse | bear | fox
    | rabbit | frog | snake | eagle | shark | monkey | pig | hen | owl | whale | deer | camel | tiger""",
    "fruit": """apple | pear | plum | cherry | grape | lemon | orange | peach | banana | melon | fig
    | mango | berry | lime | apricot | kiwi | date | papaya | quince | currant | coconut | guava""",
    "tools": """hammer | saw | drill | wrench | pliers | chisel | file | screwdriver | ladder | shovel
    | rake | axe | spade | clamp | level | knife | vice | plane | pick | crowbar | hoe""",
    "clothes": """shirt | coat | hat | sock | shoe | glove | scarf | dress | skirt | belt | jacket | tie
    | boot | jeans | sweater | vest | cap | blouse | trousers | apron | gown""",
    "colours": """red | blue | green | yellow | black | white | brown | pink | purple | grey | silver
    | golden | violet | beige | scarlet | turquoise | crimson | navy | ivory | teal""",
    "furniture": """table | chair | sofa | bed | shelf | desk | lamp | stool | bench | drawer | mirror
    | cupboard | couch | wardrobe | carpet | cabinet | armchair | bookcase | cradle | curtain""",
    "weather": """rain | snow | wind | storm | sun | fog | hail | frost | cloud | thunder | ice | mist
    | breeze | heat | drizzle | lightning | sleet | rainbow | flood | drought""",
    "family": """mother | father | sister | brother | aunt | uncle | cousin | son | daughter | grandmother
    | nephew | niece | parent | wife | husband | twin | grandson | widow | bride | baby""",
    "jobs": """doctor | teacher | baker | nurse | lawyer | farmer | cook | pilot | judge | painter
    | driver | tailor | singer | actor | miner | waiter | clerk | sailor | butcher | plumber""",
    "vehicles": """car | bus | train | bike | truck | ship | plane | tram | boat | van | taxi | ferry
    | tractor | scooter | sled | canoe | rocket | wagon | helicopter | motorcycle""",
    "body": """hand | foot | head | arm | leg | knee | ear | nose | eye | mouth | finger | toe | neck
    | back | chest | heart | elbow | shoulder | tongue | chin""",
    "music": """piano | violin | drum | flute | guitar | harp | trumpet | organ | cello | song | choir
    | opera | chord | melody | rhythm | tune | banjo | clarinet | horn | concert""",
}

MOOD = """{friendword} {feels} about the {object} | {name} {did} when the {object} came
| {name} {feels} at {placename}
| {friendword} {did} on {day} | what {noun} at {placename}, {name} {did}"""
TOPIC = """{name} {did} the {word} {when} | {friendword} talked about the {word} and the {word}
| the {word} at {placename} {was}
| after the {word}, {name} {did} the {word} | {word}, {word} and {word}: {friendword} knows it all"""

FRAMES: dict[str, dict[str, dict[str, str]]] = {
    "spam": {
        "spam": {
            "frames": """{hurry}! {win} {prize} {today} | congratulations {name}, you {won} {prize}
            | {click} to {claim} your {prize} | earn {money} from home, no {skill} needed
            | {name}, your {prize} is waiting, {click} | lose {number} kilos in {number} days with {cure}
            | {hurry}, only {number} {prize} offers left | get {cure} without a prescription, {click}
            | your account will be closed, {click} and enter your password
            | a prince needs your help to move {money} | {cure} at {number} percent off, {today}""",
            "hurry": "act now | hurry | last chance | do not wait | limited offer | final notice",
            "win": "win | grab | get | secure | receive",
            "won": "have won | were chosen for | are the lucky winner of | get",
            "prize": """a free phone | a cash prize | a holiday in the sun
            | a gift card worth {number} dollars | a new car | a free trial | a luxury watch
            | a bonus of {number} dollars""",
            "today": "today only | this week only | absolutely free | with one click | before midnight",
            "click": """click here | click the link below | reply yes | call this number
            | open the attached file | send your bank details""",
            "claim": "claim | confirm | unlock | collect",
            "money": "{number} thousand dollars a week | easy money | {number} million dollars | quick cash",
            "skill": "experience | training | risk | effort | boss",
            "cure": "miracle pills | our secret tea | cheap tablets | the doctor's trick | a magic belt",
        },
        "ordinary": {
            "frames": """hi {name}, {plan} on {day} at {time} | {name} asked whether the {object} is ready
            | the {object} is at {placename}, you can get it at {time} | thanks for the {object}, {name}
            | {friendword} sends greetings | can you bring the {object} on {day}
            | notes from {placename} are attached, see page {number} | {plan} moved to {day}, same room
            | {friendword} called about the {object} | I left the {object} with {name} at {placename}
            | reminder: {plan} is on {day} | sorry, I missed your call at {placename}""",
            "plan": """lunch | our walk | the meeting | choir practice | the parents' evening | dinner
            | the review of the {object}""",
        },
    },
    "urgency": {
        "urgent": {
            "frames": """{alarm} at {placename}, {come} | the {object} {fails} and {people} {wait}
            | {come}, {friendword} {hurt} | we need the {object} {now}
            | {fluid} is pouring into {placename}, {come}
            | {friendword} {hurt} at {placename} | {now} please, the {object} {fails}
            | {people} are trapped in {placename}
            | the deadline for the {object} is in {number} minutes""",
            "alarm": "fire | smoke | a gas leak | an accident | a power cut | a break-in | an explosion",
            "come": """send help | come at once | call the emergency line | drop everything
            | we cannot hold it any longer""",
            "fails": """is on fire | has stopped working | is leaking | is sparking | has collapsed
            | is about to break""",
            "people": "patients | children | passengers | all customers | guests",
            "wait": "are in danger | cannot get out | are stuck | have no air | are panicking",
            "hurt": """is bleeding | cannot breathe | has fallen from a ladder | does not wake up
            | is having a heart attack""",
            "now": "right now | immediately | within minutes | this very second | at once",
            "fluid": "water | oil | acid | sewage",
        },
        "routine": {
            "frames": """{whenever}, please {check} the {object}
            | the {object} at {placename} gets its yearly check on {day} | no rush with the {object}
            | {friendword} would like a new {object} {someday}
            | {check} the {object} {someday} | our newsletter about {placename} comes out on {day}
            | the {object} list for {placename} is updated every {day}
            | {whenever}, tell {name} what you think of the {object}
            | {name} is planning the {object} for next year""",
            "whenever": """when you have time | at your convenience | some time next month
            | if you happen to be at {placename}""",
            "check": "clean | check | look over | label | sort | tidy | count",
            "someday": "one day | next year | in the coming months | when prices fall | sooner or later",
        },
    },
    "formality": {
        "formal": {
            "frames": """dear {title} {surname}, {request} the {object} | {request} your reply by {day}
            | I am writing with regard to the {object} at {placename}
            | {title} {surname} is requested to attend at {placename} on {day}
            | please find enclosed the {object} | we regret to inform you that the {object} {delayed}
            | yours sincerely, {title} {surname} | it is our pleasure to invite you to {placename}""",
            "title": "Mr | Mrs | Dr | Professor | Madam | Judge",
            "request": """we kindly request | I would be grateful for | may we ask for
            | we hereby acknowledge | please allow me to confirm""",
            "delayed": """will be delayed | cannot be provided | has been postponed | remains unavailable
            | is subject to approval""",
        },
        "casual": {
            "frames": """{hey} {name}, {gonna} the {object} | {lol}, the {object} is {meh}
            | {gonna} {placename} {later} | {hey}, u at {placename} | {name} is {meh}, {lol}
            | no worries about the {object}, {later} | {hey} bro, where's my {object}
            | ugh, {placename} again, {lol} | thx for the {object}, ur {meh}""",
            "hey": "hey | yo | hiya | sup | oi",
            "gonna": "gonna check out | wanna grab | gotta fix | lemme borrow | can't stand",
            "lol": "lol | haha | omg | just kidding | whatever | no way",
            "meh": "kinda meh | super cool | a total mess | nuts | awesome sauce | so last year",
            "later": "later | in a sec | tonight maybe | cya | whenever",
        },
    },
    "tense": {
        "past": {
            "frames": """{when}, {friendword} {did} the {object}
            | {name} {did} the {object} at {placename} {when} | {friendword} {did} it {when}
            | {name} and {name} {did} the {object} | the {object} {was} at {placename} {when}""",
            "when": "yesterday | last {day} | a year ago | {number} days ago | in my youth | last night",
            "did": """repaired | sold | painted | lost | found | carried | broke | bought | cleaned
            | forgot | admired | stole""",
            "was": "was | stood | stayed | arrived | disappeared",
        },
        "present": {
            "frames": """{when}, {friendword} {does} the {object}
            | {name} {does} the {object} at {placename} {when} | {friendword} {does} it {when}
            | the {object} {is} at {placename} {when} | {name} {does} the {object}""",
            "when": "now | every {day} | at the moment | as a rule | these days | usually",
            "does": """repairs | sells | paints | loses | finds | carries | breaks | buys | cleans
            | forgets | admires | steals""",
            "is": "is | stands | stays | arrives | disappears",
        },
        "future": {
            "frames": """{when}, {friendword} {will} the {object}
            | {name} {will} the {object} at {placename} {when} | {friendword} {will} it {when}
            | the {object} will be at {placename} {when} | {name} and {name} {will} the {object}""",
            "when": "tomorrow | next {day} | in {number} days | soon | one day | next year",
            "will": """will repair | will sell | is going to paint | will lose | will find
            | is going to carry | will break | is about to buy | will clean | will forget | will admire""",
        },
    },
    "mood": {
        "joy": {
            "frames": MOOD,
            "feels": "is delighted | is over the moon | is thrilled | is full of joy | beams",
            "did": "danced | laughed out loud | cheered | hugged everyone | sang",
            "noun": "happiness | bliss | a celebration | a wonderful day",
        },
        "anger": {
            "frames": MOOD,
            "feels": "is furious | is fed up | is boiling | is outraged | seethes",
            "did": "slammed the door | shouted | cursed | stamped | yelled at everyone",
            "noun": "rage | a quarrel | fury | an insult",
        },
        "fear": {
            "frames": MOOD,
            "feels": "is terrified | is scared | is trembling | is worried sick | panics",
            "did": "hid | froze | screamed for help | ran away | turned pale",
            "noun": "horror | a nightmare | panic | dread",
        },
        "sadness": {
            "frames": MOOD,
            "feels": "is heartbroken | is in tears | is gloomy | is grieving | mourns",
            "did": "wept | cried all night | sighed | sobbed | stayed in bed",
            "noun": "grief | sorrow | a funeral | loneliness",
        },
    },
    "vocabulary": {
        "sport": {
            "frames": TOPIC,
            "word": """match | goal | referee | tournament | league | striker | racket | marathon
            | stadium | penalty
            | champion | sprint | team jersey | medal""",
            "did": "won | missed | trained for | followed",
            "when": "on {day} | at {time} | this season",
            "was": "ended in a draw | went into overtime | drew a big crowd",
        },
        "cooking": {
            "frames": TOPIC,
            "word": """dough | sauce | oven | frying pan | garlic | recipe | flour | stock | spoon
            | butter | spice | stew
            | marinade | onion""",
            "did": "stirred | tasted | prepared | burnt",
            "when": "on {day} | at {time} | for guests",
            "was": "simmered for hours | smelled of herbs | needed salt",
        },
        "travel": {
            "frames": TOPIC,
            "word": """passport | luggage | flight | hostel | border | itinerary | cruise | suitcase
            | visa | beach resort
            | souvenir | guidebook | check-in | sightseeing tour""",
            "did": "booked | packed for | missed | planned",
            "when": "on {day} | at {time} | this summer",
            "was": "was delayed | was overbooked | offered sea views",
        },
        "health": {
            "frames": TOPIC,
            "word": """vaccine | fever | surgery | headache | bandage | blood pressure | diet | allergy
            | prescription
            | X-ray | diagnosis | therapy | cough | pulse""",
            "did": "asked about | was treated after | described | recovered from",
            "when": "on {day} | at {time} | for weeks",
            "was": "needed a specialist | helped the patient | showed no infection",
        },
        "money": {
            "frames": TOPIC,
            "word": """loan | interest rate | mortgage | tax return | shares | salary | savings | dividend
            | insurance
            | pension | stock market | bank account | deposit | inflation""",
            "did": "worried about | calculated | signed | paid",
            "when": "on {day} | at {time} | this quarter",
            "was": "rose by {number} percent | fell sharply | earned interest",
        },
    },
    "intent": {
        "question": {
            "frames": """{ask} the {object} {where} | {ask} {name} {where}
            | how many {object}s are {where} | {ask} my {object}, {name}""",
            "ask": """where is | who has seen | what happened to | when did you get | why is nobody using
            | do you know""",
            "where": "at {placename}? | on {day}? | by {time}? | right now?",
        },
        "request": {
            "frames": """{please} {act} the {object} {when} | {name}, {act} the {object} {when}
            | {please} {act} it at {placename} | I need you to {act} the {object}""",
            "please": "please | be so kind and | could you maybe | do me a favour and",
            "act": "bring | repair | return | move | order | wrap | fetch | clean",
            "when": "by {day} | before {time} | for {name}",
        },
        "complaint": {
            "frames": """the {object} {bad} and {friendword} {ignores}
            | I am tired of the {object} at {placename} | for the {number}th time, the {object} {bad}
            | nobody at {placename} cares that the {object} {bad}""",
            "bad": "is broken again | arrived damaged | never works | is filthy | was charged twice",
            "ignores": "does nothing | ignores me | blames me | hangs up",
        },
        "thanks": {
            "frames": """{thank} the {object}, {name} | {thank} everything at {placename}
            | {friendword} {was} about the {object}, {thank} it | {name}, {thank} your help on {day}""",
            "thank": "thank you for | many thanks for | I am grateful for | we really appreciate",
            "was": "was so kind | was a great help | went out of the way",
        },
    },
    "comparison": {
        "words": {
            "frames": """{name} has <first> {things}, {name} has <second>
            | {friendword} counted <first> {things} and <second> {things} later
            | on {day} there were <first> {things}, on {day} <second>
            | {placename} has <first> {things}, {placename} has <second>
            | <first> {things} against <second> {things} at {placename}
            | {name} walked <first> miles, {name} only walked <second>""",
            "things": """coins | chairs | trees | visitors | boxes | letters | birds | points | books
            | bottles | tickets | lamps""",
        },
    },
}
