"""Premises that contradict each other or common knowledge, each with a sound twin that differs in one premise.

Who matches patterns answers both alike; who reads what is said answers `contradiction` to the first. The twins keep a
model honest that has merely learned to cry contradiction. `sft_examples`, for experiments/pipeline.py, have sound premises
of every kind but contradictions of `TAUGHT` alone; the held-out set has those of `UNTAUGHT`.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from jaxreason.tasks.grade_school.stories import THINGS, name, names
from jaxreason.tasks.problem import Problem

CONTRADICTION = "contradiction"
REMARK = f"Answer {CONTRADICTION} if the premises contradict each other or common knowledge."


class Rule(NamedTuple):
    """A rule about a kind and a question about a member: `false` contradicts common knowledge, `true` does not."""

    kind: str
    false: tuple[str, str]
    true: tuple[str, str]


RULES = (
    Rule("penguin", ("All birds can fly.", "fly"), ("All birds have wings.", "flap its wings")),
    Rule("ostrich", ("All birds can fly.", "fly"), ("All birds have two legs.", "stand on two legs")),
    Rule("whale", ("All mammals live on land.", "live on land"), ("All mammals have lungs.", "breathe air")),
    Rule("snake", ("All reptiles have four legs.", "walk on four legs"), ("All reptiles have skin.", "shed its skin")),
    Rule("cat", ("All pets can talk in words.", "talk in words"), ("All pets need food.", "eat food")),
    Rule("tortoise", ("All animals run faster than cars.", "run faster than a car"), ("All animals age.", "grow old")),
    Rule("goldfish", ("All fish live in trees.", "live in a tree"), ("All fish live in water.", "live in water")),
    Rule("elephant", ("All mammals lay eggs.", "lay eggs"), ("All mammals have blood.", "bleed")),
)

KNOWN = (
    # (text before and after the number, the number as everyone knows it)
    ("A week has ", " days. {A} eats {k} {x} a day. How many {x} does {A} eat in a week?", 7),
    ("A dog has ", " legs. {A} has {k} dogs. How many legs do the dogs have?", 4),
    ("A dozen is ", " pieces. {A} buys {k} dozen {x}. How many {x} does {A} buy?", 12),
    ("A year has ", " months. {A} saves {k} dollars a month. How many dollars does {A} save in a year?", 12),
    ("A triangle has ", " corners. {A} draws {k} triangles. How many corners does {A} draw?", 3),
    ("A spider has ", " legs. {A} sees {k} spiders. How many legs do the spiders have?", 8),
)


def premises(seed: int | str, count: int) -> tuple[list[Problem], list[Problem]]:
    """`count` contradictory problems and their sound twins, at the same places in both lists; no question twice."""
    rng = random.Random(f"premises {seed}")
    contradictory: dict[str, str] = {}
    sound: dict[str, str] = {}
    while len(sound) < count:
        flawed, twin, answer = rng.choice(UNTAUGHT)(rng, new=True)
        if flawed not in contradictory and twin not in sound:
            contradictory[flawed], sound[twin] = CONTRADICTION, answer
    return _problems(contradictory), _problems(sound)


def sft_examples(seed: int | str) -> Iterator[tuple[str, str]]:
    """Questions and answers to learn from, without end."""
    rng = random.Random(f"lessons on premises {seed}")
    while True:
        kind = rng.choice(TAUGHT + UNTAUGHT)
        flawed, twin, answer = kind(rng, new=False)
        if kind in TAUGHT and rng.random() < 0.5:
            yield f"{flawed} {REMARK}", CONTRADICTION
        else:
            yield f"{twin} {REMARK}", answer


def _problems(answers: dict[str, str]) -> list[Problem]:
    return [Problem(f"{text} {REMARK}", answer, "", index) for index, (text, answer) in enumerate(answers.items())]


def _gaps(rng: random.Random, *, new: bool) -> dict[str, str]:
    a, b, c = names(rng, 3, new=new)
    x, y = rng.sample(THINGS, 2)
    return {"A": a, "B": b, "C": c, "x": x, "y": y}


def false_rule(rng: random.Random, *, new: bool) -> tuple[str, str, str]:
    rule, who = rng.choice(RULES), name(rng, new=new)
    article = "an" if rule.kind[0] in "aeiou" else "a"

    def text(premise: str, ability: str) -> str:
        return f"{premise} {who} is {article} {rule.kind}. Can {who} {ability}?"

    return text(*rule.false), text(*rule.true), "yes"


def wrong_constant(rng: random.Random, *, new: bool) -> tuple[str, str, str]:
    before, after, known = rng.choice(KNOWN)
    k = rng.randint(2, 9)
    wrong = rng.choice([n for n in range(2, 15) if n != known])
    after = after.format(k=k, **_gaps(rng, new=new))
    return f"{before}{wrong}{after}", f"{before}{known}{after}", str(k * known)


def circle(rng: random.Random, *, new: bool) -> tuple[str, str, str]:
    a, b, c, other = names(rng, 4, new=new)
    how = rng.choice(("older", "taller", "faster", "richer"))
    text = f"{a} is {how} than {b}. {b} is {how} than {c}. {c} is {how} than {{}}. Is {a} {how} than {c}?"
    return text.format(a), text.format(other), "yes"


def more_than_there_are(rng: random.Random, *, new: bool) -> tuple[str, str, str]:
    more, fewer = sorted(rng.sample(range(2, 51), 2), reverse=True)
    text = "{A} has exactly {a} {x}. {A} gives {b} of these {x} to {B}. How many {x} does {A} have left?"
    gaps = _gaps(rng, new=new)
    return text.format(a=fewer, b=more, **gaps), text.format(a=more, b=fewer, **gaps), str(more - fewer)


def two_counts(rng: random.Random, *, new: bool) -> tuple[str, str, str]:
    a, b, c = rng.sample(range(2, 51), 3)
    gaps = _gaps(rng, new=new)
    text = "{A} has exactly {a} {x}. {who} has exactly {b} {x}. {C} gives {A} {c} more. How many {x} does {A} have now?"
    flawed, twin = (text.format(a=a, b=b, c=c, who=gaps[who], **gaps) for who in "AB")
    return flawed, twin, str(a + c)


def parts_and_whole(rng: random.Random, *, new: bool) -> tuple[str, str, str]:
    girls, boys, more = (rng.randint(2, 30) for _ in range(3))
    wrong = girls + boys + rng.choice((-1, 1)) * rng.randint(1, 3)
    text = (
        f"A class has {{}} children, {girls} girls and {boys} boys. Then {more} children join. How many are there now?"
    )
    return text.format(wrong), text.format(girls + boys), str(girls + boys + more)


TAUGHT = (circle, more_than_there_are, parts_and_whole)
UNTAUGHT = (false_rule, wrong_constant, two_counts)
"""Each draws (contradictory text, sound twin, the twin's answer), with names that are `new` or not."""
