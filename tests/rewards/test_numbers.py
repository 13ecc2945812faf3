"""The exact grader against hand-graded answers, the gold answers of GSM8K and MATH-500, and hostile text."""

import json
import random
import time
from dataclasses import replace
from fractions import Fraction

import pytest

from jaxreason.rewards.numbers import equal, final_answer, lenient, parse_number, strict
from jaxreason.tasks import Problem, load_task


def gold(answer: str) -> Problem:
    return Problem(question="", answer=answer, solution="", index=0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # signs, separators, decimals
        ("18", 18), ("-5", -5), ("\u22125", -5), ("+5", 5), ("- 5", -5), (".5", "1/2"), ("18.00.", 18),
        ("1,234,567.5", "2469135/2"), ("10,\\!080", 10080), ("1{,}234", 1234), ("3.21", "321/100"),
        # currency before, units after
        ("$18", 18), ("\\$32,\\!348", 32348), ("-$5", -5), ("\u20ac18.50", "37/2"), ("\u00a37", 7), ("$18$", 18),
        ("18 dollars", 18), ("18 dollars a day.", 18), ("12 cm^2", 12), ("12cm", 12), ("5 m", 5), ("60 km/h", 60),
        ("15\\mbox{ cm}^2", 15), ("5.4 \\text{ cents}", "27/5"), ("90^\\circ", 90), ("**73**", 73), ("5th", 5),
        ("50%", 50), ("50\\%", 50), ("0.5%", "1/2"),
        # as people write them
        ("5 million", 5_000_000), ("$1.5 million dollars", 1_500_000), ("2 hundred thousand", 200_000),
        ("5 dozens", 60), ("$18/day", 18), ("18 (dollars)", 18), ("18 (in total)", 18), ("[18]", 18), ("(18).", 18),
        ("{18}", 18), ("18?", 18), ("\\text{25}", 25), ("\\frac{3}{-4}", "-3/4"), ("60 miles / hour", 60),
        ("5 squared", None), ("5 cubed", None), ("5²", None), ("0x10", None), ("1 000", None), ("5½", None),
        ("[1,2]", None), ("(1,200)", None), ("18 / 6", 3), ("5 million or 6", None), ("18+", None), (">18", None),
        # fractions
        ("3/4", "3/4"), ("-3/4", "-3/4"), ("\\frac{3}{4}", "3/4"), ("\\dfrac34", "3/4"), ("\\frac{-3}{4}", "-3/4"),
        ("\\frac9{19}", "9/19"), ("\\frac{270}7\\text{ degrees}", "270/7"), ("1 3/4", "7/4"), ("-1 3/4", "-7/4"),
        ("137 \\frac{1}{2}", "275/2"),
        # powers of ten, equations
        ("1e5", 100000), ("2.5e-3", "1/400"), ("2 \\times 10^{5}", 200000), ("10^6", 1000000),
        ("x = 83", 83), ("3*4 = 12", 12), ("x = 3*4 = 12", 12), ("16 - 3 - 4 eggs = 9 eggs", 9), ("f(2) = 7", 7),
        # two numbers, expressions, variables, other scripts: no number
        ("5 or 6", None), ("5 and a half", None), ("5 to 6", None), ("1 2", None), ("3, 5, 7", None), ("1,23", None),
        ("3-4", None), ("9**9**9", None), ("10^9^9", None), ("1e9999", None), ("5!", None), ("2^10", None),
        ("2k", None), ("2\\pi", None), ("2 pi", None), ("3\\sqrt{2}", None), ("6 - 5i", None), ("52_8", None),
        ("3/0", None), ("2\\frac{3}{2}", None), ("2x = 10", None), ("x >= 5", None), ("x = 5, y = 6", None),
        ("5x - 7y + 11z + 4 = 0", None), ("y = -2x", None), ("--5", None), ("3:30", None), ("0x1F", None),
        ("nan", None), ("inf", None), ("1_000", None), ("", None), ("\u0661\u0668", None), ("1\u0663", None),
        ("12\x00", None), ("9" * 1000, None),
    ],
)  # fmt: skip
def test_parse_number(text, value):
    assert parse_number(text) == (None if value is None else Fraction(value))


