"""Writes short stories for children, made up from scratch: the demo text for whoever has no text at hand.

    python data/make_stories.py --megabytes 8 --seed 1 --out data/demo/stories.txt

Needs only the standard library. The same seed gives the same bytes on every Python from 3.10 on, because every choice
is made with random.Random(seed).random(), the one method whose results Python promises to keep.

A story is a plot: a function that takes a Story and adds paragraphs to it. The Story brings a cast (hero, friend,
parent, elder) and chooses words; scenes that many plots need (opening, day, search, treat, ending ...) are functions
too. To add a plot, write the function and name it in PLOTS at the end:

    def hiccups(s):
        h, f, pick = s.hero, s.friend, s.pick
        cure = pick("drank a cup of water upside down", f"held {h.his} breath and counted to ten")
        s.add(opening(s), f"{day(s)}, {h.name} woke up with the hiccups.",
              said(s, h, "I sound like a frog!", how="glad"))
        s.add(f"{f.name} came to help.", f"{h.name} {cure}.", pick("Hic!", "It did not work at all."))
        s.add(f"In the end {f.name} jumped out from behind the door, and the hiccups were gone.", glad(s, h))
        ending(s, "Sometimes a good friend is the best medicine.")

`add` makes a paragraph: it capitalises each sentence and leaves out empty ones. `pick` takes one of its arguments.
Words that go into a sentence come from the lists below, which say what they are good for: a Toy knows how it gets lost,
a Place what one can look behind. A name holds one character's words: h.he, h.him, h.his, h.paw.
"""

import argparse
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path

SEPARATOR = "<|endoftext|>"

# ---- words ----


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GIRLS = words("""
    Alice Beth Celia Dina Edith Fiona Gwen Holly Irma June Kate Lena Mabel Naomi Opal Paula Rachel Sally Tara
    Vera Lily Anna Mia Rosa Nora Ella Ivy Clara Zoe Hana Maya Ruby Leila Tess Nina Sara Emma Lucy Molly Greta
    Amina Poppy Ada Freya Priya Wanda Elsie Carmen Yuki Hazel Marta Bella Jenny Dora Kira Olive Sophie Fatima
    Linda Abby
    """)
BOYS = words("""
    Alan Bill Carl Dan Ethan Frank Gary Harry Ian Joe Karl Liam Martin Neil Otto Paul Robin Sean Tim Will Yusuf
    Zack Tom Ben Max Leo Sam Jack Finn Omar Hugo Noah Oscar Peter Milo Theo Adam Ravi Luca Felix Jonah Henry
    Kofi Emil Daniel Toby Ned Arthur Ali Simon Pablo Eddie Bruno Kenji George Oliver David Victor Walter Rory
    Anton Jamal
    """)
ANIMAL_GIRLS = words("""
    Pip Bramble Clover Daisy Tilly Willow Nettle Fern Penny Honey Maple Juniper Minty Dot Pepper Plum
    """)
ANIMAL_BOYS = words("""
    Bobbin Rusty Thistle Nutty Barley Acorn Chip Dusty Button Rowan Sandy Tumble Biscuit Oakley Conker Fidget
    """)
MOTHERS = ("Mum", "Mama", "Mummy", "Mother")
FATHERS = ("Dad", "Papa", "Daddy", "Father")
GRANNIES = ("Grandma", "Granny", "Nana")
GRANDPAS = ("Grandpa", "Grandad", "Grandfather")
NEIGHBOURS = ("Bell", "Reed", "Marsh", "Potter", "Wood", "Finch", "Rivers", "Stone", "Miller", "Hill", "Baker", "Frost")
WISE_GIRLS = ("Old Goose", "Grandmother Hen", "Aunt Toad", "Miss Owl", "Old Tortoise", "Miss Heron")
WISE_BOYS = ("Old Goat", "Grandfather Toad", "Uncle Heron", "Mister Crow", "Old Stork", "Captain Gander")

COLOURS = words("""
    red blue green yellow orange purple pink white brown grey golden silver striped spotted crimson turquoise
    """)
TRAITS = words("""
    cheerful curious kind busy lively gentle clever dreamy funny friendly merry thoughtful brave playful bright
    polite helpful careful sunny sensible
    """)
BIRDS = ("robin", "blackbird", "nightingale", "sparrow", "wren", "finch", "starling", "dove", "jay", "magpie")
TREES = ("oak", "birch", "willow", "beech", "apple tree", "chestnut tree", "maple", "pine", "ash tree", "cherry tree")
FLOWERS = (
    "daisies", "poppies", "buttercups", "bluebells", "violets", "clover", "roses", "marigolds", "tulips", "lavender")
INSECTS = ("bees", "butterflies", "beetles", "dragonflies", "ladybirds", "crickets", "grasshoppers", "moths")
SHAPES = words("sheep ships castles whales feathers pillows islands mountains dragons rabbits")
FRUIT = ("apples", "pears", "plums", "cherries", "strawberries", "raspberries", "blackberries", "blueberries", "grapes")
BAKED = (
    "honey cake", "apple pie", "plum tart", "gingerbread", "carrot cake", "lemon cake", "cinnamon buns", "oat biscuits",
    "nut bread", "berry muffins", "pancakes", "warm scones", "cherry pie", "butter cookies", "poppy seed cake")
SAVOURY = ("cheese sandwiches", "tomato soup", "mushroom soup", "potato pancakes", "vegetable stew", "buttered toast",
           "pumpkin soup", "bread and butter", "baked potatoes", "noodles", "leek pie", "corn fritters")
DRINKS = (
    "hot chocolate", "warm milk", "apple juice", "mint tea", "cold lemonade", "berry juice", "honey milk", "pear juice")
GAMES = (
    "hide and seek", "tag", "hopscotch", "leapfrog", "pirates", "catch", "shops", "explorers", "blind man's buff",
    "kings and queens", "knights", "circus", "doctors", "ball", "ring toss", "dragons", "detectives",
    "follow the leader", "marbles")
PETS = (
    "two old cats", "a parrot that sang", "a lame duck", "three goldfish", "a sleepy tortoise", "a fat white hen",
    "a canary", "a shy lizard", "four snails", "a cricket in a box", "a friendly spider", "a family of ants")
DREAMS = (
    "ships", "castles", "birds", "horses", "balloons", "kites", "fish", "stars", "whales", "dragons", "flowers",
    "boats", "clouds", "trains", "mountains", "butterflies")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True)
class Who:
    """A character and the words for it."""

    name: str  # "Lily", "the old man"
    noun: str  # "girl", "rabbit", "mother"
    he: str = "it"
    him: str = "it"
    his: str = "its"
    paw: str = "hand"
    ran: str = "ran"
    home: str = "house"
    look: str = ""  # an adjective for the noun: "brown"
    food: str = "biscuits"

    @property
    def himself(self) -> str:
        return {"he": "himself", "she": "herself", "it": "itself"}[self.he]

    @property
    def He(self) -> str:
        return self.he.capitalize()


SHE = ("she", "her", "her")
HE = ("he", "him", "his")


@dataclass(frozen=True)
class Species:
    noun: str
    looks: tuple[str, ...]
    ran: str
    home: str
    food: str


SPECIES = (
    Species("rabbit", ("brown", "white", "grey", "long-eared"), "hopped", "burrow", "carrots"),
    Species("fox", ("red", "young", "bushy-tailed"), "trotted", "den", "blackberries"),
    Species("bear", ("brown", "round", "furry"), "padded", "cave", "honey"),
    Species("mouse", ("tiny", "grey", "brown"), "scurried", "hole", "crumbs of cheese"),
    Species("hedgehog", ("prickly", "round", "small"), "pattered", "nest of leaves", "wild plums"),
    Species("squirrel", ("red", "nimble", "bushy-tailed"), "scampered", "tree hollow", "hazelnuts"),
    Species("badger", ("striped", "stout", "young"), "trundled", "den", "mushrooms"),
    Species("otter", ("sleek", "brown", "whiskery"), "bounded", "river den", "watercress"),
    Species("beaver", ("sturdy", "brown", "flat-tailed"), "waddled", "lodge", "sweet roots"),
    Species("raccoon", ("masked", "grey", "ring-tailed"), "scampered", "tree hollow", "ripe corn"),
    Species("dormouse", ("golden", "sleepy", "tiny"), "scurried", "nest", "hazelnuts"),
    Species("hare", ("brown", "long-legged", "swift"), "bounded", "hollow", "clover"),
    Species("marten", ("brown", "slender", "quick"), "darted", "tree hollow", "cherries"),
)


@dataclass(frozen=True)
class Toy:
    noun: str
    kinds: tuple[str, ...]  # adjectives
    play: str  # "bounce it on the path": what one does with it
    moved: str  # "it must have ___ there"


PAINTED = ("red", "blue", "green", "yellow", "painted", "wooden", "shiny", "little")
SOFT = ("soft", "woolly", "patched", "brown", "grey", "velvet", "floppy")
TOYS = (
    Toy("ball", ("red", "blue", "striped", "bouncy", "yellow", "spotted"), "bounce it on the path", "rolled"),
    Toy("marble", ("green", "blue", "glass", "golden", "striped"), "roll it along the ground", "rolled"),
    Toy("hoop", PAINTED, "roll it down the hill", "rolled"),
    Toy("teddy bear", SOFT, "take it on long walks", "fallen"),
    Toy("toy rabbit", SOFT, "whisper secrets into its ear", "fallen"),
    Toy("toy elephant", SOFT, "give it rides in a basket", "fallen"),
    Toy("rag doll", ("old", "smiling", "patched", "little"), "tuck it into a basket", "fallen"),
    Toy("toy boat", PAINTED, "sail it in puddles", "dropped out of the basket"),
    Toy("toy train", PAINTED, "pull it along on a string", "dropped out of the basket"),
    Toy("toy cart", PAINTED, "load it with pebbles", "rolled"),
    Toy("whistle", ("silver", "tin", "wooden", "shiny"), "play a tune on it", "slipped down"),
    Toy("drum", PAINTED, "beat it like a marching band", "rolled"),
    Toy("spinning top", PAINTED, "make it dance on a flat stone", "rolled"),
    Toy("balloon", ("red", "yellow", "purple", "round", "pink"), "tap it up into the air", "blown"),
    Toy("kite", ("red", "striped", "paper", "green", "long-tailed"), "fly it high in the wind", "blown"),
    Toy("paper windmill", ("blue", "silver", "spotted", "orange"), "hold it up in the breeze", "blown"),
    Toy("scarf", ("red", "woolly", "striped", "blue", "soft"), "wear it like a hero's cape", "blown"),
    Toy("hat", ("straw", "green", "floppy", "feathered"), "wear it like a captain", "blown"),
)


@dataclass(frozen=True)
class Place:
    name: str
    way: str  # how one gets there: "down the lane"
    spots: tuple[str, ...]  # where to look or to sit
    sights: tuple[str, ...]  # whole sentences


HOME_PLACES = (
    Place("the park", "across the street",
          ("under the bench", "behind the swings", "beside the pond", "under the slide", "behind the big oak",
           "in the sandpit"),
          ("A man was feeding the ducks.", "The swings creaked to and fro.",
           "Two dogs chased each other over the grass.", "Somebody was playing a guitar near the gate.")),
    Place("the beach", "down the sandy path",
          ("behind the rocks", "under the old boat", "among the shells", "beside the pier", "in the tall beach grass"),
          ("The waves rolled in and out.", "Gulls cried above the water.", "The sand was warm and soft.",
           "Far out a white sail was moving slowly.")),
    Place("the meadow", "through the gate",
          ("in the long grass", "under the hedge", "beside the brook", "behind the haystack", "near the fence"),
          ("Cows were chewing in the shade.", "The grass was full of small sounds.",
           "A foal was running around its mother.", "The brook bubbled over the stones.")),
    Place("the village green", "past the church",
          ("under the lime tree", "behind the well", "beside the horse trough", "near the notice board",
           "under the wooden steps", "behind the milk cans"),
          ("The church clock struck.", "Geese were marching over the grass.", "Washing was flapping on a line.",
           "A cat lay asleep on the wall.")),
    Place("the playground", "around the corner",
          ("under the climbing frame", "behind the seesaw", "beside the tyre swing", "near the fountain",
           "under the bushes"),
          ("The seesaw went up and down.", "Some children were skipping rope.", "A baby was digging in the sand.",
           "Chalk pictures covered the ground.")),
    Place("the market", "along the main street",
          ("under the fruit stall", "behind the baskets", "beside the fish cart", "between the sacks of flour",
           "near the flower stand"),
          ("It smelled of bread and oranges.", "A woman was selling yellow cheese.",
           "People pushed carts over the cobbles.", "A man was calling out the price of his melons.")),
    Place("the farm", "up the muddy track",
          ("behind the barn", "under the tractor", "beside the hen house", "in the hay", "near the duck pond"),
          ("Hens scratched in the yard.", "A sheepdog lay across the doorway.", "The old horse looked over its door.",
           "Pigs grunted in the mud.")),)
WOOD_PLACES = (
    Place("the clearing", "along the mossy path",
          ("under the ferns", "behind the fallen log", "among the toadstools", "beside the tree stump",
           "under the brambles"),
          ("Sunlight lay on the moss.", "A woodpecker was knocking far away.", "Tiny flies danced in the light.",
           "Pine cones dropped softly to the ground.")),
    Place("the stream", "down the bank",
          ("among the reeds", "under the little bridge", "behind the smooth stones", "beside the willow roots",
           "in the tall grass"),
          ("The water sparkled over the stones.", "A frog plopped into the shallows.",
           "Small fish hung still in the shade.", "A kingfisher flashed past.")),
    Place("the pond", "between the birches",
          ("among the rushes", "behind the lily leaves", "under the hollow log", "beside the muddy bank",
           "under a fern"),
          ("Ducks drifted across the pond.", "Water beetles drew circles on the water.",
           "A toad sat on a stone and blinked.", "Dragonflies hovered over the rushes.")),
    Place("the hilltop", "up the winding path",
          ("behind the big rock", "under the thorn bush", "in the heather", "between the roots",
           "beside the rabbit hole"),
          ("From there one could see the whole wood.", "The wind smelled of heather.", "Two hawks circled high above.",
           "The river far below looked like a ribbon.")),
    Place("the old orchard", "through a gap in the hedge",
          ("under the apple trees", "behind the broken wall", "in the nettles", "beside the rain barrel",
           "in a heap of leaves"),
          ("Wasps hummed around the fallen fruit.", "The branches hung low.", "An old ladder leaned against a trunk.",
           "It smelled of apples and wet earth.")),)

SEASONS = {
    "spring": ("mild", "fresh", "bright", "breezy", "sunny", "soft"),
    "summer": ("warm", "hot", "sunny", "golden", "bright", "clear"),
    "autumn": ("crisp", "cool", "misty", "golden", "breezy", "clear"),
}
HOBBIES_HOME = (
    "drawing horses", "building towers", "collecting stones", "singing songs", "looking at maps", "dancing", "painting",
    "climbing trees", "reading about stars", "telling jokes", "feeding the birds", "making paper hats",
    "jumping in puddles", "riding a scooter", "dressing up", "playing the piano", "watching trains")
HOBBIES_WOOD = (
    "collecting feathers", "climbing on logs", "singing songs", "chasing falling leaves", "counting stars",
    "telling jokes", "splashing in puddles", "digging holes", "making crowns of leaves", "rolling down hills",
    "listening to old tales", "looking for shiny stones", "dancing in the dew", "humming little tunes")
WHERE_HOME = (
    "by the sea", "at the edge of the village", "at the top of a hill", "near the river", "beside the railway station",
    "behind the school", "at the end of a long lane", "next to the bakery", "in the middle of the town",
    "between two fields", "near the harbour", "across from the library")
WHERE_WOOD = ("at the foot of an old oak", "beside a clear stream", "under a hazel bush", "at the edge of the wood",
              "on the sunny side of the hill", "behind a waterfall", "deep in the forest", "among the ferns",
              "not far from the mill", "where the brambles grew thick")

# Speech: verb and manner, by mood.
SPEECH = {
    "said": (("said", ""), ("said", ""), ("said", " at once"), ("said", " slowly"), ("said", " after a while"),
             ("said", " firmly"), ("said", " thoughtfully")),
    "ask": (("asked", ""), ("asked", ""), ("asked", " quietly"), ("asked", " with wide eyes"), ("asked", " softly"),
            ("asked", " in surprise"), ("asked", " curiously")),
    "warm": (("said", " gently"), ("said", " kindly"), ("said", " softly"), ("said", " with a smile"),
             ("said", " warmly"), ("said", " in a calm voice"), ("said", ""), ("said", " tenderly"), ("murmured", "")),
    "glad": (("said", " happily"), ("cried", ""), ("laughed", ""), ("said", " with a big smile"), ("cheered", ""),
             ("said", " with shining eyes"), ("said", ""), ("exclaimed", ""), ("said", " joyfully"),
             ("said", " brightly")),
    "sad": (("said", " sadly"), ("whispered", ""), ("said", " in a small voice"), ("sighed", ""), ("said", " quietly"),
            ("mumbled", ""), ("sniffed", "")),
    "cross": (("said", " crossly"), ("shouted", ""), ("snapped", ""), ("grumbled", ""), ("said", " in an angry voice"),
              ("said", " with a frown")),
    "afraid": (("whispered", ""), ("said", " in a shaky voice"), ("whispered", " with a shiver"),
               ("said", " with a gulp"), ("squeaked", "")),
    "shy": (("said", " shyly"), ("whispered", ""), ("mumbled", ""), ("said", " in a soft voice"),
            ("said", " very quietly")),
    "loud": (("called", ""), ("shouted", ""), ("cried", ""), ("yelled", ""), ("called", " loudly")),}


# ---- the story and its small words ----


class Story:
    """A cast, a season, a source of choices, and the paragraphs written so far."""

    def __init__(self, rng: random.Random):
        self.random = rng.random
        self.paragraphs: list[str] = []
        self.wood = self.random() < 0.38  # talking animals in a wood; otherwise children at home
        self.season = self.pick("spring", "summer", "autumn")
        self.taken: list[str] = []
        self.hero = self.young()
        self.friend = self.young()
        self.other = self.young()  # one more friend, brother or sister
        self.parent = self.pick(Who(self.pick(*MOTHERS), "mother", *SHE), Who(self.pick(*FATHERS), "father", *HE))
        self.elder = self.old()
        self.cast = [self.hero, self.friend, self.other, self.parent, self.elder]

    def pick(self, *options):
        return options[int(self.random() * len(options))]

    def maybe(self, *options: str) -> str:
        """Returns one of the options or, half of the time, nothing."""
        return self.pick(*options) if self.random() < 0.5 else ""

    def some(self, count: int, options) -> list:
        """Returns `count` different options."""
        rest = list(options)
        return [rest.pop(int(self.random() * len(rest))) for _ in range(count)]

    def add(self, *sentences: str):
        """Adds a paragraph. Each sentence gets its capital; empty ones are left out."""
        self.paragraphs.append(" ".join([text[0].upper() + text[1:] for text in sentences if text]))

    def join(self, who: Who) -> Who:
        """Takes one more character into the cast."""
        self.cast.append(who)
        return who

    def young(self) -> Who:
        girl = self.random() < 0.5
        if self.wood:
            names, species = ANIMAL_GIRLS if girl else ANIMAL_BOYS, self.pick(*SPECIES)
        else:
            names, species = GIRLS if girl else BOYS, None
        name = self.pick(*names)
        while name in self.taken:
            name = self.pick(*names)
        self.taken.append(name)
        pronouns = SHE if girl else HE
        if species is None:
            return Who(name, "girl" if girl else "boy", *pronouns, food=self.pick(*BAKED))
        return Who(name, species.noun, *pronouns, "paw", species.ran, species.home, self.pick(*species.looks),
                   species.food)

    def old(self) -> Who:
        woman = self.random() < 0.5
        pronouns = SHE if woman else HE
        if self.wood:
            return Who(self.pick(*(WISE_GIRLS if woman else WISE_BOYS)), "neighbour", *pronouns)
        if self.random() < 0.5:
            return Who(self.pick(*(GRANNIES if woman else GRANDPAS)), "grandparent", *pronouns)
        title = self.pick("Miss", "Aunt") if woman else self.pick("Farmer", "Uncle", "Captain")
        return Who(f"{title} {self.pick(*NEIGHBOURS)}", "neighbour", *pronouns)

    def place(self) -> Place:
        return self.pick(*(WOOD_PLACES if self.wood else HOME_PLACES))

    def text(self) -> str:
        return "\n".join(self.paragraphs)


