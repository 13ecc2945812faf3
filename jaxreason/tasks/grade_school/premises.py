"""Premises that contradict each other or common knowledge, each with a sound twin that differs in one premise.

A model that matches patterns answers both alike; one that reads the premises answers `contradiction` to the first only.
The twins detect a model that always answers `contradiction`. `sft_examples` has sound problems of every kind, but
contradictions of `TRAIN_KINDS` only; the held-out set has those of `HELD_OUT_KINDS`.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from jaxreason.tasks.grade_school.stories import THINGS, name, names
from jaxreason.tasks.problem import Problem

CONTRADICTION = "contradiction"
REMARK = f"Answer {CONTRADICTION} if the premises contradict each other or common knowledge."


class Rule(NamedTuple):
    """(premise, ability asked about) for a kind of animal: `false` contradicts common knowledge, `true` does not."""

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

CONSTANTS = (
    # (text before the number, text after it, the true number)
    ("A week has ", " days. {A} eats {k} {x} a day. How many {x} does {A} eat in a week?", 7),
    ("A dog has ", " legs. {A} has {k} dogs. How many legs do the dogs have?", 4),
    ("A dozen is ", " pieces. {A} buys {k} dozen {x}. How many {x} does {A} buy?", 12),
    ("A year has ", " months. {A} saves {k} dollars a month. How many dollars does {A} save in a year?", 12),
    ("A triangle has ", " corners. {A} draws {k} triangles. How many corners does {A} draw?", 3),
    ("A spider has ", " legs. {A} sees {k} spiders. How many legs do the spiders have?", 8),
)


def premises(seed: int | str, count: int) -> tuple[list[Problem], list[Problem]]:
    """`count` contradictory problems and their sound twins, at the same indices of both lists; no duplicates."""
    rng = random.Random(f"premises {seed}")
    contradictory: dict[str, str] = {}
    sound: dict[str, str] = {}
    while len(sound) < count:
        flawed, twin, answer = rng.choice(HELD_OUT_KINDS)(rng, new=True)
        if flawed not in contradictory and twin not in sound:
            contradictory[flawed], sound[twin] = CONTRADICTION, answer
    return _problems(contradictory), _problems(sound)


def sft_examples(seed: int | str) -> Iterator[tuple[str, str]]:
    """Yields (question, answer) pairs for training, without end."""
    rng = random.Random(f"lessons on premises {seed}")
    while True:
        kind = rng.choice(TRAIN_KINDS + HELD_OUT_KINDS)
        flawed, twin, answer = kind(rng, new=False)
        if kind in TRAIN_KINDS and rng.random() < 0.5:
            yield f"{flawed} {REMARK}", CONTRADICTION
        else:
            yield f"{twin} {REMARK}", answer


def _problems(answers: dict[str, str]) -> list[Problem]:
    return [Problem(f"{text} {REMARK}", answer, "", index) for index, (text, answer) in enumerate(answers.items())]


def _fillers(rng: random.Random, *, new: bool) -> dict[str, str]:
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
    before, after, known = rng.choice(CONSTANTS)
    k = rng.randint(2, 9)
    wrong = rng.choice([n for n in range(2, 15) if n != known])
    after = after.format(k=k, **_fillers(rng, new=new))
    return f"{before}{wrong}{after}", f"{before}{known}{after}", str(k * known)


def circular_order(rng: random.Random, *, new: bool) -> tuple[str, str, str]:
    a, b, c, other = names(rng, 4, new=new)
    word = rng.choice(("older", "taller", "faster", "richer"))
    text = f"{a} is {word} than {b}. {b} is {word} than {c}. {c} is {word} than {{}}. Is {a} {word} than {c}?"
    return text.format(a), text.format(other), "yes"


def gives_too_many(rng: random.Random, *, new: bool) -> tuple[str, str, str]:
    large, small = sorted(rng.sample(range(2, 51), 2), reverse=True)
    text = "{A} has exactly {a} {x}. {A} gives {b} of these {x} to {B}. How many {x} does {A} have left?"
    fillers = _fillers(rng, new=new)
    return text.format(a=small, b=large, **fillers), text.format(a=large, b=small, **fillers), str(large - small)


def two_counts(rng: random.Random, *, new: bool) -> tuple[str, str, str]:
    a, b, c = rng.sample(range(2, 51), 3)
    fillers = _fillers(rng, new=new)
    text = "{A} has exactly {a} {x}. {who} has exactly {b} {x}. {C} gives {A} {c} more. How many {x} does {A} have now?"
    flawed, twin = (text.format(a=a, b=b, c=c, who=fillers[who], **fillers) for who in "AB")
    return flawed, twin, str(a + c)


def parts_and_whole(rng: random.Random, *, new: bool) -> tuple[str, str, str]:
    girls, boys, extra = (rng.randint(2, 30) for _ in range(3))
    wrong = girls + boys + rng.choice((-1, 1)) * rng.randint(1, 3)
    text = (
        f"A class has {{}} children, {girls} girls and {boys} boys. Then {extra} children join. How many are there now?"
    )
    return text.format(wrong), text.format(girls + boys), str(girls + boys + extra)


TRAIN_KINDS = (circular_order, gives_too_many, parts_and_whole)
HELD_OUT_KINDS = (false_rule, wrong_constant, two_counts)
"""Each returns (contradictory question, sound twin, answer of the twin); `new` selects held-out names."""