@pytest.mark.parametrize(
    ("completion", "is_strict", "is_lenient"),
    [
        ("6 * 3 = 18\n#### 18", 1, 1),
        ("#### 18 dollars\n", 1, 1),
        ("####\n$18.00", 1, 1),
        ("so $\\boxed{18\\text{ dollars}}$.", 1, 1),
        ("\\boxed{\\boxed{18}}", 1, 1),
        ("\\boxed{4} no, \\boxed{18}", 1, 1),  # the last box counts
        ("#### 4\nso \\boxed{18}", 1, 1),
        ("\\boxed{18}\n#### 4", 0, 0),
        ("#### 4\nor rather\n#### 18", 1, 1),
        ("#### 18 or 19", 0, 0),  # hedges
        ("#### 18 ####", 1, 1),
        ("#### 18</answer>", 1, 1),
        ("<answer>#### 18</answer>", 1, 1),
        ("#### 18<|im_end|>", 1, 1),
        ("#### 18 million", 0, 0),
        ("#### not 18", 0, 0),
        ("#### minus 18", 0, 0),
        ("#### half of 18", 0, 0),
        ("#### about 18", 0, 1),
        ("#### Final answer below\nShe has 18 eggs.", 0, 1),  # a mark without a number: what comes after it
        ("18 #### none", 0, 0),  # but not what came before
        ("it is 18 million", 0, 0),
        ("it is 18 squared", 0, 0),
        ("it is 18²", 0, 0),
        ("The answer is 18!", 0, 1),  # a sentence ends, not a factorial
        ("it is 0x18", 0, 0),
        ("<think>#### 4</think>#### 18", 1, 1),
        ("<think>#### 18</think>#### 4", 0, 0),
        ("#### 18</think>I do not know.", 0, 0),  # the prompt began the thought
        ("<think>so 18, #### 18", 0, 0),  # it never ends
        ("<think>a</think>no<think>b</think>#### 18", 1, 1),
        ("<think>a</think>no<think>#### 18", 0, 0),
        ("#### 19 or 18", 0, 0),
        ("#### 17\n18", 0, 0),  # a marked answer is the answer
        ("#### The answer is 18", 0, 1),
        ("The answer is 18.", 0, 1),
        ("The answer is **$18.00**", 0, 1),
        ("she pays 20-18", 0, 1),  # a binary minus is not a sign
        ("the area is 18 cm^2", 0, 1),
        ("it is -18", 0, 0),
        ("\\boxed{18", 0, 1),  # never closed
        ("#### ", 0, 0),
        ("#### 18 " + "apples " * 100, 0, 1),  # a line that does not end
        ("," * 200 + " " * 200 + "18", 0, 1),
        ("", 0, 0),
    ],
)
def test_finding_the_answer(completion, is_strict, is_lenient):
    assert (strict(completion, gold("18")), lenient(completion, gold("18"))) == (is_strict, is_lenient)


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("x = -4", "-4"), ("3 -4", "4"), ("covid-19", "19"), ("list:\n- 4 apples", "4"), ("owes -$4.50.", "-4.50"),
        ("a quarter, 1/4", "1/4"), ("so \\frac{1}{4}.", "\\frac{1}{4}"), ("costs 1,200 dollars", "1,200"),
        ("H2O", None), ("it is 2^10", None), ("9**9**9", None), ("1" * 200, None), ("1,111" * 50, None),
    ],
)  # fmt: skip
def test_last_number(text, last):
    assert final_answer(text, lenient=True) == last
    assert final_answer(text, lenient=False) is None


def test_two_numbers_are_no_answer():
    assert final_answer("#### 5 or 6 apples", lenient=True) is None
    assert final_answer("\\boxed{x = 5 or x = 6}", lenient=True) is None
    assert final_answer("#### more or less", lenient=True) == "more or less"


def test_lenient_is_at_least_strict():
    assert final_answer("#### Team 5", lenient=True) == "5"
    assert strict("#### Team 5", gold("Team 5")) == lenient("#### Team 5", gold("Team 5")) == 1.0


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("0.75", "\\frac34", True),
        ("50%", "50", True),
        ("50%", "0.5", False),
        ("0.333", "1/3", False),
        ("0.1", "0.10000000000000000001", False),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\dfrac{\\pi}{2})", True),
        ("11\\sqrt2", "$11 \\sqrt{2}$.", True),
        ("\\text{Evelyn}", "Evelyn", True),
        ("4210_{5}", "4210_5", True),
        ("52_8", "52", False),
        ("(1,2]", "(1,2)", False),
        ("1,-2", "1", False),
        ("1 2", "12", False),
        ("2k", "2", False),
        ("1+\\frac{1}{e}", "1-\\frac{1}{e}", False),
    ],
)
def test_equal_is_exact_and_symmetric(a, b, same):
    assert equal(a, b) is equal(b, a) is same


def test_gsm8k_gold_grades_itself(data):
    splits = [(data / "gsm8k" / f"{split}.jsonl").read_text("utf-8") for split in ("train", "test")]
    answers = [json.loads(line)["answer"] for split in splits for line in split.strip().split("\n")]
    official = [answer.split("#### ")[1] for answer in answers]  # the rule of the dataset
    assert len(answers) == 8792
    assert sum(strict(answer, gold(final)) for answer, final in zip(answers, official, strict=True)) == 8792
    assert sum(lenient(answer, gold(final)) for answer, final in zip(answers, official, strict=True)) == 8792
    wrong = [f"{int(final.replace(',', '')) + 1}" for final in official]
    assert sum(lenient(answer, gold(final)) for answer, final in zip(answers, wrong, strict=True)) == 0


