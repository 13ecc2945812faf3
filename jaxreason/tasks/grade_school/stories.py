"""The stories of the `grade-school` task: a text with placeholders, and the steps that solve it.

`{A} {B}` are names, `{x} {y}` things, `{k} {m} {n} {p}` factors and `{a} {b} {c}` amounts. A step is
`label = left operator right`; later steps may use the label, and the solution prints it.
"""

import random
import zlib
from typing import NamedTuple


class Story(NamedTuple):
    text: str
    steps: tuple[str, ...]


def story(text: str, *steps: str) -> Story:
    return Story(text, steps)


ONSETS, VOWELS, CODAS = "BDFGHJKLMNPRSTVZ", "aeiou", ("", "", "n", "l", "s", "r")


def name(rng: random.Random, *, new: bool) -> str:
    """A random name of two syllables: `Mila`, `Toren`. Thousands of them, so that a model cannot memorise them.

    An eighth, chosen by checksum, is `new`: used in held-out problems only.
    """
    while True:
        first, second = rng.choice(ONSETS), rng.choice(ONSETS).lower()
        text = f"{first}{rng.choice(VOWELS)}{second}{rng.choice(VOWELS)}{rng.choice(CODAS)}"
        if (zlib.crc32(text.encode()) % 8 == 0) == new:
            return text


def names(rng: random.Random, count: int, *, new: bool) -> list[str]:
    """`count` distinct names."""
    distinct: dict[str, None] = {}
    while len(distinct) < count:
        distinct[name(rng, new=new)] = None
    return list(distinct)


THINGS = ("apples", "pens", "cards", "shells", "stamps", "coins", "books", "beads", "eggs", "buttons", "nuts", "pears")