def a(words: str) -> str:
    """Puts "a" or "an" before the words."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def said(s, who: Who, line: str, more: str = "", how: str = "said") -> str:
    """Returns what somebody says, with who says it before, after or in the middle."""
    verb, manner = s.pick(*SPEECH[how])
    if s.random() < 0.25:
        return f'{who.name} {verb}{manner}, "{line}{" " if more else ""}{more}"'
    spoken = line[:-1] + "," if line[-1] == "." else line
    tag = f"{verb} {who.name}{manner}" if s.random() < 0.55 else f"{who.name} {verb}{manner}"
    return f'"{spoken}" {tag}. "{more}"' if more else f'"{spoken}" {tag}.'


def kind_of(s, who: Who) -> str:
    """Returns "curious girl" or "brown rabbit"."""
    if who.look:
        return s.pick(f"{who.look} {who.noun}", f"young {who.noun}", f"{s.pick(*TRAITS)} little {who.noun}")
    return s.pick(f"{s.pick(*TRAITS)} {who.noun}", f"little {who.noun}", f"{s.pick(*TRAITS)} little {who.noun}")


# ---- scenes that many plots use ----


def opening(s) -> str:
    """Introduces the hero in one to three sentences."""
    h, pick = s.hero, s.pick
    kind = a(kind_of(s, h))
    if s.wood:
        den = f"{pick('a snug', 'a cosy', 'a warm', 'a small', 'a tidy', 'a dry')} {h.home} {pick(*WHERE_WOOD)}"
        hobby = pick(*HOBBIES_WOOD, f"eating {h.food}")
    else:
        house = pick("house", "cottage", "little house", "brick house", "wooden house",
                     f"house with {a(pick(*COLOURS[:12]))} door")
        den = f"a {pick('white', 'narrow', 'small', 'tall', 'crooked', 'pretty', 'quiet', 'yellow')} {house} "
        den += pick(*WHERE_HOME)
        hobby = pick(*HOBBIES_HOME)
    likes = pick(
        f"{h.he} liked {hobby} best of all.", f"nothing made {h.him} happier than {hobby}.", f"{h.he} loved {hobby}.",
        f"everybody knew that {h.he} loved {hobby}.", f"on most days {h.he} could be found {hobby}.")
    likes = likes[0].upper() + likes[1:]
    garment = pick("cap", "scarf", "ribbon", "hat", "jacket", "waistcoat", "jumper", "belt", "coat", "hood")
    wears = a(f"{pick(*COLOURS)} {garment}")
    extra = pick("", f" {h.He} {pick('always', 'often', 'usually', 'nearly always')} wore {wears}.",
                 f" {h.He} shared it with {s.parent.name} and {pick(*PETS)}.")
    worn = extra if "wore" in extra else ""
    named = pick("named", "called")
    return pick(
        f"Once upon a time there was {kind} {named} {h.name}. {likes}",
        f"Once upon a time, in {den}, there lived {kind} {named} {h.name}.{extra}",
        f"There once was {kind} {named} {h.name}, who lived in {den}.{extra} {likes}",
        f"{h.name} was {kind} who lived in {den}.{extra}",
        f"{h.name} was {kind}.{worn} {likes}",
        f"In {den} lived {kind} {named} {h.name}.{worn} {likes}",
        f"This is a story about {kind} {named} {h.name}.{worn}",
        f"{h.name} the {h.noun} lived in {den}. {likes}" if s.wood else f"{h.name} lived in {den}. {likes}",
    )


def day(s) -> str:
    """Returns when it happened: "one mild morning in spring"."""
    pick = s.pick
    sky = pick(*SEASONS[s.season])
    part = pick("morning", "morning", "afternoon", "day")
    date = pick("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return pick(f"one {sky} {part}", f"one {sky} {s.season} {part}", f"one {date}", f"on {a(sky)} {date} in {s.season}",
                f"one {part} in {s.season}", f"on {a(sky)} {part}", f"one {sky} {date}", f"early one {sky} morning")


def detail(s) -> str:
    """Returns a sentence about the world outside."""
    pick = s.pick
    bird, tree = pick(*BIRDS), pick(*TREES)
    if s.season == "autumn":
        season = pick(f"{pick('Red', 'Yellow', 'Brown', 'Dry')} leaves {pick('drifted', 'spun', 'sailed')} down from "
                      f"the {tree}.",
                      f"A {pick('thin', 'grey', 'low')} mist hung over the {pick('fields', 'grass', 'hedges')}.",
                      f"Spider webs {pick('glittered', 'shone', 'sparkled')} in the "
                      f"{pick('hedge', 'bushes', 'grass')}.")
    else:
        season = pick(f"The {pick('grass', 'bank', 'path')} was {pick('bright', 'dotted', 'edged')} with "
                      f"{pick(*FLOWERS)}.",
                      f"{pick('Some', 'A few', 'Two', 'Three')} {pick(*INSECTS)} "
                      f"{pick('played', 'rested', 'hummed softly')} " f"among the {pick(*FLOWERS)}.",
                      f"The air smelled of {pick(*FLOWERS)}.")
    return pick(f"{a(bird).capitalize()} {pick('sang', 'chirped', 'called', 'whistled')} "
                f"{pick('in', 'high up in', 'from the top of')} the {tree}.",
                f"The clouds {pick('looked like', 'were shaped like', 'drifted along like')} {pick(*SHAPES)}.",
                f"A {pick('light', 'gentle', 'soft', 'playful')} wind {pick('moved', 'rustled', 'stirred')} the leaves "
                f"of the {tree}.", season, season)


def passing(s, w: Who) -> str:
    """Returns a sentence about what somebody sees or does on the way."""
    pick = s.pick
    look = pick("smooth", "round", "pretty", "speckled", "tiny", "curly", "heart-shaped", "grey", "brown", "white")
    shiny = f"{look} {pick('stone', 'feather', 'leaf', 'twig', 'snail shell', 'pebble', 'pine cone')}"
    return pick(f"on the way {w.name} counted {pick(*NUMBERS)} {pick(*COLOURS)} {pick(*INSECTS)}.",
                f"{w.name} picked up {a(shiny)} and "
                f"{pick('kept it', 'looked at it from all sides', 'took it along', 'gave it a name')}.",
                f"{a(pick(*COLOURS[:12])).capitalize()} {pick('cart', 'wagon', 'barrow')} with a load of "
                f"{pick(*FRUIT, *FLOWERS)} rattled past.",
                f"{w.name} {pick('hummed', 'whistled', 'sang')} a song about {a(pick(*BIRDS))} and "
                f"{a(pick(*TREES))}.",
                f"{w.name} jumped over {pick(*NUMBERS)} "
                f"{pick('puddles', 'roots', 'stones', 'molehills', 'shadows')}.",
                f"far away {a(pick('bell', 'dog', 'cuckoo', 'donkey', 'horn', 'rooster'))} could be heard, "
                f"{pick(*NUMBERS[:6])} times.",
                f"the {pick('path', 'ground', 'air')} was still {pick('damp', 'cool', 'fresh')} from the "
                f"{pick('night', 'dew', 'rain', 'mist')}, "
                f"and the {pick(*TREES)} "
                f"{pick('dripped', 'smelled sweet', 'threw a long shadow', 'creaked', 'glistened')}.",
                f"for breakfast {w.name} had had {pick(*BAKED)} with {pick(*FRUIT)}.",
                f"{w.name} said hello to {pick('a snail', 'a toad', 'a beetle', 'a sparrow', 'a worm', 'a lizard')} "
                f"{pick('on the fence', 'under a leaf', 'by the roadside', 'on a warm stone', 'beside a puddle')}.")


def bystander(s) -> str:
    """Returns a sentence about somebody who happens to be there."""
    pick = s.pick
    how = pick("big", "small", "thin", "tired", "jolly", "sleepy", "tall", "noisy", "quiet", "busy", "merry", "lively")
    if s.wood:
        who = pick("squirrel", "toad", "hare", "goose", "mole", "deer", "pigeon", "lizard", "crow", "duck")
        does = pick("looking for food", "sleeping in the sun", "washing", "singing", "watching the clouds",
                    "building a nest", "drinking")
    else:
        who = pick("man", "woman", "boy", "girl", "farmer", "painter", "sailor", "postman", "baker")
        does = pick(f"eating {pick(*FRUIT)}", f"selling {pick(*FRUIT, *FLOWERS)}", "reading a letter", "whistling",
                    "playing the fiddle", "knitting", "sketching", f"walking {pick('two', 'three', 'four')} dogs",
                    "feeding the pigeons", f"carrying {a(pick(*COLOURS))} umbrella", "asleep in the sun")
    return f"{a(how).capitalize()} {who} was {does}."


def oddment(s) -> str:
    """Returns some little thing that one may come upon: "a bent silver spoon"."""
    how = s.pick("bent", "rusty", "tiny", "broken", "forgotten", "dusty", "lonely", "shiny", "muddy", "lost", "cracked",
                 "old")
    what = s.pick("button", "spoon", "key", "nail", "bell", "cork", "coin", "marble", "ribbon", "spool", "hook",
                  "buckle", "thimble", "cup")
    return a(f"{how} {what}")


def chat(s, one: Who, two: Who) -> str:
    """Returns two lines of small talk between two characters who get along."""
    pick = s.pick
    x, y = s.some(2, pick(BAKED + SAVOURY, FRUIT, DRINKS))
    color, other = s.some(2, COLOURS[:12])
    job, work = s.some(2,
                       ("baker", "sailor", "painter", "gardener", "singer", "doctor", "teacher", "builder", "captain",
                        "clown", "farmer", "juggler", "miller", "tailor", "dancer", "drummer", "poet"))
    first, second = pick((f"I like {x} best of all.", f"And I like {y}."),
                         (f"My favourite colour is {color}.", f"Mine is {other}."),
                         (f"I could eat {x} every day.", f"I would rather have {y}."),
                         (f"Last night I dreamed of {pick(*NUMBERS)} {color} {pick(*DREAMS)}.",
                          f"And I dreamed of {a(other)} {pick('moon', 'tower', 'boat', 'snake')}."),
                         (f"When I am big, I will be {a(job)}.", f"And I will be {a(work)}."),
                         (f"One day I will have a {pick('house', 'garden', 'boat', 'cart')} full of {pick(*DREAMS)}.",
                          "May I come and see it?"),
                         (f"What would you do with {pick(*NUMBERS)} {color} {pick(*DREAMS)}?",
                          f"I would {pick('give them to you', 'count them', 'hide them', 'sell one')}."),
                         (f"Do you know why {pick('frogs', 'bees', 'snails', 'clouds', 'rivers', 'owls')} never "
                          f"{pick('hurry', 'wear hats', 'laugh', 'eat soup')}?",
                          pick("No, but I would like to.", "Nobody knows that.", "Perhaps they forgot how.",
                               "Because nobody asked them to.")))
    question = first.endswith("?")
    return " ".join([said(s, one, first, how="ask" if question else "said"),
                     said(s, two, second, how="ask" if second.endswith("?") else "glad")])


def search(s, who: Who, place: Place, thing: str) -> str:
    """Returns a sentence or two of looking in vain; leaves the first spot of the place for the finding."""
    one, two, three = s.some(3, place.spots[1:])
    return s.pick(f"{who.name} looked {one}, {two} and {three}. There was no {thing}.",
                  f"{who.he} searched {one} and {two}, but found "
                  f"{s.pick('nothing', 'only ' + oddment(s), 'only ' + oddment(s))}.",
                  f"first {who.name} looked {one}. Then {who.he} looked {two}. The {thing} was not there.",
                  f"{who.he} crawled about {one}, and then {who.he} looked {two}. Nothing!",
                  f"was it {one}? No. Was it {two}? No. Was it {three}? No, it was not there either.")


def treat(s, who: str) -> str:
    """Returns a sentence in which two or more characters eat something nice."""
    food, drink = s.pick(*BAKED, *SAVOURY), s.pick(*DRINKS)
    return s.pick(f"{who} ate {food} and drank {drink}.", f"{who} shared {food} and a jug of {drink}.",
                  f"{who} sat down to {food} and {s.pick('a pot', 'a jug', 'cups', 'mugs')} of {drink}.",
                  f"afterwards {who} sat down together and had {food} with {drink}.",
                  f"{who} had {food}, and then some {s.pick(*FRUIT)}.")


def sad(s, w: Who) -> str:
    pick = s.pick
    return pick(f"{w.name} felt very sad.", f"tears ran down {w.name}'s cheeks.",
                f"{w.name} felt a lump in {w.his} throat.",
                f"{w.name} sat down {pick('on a stone', 'on the ground', 'in a corner', 'under a tree')} and cried a "
                "little.",
                f"{w.name}'s heart was as heavy as "
                f"{pick('a stone', 'lead', 'a sack of potatoes', 'an iron pot', 'a wet coat')}.",
                f"{w.name} felt {pick('small', 'empty', 'lost')} and {pick('lonely', 'unhappy', 'miserable')}.",
                f"{w.name}'s lip began to tremble.", f"{w.name} hung {w.his} head.", f"{w.name} wanted to cry.",
                f"all the joy went out of {w.name}.", f"{w.name} swallowed hard.")


def glad(s, w: Who) -> str:
    pick = s.pick
    return pick(f"{w.name} was as happy as "
                f"{pick('a lark', 'a fish in water', 'a king', 'a bee in clover', 'a frog in the rain')}.",
                f"{w.name} {pick('skipped', 'hopped', 'spun')} around {pick('once', 'twice', 'three times')} and "
                f"{pick('sang', 'laughed', 'cheered')}.", f"{w.name} was so happy that {w.he} jumped up and down.",
                f"{w.name} smiled from ear to ear.", f"{w.name} clapped {w.his} {w.paw}s.",
                f"{w.name} laughed out loud.", f"{w.name} felt warm and happy inside.",
                f"{w.name} danced {pick('in a circle', 'on the spot', 'for joy')}.", f"{w.name}'s eyes shone.",
                f"{w.name} could not stop smiling.", f"{w.name} hummed a happy tune.")


def afraid(s, w: Who) -> str:
    return s.pick(f"{w.name}'s heart beat fast.",
                  f"{w.name} began to {s.pick('shiver', 'tremble', 'shake')} like "
                  f"{s.pick('a leaf', 'a wet cat', 'jelly', 'grass in the wind')}.",
                  f"{w.name} {s.pick('stood', 'kept')} as {s.pick('stiff', 'still')} as "
                  f"{s.pick('a post', 'a stone', 'a statue')}.", f"{w.name}'s knees felt weak.",
                  f"{w.name} held {w.his} breath.", f"{w.name} wanted to run away.", f"{w.name} felt cold all over.",
                  f"{w.name} closed {w.his} eyes tight.", f"{w.name} felt {w.his} tummy turn over.")


def proud(s, w: Who) -> str:
    return s.pick(f"{w.name} felt very proud.",
                  f"{w.name} felt as tall as {s.pick('a tree', 'a tower', 'a giant', 'a church', 'a sunflower')}.",
                  f"{w.name} held {w.his} head high.", f"{w.name} glowed with pride.",
                  f"{w.name} could hardly believe it.", f"{w.name} took a deep bow.", f"{w.name} grinned and grinned.")


def hug(s, w: Who, other: Who) -> str:
    return s.pick(
        f"{w.name} gave {other.name} a big hug.", f"{w.name} hugged {other.name} tightly.",
        f"{w.name} put an arm around {other.name}.", f"{w.name} leaned against {other.name} and smiled.",
        f"{w.name} and {other.name} hugged each other.")


def thanks(s, w: Who, other: Who) -> str:
    return said(s, w,
                s.pick(f"Thank you, {other.name}!", f"Thank you so much, {other.name}!", "Thank you for your help!",
                       f"How kind of you, {other.name}!", "I will never forget this!"), how="glad")


def ending(s, *morals: str):
    """Adds a last paragraph, with a moral or without."""
    h, pick = s.hero, s.pick
    moral = pick(*morals)
    night = pick(f"That night {h.name} dreamed of {pick(*NUMBERS)} {pick(*COLOURS)} {pick(*DREAMS)}.",
                 f"{pick('That night', 'Later, in bed,')} {h.name} dreamed of {a(pick(*COLOURS))} "
                 f"{pick('ship', 'bird', 'horse', 'star', 'castle')} "
                 f"{pick('above the sea', 'in the clouds', 'on a hill', 'behind the moon', 'full of music')}.",
                 f"That night {h.name} fell asleep with a smile.", f"That night {h.name} slept very well.",
                 f"When the moon came up, {h.name} was already fast asleep.",
                 f"That evening {h.name} wished {s.parent.name} a good night.",
                 f"At bedtime {h.name} thought about {pick('the day', 'it all', 'everything')} once more and smiled.",
                 f"And when {h.name} went to bed that night, {h.he} "
                 f"{pick('was tired and happy', 'dreamed of tomorrow')}.")
    learned = pick(f"{h.name} never forgot it:", f"From then on {h.name} knew one thing:",
                   f"{s.parent.name} always said it, and now {h.name} knew it too:",
                   f"{h.name} learned something that day:")
    rule = moral if h.name in moral else f"{learned} {moral[0].lower()}{moral[1:]}"
    s.add(pick(rule, moral, f"{night} {moral}", night, f"{moral} {night}", f"{rule} {night}",
               f"{moral} {pick('And that is the end of the story.', 'And so it was.')}"))


# ---- plots ----


def lost_toy(s):
    h, p, f, pick = s.hero, s.parent, s.friend, s.pick
    toy, place = pick(*TOYS), s.place()
    kind = pick(*toy.kinds)
    s.add(opening(s), pick(
        f"{h.name} had {a(kind)} {toy.noun} and took it everywhere.",
        f"{h.his} favourite thing was {a(kind)} {toy.noun}.",
        f"for {h.his} birthday {h.name} had been given {a(kind)} {toy.noun}.",
        f"{p.name} had once given {h.name} {a(kind)} {toy.noun}, and {h.he} loved it dearly."),
        s.maybe(f"{h.he} liked to {toy.play}.", f"{h.he} could {toy.play} for hours."))
    s.add(f"{day(s)}, {h.name} took the {toy.noun} {place.way} to {place.name}.", pick(passing(s, h), ""),
          pick(*place.sights, bystander(s), bystander(s)), s.maybe(detail(s)),
          pick(f"{h.name} played there until {h.he} was hungry, but on the way home the {toy.noun} was gone.",
               f"{h.name} stopped to look at {pick(*INSECTS)}, and when {h.he} turned around, the {toy.noun} was gone.",
               f"{h.name} fell asleep in the shade, and when {h.he} woke up, {h.he} could not see the {toy.noun} "
               "anywhere.",
               f"{h.name} watched the clouds for a while. When {h.he} wanted to play again, the {toy.noun} had "
               "vanished."), sad(s, h))
    helper = pick(p, f)
    s.add(said(s, h, pick(f"My {toy.noun} is gone!", f"I have lost my {toy.noun}!", f"Where is my {toy.noun}?"),
               how="sad"),
          pick(said(s, helper, "Don't cry.",
                    pick("We will look for it together.", "Let us think where you had it last."), "warm"),
               said(s, helper, "When did you see it last?", "Let us go back and look.", "warm"),
               said(s, helper, pick("I will help you look.", "Two pairs of eyes see more than one."), how="warm")),
          search(s, h, place, toy.noun))
    spot = place.spots[0]
    s.add(pick(f"then {helper.name} had an idea.", f"just then {helper.name} stopped.",
               f"{helper.name} did not give up.", f"at last {helper.name} bent down low."),
          pick(f"{helper.he} looked {spot}, and there lay the {toy.noun}!",
               f"there, {spot}, was something {kind}: the {toy.noun}!" if kind in COLOURS
               else f"there, {spot}, was the {toy.noun}!", f"{spot} lay the {kind} {toy.noun}."),
          s.maybe(f"it must have {toy.moved} there.", "It was a little dusty, but nothing was broken."), glad(s, h),
          pick(thanks(s, h, helper), hug(s, h, helper)))
    ending(s, f"After that {h.name} always knew where the {toy.noun} was.", "Looking is easier with two.",
           "Whoever looks with patience finds in the end.", f"{h.name} held the {toy.noun} tight all the way home.")


def quarrel(s):
    h, f, p, pick = s.hero, s.friend, s.parent, s.pick
    toy = pick(*TOYS)
    one, two = s.some(2, GAMES)
    over_toy = s.random() < 0.5
    s.add(opening(s),
          pick(f"{h.his} best friend was {f.name}.", f"{h.he} and {f.name} were best friends.",
               f"next door lived {f.name}, {h.his} best friend."), s.maybe("They played together every day."))
    if over_toy:
        s.add(f"{day(s)}, they found {a(pick(*toy.kinds))} {toy.noun} in an old box.",
              said(s, h, "I saw it first!", how="cross"),
              said(s, f, pick("But I took it out!", "No, it is my turn!", "You always go first!"), how="cross"),
              pick(f"They both pulled at the {toy.noun} as hard as they could.",
                   f"neither of them would let go of the {toy.noun}."))
    else:
        s.add(f"{day(s)}, {h.name} wanted to play {one}, but {f.name} wanted to play {two}.",
              said(s, h, f"We played {two} yesterday!", how="cross"),
              said(s, f, pick("You always choose!", f"I don't like {one}!", "Then I won't play at all!"), how="cross"))
    s.add(pick(f"{f.name} stamped {f.his} foot and went home.", f"{h.name} turned {h.his} back and walked away.",
               "They shouted at each other, and then both of them went home."),
          f"now {h.name} was alone.", pick(f"{h.he} tried to play alone, but it was no fun.",
                                          f"{h.he} kicked a stone up and down the path.",
                                          "the day seemed very long and very quiet.",
                                          f"even {h.his} favourite supper did not taste right."),
          said(s, p, "What is the matter?", how="ask"), pick(
              f"{h.name} told {p.name} about the quarrel.", f"{h.name} told {p.him} everything.",
              said(s, h, f"I was mean to {f.name}.", how="sad")))
    s.add(said(s, p, pick("A quarrel is like a knot.", "Friends get angry sometimes.", "Being right is lonely."),
               pick("Somebody has to begin untying it.", "What matters is how they make up.",
                    "Somebody has to say sorry first."), "warm"),
          pick(f"so {h.name} {h.ran} to {f.name}'s {f.home}.", f"{h.name} thought about it and went to find {f.name}."),
          pick(f"halfway there {h.he} met {f.name}, who was coming to say the very same thing.",
               f"{f.name} was sitting on the step and looked sad, too.",
               f"{f.name} opened the door before {h.name} could knock."),
          said(s, h, "I am sorry.", pick("I miss you.", "I want to be friends again.", "It was silly of me."), "shy"),
          said(s, f, pick("I am sorry, too.", "So am I."), how="shy"),
          pick(hug(s, h, f), "Then they both had to laugh."),
          s.maybe("They talked as if nothing had happened. " + chat(s, f, h)))
    if over_toy:
        s.add(pick(f"They took turns with the {toy.noun}, first one and then the other.",
                   f"from then on the {toy.noun} belonged to both of them.",
                   f"{f.name} had the {toy.noun} until lunch, and {h.name} had it afterwards."),
              s.maybe(treat(s, "they")))
    else:
        s.add(pick(f"first they played {one}, and then they played {two}.",
                   f"They threw a stone to decide, and so they played {pick(one, two)} first.",
                   f"They made up a new game that was half {one} and half {two}."), s.maybe(treat(s, "they")))
    ending(s, "A friend is worth more than being right.", "It takes courage to say sorry first.",
           "Taking turns is better than playing alone.", "Even best friends quarrel, and then they make up.")


@dataclass(frozen=True)
class Skill:
    do: str
    doing: str
    fails: tuple[str, ...]  # what the hero did, in the past tense
    tip: str
    success: str


HOME_SKILLS = (
    Skill("ride a bicycle", "riding a bicycle",
          ("wobbled and fell into the grass", "rode straight into a hedge", "tipped over after two yards"),
          "Look ahead and keep pedalling.", "rode all the way to the corner and back"),
    Skill("skip rope", "skipping rope", ("got tangled in the rope", "jumped too late", "stepped on the rope"),
          "Listen to the rope and jump when it taps the ground.", "skipped twenty times without a stop"),
    Skill("roller skate", "roller skating",
          ("sat down with a bump", "rolled backwards into a bush", "slid into the fence"),
          "Bend your knees and push to the side.", "glided along the path like a swan"),
    Skill("tie a bow", "tying shoelaces",
          ("made a knot that would not open", "lost one of the ends", "pulled both loops apart"),
          "Make two rabbit ears and cross them.", "tied a bow on each shoe"),
    Skill("juggle", "juggling", ("dropped every ball", "threw one ball over the wall", "got hit on the nose by a ball"),
          "Start with two balls and throw them gently.", "kept three balls in the air"),)
BOTH_SKILLS = (
    Skill("whistle", "whistling",
          ("blew, and only air came out", "made a sound like a kettle", "spat all over the table"),
          "Make your mouth small and blow softly.", "whistled a whole song"),
    Skill("skip stones", "skipping stones",
          ("threw, and the stone went plop", "hit a lily leaf", "made a great splash"),
          "Take a flat stone and throw it low.", "made a stone hop five times across the water"),
    Skill("stand on one's head", "standing on one's head",
          ("fell over sideways", "rolled into a flower bed", "toppled like a tree"),
          "Put your weight on your arms and go up slowly.", "stood upside down and counted to ten"),
    Skill("walk on stilts", "walking on stilts", ("toppled forward", "slid off after one step", "landed in a puddle"),
          "Keep moving your feet, and don't look down.", "walked around the yard on stilts"),
    Skill("play the flute", "playing the flute",
          ("made a dreadful squeak", "ran out of breath", "mixed up all the notes"),
          "Play slowly first, one note at a time.", "played a little tune from beginning to end"),
    Skill("jump across the brook", "jumping across the brook",
          ("landed in the water", "stopped at the edge", "slipped on the mud"),
          "Take a long run and look at the other side.", "flew over the water and landed on dry grass"),
    Skill("bake bread", "baking bread", ("took out a loaf as hard as a stone", "burned the crust", "forgot the yeast"),
          "Let the dough rest before you bake it.", "took a round, golden loaf out of the oven"),)


def learn_skill(s):
    h, pick = s.hero, s.pick
    skill = pick(*(BOTH_SKILLS if s.wood else HOME_SKILLS + BOTH_SKILLS))
    do = skill.do.replace("one's", h.his)
    teacher, rival = s.some(2, (s.parent, s.elder, s.friend))
    doing, teach = skill.doing.replace("one's", rival.his), skill.do.replace("one's", s.other.his)
    s.add(opening(s), pick(
        f"there was one thing {h.name} wanted more than anything: to learn to {do}.",
        f"but {h.name} did not know how to {do}.", f"{h.name} wanted to {do}, just like {rival.name}.",
        f"{day(s)}, {h.he} saw {rival.name} {doing}."))
    first, second = s.some(2, skill.fails)
    s.add(said(s, h, pick("That cannot be hard.", "I want to do that, too!", "Today I will learn it."), how="said"),
          f"{h.he} tried and {first}.", pick(f"{h.he} tried again and {second}.", f"the second time {h.he} {second}.",
                                            f"then {h.he} {second}."),
          pick(said(s, h, "I will never learn it!", how="cross"), said(s, h, "I can't do it.", how="sad"), sad(s, h)))
    s.add(pick(f"{teacher.name} had been watching.", f"{teacher.name} came by and saw it.",
               f"{teacher.name} sat down beside {h.him}."),
          said(s, teacher, skill.tip,
               pick("And never mind the first ten tries.", "It took me a whole month.", "Then try again.",
                    "Nobody can do it on the first day."), "warm"),
          pick(f"{h.name} tried again, "
               f"{pick('and again, and again', 'ten times, twenty times', 'slowly this time')}.",
               f"every day {h.name} practised a little.", f"{h.name} did just what {teacher.name} had said."),
          pick(f"on the {pick('third', 'fourth', 'fifth', 'sixth')} day it went better.",
               "It went better, but not yet well.", f"{h.his} {h.paw}s hurt, but {h.he} did not stop."))
    s.add(pick("And then it happened.", "Suddenly it was easy.", "And one day it worked."),
          f"{h.name} {skill.success}!", proud(s, h),
          said(s, h, pick("I can do it!", "Look at me!", "Did you see that?"), how="loud"),
          s.maybe(said(s, teacher, pick("I knew you could.", "You did that all by yourself.", "Well done!"),
                       how="warm")), s.maybe(f"soon {h.name} taught {s.other.name} how to {teach}."))
    ending(s, "Nobody can do everything at once.", "Practice makes hard things easy.",
           "Whoever falls down may get up again.", "A good tip and a little patience can do wonders.")


# the sound, what it might be, what it is
NOISES = (
    ("tap, tap, tap", "a skeleton", "a branch that knocked against the window", "the wind was moving it"),
    ("scratch, scratch", "a monster with claws", "a little mouse that was gnawing a nut", "it only wanted its supper"),
    ("hoo, hoo", "a ghost", "an owl on the roof", "it was calling to its friend"),
    ("drip, drop, drip", "a slimy creature", "water that dripped into a bucket", "the roof had a tiny hole"),
    ("creak, creak", "a giant on the stairs", "the old gate that swung in the wind", "nobody had shut it"),
    ("flap, flap", "a huge bat", "a cloth on the washing line", "somebody had forgotten to take it in"),
    ("rattle, rattle", "a robber", "a hedgehog that was licking an empty dish", "it had smelled the milk"),
    ("bump, bump", "a troll", "a loose shutter that banged against the wall", "its hook had come off"),
    ("whoo-ee, whoo-ee", "a wolf", "the wind in an empty bottle", "somebody had left it on the sill"),
)


def strange_sound(s):
    h, p, pick = s.hero, s.parent, s.pick
    sound, fear, truth, reason = pick(*NOISES)
    with_ = pick(p, s.other)
    first = sound.split(",")[0]
    s.add(opening(s),
          pick(f"one night {h.name} lay in bed and could not sleep.", f"one dark night {h.name} woke up with a start.",
               f"one windy night {h.name} was almost asleep when {h.he} heard something."),
          pick("Outside there was no moon.", "The wind sighed around the walls.",
               f"The whole {h.home} was dark and still."), f'"{sound.capitalize()}," it went.',
          s.maybe(f'Then again: "{sound.capitalize()}!"'))
    s.add(afraid(s, h),
          pick(said(s, h, f"That must be {fear}!", how="afraid"), said(s, h, f"What if it is {fear}?", how="afraid"),
               f"{h.name} thought of {fear}."),
          pick(f"{h.he} pulled the blanket over {h.his} ears, but the sound did not stop.",
               f"{h.he} counted to ten, but the sound was still there.",
               f"{h.he} lay as still as a stone and listened."),
          f"at last {h.he} {pick('tiptoed', 'crept', 'ran')} to {with_.name} and woke {with_.him} up.")
    s.add(said(s, h, "There is something out there.", how="afraid"),
          said(s, with_, pick("Then let us look at it.", "Let us go and see.", "I hear it, too."),
               pick("Most things are smaller when one looks at them.", f"Take my {h.paw}.",
                    "We will take the lantern."), "warm"),
          pick(f"step by step they went towards the sound. {first.capitalize()}, it went, louder now.",
               f"They lit the lantern and opened the door. {first.capitalize()}, it went, quite near.",
               f"{with_.name} held the lantern, and {h.name} held on to {with_.name}."),
          pick("Then the light fell on it.", f"{h.name} took a deep breath and looked."), f"it was only {truth}!",
          f"{reason}.")
    s.add(pick("How they laughed!", f"{h.name} let out a long breath.", f"{h.name} had to giggle."),
          pick(said(s, h, "So that was all!", how="glad"), said(s, h, "And I was so afraid!", how="glad"),
               said(s, with_, "You were very brave to look.", how="warm")),
          pick(f"They drank {pick('warm milk', 'mint tea', 'honey milk')} and went back to bed.",
               f"{with_.name} tucked {h.name} in again.", f"{h.name} went back to bed and left the curtain open."),
          pick(f"{first.capitalize()}, it went outside, but now {h.name} only smiled.", f"soon {h.name} was asleep."))
    s.add(pick("A thing that one knows is only half as frightening.",
               f"After that night {h.name} liked to find out where sounds came from.",
               "In the dark everything looks bigger than it is.",
               f"In the morning {h.name} told {s.friend.name} all about it."))


@dataclass(frozen=True)
class Fear:
    of: str
    when: str  # the day it came up, a clause about "everybody"
    why: str  # "What if ...?"
    step: str  # first small step, past tense
    then: str  # second step, past tense
    after: str  # what was good about it, a sentence


HOME_FEARS = (
    Fear("the high slide", "all the others were sliding", "What if I fall off?",
         "climbed up three steps and down again", "sat down at the top and let go",
         "The wind rushed past, and it felt like flying."),
    Fear("the big dog next door", "the big dog lay in front of the gate", "What if it bites me?",
         "stood still and let the dog sniff", "patted the dog on its soft ears",
         "The dog wagged its tail and rolled over."),
    Fear("singing in front of people", "the class was going to sing on the stage", "What if I forget the words?",
         "sang to the cat in the kitchen", "walked onto the stage and sang", "Everybody clapped for a long time."),
    Fear("the first day of school", "the school bell was ringing", "What if nobody likes me?",
         "looked in through the door", "walked in and sat down next to a smiling girl",
         "There were paints, and songs, and a story about a whale."),
    Fear("the dentist", "it was time to go to the dentist", "What if it hurts?",
         "sat in the big chair and looked around", "opened wide",
         "It only tickled, and afterwards there was a sticker."),
    Fear("the diving board", "the others were jumping into the pool", "What if I sink?",
         "walked to the end of the board and back", "counted to three and jumped",
         "The water splashed up like a fountain."),)
BOTH_FEARS = (
    Fear("the dark", "the others were going out to look at the stars", "What if something is hiding there?",
         "took three steps into the dark", "stood in the dark and listened",
         "There were a hundred stars, and each one was a little lamp."),
    Fear("thunder", "black clouds came over the hill", "What if it hits us?", "counted from the flash to the bang",
         "looked out and watched the lightning", "The rain made everything smell fresh."),
    Fear("the old bridge", "the others were crossing the old bridge", "What if it breaks?",
         "put one foot on the first plank", "walked across, plank by plank",
         "On the other side grew the sweetest berries of all."),
    Fear("climbing", "the others were up in the apple tree", "What if I fall down?", "climbed onto the lowest branch",
         "climbed up to the fork of the tree", "From up there one could see the river."),
    Fear("the cave", "the others were exploring the cave", "What if a dragon lives in there?",
         "called a loud hello into the cave", "went in with a lantern",
         "The walls sparkled as if they were full of stars."),)


def overcome_fear(s):
    h, pick = s.hero, s.pick
    fear = pick(*(BOTH_FEARS if s.wood else HOME_FEARS + BOTH_FEARS))
    guide, other = s.some(2, (s.parent, s.elder, s.friend))
    s.add(opening(s), pick(f"but {h.he} was afraid of {fear.of}.", f"{h.he} was afraid of only one thing: {fear.of}.",
                           f"nobody knew that {h.name} was afraid of {fear.of}."))
    s.add(f"{pick('one day', 'and then one day', 'but one day')} {fear.when}.",
          said(s, other, pick(f"Are you coming, {h.name}?", f"What about you, {h.name}?"), how="ask"), afraid(s, h),
          pick(said(s, h, "I don't want to.", how="shy"), said(s, h, "I have a tummy ache.", how="shy"),
               f"{h.name} shook {h.his} head and hid behind {guide.name}."), said(s, h, fear.why, how="afraid"))
    own = pick("spiders", "geese", "deep water", "bees", "loud bangs", "high ladders", "ghosts")
    s.add(pick(said(s, guide, "Shall I tell you a secret?", f"When I was small, I was afraid of {own}.", "warm"),
               said(s, guide, "Everybody is afraid of something.", f"I am afraid of {own}.", "warm"),
               said(s, guide,
                    pick("Being brave means being afraid and trying anyway.", "You don't have to do it all at once."),
                    pick("We will go slowly, and I will stay beside you.",
                         "Take one small step, and then we will see."), "warm")), f"so {h.name} {fear.step}.",
          pick("That was not so bad.", f"{h.his} legs trembled, but nothing happened.",
               "It was easier than it had looked."))
    s.add(pick(f"then {h.he} took a deep breath, and {h.he} {fear.then}.", f"after a while {h.he} {fear.then}.",
               f"{h.name} nodded to {guide.name} and {fear.then}."), fear.after,
          pick(said(s, h, pick("I did it!", "Again!", "It was not so bad at all!"), how="glad"), proud(s, h)),
          pick(said(s, guide, pick("I am proud of you.", "I knew you were brave.", "You see?"), how="warm"),
               hug(s, guide, h)))
    ending(s, "Small steps lead over high hills.", "Being brave does not mean that one has no fear.",
           f"After that {h.name} was not " f"afraid of {fear.of} any more.", "The first step is always the hardest.")


# what has to be done, how the hero did it, what was said of it
JOBS = (
    ("carry in the firewood", "carried in log after log", "the basket was full to the top"),
    ("pick the apples", "climbed the ladder and filled {} baskets", "there was not one apple left on the tree"),
    ("weed the garden", "pulled up every weed between the beans", "the garden looked neat and green"),
    ("find the lost spectacles", "searched every shelf and found them in the bread bin",
     "the world looked sharp again"),
    ("sweep up the leaves", "swept the leaves into {} big heaps", "the yard was clean"),
    ("fetch water from the well", "went to the well {} times", "the tub was full"),
    ("paint the fence", "painted board after board", "the fence shone like new"),
    ("mend the hen house", "held the boards and handed over the nails", "no fox could get in any more"),
    ("wash the windows", "washed the windows until they squeaked", "the sun shone into every corner"),
    ("plant the potatoes", "dug {} rows and put the potatoes in", "the whole bed was planted"),
    ("sort the buttons", "sorted all the buttons into {} jars", "every button had its place"),
    ("dig the path free", "cleared away the stones and the branches", "one could walk on the path again"),)


def help_elder(s):
    h, e, f, pick = s.hero, s.elder, s.friend, s.pick
    job, did, result = pick(*JOBS)
    did = did.replace("{}", pick(*NUMBERS))
    game = pick(*GAMES)
    s.add(opening(s), f"{day(s)}, {h.name} was on {h.his} way to play {game} with {f.name}.",
          pick(passing(s, h), detail(s)))
    s.add(pick(f"as {h.he} passed {e.name}'s place, {h.he} heard a sigh.",
               f"by the gate {h.he} saw {e.name}, who looked tired.",
               f"then {h.he} met {e.name}, who was rubbing {e.his} back."),
          said(s, h, pick(f"What is wrong, {e.name}?", "Are you all right?", "Can I help you?"), how="ask"),
          said(s, e,
               f"I have to {job}, but "
               f"{pick('my back hurts', 'I am so slow these days', 'it is too much for me alone')}.", how="sad"),
          pick(f"{h.name} thought of the game. Then {h.he} rolled up {h.his} sleeves." if not s.wood
               else f"{h.name} thought of the game. Then {h.he} nodded.", f"{h.name} did not think about it for long."),
          said(s, h, pick("I will help you!", "Let me do it!", "Together we will be done soon."), how="glad"))
    with_friend = s.random() < 0.5
    s.add(f"so {h.name} {did}.", f"soon {f.name} came looking for {h.him}, and {f.he} helped, too." if with_friend
          else pick("It was hard work.", f"{h.his} arms grew tired, but {h.he} did not stop.", "It took a long time."),
          pick(f"{e.name} told funny stories while they worked.",
               f"{e.name} sang an old song and did what {e.he} could.",
               "They talked and laughed, and the time went by quickly.",
               chat(s, e, h).replace("When I am big", "If I were young again")), f"in the end {result}.")
    gift = pick("a jar of plum jam", "a little wooden bird", "a shiny old coin", "a bag of hazelnuts",
                "a tiny brass bell", "a pot with a red flower in it", "a book with pictures of ships",
                "a warm pair of mittens", "a jar of honey", "a small telescope", "a smooth blue stone")
    s.add(said(s, e, pick("What would I have done without you?", "You are a good neighbour.", "Now I can rest."),
               how="glad"),
          pick(f"{e.he} gave {h.name} {gift}.", treat(s, "they"), f"{e.he} went inside and came back with {gift}."),
          f"then {h.name} and {f.name} played {game} until it got dark." if with_friend
          else pick(f"{h.name} was too late for the game, but {h.he} did not mind.",
                    f"when {f.name} heard about it, {f.he} said that next time {f.he} would help, too."), glad(s, h))
    ending(s, "Helping others makes the heart light.", "Work is soon done when two do it.",
           "A kind deed is never lost.",
           "It feels good to be needed.")


def share_food(s):
    h, f, pick = s.hero, s.friend, s.pick
    one, noun = pick(("a big honey bun", "bun"), ("an apple pie", "pie"), ("a round of cheese", "cheese"),
                     ("a berry tart", "tart"), ("a slice of plum cake", "cake"), ("a gingerbread heart", "gingerbread"),
                     ("a loaf of sweet bread", "bread"), ("a pear as big as a lamp", "pear"),
                     ("a basket of cherries", "cherries"), ("a bag of hazelnuts", "nuts"))
    it, they = ("them", "they") if noun in ("cherries", "nuts") else ("it", "it")
    place = s.place()
    s.add(opening(s), f"{day(s)}, {s.parent.name} gave {h.name} {one}.",
          pick(f"{they} smelled wonderful.", f"{h.his} mouth watered.", f"{h.he} could hardly wait to taste {it}."),
          said(s, h, f"I will eat {it} all by myself.", how="said"), s.maybe(passing(s, h)),
          f"{h.he} took the {noun} to {place.name} and sat down {pick(*place.spots[:2])}.")
    s.add(pick(f"just as {h.he} was about to take a bite, {f.name} came by.",
               f"then {h.he} heard steps. It was {f.name}.", f"not far away sat {f.name}, all alone."),
          pick(f"{f.name} had forgotten {f.his} lunch.", f"{f.name} looked tired and hungry.",
               f"{f.name}'s tummy rumbled loudly.", f"{f.name} had dropped {f.his} lunch in a puddle."),
          pick(f"{h.name} hid the {noun} behind {h.his} back.", f"{h.name} turned away a little.",
               f"{h.name} looked at the {noun}, and then at {f.name}."),
          pick(said(s, f, "That smells good.", how="shy"), said(s, f, "I have not eaten all day.", how="sad"),
               f"{f.name} did not ask for any. {f.He} only looked at the ground."))
    s.add(pick(f"{h.name} felt a small sting in {h.his} heart.", f"suddenly {h.name} was not so hungry any more.",
               f"{h.name} remembered how {f.name} had once shared {pick(*FRUIT)} with {h.him}."),
          said(s, h, pick("Would you like some?", "Come and sit with me.", "There is enough for two."), how="warm"),
          f"{h.he} gave {f.name} half of the {noun}.", pick(f"{f.name}'s face lit up.", f"{f.name} beamed."),
          thanks(s, f, h),
          pick(f"They ate {it} slowly and did not say a word.", f"and how good {they} tasted!",
               "They sat side by side and chewed.", chat(s, f, h), chat(s, h, f)))
    s.add(pick(f"the next day {f.name} brought {pick(*FRUIT)}, and again they shared.",
               f"then {f.name} pulled {pick(*NUMBERS)} {pick('walnuts', 'plums', 'toffees')} out of a bag, and they "
               "shared those, too.", f"afterwards they played {pick(*GAMES)}."), glad(s, h))
    ending(s, "Half of something tastes better with a friend.", "Shared food tastes twice as good.",
           "Whoever shares is never alone.", "Sharing does not make less. It makes more.")


def secret(s):
    h, f, p, pick = s.hero, s.friend, s.other, s.pick
    gift = pick("a swing under the " + pick("oak", "chestnut tree", "apple tree"), "a puppet theatre",
                "a kite with a long tail", "a little cart with four wheels", "a big chocolate cake", "a box of paints",
                "a song with three verses", "a painted wooden sword", "a birdhouse with a red roof")
    s.add(opening(s), f"{day(s)}, {p.name} whispered something into {h.name}'s ear.",
          said(s, p, f"It is {f.name}'s birthday on {pick('Friday', 'Saturday', 'Sunday')}.",
               f"I am making {gift}, but it is a secret.", "said"),
          said(s, h, pick("I promise.", "My lips are sealed.", "Not a word!"), how="glad"))
    s.add(pick("But a secret is hard to carry.", "The secret tickled like a feather.",
               "The secret hopped about like a frog in a sack."),
          f"when {h.name} met {f.name}, {h.he} had to bite {h.his} lip.",
          said(s, f, "Why are you smiling like that?", how="ask"),
          pick(said(s, h, "Oh, nothing.", how="shy"), said(s, h, "I was thinking of something funny.", how="shy"),
               f"{h.name} quickly talked about the weather."),
          said(s, f, pick("You are hiding something!", "Tell me!", "I tell you everything."), how="cross"))
    s.add(pick(f"now {f.name} was cross, and {h.name} felt bad.", f"{f.name} went away without a word.",
               f"{f.name} thought that {h.name} did not like {f.him} any more."),
          f"{h.name} almost told {f.him} then.", "but a promise was a promise.",
          pick(f"{h.he} ran into the cellar and whispered the secret to a potato." if not s.wood else
               f"{h.he} ran to a hollow tree and whispered the secret into it.",
               f"{h.he} whispered the secret to a snail, because snails tell nobody.",
               f"{h.he} hummed loudly so that no word could slip out."))
    s.add(pick("At last the day came.", "And then it was the birthday."),
          said(s, p, f"Happy birthday, {f.name}!", how="loud"), f"there was {gift}, and {f.name}'s mouth fell open.",
          said(s, f, "So that was the secret!", how="glad"),
          pick(said(s, h, "It was so hard not to tell you!", how="glad"), f"{h.name} nodded and laughed with relief."),
          hug(s, f, h), s.maybe(treat(s, "they all")))
    ending(s, "A good secret is worth waiting for.", "A promise is a promise.",
           "Some surprises need a friend who can be silent.", "Keeping a secret is hard, but it is worth it.")


# what the hero wished to be, what was fun, what went wrong
WISHES = (
    ("as big as a house", "stepped over the river", "looked over the tops of the trees",
     "could not get in through the door"),
    ("as small as an ant", "rode on a ladybird", "slept in a tulip", "could not lift a single crumb"),
    ("able to fly", "sailed over the roofs", "raced a swallow", "could not find a way down"),
    ("invisible", "tickled people's noses", "walked past everyone unseen", "had nobody to talk to"),
    ("king of everything", "wore a golden crown", "ate cake for breakfast", "had to sit still on a hard throne"),
    ("a fish", "shot through the green water", "blew silver bubbles", "could not call for anyone"),
    ("a cloud", "floated over seven hills", "looked down on the little world", "was blown wherever the wind liked"),
    ("all grown up", "went to bed after midnight", "drove a train", "had to work all day"),)


def wish(s):
    h, p, pick = s.hero, s.parent, s.pick
    wanted, fun, more, trouble = pick(*WISHES)
    if wanted.startswith("king") and h.he == "she":
        wanted = "queen of everything"
    s.add(opening(s),
          pick(f"but {h.he} was not content.", f"often {h.he} thought: If only I were different!",
               f"but sometimes {h.he} was tired of being {h.name}."),
          pick(f"one evening {h.he} saw a falling star.",
               f"one clear night a star fell over the {pick('roof', 'hill', 'trees')}."),
          said(s, h, f"I wish I were {wanted}!", how="said"), pick("Then sleep came.", f"soon {h.he} fell asleep."))
    s.add(pick(f"when {h.he} opened {h.his} eyes, the wish had come true.", f"in the morning {h.he} was {wanted}!",
               f"and behold, {h.he} was {wanted}."), f"{h.he} {fun}.", f"{h.he} {more}.",
          said(s, h, pick("This is wonderful!", "I will stay like this forever!", "If my friends could see me!"),
               how="glad"))
    s.add(pick("But then it was not so funny any more.", "But by and by it was less fun.",
               f"but when {h.he} grew hungry, things changed."), f"{h.he} {trouble}.",
          pick(f"{h.he} saw {s.friend.name} playing {pick(*GAMES)} without {h.him}.",
               f"{h.he} heard {p.name} calling and could not go to {p.him}.", f"{h.he} thought of {h.his} soft bed."),
          sad(s, h), said(s, h, f"I wish I were {h.name} again!", how="sad"))
    s.add(pick(f"there was a rustle, and {h.name} sat up in {h.his} own bed.", f"and then {h.he} woke up.",
               f'"Wake up, {h.name}!" said a voice. It was {p.name}.'),
          pick("It had all been a dream.", "Had it been a dream?"),
          f"{h.name} looked at {h.his} {h.paw}s. They were just right.",
          pick(hug(s, h, p), said(s, h, "I like being me!", how="glad"), glad(s, h)),
          s.maybe(treat(s, f"{h.name} and {p.name}")))
    s.add(pick("The best thing to be is oneself.", "Be careful what you wish for!",
               f"The next time a star fell, {h.name} wished for "
               f"{pick('nothing at all', 'a good breakfast', 'another day just like this one')}.",
               f"From that day on {h.name} was glad to be {h.name}."))


def rainy_picnic(s):
    h, f, o, p, pick = s.hero, s.friend, s.other, s.parent, s.pick
    place = s.place()
    food = s.some(2, (*BAKED, "cheese sandwiches", "bread and butter", "corn fritters", "cold noodles"))
    s.add(opening(s), f"{day(s)}, {h.name} wanted to have a picnic at {place.name} with {f.name} and {o.name}.",
          f"{h.he} packed {food[0]}, {food[1]} and {pick(*FRUIT)} into a basket.",
          pick(f"{h.he} had been looking forward to it all week.", "The blanket lay ready, and so did the cups.",
               glad(s, h)))
    s.add(pick("But then the sky turned grey.", "But dark clouds came up over the hill.",
               "Then there was a low rumble."),
          pick("First came one drop, then ten, then a thousand.", "It began to rain, and it rained harder and harder.",
               "Soon water was running down the path like a brook."),
          said(s, h, pick("Our picnic is spoiled!", "Why today?", "Stupid rain!"), how=pick("sad", "cross")),
          f"{f.name} and {o.name} arrived with wet {pick('ears', 'feet', 'noses')}.",
          said(s, o, "What shall we do now?", how="sad"))
    fix = pick("they hung a sheet over two chairs and made a tent",
               "they spread the blanket on the floor under the table", "they built a cave out of cushions",
               "they pushed everything aside and made a meadow of green cloth", "they turned the big bed into a ship")
    who = pick(p, f)
    s.add(said(s, who,
               pick("Who says that a picnic must be outside?", "The rain cannot come in here.", "I have an idea!"),
               how="glad"), f"so {fix}.",
          pick(f"{f.name} painted a sun and pinned it to the wall.", f"{o.name} made bird sounds.",
               f"{h.name} put a jar of {'red leaves' if s.season == 'autumn' else pick(*FLOWERS)} in the middle."),
          f"They ate {food[0]} and {food[1]}, and outside the rain {pick('drummed', 'pattered', 'splashed')}.",
          pick("It was like being on an island.", "Nobody was ever so cosy.", chat(s, f, o), chat(s, o, h),
               "They told each other stories about sailors."))
    s.add(pick("When the rain stopped, there was a rainbow.", "By evening the clouds were gone.",
               "It rained until evening, and nobody noticed."),
          said(s, h, pick("That was the best picnic ever!", "I hope it rains next time, too!", "Thank you, rain!"),
               how="glad"))
    ending(s, "If the sun does not come to you, paint one.", "One can be merry in any weather.",
           "A spoiled plan can turn into a better one.", "With good friends every day is a picnic.")


# what was found, where the owner was seen, why it mattered
FINDS = (
    ("a little purse", "It holds all my savings"), ("a silver key", "Without it I cannot open my door"),
    ("a red mitten", "My grandmother knitted it"), ("a pocket watch", "My father gave it to me"),
    ("a toy lion", "I cannot sleep without it"), ("a golden ring", "My mother wore it before me"),
    ("a letter", "It took me all day to write it"), ("a green umbrella", "It was a present from my sister"),
    ("a small notebook", "All my songs are in it"), ("a pair of glasses", "I can hardly see without them"),
    ("a blue cap", "My brother brought it from across the sea"),
    ("a tiny music box", "It plays the song my mother used to sing"),)


def found_thing(s):
    h, p, f, pick = s.hero, s.parent, s.friend, s.pick
    thing, matters = pick(*FINDS)
    noun = thing.removeprefix("a ")
    it = "them" if "glasses" in noun else "it"
    place = s.place()
    owner = pick(s.elder, s.other)
    s.add(opening(s), f"{day(s)}, {h.name} was walking {place.way} to {place.name}.", s.maybe(passing(s, h)),
          pick(*place.sights, bystander(s), bystander(s)), s.maybe(detail(s)),
          f"something lay {pick(*place.spots)}. It was {thing}!")
    s.add(said(s, h, pick("Finders keepers!", "How lucky I am!", "Now it is mine!"), how="glad") if it == "it"
          else said(s, h, "How lucky I am!", how="glad"),
          f"{h.he} put {it} {pick('into a bag', 'into a basket', 'under ' + h.his + ' arm')}.",
          pick(f"but on the way home {h.he} thought about it.", f"but somehow {h.he} was not really glad.",
               f"but at home {p.name} looked at {h.him} for a long time."),
          pick(said(s, h, "Perhaps somebody is looking for " + it + ".", how="said"),
               said(s, p, "Somebody may be very sad now.", how="warm"),
               said(s, p, "How would you feel if you had lost " + it + "?", how="warm")),
          pick(f"{h.name} knew what {h.he} had to do.", f"{h.name} nodded slowly."))
    wrong = f if owner is not f else s.other
    s.add(f"{h.he} went back to {place.name} and asked everyone {h.he} met.",
          said(s, wrong, pick("It is not mine.", "I have never seen it before.") if it == "it"
               else "They are not mine.", how="said"),
          f"then {h.he} saw {owner.name}, who was looking {pick(*place.spots)}.",
          said(s, h, "Have you lost something?", how="ask"), said(s, owner, f"Yes, {thing}!", f"{matters}.", "sad"),
          pick(f"{h.name} held up the {noun}.", f'"Is this it?" asked {h.name}.' if it == "it"
               else f'"Are these yours?" asked {h.name}.'))
    s.add(pick(f"{owner.name}'s face shone.", f"{owner.name} was so glad that {owner.he} could not speak at first."),
          thanks(s, owner, h), pick(f"{h.name} felt lighter than a feather.", glad(s, h)),
          pick(treat(s, "they"), hug(s, owner, h),
               f"{owner.name} gave {h.name} {pick('an apple', 'a plum', 'a pear', 'a walnut')}.",
               f"after that {h.name} and {owner.name} always waved to each other."))
    ending(s, "To give something back is better than to keep it.", "A thing that is found still belongs to somebody.",
           "A true finder gains a friend.", "Giving joy is the best find of all.")


@dataclass(frozen=True)
class Building:
    name: str
    where: str
    tools: str
    steps: tuple[str, ...]  # what they did, past tense
    crash: str  # a whole sentence
    why: str
    fix: str  # what they did better, past tense
    use: str  # what they did with it in the end, past tense


BUILDINGS = (
    Building("tower", "the yard", "stones", ("piled stone on stone", "put the biggest stone on top"),
             "The tower swayed, and down it came.", "The bottom is too narrow.",
             "laid a wide ring of flat stones first", "stood on tiptoe to put a flag on the top"),
    Building("dam", "the stream", "sticks and mud", ("pushed sticks into the mud", "filled the gaps with leaves"),
             "The water rose, and with a gurgle the dam broke.", "The leaves are too weak.",
             "put heavy stones behind the sticks", "sailed nutshell boats on the new pool"),
    Building("raft", "the pond", "logs and rope", ("rolled logs to the water", "tied them up with a rope"),
             "The knots came undone, and the logs floated apart.", "The knots are too loose.",
             "tied every knot twice and pulled hard", "drifted along like sailors"),
    Building("hut", "the edge of the wood", "branches", ("leaned branches against a trunk", "covered them with grass"),
             "A gust of wind came, and the hut fell flat.", "Nothing holds it in the ground.",
             "dug a hole for every post", "sat inside and listened to the rain"),
    Building("sledge", "the grassy hill", "old boards",
             ("nailed the boards together", "fastened a string at the front"),
             "At the first bump the sledge fell into pieces.", "The nails are too short.",
             "used long nails and a board across", "slid all the way down"),
    Building("cart", "the yard", "a box and four wheels",
             ("put the wheels under the box", "painted a number on the side"), "A wheel came off and rolled away.",
             "There is no pin in the axle.", "put a wooden pin through each axle", "rolled down the lane, cheering"),
    Building("bridge", "the ditch", "planks",
             ("laid the planks from one side to the other", "made a railing of string"),
             "There was a crack, and one plank broke in the middle.", "The planks are too thin.",
             "laid two planks on top of each other", "marched across it, one after the other"),
    Building("kite", "the windy hill", "paper and sticks", ("glued paper onto two sticks", "painted a face on it"),
             "The kite went up, turned over and crashed into a bush.", "It has no tail.",
             "tied a long tail of ribbons to it", "watched it dance among the clouds"),)


def building_breaks(s):
    h, f, e, pick = s.hero, s.friend, s.elder, s.pick
    b = pick(*BUILDINGS)
    helper = pick(e, s.parent)
    s.add(opening(s), f"{day(s)}, {h.name} and {f.name} wanted to build {a(b.name)}.",
          said(s, h, f"We need {b.tools}.", pick("I know where to find them.", "And a lot of time.") , "said"))
    s.add(f"They carried everything to {b.where}.", f"{h.name} {b.steps[0]}, and {f.name} {b.steps[1]}.",
          pick(f"it was the finest {b.name} they had ever seen.", f"soon the {b.name} was ready.",
               "They worked until their cheeks were hot."), s.maybe(detail(s), chat(s, f, h)),
          pick("But then it happened.", "But their joy did not last long.", "And then, oh dear!"), b.crash)
    blame = s.random() < 0.4
    s.add(said(s, h, "That is your fault!", how="cross") if blame else sad(s, h),
          said(s, f, "No, it is yours!", how="cross") if blame else said(s, f, "All that work for nothing.", how="sad"),
          pick(f"{helper.name}, who had heard the noise, came closer.", f"just then {helper.name} came along."),
          said(s, helper, "Everything breaks once.", pick("The question is why.", "Then one knows more than before."),
               "warm"), f"they looked at the {b.name} from all sides.",
          said(s, pick(h, f), f"I see! {b.why}", how="glad"))
    s.add(pick("So they began again.", "They started once more.", "This time they did not hurry."), f"They {b.fix}.",
          f"and this time the {b.name} held!", proud(s, h), f"{h.name} and {f.name} {b.use}.",
          s.maybe(f"even {helper.name} {pick('clapped', 'cheered', 'laughed')}."),
          s.maybe(said(s, h, pick("It is better than the first one!", "Tomorrow we will build another one!"),
                       how="glad")))
    ending(s, "A mistake shows how to do it better.", "What is worth building is worth building twice.",
           "Before one builds up, one has to look down.",
           "It does not matter who was wrong. It matters what comes next.")


# name, what one did to get ready, what happened to the other, what a good turn was
CONTESTS = (
    ("the great race", "ran up and down the hill every morning", "had tripped over a root", "stopped and helped {} up"),
    ("the boat race", "painted a little boat and greased its bottom", "had a boat that was leaking",
     "gave {} some wax for the hole"),
    ("the kite contest", "glued and tied and measured", "had a kite with a torn wing",
     "gave {} a piece of paper and some glue"),
    ("the baking contest", "tried out seven kinds of cake", "had run out of eggs", "gave {} two eggs"),
    ("the singing contest", "sang from morning till night", "was hoarse with fear",
     "brought {} a cup of warm honey milk"),
    ("the pumpkin contest", "watered a pumpkin every evening", "could not lift the pumpkin", "helped {} to push it"),
    ("the sack race", "hopped around the yard in a potato sack", "had a hole in the sack",
     "lent {} a needle and thread"),
    ("the picture contest", "painted and painted", "had spilled all the blue paint", "shared the blue paint with {}"),)


def contest(s):
    h, f, o, pick = s.hero, s.friend, s.other, s.pick
    name, ready, trouble, turn = pick(*CONTESTS)
    when = pick("Saturday", "Sunday", "the first day of the month", "the day of the fair")
    prize = pick("a golden cup", "a blue ribbon", "a basket of " + pick(*FRUIT), "a drum", "a medal made of chocolate",
                 "a crown of flowers")
    s.add(opening(s), f"on {when} there was going to be {name}.", f"the first prize was {prize}.",
          said(s, h, pick("I am going to win!", "This time I will be the best!", "That prize will be mine!"),
               how="glad"), f"{h.he} {ready}.",
          s.maybe(f"even {s.parent.name} had to listen to {h.his} plans all day."))
    s.add(pick("At last the great day came.", "Then it was time.", "On the day itself the sun was shining."),
          f"everybody was there, and so {pick('was', 'of course was')} {f.name}, the one {h.name} had to beat.",
          s.maybe(detail(s)),
          pick(f"{h.name}'s heart was beating like a drum.", f"{h.name} was sure of winning.",
               f"{h.name} rubbed {h.his} {h.paw}s."), f"but then {h.name} saw that {f.name} {trouble}.",
          pick(f"{f.name} was close to tears.", f"{f.name} did not know what to do.",
               said(s, f, "Now it is all over.", how="sad")))
    s.add(pick(f"for a moment {h.name} thought: Now I will win for sure.",
               f"{h.name} looked at the prize, and then at {f.name}."),
          pick("But it did not feel right.", "But what kind of victory would that be?"),
          f"{h.name} {turn.replace('{}', f.him)}.", said(s, f, "Why are you helping me?", how="ask"),
          said(s, h, pick("Because it is more fun with you.", "I want to win fairly.", "Because you are my friend."),
               how="said"))
    end = int(s.random() * 3)
    if end == 0:
        s.add(f"in the end {f.name} came first and {h.name} came second.",
              f"{f.name} took the prize and pulled {h.name} up beside {f.him}.",
              said(s, f, "Half of it is yours!", how="loud"), glad(s, h))
    elif end == 1:
        s.add(f"in the end it was {h.name} who won.", f"{f.name} clapped the loudest of all.",
              said(s, f, "You earned it.", how="warm"), proud(s, h))
    else:
        s.add(f"neither of them won. The prize went to {o.name}.",
              f"{h.name} and {f.name} looked at each other and began to laugh.",
              said(s, h, "Next year, then!", how="glad"), f"they both went over to {o.name} to say well done.")
    ending(s, "A friend is worth more than a prize.", "It is good to win, and better to be fair.",
           "To help a rival is a victory, too.",
           ("The finest prize is one that is shared.", "Whoever wins fairly wins twice.",
            "Not to win is easier with a friend.")[end])


def new_friend(s):
    h, f, o, pick = s.hero, s.friend, s.other, s.pick
    place = s.place()
    game = pick(*GAMES)
    shared = pick("drawing ships", "looking for snails", "telling riddles", "making daisy chains", "watching ants",
                  "singing rounds", "collecting round pebbles", "folding paper birds")
    s.add(opening(s), f"{day(s)}, {h.name} and {o.name} were playing {game} at {place.name}.",
          f"{pick(*place.spots)} sat somebody they had never seen before.",
          f"it was {a(kind_of(s, f))} named {f.name}, who had just moved "
          f"{pick('in by the mill', 'here from far away', 'into the empty ' + f.home)}.")
    s.add(said(s, o,
               pick("Don't ask that one. We are enough.", "Look, how strange!", "Why does somebody just sit there?"),
               how="said"),
          pick(f"but {h.name} remembered how it felt to be new.",
               f"but {h.name} saw that {f.name} was looking at them.",
               f"but {h.name} thought that {f.name} looked lonely."), f"{h.he} went over.",
          said(s, h, "Hello!", pick(f"My name is {h.name}.", "What is your name?", "Do you want to play?"), "warm"),
          pick(f"{f.name} only looked at {f.his} feet.", f"{f.name} turned red and said nothing.",
               said(s, f, "I am not good at games.", how="shy")),
          pick(f"{h.name} did not know what to do now.", f"{o.name} called for {h.name} to come back."))
    s.add(f"then {h.name} saw that {f.name} had been {shared}.",
          said(s, h, "Oh, I like that, too!", "Will you show me?", "glad"), f"{f.name} looked up.",
          said(s, f, "Do you really want to see?", how="shy"), f"soon they were both {shared}.",
          f"after a while even {o.name} came and sat down with them.",
          said(s, o, pick("How do you do that?", "May I try?"), how="ask"), f"and {f.name} showed {o.him} how.",
          s.maybe(chat(s, f, o)))
    s.add(pick(f"from that day on {h.name} and the two others often met at {place.name}.",
               f"the next day {f.name} joined {h.name} in a game of {game} and was very good at it.",
               f"{f.name} laughed for the first time since the move, and {h.name} laughed, too."), glad(s, pick(h, f)),
          s.maybe(treat(s, "all three of them")))
    ending(s, "A new friend is often only one hello away.", "Everybody was new somewhere once.",
           "Shy people have good stories to tell.", "Whoever takes the first step makes a friend.")


# the thing, how it broke, how one hides it, how it is mended
ACCIDENTS = (
    ("blue vase", "knocked it off the shelf with an elbow", "pushed the pieces under the carpet",
     "glued the pieces together"),
    ("old clock", "wound it up until the spring snapped", "put it back with its face to the wall",
     "put in a new spring"),
    ("big mirror", "threw a ball at it by mistake", "hung a towel over it", "put a new glass into the frame"),
    ("garden gate", "swung on it until it cracked", "leaned it against the hedge", "nailed a board across it"),
    ("teapot", "dropped it while playing tea party", "hid it in the flour bin", "made a flowerpot out of it"),
    ("picture of the sea", "splashed it with berry juice", "turned it around on the wall",
     "painted a red sunset over the spot"),
    ("rose bush", "rode over it with the wheelbarrow", "stuck the twigs back into the soil", "planted a new one"),
    ("lantern", "bumped it against a stone", "hid it behind the barrel", "put in a new pane"),)


def confessed(s):
    h, p, e, pick = s.hero, s.parent, s.elder, s.pick
    thing, broke, hid, mended = pick(*ACCIDENTS)
    whose = pick(p, e)
    s.add(opening(s), f"{day(s)}, {h.name} was alone for a while.",
          f"there was {a(thing)} that {whose.name} {pick('loved', 'was very proud of', 'liked more than anything')}.",
          f"{h.name} had been told to be careful with it.",
          pick("But then it happened.", "But one wrong move was enough.", "But careful is easily said."),
          f"{h.he} {broke}.")
    s.add(afraid(s, h),
          said(s, h, pick("Oh no! What have I done?", "Nobody must know!", "What will happen now?"), how="afraid"),
          f"quickly {h.he} {hid}.",
          pick(f"when {whose.name} came back, {h.name} sat there as if nothing had happened.",
               f"then {h.he} went away, whistling loudly."), said(s, whose, "Is everything all right?", how="ask"),
          said(s, h, "Yes.", how="shy"))
    s.add(pick(f"but {h.name} could not eat.", f"but {h.name} could not sleep that night.",
               f"but {h.name} could not look {whose.name} in the eye."),
          pick(f"the lie lay in {h.his} tummy like a stone.", "The secret grew heavier and heavier.",
               f"wherever {h.he} went, {h.he} had to think of the {thing}."),
          f"at last {h.he} could not bear it any longer.",
          said(s, h, f"I broke the {thing}.", pick("And then I lied.", "I am so sorry.", "I was afraid to tell you."),
               "sad") if "picture" not in thing else said(s, h, f"I spoiled the {thing}.", "I am so sorry.", "sad"))
    s.add(f"{whose.name} was silent for a moment.",
          pick(said(s, whose, f"I did like that {thing}.", "But I like the truth even more.", "warm"),
               said(s, whose, "It is a pity.", "But I am glad that you told me.", "warm"),
               said(s, whose, "That was not easy to say.", "Thank you for telling me.", "warm")),
          f"together they {mended}." if s.random() < 0.7 else f"the next day {h.name} and {whose.name} {mended}.",
          pick(f"{h.name} helped with everything.", f"it did not look the same as before, but {whose.name} liked it.",
               f"{h.name} held every piece that {h.he} was given."),
          pick(f"and the stone in {h.name}'s tummy was gone.", hug(s, whose, h),
               f"that night {h.name} slept like a log."))
    s.add(pick("The truth is hard to say, but it makes one free.",
               f"Since then {h.name} has told the truth right away.",
               "Everybody makes mistakes. What counts is to say so.", "A thing can be mended, and so can a lie."))


# the seed, the plant, what there was in the end
PLANTS = (
    ("a sunflower seed", "sunflower", "was a flower as big as a plate"),
    ("a bean", "bean plant", "were pods full of fat beans"),
    ("a pumpkin seed", "pumpkin plant", "was a round orange pumpkin"),
    ("a strawberry seed", "plant", "were sweet red strawberries"), ("a pea", "pea plant", "were sweet green peas"),
    ("a tulip bulb", "tulip", "was a red tulip with a black star inside"),
    ("a tomato seed", "tomato plant", "were seven red tomatoes"),
    ("a marigold seed", "plant", "were flowers as bright as the sun"),
    ("a brown wrinkled seed", "climbing plant", "were blue flowers as wide as teacups"),)


def growing(s):
    h, e, f, pick = s.hero, s.elder, s.friend, s.pick
    seed, plant, fruit = pick(*PLANTS)
    s.season = "spring"
    giver = pick(e, s.parent)
    s.add(opening(s),
          pick(f"but waiting was not what {h.he} was good at.", f"but {h.he} was not very patient.",
               f"but {h.he} wanted everything right away."), f"{day(s)}, {giver.name} gave {h.name} {seed}.",
          said(s, giver, "Put it in the ground, give it water, and wait.", how="warm"),
          f"{h.name} put it "
          f"{pick('in a pot by the window', 'in the corner of the garden', 'where the sun shone longest')}."
          if not s.wood
          else f"{h.name} put it "
          f"{pick('in front of the ' + h.home, 'where the sun shone longest', 'beside a warm stone')}.")
    s.add(pick(f"a little later {h.he} went to look. There was nothing.",
               f"the next morning {h.he} ran out to look. There was only earth."),
          said(s, h, "Why does it take so long?", how="ask"),
          pick(f"{h.he} sang to it, but nothing happened.",
               f"{h.he} wanted to dig it up again to see what it was doing.",
               f"{h.he} poured so much water on it that there was a lake."),
          said(s, giver,
               pick("It is growing where you cannot see it.", "Nobody can pull a plant out of the ground by its ears.",
                    "First it needs roots, and roots are quiet."), how="warm"), f"{h.name} sighed.",
          f"but {h.he} watered it every {pick('morning', 'evening', 'day')}.")
    s.add(f"after {pick('two', 'three')} weeks there was a green tip, no bigger than "
          f"{pick('a pin', 'a crumb', 'a fly', 'a grain of rice')}.", glad(s, h),
          pick("Then came a storm,", "Then came a hungry snail,", "Then came some hot days,") + f" and {h.name} "
          + pick(f"looked after the {plant} day and night.", f"did not leave the {plant} alone for long.",
                 "knew what to do."),
          pick(f"when {f.name} came to play, they measured it together.",
               f"{h.he} put a stick beside it and made a mark every week.",
               f"{h.he} talked to it every day and told it the news."),
          f"week by week the {plant} grew {pick('taller', 'bigger', 'a little more')}.")
    s.add(pick("And then, one summer morning,", "At the end of summer", "One warm day in July,") + f" there {fruit}.",
          proud(s, h), said(s, h, "I waited, and it was worth it!", how="glad"),
          pick(f"{h.name} showed {f.name} and {giver.name} what had grown.", f"{h.name} ran to fetch {giver.name}.",
               f"{h.name} kept {pick('one seed', 'a few seeds')} for the next spring."))
    s.add(pick("Good things take time.", "What grows slowly grows well.",
               "Waiting is easier when one has something to care for.",
               f"Nobody sees how a plant grows, and still it does, just like {h.name}."))


# who, its sounds, where it was, the first try, what worked, what it did after
RESCUES = (
    ("a kitten", "mewed", "high up in a tree", "called to it, but it did not dare to move",
     "leaned a ladder against the tree and climbed up", "purred"),
    ("a lamb", "bleated", "in deep mud", "pulled, but the mud held it tight",
     "laid boards on the mud and crawled across", "shook itself"),
    ("a duckling", "peeped", "at the bottom of a ditch", "reached down, but the ditch was too deep",
     "lowered a basket on a string", "flapped its stubby wings"),
    ("a beetle", "buzzed", "in a bucket of water", "blew on the water, but the waves only rocked it",
     "held a long leaf down to it", "spread its wings"),
    ("a young bird", "cheeped", "under the hedge, far from its nest",
     "looked for the nest, but it was too high to reach", "fetched a ladder and put the bird back",
     "sang a small song"),
    ("a little goat", "bleated", "behind a fence with its horns stuck", "pulled at the fence, but it was too strong",
     "turned its head sideways, very gently", "skipped all around the field"),
    ("a butterfly", "fluttered", "in a spider's web", "waved at the web, but it only shook",
     "loosened the threads with a straw", "danced up into the sun"),
    ("a foal", "whinnied", "on the wrong side of the stream", "waved to it, but the water was too fast",
     "laid a wide board across the stream", "galloped to its mother"),)


def rescue(s):
    h, f, p, pick = s.hero, s.friend, s.parent, s.pick
    who, sound, where, tried, worked, after = pick(*RESCUES)
    noun = who.split(" ", 1)[1]
    way = pick("through the fields", "along the stream", "down a narrow path", "past the old mill", "around the pond",
               "over the hill")
    s.add(opening(s), f"{day(s)}, {h.name} and {f.name} {pick('were walking', 'went', 'were wandering')} "
          f"{way}.",
          pick(passing(s, h), detail(s), chat(s, h, f)),
          pick(f"suddenly {h.name} stopped.", f"then {h.name} held up {h.his} {h.paw}."),
          said(s, h, "Do you hear that?", how="ask"), f"something {sound}.")
    s.add(f"it was {who}, {where}.",
          pick(said(s, f, "The poor thing!", how="sad"), said(s, f, "It is afraid.", how="sad"),
               said(s, f, "It can't get away by itself!", how="sad")), f"first they {tried}.",
          pick(said(s, f, "We are too small.", how="sad"), said(s, f, "What now?", how="ask"),
               f"the {noun} {sound} again."),
          said(s, h, pick("I will not leave it here.", "There must be a way.", "Let me think."), how="said"))
    s.add(pick(f"{h.name} looked around and thought hard.", f"{h.name} closed {h.his} eyes and thought."),
          said(s, h, "I have it!", how="loud"),
          pick(f"{f.name} ran to get help, and {h.name} stayed and talked softly to the {noun}.",
               f"{h.name} told {f.name} the plan, and {f.name} nodded."),
          f"then, {pick('slowly', 'carefully', 'gently')}, they {worked}.",
          pick("For a moment nothing moved.", "It took a long time."), f"and then the {noun} was free!")
    s.add(f"it {after}.",
          pick(said(s, f, "You had the best idea, and you did not give up.", how="warm"),
               said(s, h, "Go home, little one.", how="warm"), glad(s, h)),
          pick(f"the {noun} looked back at {h.name} once, and then it was gone.",
               f"the next day the {noun} was there again, as if it had waited for {h.name}.",
               f"when {p.name} heard about it, {p.he} was very proud of {h.name} and {f.name}."))
    ending(s, "Even the small can help the smaller.", "One should not walk past when somebody calls for help.",
           "A calm head finds a way.", "Being strong is good, but thinking is better.")


def birthday(s):
    h, f, o, p, pick = s.hero, s.friend, s.other, s.parent, s.pick
    gift = pick("a pair of roller skates" if not s.wood else "a pair of stilts", "a wooden boat with a white sail",
                "a box full of coloured chalk", "a lantern with stars cut into it", "a rucksack for long walks",
                "a magnifying glass", "a little drum", "a soft blanket with a moon on it")
    s.add(opening(s),
          pick(f"{day(s)}, {h.name} woke up before everyone else.", f"{day(s)}, {h.name} jumped out of bed."),
          "It was " + h.his + " birthday!", f"{h.he} waited for somebody to come in and sing.", "But nobody came.")
    s.add(pick(f"{p.name} was busy and only said good morning.", f"{p.name} was reading and hardly looked up."),
          f"{h.name} went to {f.name}.", s.maybe(passing(s, h)),
          said(s, h, "Do you know what day it is today?", how="ask"),
          said(s, f,
               pick("Let me think. Is it the day for washing?", "It is a day like any other.", "I have no time now."),
               how="said"), f"{o.name} did not remember either.",
          pick(said(s, h, "They have all forgotten.", how="sad"), f"everyone had forgotten {h.him}."), sad(s, h))
    s.add(pick(f"{h.name} walked about alone until the sun was low.",
               f"{h.name} sat by the water and threw in {pick(*NUMBERS)} pebbles.",
               f"{h.name} sang a birthday song to {pick('a snail', 'a beetle', 'a toad')}, but it did not sing "
               "along."), f"when {h.he} came home, everything was dark.", f"{h.he} opened the door.",
          f'"Surprise!" shouted {f.name}, {o.name} and {p.name} all at once.',
          pick(f"there were {pick('lanterns', 'candles', 'paper chains')} everywhere.",
               f"on the table stood {pick('a cake', 'an apple pie', 'a tart')} with {pick(*NUMBERS[3:8])} candles."),
          said(s, f, "Did you really think we would forget?", how="warm"))
    s.add(f"{p.name} gave {h.name} {gift}.", glad(s, h),
          pick(treat(s, "they all"), f"They played {pick(*GAMES)} until late.", "They sang and danced.", chat(s, f, o)),
          pick(said(s, h, "This is the best birthday of my life!", how="glad"),
               said(s, h, "You fooled me!", how="glad")))
    s.add(pick("Sometimes friends are busy because they are thinking of you.", "Those who love us do not forget us.",
               f"{h.name} fell asleep that night with {h.his} present beside {h.him}.",
               "A surprise is at its best when nobody expects it."))


def getting_lost(s):
    h, p, e, pick = s.hero, s.parent, s.elder, s.pick
    if s.wood:
        seat = pick("on a log", "beside a big rock", "under a tall pine")
    else:
        seat = pick("on a step", "beside a fountain", "on a bench")
    where, crowd = ("in the forest", "trees") if s.wood else pick(("in the market", "people"),
                                                                  ("at the fair", "legs and coats"),
                                                                  ("in the big station", "people"))
    lure = pick("a butterfly with blue wings", "the sound of a flute", "a wonderful smell", "a funny little dog",
                "a floating feather") if not s.wood else pick("a butterfly with blue wings", "a trail of ripe berries",
                                                              "a wonderful smell", "a hopping frog",
                                                              "a floating feather")
    s.add(opening(s), f"{day(s)}, {h.name} was {where} with {p.name}.",
          said(s, p, "Stay close to me.", "Do not run off.", "warm"), f"but {h.name} noticed {lure} and followed it.",
          pick("Just a few steps.", "Around one corner, and then another.", "It led farther and farther away."),
          f"when {h.he} looked up, there were only {crowd}, and no {p.name}.")
    s.add(afraid(s, h), said(s, h, f"{p.name}! Where are you?", how="loud"), "Nobody answered.",
          pick(f"{h.he} {h.ran} to the left, and then to the right.",
               f"{h.he} ran in a circle, and everything looked the same."), sad(s, h))
    s.add(pick(f"then {h.he} remembered what {p.name} had once said: If you are lost, stay where you are.",
               f"then {h.he} stopped and took three deep breaths."), f"{h.he} sat down "
          f"{seat} and waited.",
          f"after a while {e.name} came along.", said(s, e, f"Why, {h.name}, are you all alone?", how="ask"),
          said(s, h, f"I can't find {p.name}.", how="sad"),
          said(s, e, pick("Then we will wait here together.", "Do not worry, we will find " + p.him + "."), how="warm"),
          pick(f"{e.name} called out with {e.his} loud voice.",
               f"{e.name} {pick('told', 'began to tell')} a story so that {h.name} would not be afraid."))
    s.add(f"and there {pick('came', 'was')} {p.name}, out of breath.",
          said(s, p, "There you are!", "I looked for you everywhere.", "glad"), hug(s, p, h),
          said(s, h, pick("I will not run off again.", "I stayed in one place, as you told me."), how="said"),
          thanks(s, p, e),
          pick(f"on the way home {h.name} held {p.name}'s {h.paw} very tight.", treat(s, "all three of them"),
               f"{h.name} did not let go of {p.name} for the rest of the day."))
    ending(s, "Whoever is lost should stay in one place and call.",
           "It is good to know what to do before one needs it.",
           "Even curious feet should tell somebody where they are going.", "The way back is shorter with a friend.")


# plan, how it went wrong, how the hero looked in the end
TRICKS = (
    ("put salt in the sugar bowl", "took the sugar for {} own tea", "had to drink three cups of water"),
    ("dig a hole and cover it with leaves", "forgot where it was and stepped on the leaves",
     "sat in the hole up to the neck"),
    ("hang a bucket of water over the door", "had to go through the door first", "was wet from head to toe"),
    ("hide in the big barrel and jump out", "got stuck in the barrel", "rolled all the way down the hill"),
    ("paint a moustache on a sleeping friend", "fell asleep first, with the paint beside {him}",
     "woke up with a green nose"),
    ("walk about under a white sheet like a ghost", "could not see through the sheet",
     "walked straight into the duck pond"),
    ("make a monster out of branches", "came back in the dark and saw it", "screamed louder than anyone"),
    ("put a frog in the lunch basket", "opened the wrong basket", "had a frog sitting on {} nose"),)


def trick(s):
    h, f, o, pick = s.hero, s.friend, s.other, s.pick
    plan, wrong, result = pick(*TRICKS)
    wrong, result = (text.replace("{}", h.his).replace("{him}", h.him) for text in (wrong, result))
    s.add(opening(s),
          pick(f"{h.he} also liked to play tricks.", f"{h.he} loved to make fun of others.",
               f"no one was safe from {h.his} jokes."), f"{day(s)}, {h.he} had a new idea.",
          said(s, h, f"I will {plan}.", f"{f.name} will be so surprised!", "glad"),
          s.maybe(said(s, o, "I don't think that is funny.", how="said"), said(s, o, "Are you sure?", how="ask")))
    s.add(f"{h.name} got everything ready and {pick('giggled', 'grinned', 'chuckled')}.",
          pick(f"{f.name} took a long time to come.", f"{f.name} was late.", f"{h.he} waited and waited."),
          pick("And then it went wrong.", "But tricks have a mind of their own.", "But then, oh dear!"),
          f"{h.name} {wrong}.", f"{h.he} {result}.")
    s.add(f"of course that was the moment when {f.name} came.",
          pick(f"{f.name} stared, and then {f.he} laughed until {f.his} tummy hurt.",
               f"{f.name} could not help laughing."),
          pick(f"{h.name} turned as red as {pick('a beet', 'a cherry', 'a poppy')}.",
               f"{h.name} did not find it funny at all."),
          pick(said(s, h, "Stop laughing!", how="cross"), said(s, h, "It was meant for you.", how="shy")),
          f"but {f.name} {pick('helped', 'went to help')} {h.him} and fetched "
          f"{pick('a towel', 'a dry blanket', 'a cup of tea')}.",
          pick(said(s, f, "Is it still funny?", how="ask"), said(s, f, "Now you know how it feels.", how="warm")))
    s.add(pick(f"{h.name} thought about it. Then {h.he} had to laugh, too.",
               f"{h.name} shook {h.his} head and grinned."),
          said(s, h, pick("It serves me right.", "From now on only tricks that make everyone laugh.", "I am sorry."),
               how="said"),
          pick(treat(s, "they"), hug(s, h, f),
               f"The next day {h.he} played a trick of another kind and left {pick(*BAKED)} at {f.name}'s door."))
    ending(s, "Whoever digs a pit may fall in first.", "A joke is good when both can laugh.",
           "Before you play a trick, think how it feels.", "Laughing with others is better than laughing at them.")


def sick_friend(s):
    h, f, o, p, pick = s.hero, s.friend, s.other, s.parent, s.pick
    tale = pick("a pirate who was afraid of water", "a mouse who owned a castle", "a cloud that could not rain",
                "a sock that looked for its twin", f"{pick(*NUMBERS)} {pick(*COLOURS)} {pick(*DREAMS)}")
    gift = pick("a picture book", f"a bunch of {pick(*FLOWERS)}", "a jar with a firefly in it", oddment(s),
                "a bag of riddles written on leaves", "a puppet made from a sock")
    ill = pick("a cold", "a sore throat", "a bad cough", "a fever", "the hiccups and a tummy ache", "a swollen foot")
    planned = pick("fly their kites", "go to the fair", "play pirates", "build a hut", "go fishing", "have a picnic")
    s.add(opening(s), f"{day(s)}, {h.name} and {f.name} wanted to {planned}.",
          f"but {f.name} had {ill} and had to stay in bed.",
          pick(sad(s, h), f"{h.name} had been looking forward to it all week."),
          pick(said(s, o, "Come with me instead.", how="said"),
               f"{o.name} asked {h.name} to come along without {f.name}."),
          f"{h.name} thought of {f.name}, who was lying there alone.",
          said(s, h, pick("It would be no fun without my friend.", f"I will visit {f.name}."), how="said"))
    soup, = s.some(1, ("chicken soup", "vegetable soup", "onion soup", "noodle soup") if not s.wood
                   else ("nettle soup", "mushroom soup", "root soup", "acorn soup"))
    s.add(f"{h.name} and {p.name} cooked {soup}.", f"{h.name} also took along "
          f"{gift}.",
          s.maybe(passing(s, h)), f"{f.name} lay under {pick('two', 'three')} blankets and looked pale.",
          said(s, f, "I am so bored.", "Nobody may play with me.", "sad"),
          said(s, h,
               pick("Then I will play with you from the door.", "First the soup, and then a story.",
                    "I brought you something."), how="warm"))
    s.add(pick(f"{h.name} acted out a play with {h.his} {h.paw}s, and the shadows on the wall became "
               f"{pick('dragons', 'birds', 'camels')} and {pick('ships', 'giants', 'wolves')}.",
               f"{h.name} told a story about "
               f"{tale}.",
               f"{h.name} opened the window so that they could hear {a(pick(*BIRDS))} sing."), f"{f.name} laughed, "
          f"and {pick('the soup was soon gone', f.his + ' cheeks grew pink', 'forgot all about being ill')}.",
          f"{h.name} came every day.",
          f"on the {pick('third', 'fourth', 'fifth', 'sixth')} day {f.name} was well again.")
    s.add(pick("And now", "The very next morning") + f" they could {planned}, and {o.name} came, too.", glad(s, f),
          thanks(s, f, h))
    ending(s, "A visit is the best medicine.", "One knows a friend when one is ill.",
           "Soup warms the tummy, and a friend warms the heart.", "What is put off is not lost.")


THING_NAMES = words("""
    Tug Bluebell Puff Bob Whistle Sparky Skipper Marigold Rumble Dotty Bumble Jolly Pebble Scout Tinker Breeze
    """)


def little_boat(s):
    pick = s.pick
    h = s.hero = s.join(Who(pick(*THING_NAMES), "boat"))
    sailor = s.join(Who(pick("the old sailor", "the fisherman", "the captain"), "man", *HE))
    gull = pick("a gull", "a grey seal", "a young dolphin")
    colour, task = pick(*COLOURS), pick("bring medicine to the island", "carry the letters to the lighthouse",
                                        "fetch a doctor from the other shore", "take bread to the people on the "
                                        "island")
    s.add(f"In a {pick('small', 'quiet', 'busy')} harbour lay {a(colour)} boat {pick('named', 'called')} {h.name}.",
          pick("It was the smallest boat of all.", "Its sail was patched, but its heart was brave.",
               f"the big ships laughed at {h.name}."),
          pick(f"{h.name} had never been out on the open sea.", f"{h.name} only knew the calm water behind the wall."),
          said(s, h, pick("The waves out there are so high!", "I am much too small for the sea."), how="afraid"))
    s.add(f"{pick('One night', 'One evening', 'One stormy day')} {sailor.name} came running.",
          said(s, sailor, f"Somebody must {task}!", "It cannot wait.", "loud"),
          said(s, h, "Why don't the big ships go?", how="ask"),
          said(s, sailor, pick("The water by the rocks is too shallow for them.", "They are all out at sea."),
               pick("Only a small boat can do it.", "You are the only one left."), "said"),
          pick(f"{h.name} creaked with fear.", f"a shiver ran along the planks of {h.name}.",
               f"{h.name} trembled from bow to stern."), said(s, h, "Then I will try.", how="shy"))
    s.add(pick("Out there the waves were like hills.", "The wind howled, and the rain whipped the water."),
          f"up went {h.name}, and down again.",
          pick(f"twice {h.name} thought: I will turn back.", f"once a wave rolled right over {h.name}."),
          f"then {gull} {pick('appeared', 'came up')} beside the boat.",
          f'"Follow me," it called. "I know the way {pick("between the rocks", "through the fog")}."',
          f"and {h.name} followed, wave after wave, until there was a light.")
    s.add(pick("They had made it!", "They were there!"), f"everyone on the shore {pick('cheered', 'waved', 'sang')}.",
          f"when {h.name} came home, the big ships blew their horns.",
          said(s, sailor, pick("Small boat, big heart!", "You were braver than all of us."), how="warm"),
          pick(f"and {h.name} was never afraid of the sea again.",
               f"{h.name} was still small, but nobody laughed any more.",
               f"{h.name} rocked softly on the water and felt as big as a ship."))


def little_train(s):
    pick = s.pick
    h = s.hero = s.join(Who(pick(*THING_NAMES), pick("train", "engine")))
    driver = s.join(Who(pick("the driver", "the station master"), "driver", *pick(SHE, HE)))
    load = pick("milk and eggs", "toys for the fair", "oranges", "a circus", "Christmas trees", "books for the school",
                "a band with all its trumpets")
    place = pick("the town behind the mountain", "the village in the valley", "the city by the sea")
    s.add(f"There was once {a(pick(*COLOURS))} {h.noun} named {h.name}.",
          pick("It puffed along the same short track every day.",
               "Day after day it pushed empty wagons about the yard."),
          pick(f"{h.name} dreamed of going over the mountain.", f"{h.name} would have liked to see {place}."),
          pick("But nobody ever asked.", "But the big engines said that it was too weak."))
    s.add(f"{pick('One morning', 'One frosty morning', 'One foggy day')} the big engine "
          f"{pick('broke down', 'had a hole in its boiler', 'would not start')}.",
          f"it was supposed to take {load} to {place}.", said(s, driver, f"What about you, {h.name}?", how="ask"),
          said(s, h, pick("I have never pulled anything so heavy.", "I will do my best."), how="shy"),
          f"and off it went, {pick('puff, puff, puff', 'chuff, chuff, chuff', 'clickety clack')}.")
    trouble = pick(("sheep were standing on the track", "waited and whistled a friendly tune until they moved"),
                   ("leaves lay on the rails and made them slippery", "went back a little and took a long run"),
                   ("the hill grew steeper and steeper", "counted the sleepers, one by one, and did not look up"),
                   ("a tree lay across the track", "pushed it aside, inch by inch"))
    s.add("At first it was easy.", f"then {trouble[0]}.",
          pick(f"{h.name} grew slower and slower.", f"{h.name} stood still and hissed."),
          said(s, driver, "Shall we give up?", how="ask"), said(s, h, "Not yet!", how="loud"),
          f"{h.name} {trouble[1]}.", pick("It worked!", "A little farther, and a little farther."))
    s.add(f"at last they rolled over the top, and there lay {place}.",
          pick("Children ran beside the track and waved.", "A bell was ringing, and everybody came to look."),
          said(s, driver, pick("You did it!", "Well done, little one!"), how="glad"),
          f"{h.name} {pick('blew its whistle three times', 'let out a white cloud of steam', 'shone in the sun')}.",
          pick("Slow and steady gets up the hill.", f"since that day {h.name} has crossed the mountain every week.",
               "One does not know what one can do until one tries."))


def free_kite(s):
    h, pick = s.hero, s.pick
    kite = s.join(Who(pick(*THING_NAMES), "kite"))
    stuck = pick(("in a thorny hedge", "The thorns tore its paper."),
                 ("in the top of a tall pine", "A crow pecked at it."),
                 ("on a church tower", "It was cold and lonely up there."),
                 ("in a muddy field", "Its colours ran in the rain."))
    s.add(opening(s),
          f"{h.name} had {a(pick('red', 'blue', 'striped', 'yellow', 'long-tailed'))} kite, and its name was "
          f"{kite.name}.",
          f"{day(s)}, they went up the hill, and {kite.name} flew higher than the "
          f"{pick('trees', 'roofs', 'swallows')}.", f"but {kite.name} was not happy.",
          said(s, kite, "This string holds me back.",
               pick("I want to see the world!", "Without it I could fly to the moon!"), "cross"))
    s.add(pick(f"{kite.name} tugged and tugged, until the string broke.",
               f"a strong gust came, and {kite.name} pulled with all its might. The string snapped."),
          said(s, kite, "I am free!", how="glad"), f"far below stood {h.name}, smaller and smaller.",
          f"for a while it was wonderful. {kite.name} saw {pick('rivers', 'lakes', 'roads')} and "
          f"{pick('towns', 'hills', 'fields')}.", pick("But nobody steered now.", "But the wind did as it liked."),
          f"the wind turned {kite.name} upside down and threw it down.", f"there it hung, {stuck[0]}. {stuck[1]}")
    s.add(f"meanwhile {h.name} {pick('ran over the fields', 'asked everyone', 'looked up at the sky')} and looked for "
          f"{kite.name}.", said(s, s.friend, "I saw something flutter over there!", how="loud"),
          f"together {h.name} and {s.friend.name} {pick('got the kite down', 'freed the kite')}.",
          f"{h.name} {pick('patched the paper', 'glued a new piece of paper on')} and tied a new string.",
          said(s, kite, "Are you angry with me?", how="shy"),
          said(s, h, pick("I am only glad to have you back.", "No, but I was worried."), how="warm"))
    s.add(f"the next day {kite.name} flew again, and it felt the string pull.",
          pick("Now it knew: without the string it could not fly at all.",
               "Now it knew that somebody was holding on to it."),
          pick("And it danced as it had never danced before.", f"and {h.name} held on tight.",
               "It waved its tail and was content."))


def snowman(s):
    h, f, o, p, pick = s.hero, s.friend, s.other, s.parent, s.pick
    nose = pick("a carrot", "a pine cone", "a red pepper", "a beet")
    s.add(opening(s),
          f"one winter morning {h.name} looked out, and "
          f"{pick('the whole world was white', 'everything was covered with snow', 'big flakes were falling')}.",
          said(s, h, pick("Snow! Snow!", "We must build a snowman!", "Get up, everybody, it has snowed!"), how="loud"),
          f"{f.name} came out, too, and they rolled {pick('three', 'two')} big balls.",
          f"they gave the snowman {nose} for a nose, {pick('buttons', 'nuts', 'pebbles')} for eyes and "
          f"{pick('an old hat', 'a pot', 'a basket')} on its head.")
    s.add(said(s, f, "It looks cold.", how="said"),
          f"{h.name} took off {h.his} own {pick('scarf', 'red scarf', 'woolly scarf')} and put it around the snowman's "
          "neck.", s.maybe(f"They danced around it until their {h.paw}s were frozen."),
          f"but after {pick('a few', 'five', 'six')} days the sun came out.",
          pick("Drip, drip, went the nose.", "The snowman grew thinner and thinner.", "The head began to tilt."),
          said(s, h, "Our snowman is going away!", how="sad"), sad(s, h))
    helper = pick(p, o)
    s.add(said(s, helper, pick("Snow does not die. It becomes water.", "It is not gone. It only changes."),
               pick("The water will make the grass grow.", "Next winter it will come down again."), "warm"),
          f"soon there was only a puddle, with {nose} and a scarf in it.", f"{h.name} hung up the scarf to dry.",
          pick(f"{f.name} poured some of the water on a pot of earth, and in spring a snowdrop grew there.",
               f"{h.name} filled a small bottle with the water and put it on the sill.",
               f"{h.name} and {f.name} drew a picture of the snowman, so that nobody would forget it."))
    s.add(pick(f"and when it snowed the next winter, {h.name} called: Welcome back!",
               "Some things go away and come again.", f"{h.name} smiled at every puddle that spring.",
               "Nice things do not have to last in order to be nice."))


def boasting(s):
    h, f, o, pick = s.hero, s.friend, s.other, s.pick
    claim, test, fail = pick(("climb any tree in the world", "the tall pine",
                              "got halfway up and could not get down again"),
                             ("lift the heaviest stone", "the grey rock",
                              "pulled until {} back hurt, and the rock did not move"),
                             ("find the way with closed eyes", "the path through the bog",
                              "walked straight into the mud and got stuck"),
                             ("jump over any ditch", "the wide ditch", "landed in the middle with a great splash"),
                             ("eat more than a horse", "the whole pot of porridge", "lay on the floor and groaned"),
                             ("row a boat all alone", "the boat on the pond", "only went around in circles"))
    s.add(opening(s),
          pick(f"but {h.he} liked to boast.", f"unfortunately {h.name} boasted a lot.",
               f"only one thing was tiresome about {h.him}: {h.he} boasted."),
          said(s, h, f"I can {claim}!",
               pick("Nobody is as good as I am!", "It is easy for me!", "You could never do that!"), "loud"),
          said(s, o, pick("Really?", "Can you?"), how="ask"), said(s, f, f"Then show us. There is {test}.", how="said"))
    s.add(f"{day(s)}, they all met at {test}." if "porridge" not in test
          else f"{day(s)}, they all sat down around {test}.",
          pick(f"{h.name} laughed, but {h.his} heart was beating fast.",
               f"{h.name} wished that {h.he} had kept quiet."),
          pick("but it was too late to turn back.", "Everybody was looking."),
          f"{h.name} {fail.replace('{}', h.his)}.", pick("Some of them giggled.", f"{o.name} began to laugh."),
          said(s, h, pick("Help me!", "Please help me!"), how="sad"))
    s.add(f"{f.name} did not laugh. {f.He} {pick('came at once', 'held out ' + f.his + ' ' + f.paw, 'ran over')} and "
          f"helped {h.him}.", said(s, f, pick("Are you hurt?", "Are you all right?"), how="ask"),
          f"{h.name} shook {h.his} head and looked at the ground.",
          said(s, h, pick("I only wanted you all to like me.", "I said more than I can do."), how="shy"),
          said(s, f, pick("We like you anyway.", "You need not be the best for that."), how="warm"))
    s.add(pick(f"after that {h.name} boasted less and practised more.",
               f"the next day {h.name} asked {f.name} to practise with {h.him}."),
          pick(f"and what {h.he} could not do, {h.he} admitted.",
               f"and when {o.name} boasted one day, {h.name} only winked."), s.maybe(treat(s, "they all")))
    ending(s, "Big words need big deeds.", "Real friends like you as you are.",
           "To say that one cannot do something is brave, too.", "Nobody has to be the best to be loved.")


def untidy(s):
    h, p, f, pick = s.hero, s.parent, s.friend, s.pick
    event = pick("the boat trip", "the fair", "the puppet show", "the summer feast", "the music parade",
                 "a ride on a hay wagon")
    need = pick("left shoe", "ticket", "rucksack", "rain cape", "blue cap", "lunch bag")
    under = pick("a mountain of toys", "a heap of clothes", "old drawings", "a pile of blankets", "seven odd socks",
                 "a tower of boxes")
    s.add(opening(s), f"but {h.name} never put anything away.",
          pick(f"on {h.his} floor lay {under}.", f"in {h.his} corner one could not see the floor for {under}."),
          said(s, p, pick("Please tidy up!", "One day you will not find your own nose!"), how="warm"),
          said(s, h, pick("Later.", "Tomorrow.", "I know where everything is."), how="said"))
    s.add(f"{day(s)}, {f.name} stood at the door.", s.maybe(detail(s)),
          said(s, f, f"Come, {event} begins soon!", how="loud"),
          f"{h.name} wanted to go at once, but {h.his} {need} was missing.",
          f"{h.he} looked under {pick('the bed', 'the table')}. There was only "
          f"{pick('an apple core', 'a forgotten biscuit', oddment(s), oddment(s))}.", f"{h.he} dug through {under}.",
          pick("The clock ticked.", f"{f.name} hopped from one foot to the other.", "Time was running out."),
          said(s, h, "Where can it be?", how="sad"))
    late = s.random() < 0.5
    s.add(f"at last {h.name} found the {need} "
          f"{pick('at the very bottom', 'behind the curtain', 'inside a drum', 'wrapped in a towel')}.",
          f"they ran as fast as they could, but {event} was already over." if late
          else "they ran as fast as they could and arrived at the very last moment.",
          said(s, h, pick("I am sorry that you had to wait.", "That was my fault."), how="shy"),
          said(s, f, pick("Come, I will help you tidy up.", "Next time we will start looking a day earlier."),
               how="warm") if late else said(s, f, "That was close!", how="glad"))
    s.add(f"that evening {h.name} put everything in its place.",
          pick(f"it took {pick('an hour', 'two hours', 'until supper')}, and {p.name} helped.",
               f"{f.name} sorted the pencils, and {h.name} sorted the rest." if late else "It took a long time."),
          f"in doing so {h.he} found {oddment(s)} and "
          f"{pick('a long forgotten book', 'three walnuts', 'a puzzle piece', 'an old letter', oddment(s))}.",
          pick(f"now there was room to {pick('dance', 'build', 'roll about')}.", "How big the room was!" if not s.wood
               else f"How big the {h.home} was!"))
    s.add(pick("Whoever keeps order saves the time for looking.",
               f"since then everything of {h.name}'s has a place, almost everything.",
               f"{p.name} did not say a word, and only smiled."))


def salt_cake(s):
    h, f, p, e, pick = s.hero, s.friend, s.parent, s.elder, s.pick
    cake = pick("a cake", "a big apple cake", "a nut cake", "a lemon cake", "a honey cake")
    whom = pick(p, e)
    why = pick(f"because {whom.name} had been so tired lately", f"for {whom.name}'s birthday",
               f"to thank {whom.name} for everything")
    wrong, taste = pick(("took salt instead of sugar", "It was as salty as the sea!"),
                        ("put in pepper instead of cinnamon", "It burned like fire!"),
                        ("forgot the eggs and the milk", "It was as dry as sand!"),
                        ("read ten instead of one and put in ten lemons",
                         "It was so sour that it made their eyes water!"))
    s.add(opening(s), f"{day(s)}, {h.name} wanted to bake {cake}, {why}.", f"{f.name} came to help.",
          s.maybe(passing(s, f)), said(s, f, "Do you know how?", how="ask"),
          said(s, h, pick("Of course I do!", "I have watched it a hundred times!"), how="glad"))
    s.add(f"They {pick('stirred', 'mixed', 'kneaded')} and {pick('sang', 'laughed', 'chattered')}.",
          s.maybe(chat(s, f, h)),
          pick(f"there was flour on {f.name}'s nose.", "Flour flew through the air like snow.",
               "An egg rolled off the table."),
          f"and because they {pick('talked so much', 'were in such a hurry', 'were making jokes')}, they {wrong}.",
          pick("The cake rose and turned brown.", "The cake smelled good and looked fine."),
          f"{h.name} carried it to {whom.name}.", f"{whom.name} took a big bite.",
          f"{whom.he} {pick('stopped chewing', 'opened ' + whom.his + ' eyes wide', 'coughed')}.")
    s.add(said(s, whom, pick("How very special.", "I have never eaten anything like it."), how="said"),
          f"{h.name} and {f.name} tasted it, too.", taste, pick(sad(s, h), said(s, h, "It is ruined!", how="sad")),
          f"but {whom.name} began to laugh, and then they all laughed.",
          said(s, whom, pick("You did it out of love, and that I can taste.", "My first cake was much worse."),
               "Let us bake a new one together.", "warm"))
    s.add(f"this time {h.name} {pick('read the recipe twice', 'tasted everything first', 'measured with care')}.",
          f"the new cake was {pick('sweet and soft', 'perfect', 'just right')}.",
          pick("They ate it while it was still warm.", f"{f.name} ate {pick('three', 'four')} pieces."),
          "And the old cake?",
          pick("Even the birds did not want it.", "They gave it to the compost heap.",
               "It was hard enough to hold the door open."))
    ending(s, "Whoever hurries bakes twice.", "A gift from the heart is always good.", "Taste first, and then serve.",
           "To laugh about a mistake is the first step to mend it.")


def handmade_gift(s):
    h, f, o, e, pick = s.hero, s.friend, s.other, s.elder, s.pick
    wanted = pick("the silver necklace", "the big music box", "the picture book with gold edges", "the fine silk "
                  "scarf", "the porcelain cup")
    made, how = pick(("a chain of acorns", "threaded acorns on a string, one by one"),
                     ("a lantern", "cut stars into an old tin"),
                     ("a picture of the two of them", "drew and rubbed out and drew again"),
                     ("a song", "tried one word after another until it rhymed"),
                     ("a little bench", "sawed and hammered"),
                     ("a pillow filled with lavender", "sewed with big crooked stitches"),
                     ("a bird made of clay", "pressed and pinched the wet clay"))
    it_for = pick(s.parent, e)
    s.add(opening(s), f"soon it would be {it_for.name}'s birthday.", f"in the shop {h.name} had seen {wanted}.",
          said(s, h, f"That would be just right for {it_for.name}.", how="said"),
          f"but it cost {pick(*NUMBERS[5:])} coins, and {h.name} had only {pick('one', 'two', 'three')}.", sad(s, h))
    s.add(said(s, f, pick("You can make something yourself.", "Why don't you make a present?"), how="said"),
          said(s, h, "But I can't do anything special.", how="sad"), f"{f.name} did not believe that.",
          f"so {h.name} began to make {made}.", f"{h.he} {how}.",
          pick("It did not turn out as it should.", "It was a bit crooked.", f"twice {h.he} started all over again."),
          f"{h.he} worked every day {pick('in secret', 'behind a curtain', 'before breakfast')}.")
    s.add("The birthday came.", f"{o.name} had bought {wanted}.",
          pick(f"it glittered, and {h.name} hid {h.his} own present behind {h.his} back.",
               f"now {h.name} did not dare to show {h.his} own present."),
          said(s, it_for, "And what do you have there?", how="ask"),
          said(s, h, "It is only something that I made.", how="shy"),
          f"{it_for.name} looked at {made.replace('a ', 'the ', 1)} for a long time." if made != "a song"
          else f"{h.name} sang the song with a trembling voice, and {it_for.name} listened with {it_for.his} eyes "
          "closed.")
    s.add(said(s, it_for,
               pick("There is only one like it in the world.", "In this I can see how much you thought of me."),
               how="warm"), pick(hug(s, it_for, h), f"{it_for.name} had tears in {it_for.his} eyes."),
          pick(f"{made.replace('a ', 'the ', 1)} got the best place in the room." if made != "a song"
               else f"after that {it_for.name} hummed the song every day.", proud(s, h)))
    ending(s, "The best presents cannot be bought.", "What the heart makes is never crooked.",
           "Time is the most precious gift.", "A present does not have to glitter.")


def baby(s):
    h, p, e, f, pick = s.hero, s.parent, s.elder, s.friend, s.pick
    small = s.join(pick(Who(pick("Mo", "Bobo", "Bo", "Kit"), "baby brother", *HE),
                        Who(pick("Mimi", "Bibi", "Lulu", "Susie"), "baby sister", *SHE)))
    s.add(opening(s), f"{day(s)}, a {small.noun} was born, and they named {small.him} {small.name}.",
          pick("Everybody came to look.", f"everybody said how sweet {small.name} was."),
          said(s, e, "What lovely little toes!", how="glad"), f"nobody looked at {h.name}.",
          pick(f"{h.name} made a face, but nobody laughed.", f"{h.name} stood on one leg, but nobody clapped."))
    s.add(f"when {h.name} wanted to {pick('hear a story', 'play', 'show a picture', 'sing')}, {p.name} said that the "
          f"baby was {pick('asleep', 'hungry', 'crying')}.",
          said(s, h, pick("Always the baby!", f"Can't we give {small.name} back?", "I was here first!"), how="cross"),
          f"{h.he} {pick('crawled under the table', 'hid behind the curtain')} and did not want to come out.",
          f"then {small.name} began to cry. {p.name} {pick('rocked', 'carried')} the baby, {e.name} "
          f"{pick('sang', 'clapped')}, and nothing helped.")
    s.add(f"{h.name} put {h.his} {h.paw}s over {h.his} ears. Then {h.he} crept out.",
          pick(f"{h.he} leaned over the cradle and made a sound like "
               f"{pick('a duck', 'a frog', 'a kettle', 'a bee')}.", f"{h.he} hid behind a cloth and looked out again.",
               f"{h.he} wiggled {h.his} ears." if s.wood else f"{h.he} blew up {h.his} cheeks."),
          f"{small.name} stopped crying.", f"then {small.name} laughed, for the very first time!",
          said(s, p, f"You are the only one who can do that, {h.name}!", how="glad"),
          pick(f"{small.name} took hold of {h.name}'s finger and did not let go." if not s.wood
               else f"{small.name} took hold of {h.name}'s ear and did not let go.", proud(s, h)))
    s.add(f"after that {p.name} {pick('read to', 'sat with', 'played with')} {h.name} every evening, just the two of "
          "them.",
          said(s, p, pick("My heart did not get smaller. It grew.", "There is enough love for both of you."),
               how="warm"),
          pick(f"and {h.name} told {f.name} proudly about the {small.noun}.",
               f"{h.name} began to count the days until {small.name} could play {pick(*GAMES)}."))
    ending(s, "Love grows when it is shared.", "The smallest one in the family needs a big one.",
           "It is good to be big when there is someone small.", "There is room for everyone in a heart.")


def false_alarm(s):
    h, f, e, pick = s.hero, s.friend, s.elder, s.pick
    danger, real = pick(("There is a fire", "behind the barn smoke really was rising" if not s.wood
                         else "behind the hill smoke really was rising"),
                        ("The water is coming", "the stream really was rising over its banks"),
                        ("A storm is coming", "black clouds really were racing up the valley"),
                        ("The goats are loose", "the goats really were trampling down the gate"))
    s.add(opening(s), pick(f"but sometimes {h.he} was bored.", f"but some days were too quiet for {h.him}."),
          f"{day(s)}, {h.he} {pick('rang the big bell', 'beat a pot with a spoon', 'blew into a horn')} and shouted.",
          said(s, h, f"{danger}!", "Come, all of you!", "loud"),
          f"{f.name} came running with {pick('a bucket', 'a rope', 'a shovel')}, and {e.name} came with wet hair."
          if not s.wood
          else f"{f.name} came running with {pick('a bucket', 'a rope', 'a shovel')}, and {e.name} came without a "
          "hat.", said(s, h, "I only made it up!", how="glad"), f"{h.name} laughed. The others did not.")
    s.add(pick("Two days later", "The next day", "A week later") + f" {h.he} did it again.",
          pick(f"this time only {f.name} came.", f"{e.name} came, but slowly."),
          said(s, f, "That is not funny.", how="cross"), f"and then, one evening, {real}.", f"{h.name} turned pale.",
          said(s, h, f"{danger}! It is true this time!", how="loud"),
          f"but {f.name} thought it was a joke, and {e.name} only closed the window." if not s.wood
          else f"but {f.name} thought it was a joke, and {e.name} only shook {e.his} head.")
    s.add(f"{h.name} ran to {f.name} and took {f.him} by the {f.paw}.",
          said(s, h, pick("I lied before, but I am not lying now.", "Please, please believe me."), how="sad"),
          pick(f"{f.name} looked into {h.name}'s eyes and saw the fear.", f"{f.name} saw that {h.name} was crying."),
          said(s, f, "I believe you.", how="said"),
          f"together they fetched {e.name} and the others, and everybody helped "
          f"{pick('as fast as they could', 'as much as they could', 'without a rest')}." if "storm" not in danger
          else f"together they fetched {e.name} and the others, and everybody brought in the "
          f"{pick('hay', 'washing', 'harvest')}.", pick("They were just in time.", "It was just enough."))
    s.add(pick(f"that evening {h.name} went from door to door and said sorry.",
               f"{h.name} said sorry to each of them, one by one."),
          said(s, e,
               pick("Trust is like a cup. One can glue it, but one has to be careful with it.",
                    "Thank you for not giving up."), how="warm"),
          pick(f"and {h.name} never cried for help again without need.",
               "Whoever lies for fun is not believed in need.", "The truth is too precious to play with."))


def moving_away(s):
    h, f, p, pick = s.hero, s.friend, s.parent, s.pick
    token = pick("a drawing of the two of them", "a whistle", "a bag of seeds", "a lucky penny", oddment(s),
                 a(f"{pick(*COLOURS)} {pick('scarf', 'ribbon', 'feather', 'kite', 'cap')}"))
    far = pick("behind the mountains", "to a town by the sea", "to the other side of the lake", "three valleys away")
    keep = pick("a shell", "a round stone", "a blue feather", "a brass button", "a glass marble", "a pine cone")
    s.add(opening(s), f"{f.name} was {h.his} best friend.",
          pick(f"They knew {pick('every path', 'every tree')} and every secret place.",
               "They had a hiding place that nobody else knew."), f"{day(s)}, {f.name} came with a sad face.",
          said(s, f, f"We are going to move {far}.", pick("On Sunday already.", "I only heard it today."), "sad"))
    s.add(pick(f"{h.name} did not say anything.", f"{h.name} became very quiet."), sad(s, h),
          said(s, h, pick("Who will play with me then?", "Can't you stay?"), how="sad"),
          pick(f"They thought of hiding {f.name} in the {'barn' if not s.wood else 'hollow oak'}, but that would not "
               "have worked for long.", "They sat side by side until the stars came out.",
               f"They sat down side by side and talked about other things. {chat(s, f, h)}"),
          said(s, p,
               pick("A friendship does not end at the garden gate.", "You can be friends across a hundred hills."),
               how="warm"))
    s.add(f"on the last day {h.name} gave {f.name} {keep}.",
          said(s, h, "I have one just like it.", "When you hold yours, think of me.", "said"),
          f"{f.name} gave {h.name} "
          f"{token}.",
          hug(s, h, f),
          f"then the cart rolled {pick('down the road', 'over the bridge', 'around the bend')}, and {h.name} waved "
          f"until {h.his} arm hurt.")
    s.add(f"it was quiet {pick('for a week', 'for ten days', 'for a long time')}.",
          f"then {pick('the postman', 'a pigeon') if not s.wood else pick('a swallow', 'a pigeon')} brought a "
          "letter.",
          '"Here there is '
          f'{pick("a river with a boat", "a hill for kites", "a tree with a rope", "a cave with an echo")}," wrote '
          f'{f.name}. "{pick("When will you come?", "I miss you every day.", f"Beside my bed lies {keep}.")}"',
          f"{h.name} wrote back the same day.",
          pick(f"and the next {pick('spring', 'summer', 'autumn')} {h.name} and {p.name} packed a bag and "
               "went to visit.",
               "and each night they both looked at the same star, as they had agreed."))
    s.add(pick("Real friends stay close, even far away.", "A goodbye can also be a beginning.",
               "Friendship can travel farther than any cart.", "A letter is like a hug on paper."))


SWAPS = (
    "a bent spoon", "a coil of rope", "a tin bucket", "a goose feather", "a jar of paint", "a wooden wheel",
    "an old lantern", "a wool blanket", "a straw hat", "a sack of flour", "a fishing net", "a copper bell",
    "a clay pot", "a long plank", "a basket of eggs", "a leather belt", "a box of nails", "a broken umbrella",
    "a ball of string", "a bag of salt")


def swap_chain(s):
    h, pick = s.hero, s.pick
    goal = pick("a little white goat", "a flute", "a ride on the hay wagon", "a red toy boat", "a big drum",
                "a kite as long as a snake", "a ticket for the fair")
    things = s.some(4, SWAPS)
    last = things[3].split(" ", 1)[1]
    if s.wood:
        traders = ("the mole", "the stork", "the magpie", "the toad", "the weasel", "the pheasant", "the goose",
                   "the crow", "the old ram", "the woodpecker")
    else:
        traders = ("the miller", "the fisherwoman", "the potter", "the shepherd", "the painter", "the carpenter",
                   "the ferryman", "the gardener", "the peddler", "the beekeeper")
    people = s.some(4, traders)
    s.add(opening(s), f"{day(s)}, {h.name} wanted {goal}, but all {h.he} had was {things[0]}.",
          said(s, h, pick("I will swap it for something better.", "Everybody needs something."), how="said"),
          f"so {h.he} set off {pick('along the road', 'with a light heart', 'whistling')}.")
    def offer(who, wanted, given):
        thing = wanted.split(" ", 1)[1]
        return pick(said(s, Who(who, ""), f"Just what I need, {wanted}!", f"I will give you {given} for it.", "glad"),
                    f"{who} looked at the {thing} and offered {given} for it.",
                    f"{who} gave {h.name} {given} for the {thing}.")

    s.add(s.maybe(passing(s, h)), f"first {h.he} met {people[0]}.", offer(people[0], things[0], things[1]),
          f"then {h.he} met {people[1]}.", offer(people[1], things[1], things[2]), s.maybe(detail(s)),
          f"{pick('by the well', 'at the bridge', 'at the crossroads')} stood {people[2]}.",
          offer(people[2], things[2], things[3]))
    kind = s.random() < 0.5
    needy = people[3]
    if kind:
        s.add(f"{h.name} was almost there when {h.he} saw {needy}, who looked worried.",
              said(s, Who(needy, ""), f"If only I had {things[3]}!",
                   "I need that so badly, and I have nothing to give for it.", "sad"),
              f"{h.name} thought of what {h.he} wanted.",
              pick(f"it was hard, but {h.he} held out the {last}.",
                   f"then {h.he} gave away the {last}, just like that."), "Now both hands were empty." if not s.wood
              else "Now both paws were empty.")
        s.add(pick("But the story went around.", "But everyone heard about it."),
              f"the next morning there was a knock, and outside stood {people[0]}, {people[1]} and {people[2]}.",
              f"They had put together what they had, and they gave {h.name} "
              f"{pick('what ' + h.he + ' had wished for', 'a present')}: {goal}!", glad(s, h))
    else:
        s.add(f"at last {h.he} came to {needy}, who had {goal}." if "ride" not in goal
              else f"at last {h.he} came to {needy}, who was just loading the hay wagon.",
              said(s, Who(needy, ""), f"For the {last}?", "That I will gladly give you!", "glad"),
              f"and so {things[0]} had turned into {goal}.", glad(s, h),
              f"{h.name} told {s.friend.name} how it had happened, and {s.friend.name} could hardly believe it.")
    s.add(pick("What one does not need may be a treasure to another.", "Step by step one gets there.",
               f"{h.name} laughed all the way home.", "Whoever gives also receives."))


def hat_chase(s):
    h, f, pick = s.hero, s.friend, s.pick
    hat = pick("straw hat", "red cap", "blue bonnet", "feathered hat", "yellow rain hat")
    stops = s.some(3,
                   ("over the hedge", "across the bridge", "through a flock of geese", "past the mill",
                    "around the church tower", "over the potato field", "along the top of the wall",
                    "under a hay wagon", "between the legs of a cow") if not s.wood
                   else ("over the brambles", "across the stream", "through a flock of geese", "past the waterfall",
                         "around the old oak", "over the ferns", "along a fallen log", "between the legs of a deer",
                         "down the mossy bank"))
    joined = s.some(2, ("a barking dog", "a goat", "three hens", "a boy with a butterfly net", "a farmer with a fork")
                    if not s.wood else ("a fat goose", "two ducks", "a young deer", "three hens", "a stag beetle"))
    nest = pick("a bird had chosen it for a nest, and in it lay four blue eggs",
                "a hen sat in it and looked very content", "a mouse slept in it with her five babies",
                "a hedgehog had curled up in it")
    s.add(opening(s), f"on a very windy day {h.name} put on {h.his} new {hat}.",
          pick(f"{s.parent.name} had {pick('bought', 'made')} it for {h.him}.", f"it was {h.his} pride and joy."),
          pick("Whoosh! A gust of wind came.", "Suddenly the wind puffed up its cheeks."),
          f"off flew the hat, {stops[0]}.", said(s, h, pick("Stop!", "My hat!", "Come back!"), how="loud"))
    s.add(f"{h.name} {h.ran} after it, {stops[1]}.", f"{joined[0]} joined in.", f"the hat sailed on, {stops[2]}.",
          f"there {f.name} was coming along, and {f.he} ran, too, and after {f.him} came {joined[1]}.",
          pick(f"every time {h.name} reached out, the hat hopped away.",
               f"once {f.name} almost had it, and then it rose again."),
          pick("What a sight that was!", "They puffed and laughed and ran."))
    s.add(pick("Then the wind grew tired.", "At last the wind lay down to sleep."),
          f"but where was the hat? They looked {pick('until evening', 'high and low', 'for two days')}.",
          f"when they found it, {nest}.", said(s, f, "Will you take it back?", how="ask"),
          f"{h.name} thought for a moment. Then {h.he} shook {h.his} head.",
          said(s, h, pick("Somebody needs it more than I do.", "A hat is only a hat, but this is a home."), how="warm"))
    s.add(f"{s.parent.name} " +
          pick("laughed and made a new one, this time with a ribbon under the chin.", "was not angry at all.",
               f"gave {h.name} a cap that fitted tightly."),
          pick(f"every day {h.name} and {f.name} went to look, very quietly.",
               f"and whenever the wind blew, {h.name} held on to {h.his} head and laughed."),
          pick("What the wind takes it sometimes gives to another.", "Giving something up can make one glad.",
               "And so the hat found its right place."))


def mended_toy(s):
    h, e, p, o, pick = s.hero, s.elder, s.parent, s.other, s.pick
    toy = pick("teddy bear", "toy rabbit", "rag doll", "toy elephant", "toy dog")
    hurt, patch = pick(("one arm hung by a thread", "sewed on the arm with strong thread"),
                       ("one ear had come off", "made a new ear out of an old sock"),
                       ("the stuffing was coming out of the tummy", "filled it with wool and closed the seam"),
                       ("an eye was missing", "sewed on a green button for an eye"))
    new = pick("a new one with shiny fur", "a new one that could squeak", "a new one with a silk ribbon")
    s.add(opening(s),
          f"{h.name} had an old {toy} named "
          f"{pick('Snuffle', 'Patch', 'Flop', 'Barnaby', 'Crumb', 'Mopsy', 'Waffle')}.",
          pick(f"it had slept in {h.name}'s arm every night.", f"it knew all of {h.name}'s secrets.",
               f"it had been everywhere with {h.him}."), f"but {day(s)}, {h.name} saw that {hurt}.", sad(s, h))
    s.add(said(s, o, "It is only an old thing.", "Throw it away!", "said"), f"{p.name} offered to get {new}.",
          pick(f"{h.name} shook {h.his} head.", f"{h.name} held the {toy} very tight."),
          said(s, h, pick("I don't want another one.", "A friend is not thrown away."), how=pick("sad", "cross")),
          f"so {h.he} took the {toy} to {e.name}, who could mend almost anything.")
    s.add(said(s, e, "Let me see the patient.", how="warm"), f"{e.name} put on {e.his} glasses, looked and nodded.",
          f"then {e.he} {patch}.",
          f"{h.name} held the {pick('thread', 'scissors', 'lamp')} and "
          f"{pick('did not dare to breathe', 'watched closely', 'whispered comforting words')}.",
          s.maybe(said(s, h, "Does it hurt?", how="ask") + " " + said(s, e, "Not if you hold it.", how="warm")),
          pick("Stitch by stitch it became whole.", "It took as long as a cup of tea."))
    s.add(said(s, e, "As good as new!", how="glad"),
          said(s, h, "No, better!", "Now one can see that somebody loves it.", "glad"), hug(s, h, e),
          pick(f"the next day even {o.name} {pick('asked to hold it', 'brought a torn toy to be mended')}.",
               f"{h.name} learned to sew, and soon {h.he} mended {o.name}'s {pick('jacket', 'mitten', 'cushion')}.",
               f"that night the {toy} lay in {h.name}'s arm again."))
    ending(s, "Old friends are worth mending.", "What is loved does not have to be new.", "A patch is a sign of love.",
           "One does not throw away what one loves.")


def greedy(s):
    h, f, p, pick = s.hero, s.friend, s.parent, s.pick
    food = pick(*FRUIT) if s.random() < 0.5 else pick("pancakes", "dumplings", "honey buns", "nut cookies", "jam tarts",
                                                      "toffees")
    s.add(opening(s), f"{h.he} liked {food} more than anything else to eat.",
          f"{day(s)}, there was a whole {pick('basket', 'bowl', 'plate')} of {food} on the table, for the "
          f"{pick('feast', 'party', 'guests')} in the evening.",
          said(s, p, pick("Leave them for later.", "They are for everybody."), how="warm"), f"then {p.name} went out.")
    s.add(said(s, h, "Just one.", how="said"), pick("It was so good that one was not enough.", "One is so small."),
          "Then it was two, then four, then ten.", f"{f.name} looked in through the window.",
          said(s, f, "Should you be doing that?", how="ask"),
          said(s, h, pick("Nobody will notice.", "There are plenty left."), how="said"),
          f"but soon the {food} were all gone.")
    s.add(pick(f"oh, how {h.his} tummy hurt!", f"{h.name}'s tummy was as round and hard as a drum."),
          f"{h.name} lay down and groaned.",
          pick("Outside, the first guests were coming.", "From outside came music and laughter."),
          said(s, p, f"Where are the {food}?", how="ask"),
          f"{h.name} {pick('pointed at ' + h.his + ' tummy', 'turned red')}.",
          said(s, h, "I ate them all.", "I am sorry.", "sad"))
    s.add(pick(f"{p.name} made {pick('mint', 'fennel')} tea.",
               f"{p.name} sighed and put a warm cloth on {h.name}'s tummy."),
          said(s, p, pick("I think you have been punished enough.", "Then you know what to do tomorrow."), how="warm"),
          f"the next day {h.name} made up for it: {pick('every guest', 'each of the guests')} got "
          f"{pick('a little basket', 'a small bowl')} of {food}.",
          f"{h.he} {pick('ate only two, and they tasted better than ten', 'did not eat a single one')}.",
          s.maybe(glad(s, f)))
    ending(s, "Enough is better than too much.", "Whoever eats everything alone has a tummy ache alone.",
           "A little of something good is good. A lot of it is not.", "What is meant for all tastes best with all.")


def treasure(s):
    h, f, e, pick = s.hero, s.friend, s.elder, s.pick
    found_in = pick("an old book", "a bottle", "a cracked jug", "a hollow tree", "a rusty box",
                    "the lining of an old coat")
    steps = s.some(3,
                   ("twenty steps to the north", "past the crooked birch", "over the stepping stones",
                    "around the round rock", "along the old wall", "under the fallen pine",
                    "up to the three thorn bushes", "through the dry ditch"))
    inside = pick(("letters", f"They were the letters that {e.name} had hidden as a child."),
                  ("toys", f"They were the toys that {e.name} had buried as a child."),
                  ("drawings", f"They were pictures that {e.name} had drawn long ago."),
                  ("marbles", f"They were the marbles that {e.name} had won as a child."))
    s.add(opening(s), f"{day(s)}, {h.name} found a yellowed paper in {found_in}.", s.maybe(detail(s)),
          pick("It was a map with a red cross on it!", "It was a map, and in one corner there was a cross."),
          said(s, h, f"{f.name}, look! A treasure map!", how="loud"),
          pick("They took a shovel and a lantern.", "They packed a shovel, a rope and some bread."))
    s.add(f"First it said: {steps[0]}.",
          f"then they had to go {steps[1] if not steps[1].startswith('twenty') else 'straight on, ' + steps[1]}.",
          f"the last line said: {steps[2]}.",
          pick(f"{f.name} tore {f.his} {pick('trousers', 'sleeve', 'sock')} on a thorn." if not s.wood
               else f"{f.name} scratched {f.his} nose on a thorn.", f"{h.name} slipped and got wet up to the knees.",
               "Once they went wrong and had to turn back."), s.maybe(chat(s, h, f)),
          said(s, f, pick("Perhaps there is no treasure.", "My feet hurt."), how="sad"),
          said(s, h, pick("We can't stop now.", "Just a little farther!"), how="warm"))
    s.add(pick("There was the place!", "And then they stood in front of the cross, made of two white stones."),
          "They dug in turns.", "Clonk! The shovel hit something hard.",
          f"it was a {pick('small', 'rusty', 'heavy')} chest.",
          pick("With beating hearts they opened it.", "The lid creaked open."),
          f"there was no gold in it. There were {inside[0]}.",
          pick(f"{f.name}'s face fell.", said(s, f, "Is that all?", how="ask")))
    s.add(f"and on the lid there was a name: {e.name}.", inside[1],
          f"when {h.name} and {f.name} put the chest on the table, {e.name} "
          f"{pick('had to sit down', 'could not believe ' + e.his + ' eyes', 'wept for joy')}.",
          said(s, e, "I had thought it was lost forever.", how="glad"),
          f"the whole evening {e.he} told them about {pick('the old days', 'the time when ' + e.he + ' was little')}, "
          f"{pick('and that was better than gold', 'and they forgot the time')}.")
    ending(s, "Not every treasure glitters.", "A memory can be worth more than gold.",
           "Whoever digs for gold may find a story.", "The way was half the treasure.")


def cannot_sleep(s):
    h, p, o, pick = s.hero, s.parent, s.other, s.pick
    tries = s.some(3,
                   (("count sheep, but one of them "
                     f"{pick('stopped to eat', 'sneezed', 'wore a hat', 'jumped the wrong way')}", "lay awake"),
                    (f"lie on {h.his} back, and then on {h.his} side", "grew warmer and warmer"),
                    ("drink a cup of warm milk", "was more awake than before"),
                    (f"hum a lullaby about {a(pick(*BIRDS))}", "forgot the last verse"),
                    ("think of nothing", "thought of everything at once"),
                    (f"name all the {pick('trees', 'colours', 'flowers', 'birds')}",
                     f"got only as far as {pick('seven', 'nine', 'twelve')}")))
    worry = pick("tomorrow", "the fair the next day", "a journey", "something silly that had happened",
                 "a strange dream")
    s.add(opening(s), f"one night {h.name} could not fall asleep, because {h.he} kept thinking about {worry}.",
          pick("The moon was too bright.", "The wind was too loud.", "The pillow was too flat.",
               "The blanket was too warm."), said(s, h, "I am not tired at all!", how="cross"))
    s.add(f"{p.name} told {h.him} to {tries[0][0]}. {h.name} {tries[0][1]}.",
          f"then {o.name} woke up and told {h.him} to {tries[1][0]}.", f"{h.name} tried it and {tries[1][1]}.",
          f"at last {h.name} tried to {tries[2][0]}. {h.He} {tries[2][1]}.", said(s, h, "It is no use.", how="sad"))
    s.add(said(s, p, "Then don't sleep.", pick("Just look at the stars with me.", "Just listen to the night."), "warm"),
          f"they sat down at the {'window' if not s.wood else 'entrance'} and looked out.",
          f"they saw {pick(*NUMBERS)} {pick('stars', 'bats', 'moths', 'fireflies')} and heard "
          f"{pick('an owl', 'the wind', 'a cricket', 'a far bell', 'the river')}.",
          f"{h.name} told {p.name} what was on {h.his} mind.",
          said(s, p, pick("Let it wait until morning.", "Now there are two of us to think about it."), how="warm"),
          pick(f"{h.name} nodded, and {h.his} eyes grew small.", f"{h.name} leaned against {p.name} and yawned."))
    s.add(f"when {p.name} looked down, {h.name} was asleep.",
          pick(f"{p.He} carried {h.him} to bed.", f"{p.He} tucked {h.him} in very gently."),
          pick("Sleep comes when nobody is waiting for it.", "A worry that is told weighs only half as much.",
               f"and {o.name}? {o.He} was wide awake and counted sheep."))


def echo(s):
    h, f, p, pick = s.hero, s.friend, s.parent, s.pick
    rude = pick("Stupid", "Go away", "You are mean", "I don't like you")
    nice = pick("Hello, friend", "I like you", "Good morning", "Come and play", "You are nice")
    where = pick("at the foot of a cliff", "in front of a deep cave", "in a narrow valley",
                 "beside the old stone wall of the mill")
    s.add(opening(s),
          f"{day(s)}, {h.name} was {pick('cross', 'in a bad mood')}, because {f.name} had no time for {h.him}.",
          s.maybe(passing(s, h)), f"{h.he} stopped {where} and kicked a stone.", f'"{rude}!" shouted {h.name}.',
          f'"{rude}!" somebody shouted back.')
    s.add(said(s, h, "Who is there?", how="loud"), '"Who is there?" came the answer.',
          pick(f"{h.name} looked everywhere, but saw nobody.", f"{h.name} ran left and right, but there was nobody."),
          f'"{rude}!" shouted {h.name} again, and again it came back.',
          pick(sad(s, h), f"{h.name} {h.ran} home with tears in {h.his} eyes."))
    s.add(said(s, h, "Somebody out there is very rude to me.", how="sad"),
          f"{p.name} {pick('smiled', 'hid a smile', 'thought for a moment')}.",
          said(s, p, "Go back and say something kind.",
               pick("Then see what happens.", "Perhaps you will get another answer."), "warm"),
          f"so {h.name} went back and took {f.name} along.",
          f'"{nice}!" {h.name} called {pick("softly", "carefully", "with a beating heart")}.',
          f'"{nice}!" it came back, {pick("just as kindly", "clear and friendly", "and it sounded like a smile")}.')
    s.add(said(s, f, "That is an echo!", "It is your own voice.", "glad"),
          pick(f"{h.name} turned red, and then {h.he} laughed.",
               f"{h.name} laughed, and far away somebody laughed, too."),
          f"they called {pick(*NUMBERS)} more words, and every one came back.", s.maybe(glad(s, f)))
    ending(s, "What you call into the world comes back to you.", "A kind word finds a kind answer.",
           "Whoever is friendly hears friendly words.")


def narrow_bridge(s):
    h, f, pick = s.hero, s.friend, s.pick
    first, second = s.some(2,
                           ("a basket of eggs", "a pot of soup", "a tall pile of hats", "a sack of flour",
                            "a jug of milk", "a big pumpkin", "a stack of plates", "a cake for the feast",
                            "a tray of buns", "a ladder"))
    one, two = (load.split(" of ")[0].split(" for ")[0].split(" ")[-1] for load in (first, second))
    s.add(opening(s), f"{day(s)}, {h.name} had to carry {first} over the {pick('stream', 'ditch', 'brook')}.",
          s.maybe(detail(s), passing(s, h)),
          f"the only way across was {pick('a log', 'a narrow plank', 'a little bridge')}, and it was just wide enough "
          "for one.", f"when {h.he} was in the middle, {f.name} came from the other side with {second}.")
    s.add(said(s, h, "Go back!", pick("I was here first!", "I am in a hurry!"), "cross"),
          said(s, f, "You go back!", pick(f"My {two} is heavier!", "I have come farther!"), "cross"),
          "Neither of them moved.", pick("They stood there nose to nose.", "They stood and stared at each other."),
          f"{a(pick(*BIRDS))} {pick('flew by', 'sat down on the rail', 'watched them')} and "
          f"{pick('laughed', 'shook its head', 'wondered')}.", f"after a while {h.name}'s arms began to hurt.")
    if s.random() < 0.5:
        s.add(f"then {f.name} gave a push, and {h.name} pushed, too.", "Splash! They both sat in the cold water.",
              f"the {one} and the {two} {pick('floated away', 'were gone', 'sank with a gurgle')}.",
              f"for a moment it was very quiet. Then {pick(h.name, f.name)} began to laugh.",
              said(s, f, "Now nobody has crossed the bridge.", how="said"),
              said(s, h, "I am sorry.", "Next time I will wait.", "shy"),
              f"they helped each other {pick('up the bank', 'out of the water')} and explained at home what had "
              "happened.")
    else:
        s.add(said(s, h, "This is silly.", pick("We will still be standing here tonight.", "Let us think."), "said"),
              f"{h.name} looked at the {two}, and {h.he} saw how {f.name} was trembling.",
              f"so {h.name} went back step by step and "
              f"{pick('made room', 'let ' + f.him + ' pass', 'held out ' + h.his + ' ' + h.paw)}.", thanks(s, f, h),
              f"then {f.name} put down the {two} and helped {h.name} carry the {one} across.",
              pick("In this way it took only half as long.", "It was easy when there were two."))
    s.add("the next day they "
          f"{pick('laid a second plank beside the first', 'put up a sign that said: One at a time')}.",
          pick("Whoever gives way gets there sooner.", "Two stubborn heads make two wet heads.",
               f"since then {h.name} and {f.name} always call before they cross.",
               "Being first is not as important as getting there together."))


PLOTS = (
    cannot_sleep, echo, narrow_bridge, lost_toy, quarrel, learn_skill, strange_sound, overcome_fear, help_elder,
    share_food, secret, wish, rainy_picnic, found_thing, building_breaks, contest, new_friend, confessed, growing,
    rescue, birthday, getting_lost, trick, sick_friend, little_boat, little_train, free_kite, snowman, boasting, untidy,
    salt_cake, handmade_gift, baby, false_alarm, moving_away, swap_chain, hat_chase, mended_toy, greedy, treasure)


# ---- the file ----


def make_story(rng: random.Random) -> Story:
    """Returns the next story."""
    s = Story(rng)
    s.pick(*PLOTS)(s)
    return s


def write_stories(path: Path, megabytes: float, seed: int):
    """Writes `megabytes` (of a million bytes) of stories to `path`, all of them or nothing.

    The file ends with the first story that reaches the size. Raises ValueError if `megabytes` is not a positive number.
    """
    if not 0 < megabytes < float("inf"):
        raise ValueError(f"megabytes is {megabytes}; give a number above 0, such as 8")
    rng, size, line = random.Random(seed), 0, ""
    part = Path(f"{path}.part")
    try:
        with open(part, "w", encoding="ascii", newline="\n") as file:
            while size < megabytes * 1e6:
                size += file.write(f"{line}{make_story(rng).text()}\n")
                line = f"{SEPARATOR}\n"
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def main(argv: list[str]):
    parser = argparse.ArgumentParser(description="Writes short stories for children, made up from scratch.")
    parser.add_argument("--megabytes", type=float, default=8,
                        help="how much to write, in millions of bytes (default 8)")
    parser.add_argument("--seed", type=int, default=1, help="the same number gives the same stories (default 1)")
    parser.add_argument("--out", type=Path, default=Path("data/demo/stories.txt"),
                        help="the file (default %(default)s)")
    args = parser.parse_args(argv)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_stories(args.out, args.megabytes, args.seed)
    except (ValueError, OSError) as error:
        sys.exit(f"make_stories.py: {error}")
    except KeyboardInterrupt:
        sys.exit(f"make_stories.py: interrupted; {args.out} is as it was before")
    print(f"{args.out.stat().st_size / 1e6:.1f} MB of stories in {args.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