@pytest.mark.parametrize("answer", ["x=0 or x=2", "0, 2", "2 and 0", "\\{0, 2\\}", "x = 2 \\text{ or } x = 0"])
def test_a_gold_of_several_values_is_answered_in_any_order(answer):
    for completion in ("#### 0 or 2", "#### x = 2 or x = 0", "\\boxed{0, 2}", "\\boxed{\\{2, 0\\}}", "#### 2 and 0"):
        assert strict(completion, gold(answer)) == 1.0, completion
    for completion in ("#### 0", "#### 0 or 3", "#### 0 or 2 or 3", "\\boxed{(0, 2)}", "#### 2 or 2"):
        assert lenient(completion, gold(answer)) == 0.0, completion


def test_any_of_several_golds_is_right():
    problem = replace(gold("2"), alternatives=("3", "half"))
    assert [strict(f"#### {answer}", problem) for answer in ("2", "3.0", "half", "4")] == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ["svamp", "mawps", "gsm8k", "math500", "grade-school"])
def test_the_gold_answers_of_every_task_are_right_and_those_of_other_problems_wrong(name, data):
    task = load_task(name, data)
    problems = (task.train + task.test)[:10_000]
    for problem, other in zip(problems, problems[1:] + problems[:1], strict=True):
        assert strict(f"#### {problem.answer}", problem) == 1.0, problem.answer
        assert strict(f"\\boxed{{{problem.answer}}}", problem) == 1.0, problem.answer
        assert lenient(f"#### {other.answer}", problem) == float(equal(other.answer, problem.answer))


def test_math500_solutions_grade_as_their_answers(data):
    task = load_task("math500", data)
    assert sum(strict(problem.solution, problem) for problem in task.train + task.test) == 500


MB = 1 << 20
HOSTILE = {
    "tower of powers": "#### " + "9**" * 150 + "9",
    "long tower": "9**" * (MB // 3) + "9",
    "factorials": "#### " + "9!" * 200,
    "nested braces": "\\boxed" + "{" * MB,
    "nested and closed": "\\boxed" + "{" * 240 + "1" + "}" * 240,
    "fractions": "\\boxed{" + "\\frac{" * 80,
    "many fractions": "\\frac{1}{" * (MB // 9),
    "boxes": "\\boxed{" * 200_000,
    "blanks": " " * 200_000,
    "answer of blanks": "#### 1" + " " * 490,
    "blanks between": "#### " + "1 " * 245,
    "digits": "7" * MB,
    "marked digits": "#### " + "7" * MB,
    "commas": "," * MB,
    "digits and commas": "1,111" * (MB // 5),
    "minus signs": "#### " + "-" * MB,
    "minus signs at the end": "1" + "-" * MB,
    "equals signs": "#### " + "x=" * 240 + "1",
    "backslashes": "\\" * MB,
    "boxed backslashes": "\\boxed{" + "\\" * MB,
    "hashes": "#" * MB,
    "nearly hashes": "###x" * (MB // 4),
    "nearly boxes": "\\boxed" * (MB // 6),
    "words": "#### 1 " + "a " * 240 + "!",
    "units": "#### 1 " + "\\text{cm}" * 50 + "=",
    "open units": "#### 1" + "\\text{a" * 70,
    "tildes": "#### " + "~" * 480 + "1",
    "ors": "#### " + "1 or " * 99 + "1",
    "prose": "#### " + "a " * 240 + ":",
    "unicode digits": "\u0663" * MB,
    "emoji": "\U0001f600" * (MB // 4),
    "digit among emoji": "7" + "\U0001f637" * (MB // 4),
    "low byte of a digit": "\u4e30\u4e39" * (MB // 2),
    "nul": "\x00" * MB,
    "lone surrogates": "#### \ud800" * 1000,
    "code": "#### __import__('os').system('exit 1')",
}
PIECES = ["\\boxed{", "}", "{", "#### ", "\\frac", "1", ",", ".", "-", " ", "/", "=", "\\text{", "e", "^", "*", "$"]
_random = random.Random(0)
for _seed in range(20):
    HOSTILE[f"random {_seed}"] = "".join(_random.choices(PIECES, k=100_000))
    HOSTILE[f"random pair {_seed}"] = "".join(_random.choices(PIECES, k=2)) * 100_000
    HOSTILE[f"random answer {_seed}"] = "#### 1" + "".join(_random.choices(PIECES, k=3)) * 60


@pytest.mark.parametrize("name", HOSTILE)
def test_any_megabyte_grades_within_50_ms(name):
    """A guarantee, so a timing test; the minimum of three calls, because other work may share the core."""
    text, seconds = HOSTILE[name], []
    for _ in range(3):
        start = time.perf_counter()
        scores = {strict(text, gold("\\frac{1}{7}")), lenient(text, gold("\\frac{1}{7}"))}
        equal(text, text[:-1])
        seconds.append(time.perf_counter() - start)
        assert scores == {0.0}
    assert min(seconds) < 0.05