STORIES = (
    # one step
    story("{A} has {a} {x}. {B} gives {A} {b} more {x}. How many {x} does {A} have now?", "now = a + b"),
    story("{A} had {a} {x} and lost {b} of them. How many {x} are left?", "left = a - b"),
    story("Each of {k} bags holds {m} {x}. How many {x} are in the bags?", "all = k * m"),
    story("{A} shares {a} {x} equally among {k} friends. How many {x} does each friend get?", "each = a / k"),
    story("{A} has {a} {x} and {B} has {b} {x}. How many {x} do they have together?", "together = a + b"),
    story("{A} has {a} {x}. {B} has {b} fewer. How many {x} does {B} have?", "fewer = a - b"),
    story("One ticket costs {m} dollars. How many dollars do {k} tickets cost?", "cost = k * m"),
    story("A rope of {a} meters is cut into pieces of {k} meters. How many pieces are there?", "pieces = a / k"),
    story("{A} is {a} years old. How old will {A} be in {b} years?", "age = a + b"),
    story("{A} is {m} years old. {B} is {k} times as old. How old is {B}?", "age = m * k"),
    # two steps
    story(
        "{A} has {k} bags with {m} {x} in each. {A} gives {b} {x} to {B}. How many {x} does {A} have left?",
        "all = k * m",
        "left = all - b",
    ),
    story(
        "{A} has {a} {x}. {B} has {b} more {x} than {A}. How many {x} do they have together?",
        "more = a + b",
        "together = a + more",
    ),
    story(
        "{A} has {m} {x}. {B} has {k} times as many. How many {x} do they have together?",
        "times = m * k",
        "together = m + times",
    ),
    story(
        "{A} buys {k} {x} for {m} dollars each and pays with {a} dollars. How many dollars does {A} get back?",
        "cost = k * m",
        "back = a - cost",
    ),
    story(
        "{A} saves {m} dollars a week for {k} weeks. Then {A} finds {b} dollars. How many dollars does {A} have?",
        "saved = m * k",
        "now = saved + b",
    ),
    story(
        "There are {a} {x} in a box. {A} takes {b} and {B} takes {c}. How many {x} are left?",
        "rest = a - b",
        "left = rest - c",
    ),
    story(
        "{A} has {k} hens. Each hen lays {m} eggs. Then {b} eggs break. How many eggs are whole?",
        "all = k * m",
        "whole = all - b",
    ),
    story(
        "A book has {c} pages. {A} reads {a} pages on Monday and {b} on Tuesday. How many pages are left?",
        "read = a + b",
        "left = c - read",
    ),
    story(
        "{A} picks {a} {x} and {B} picks {b}. They make {k} equal piles. How many {x} are in each pile?",
        "all = a + b",
        "pile = all / k",
    ),
    story(
        "A bus has {a} people. At a stop {b} get off and {c} get on. How many people are on the bus now?",
        "rest = a - b",
        "now = rest + c",
    ),
    story(
        "A shelf has {k} rows of {m} {x}. {A} adds {b} {x}. How many {x} are on the shelf now?",
        "all = k * m",
        "now = all + b",
    ),
    story(
        "{A} pays {a} dollars for food and {b} for drinks. {k} friends share the cost. How many dollars does each pay?",
        "cost = a + b",
        "each = cost / k",
    ),
    story(
        "{A} has {a} dollars and spends {b} dollars. With the rest {A} buys {x} for {k} dollars each. "
        "How many {x} does {A} buy?",
        "rest = a - b",
        "number = rest / k",
    ),
    # three steps
    story(
        "{A} buys {k} {x} for {m} dollars each and {n} {y} for {p} dollars each. How many dollars does {A} pay?",
        "first = k * m",
        "second = n * p",
        "cost = first + second",
    ),
    story(
        "{A} has {a} {x}. {B} has {b} more than {A}. {C} has {c} fewer than {B}. How many {x} do {A} and {C} have?",
        "more = a + b",
        "fewer = more - c",
        "together = a + fewer",
    ),
    story(
        "{A} bakes {k} trays of {m} rolls and sells {b}. The rest goes into boxes of {n}. How many boxes are there?",
        "all = k * m",
        "rest = all - b",
        "boxes = rest / n",
    ),
    story(
        "A room has {k} rows of {m} seats. {b} children and {c} parents sit down. How many seats are free?",
        "seats = k * m",
        "people = b + c",
        "free = seats - people",
    ),
    story(
        "{A} earns {m} dollars a day for {k} days. {A} spends {b} dollars on food and {c} on a game. "
        "How many dollars are left?",
        "earned = m * k",
        "rest = earned - b",
        "left = rest - c",
    ),
    story(
        "{A} has {a} {x} and gives half to {B}. Then {A} finds {b} and buys {c} more. How many {x} does {A} have now?",
        "half = a / 2",
        "found = half + b",
        "now = found + c",
    ),
    story(
        "A tank holds {a} liters and has {b} in it. A pump adds {m} liters a minute for {k} minutes. "
        "How many liters still fit?",
        "added = m * k",
        "inside = b + added",
        "room = a - inside",
    ),
    story(
        "{A} runs {a} miles on Monday, {b} more than that on Tuesday and {c} on Sunday. How many miles is that?",
        "more = a + b",
        "both = a + more",
        "all = both + c",
    ),
    story(
        "{A} has {a} {x}, {B} has {b} and {C} has {c}. They share them equally among {k} boxes. "
        "How many {x} are in each box?",
        "two = a + b",
        "all = two + c",
        "each = all / k",
    ),
    # four steps
    story(
        "{A} buys {k} {x} for {m} dollars each and {n} {y} for {p} dollars each and pays with {a} dollars. "
        "How many dollars does {A} get back?",
        "first = k * m",
        "second = n * p",
        "cost = first + second",
        "back = a - cost",
    ),
    story(
        "{A} packs {k} boxes of {m} {x} and {n} bags of {p} {x}. Then {b} {x} break. How many {x} are whole?",
        "boxes = k * m",
        "bags = n * p",
        "all = boxes + bags",
        "whole = all - b",
    ),
    story(
        "{A} has {m} {x}. {B} has {k} times as many. {C} has {b} fewer than {B}. How many {x} do all three have?",
        "times = m * k",
        "fewer = times - b",
        "two = m + times",
        "all = two + fewer",
    ),
    story(
        "{A} reads {k} pages a day for {m} days, then {n} a day for {p} days. The book has {a} pages. "
        "How many pages are left?",
        "first = k * m",
        "second = n * p",
        "read = first + second",
        "left = a - read",
    ),
    story(
        "A shop has {a} {x}. It sells {b} in the morning and {c} later. Then {k} boxes of {m} {x} come in. "
        "How many {x} does the shop have now?",
        "sold = b + c",
        "rest = a - sold",
        "new = k * m",
        "now = rest + new",
    ),
    story(
        "{A} has {k} jars of {m} {x} and finds {b} more. {A} shares all among {n} friends. Each friend eats {c}. "
        "How many {x} does each friend have left?",
        "jars = k * m",
        "all = jars + b",
        "each = all / n",
        "left = each - c",
    ),
    story(
        "{A} and {B} each pick {a} {x}. {C} picks {b} more than {A}. They eat {c} of them. How many {x} are left?",
        "more = a + b",
        "two = a + a",
        "all = two + more",
        "left = all - c",
    ),
)

NEW_STORIES = (
    story("{A} needs {a} points to win and has {b} points. How many points are missing?", "left = a - b"),
    story("{A} swims {m} laps every day. How many laps does {A} swim in {k} days?", "all = k * m"),
    story("{a} children sit at tables of {k}. How many tables are there?", "tables = a / k"),
    story("A puppy weighs {a} pounds and gains {b} pounds. How many pounds does it weigh now?", "now = a + b"),
    story("A comic has {a} pages. {A} has read {b} of them. How many pages are still to read?", "left = a - b"),
    story(
        "A pond had {a} fish. {b} were sold and the rest went into {k} equal bowls. How many fish are in each bowl?",
        "rest = a - b",
        "each = rest / k",
    ),
    story(
        "A lamp costs {m} dollars. A chair costs {k} times as much. How many dollars do both cost together?",
        "times = m * k",
        "together = m + times",
    ),
    story(
        "A train has {k} wagons with {m} seats each. {b} seats are taken. How many seats are free?",
        "seats = k * m",
        "free = seats - b",
    ),
    story(
        "{A} cuts {a} roses and {B} cuts {b}. They give {c} of them to a neighbor. How many roses remain?",
        "all = a + b",
        "left = all - c",
    ),
    story(
        "{A} walks {m} miles a day for {k} days and {b} miles on Sunday. How many miles does {A} walk?",
        "days = m * k",
        "all = days + b",
    ),
    story(
        "{k} girls and {m} boys plant {n} trees each. How many trees do they plant?",
        "children = k + m",
        "trees = children * n",
    ),
    story(
        "A team wins {k} games for {m} points each and loses {b} points for fouls. How many points does it have?",
        "won = k * m",
        "left = won - b",
    ),
    story(
        "{A} scores {a} points in round one, {b} fewer in round two and {c} in round three. "
        "How many points does {A} score in all?",
        "fewer = a - b",
        "two = a + fewer",
        "all = two + c",
    ),
    story(
        "Parking costs {k} dollars an hour. {A} parks {m} hours and {B} parks {n} hours. {A} and {B} pay with {a} "
        "dollars. How many dollars do they get back?",
        "hours = m + n",
        "cost = hours * k",
        "back = a - cost",
    ),
    story(
        "A farmer puts {a} sheep and {b} goats into {k} equal barns. Then {c} animals leave the first barn. "
        "How many animals stay there?",
        "all = a + b",
        "each = all / k",
        "stay = each - c",
    ),
    story(
        "A ticket costs {m} dollars and a snack {n}. {A} pays both for {k} friends and {b} dollars for a bus. "
        "How many dollars does {A} pay?",
        "each = m + n",
        "friends = each * k",
        "cost = friends + b",
    ),
    story(
        "{A} paints {m} walls a day for {k} days and {B} paints {b} walls. There are {a} walls. "
        "How many walls are left to paint?",
        "days = m * k",
        "both = days + b",
        "left = a - both",
    ),
    story(
        "A barrel has {a} liters of juice. {A} fills {k} cans with {m} liters each. {B} pours {n} jugs of {p} liters "
        "back. How many liters does the barrel have now?",
        "cans = k * m",
        "rest = a - cans",
        "jugs = n * p",
        "now = rest + jugs",
    ),
    story(
        "A choir has {k} rows of {m} women and {n} rows of {p} men. {b} singers are ill. How many singers can sing?",
        "women = k * m",
        "men = n * p",
        "all = women + men",
        "left = all - b",
    ),
    story(
        "{A} sells {k} pies for {m} dollars each and {n} tarts for {p} dollars each and pays {b} dollars for flour. "
        "How many dollars are left?",
        "pies = k * m",
        "tarts = n * p",
        "earned = pies + tarts",
        "left = earned - b",
    ),
)
"""Held out (`new_stories`): never used in training."""
