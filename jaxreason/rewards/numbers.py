r"""Exact grading of a final answer: did the completion state the number the problem asks for?

The answer is after the last `####` or in the last `\boxed{...}`, whichever comes later (strict); without either, it is
the last number of the text (lenient). Numbers compare as exact fractions, everything else as normalised LaTeX text.

Symbolic mathematics and evaluation are left out on purpose. Model text is hostile input: nothing here executes it,
raises or takes long. The only work proportional to the length of a text is `rfind`, and every regular expression sees
at most `WINDOW` characters.
"""

import re
from fractions import Fraction
from math import prod

from jaxreason.tasks.problem import Problem

VERDICTS = ("yes", "no", "contradiction")  # gold answers that are words, not numbers

WINDOW = 500  # characters; longer than any final answer; bounds digits, nesting and backtracking
LOOKBACK = 100  # the last number begins at most this many characters before the last digit
SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def strict(completion: str, problem: Problem) -> float:
    """1.0 if the answer marked by `####` or a box is correct, else 0.0."""
    answer = extract_answer(completion, problem, lenient=False)
    return float(answer is not None and is_correct(answer, problem))


def lenient(completion: str, problem: Problem) -> float:
    """At least `strict`: a completion without a marked answer is graded by its last number, or verdict."""
    answer = extract_answer(completion, problem, lenient=True)
    return float(answer is not None and is_correct(answer, problem)) or strict(completion, problem)


def is_correct(answer: str, problem: Problem) -> bool:
    """Decided by the problem's own verifier if it has one, else by equality with a gold answer."""
    return problem.verify(answer) if problem.verify else any(equal(answer, gold) for gold in problem.golds)


def extract_answer(completion: str, problem: Problem, *, lenient: bool) -> str | None:
    """The answer of `completion`: a verdict (yes, no, ...) if the gold answer is one, else `final_answer`. What is
    thought before `</think>` is not an answer, and a thought that does not end has none."""
    completion = completion.rpartition("</think>")[2]
    if "<think>" in completion:
        return None
    if problem.verify:
        return _rest(completion, lenient=lenient)
    if problem.answer not in VERDICTS:
        return final_answer(completion, lenient=lenient, several=any(len(_values(gold)) > 1 for gold in problem.golds))
    answer = final_answer(completion, lenient=False)
    if lenient:
        words = _VERDICT.findall((answer or completion[-WINDOW:]).lower())
        return words[-1] if words else None
    return answer and answer.strip("*_`'\". ").lower()


def final_answer(completion: str, *, lenient: bool, several: bool = False) -> str | None:
    """The text of the answer, or None. Two numbers joined by `or` are not an answer, unless `several` are asked for."""
    hashes, box = completion.rfind("####"), completion.rfind("\\boxed{")
    if box > hashes:
        answer = _braced(completion[box + len("\\boxed") : box + WINDOW])
    elif hashes >= 0:
        answer = _line(completion[hashes + 4 : hashes + 4 + WINDOW])
        if not answer:  # `#### 72 ####`
            answer = completion[max(0, hashes - WINDOW) : hashes].rpartition("\n")[2].partition("####")[2].strip()
        answer = _TAGS.sub("", answer)
        prose = _PROSE.match(answer)
        if lenient and prose and parse_number(answer) is None and parse_number(answer[prose.end() :]) is not None:
            answer = answer if _OTHER_VALUE.search(prose[0]) else answer[prose.end() :]
        if lenient and not re.search(r"[0-9]", answer):  # prose: what comes after it may state the number
            answer = _last_number(completion[hashes + 4 :]) or answer
    else:
        answer = ""
    if not answer:
        return _last_number(completion) if lenient else None
    if not several and " or " in answer and all(parse_number(part) is not None for part in answer.split(" or ")):
        return None
    return answer


def equal(a: str, b: str) -> bool:
    r"""Equal numbers; otherwise equal LaTeX up to spacing and notation (`\dfrac12` is `\frac{1}{2}`), or the same
    values in any order (`x = 0 or x = 2`, `2, 0`)."""
    x, y = parse_number(a), parse_number(b)
    if x is not None and y is not None:
        return x == y
    if len(a) > WINDOW or len(b) > WINDOW:
        return a == b
    if _plain(a) == _plain(b):
        return True
    left, right = _values(a), _values(b)
    return len(left) == len(right) > 1 and set(left) == set(right)


def parse_number(text: str) -> Fraction | None:
    r"""The single number in `text`, or None.

    Accepts thousands commas, decimals, `3/4`, `\frac{3}{4}`, mixed numbers, `1e5`, `2 \times 10^5`, a currency before
    and a unit after; `5 million` and `5 dozen` are 5000000 and 60, `5 squared` is no number. A percent sign is a unit:
    `50%` is 50. Of an equation, the text after the last `=` counts. Brackets around a single number do not.
    """
    if len(text) > WINDOW:
        return None
    text = _NUMBER_AS_TEXT.sub(r"\1", _tidy(text))
    bracketed = _BRACKETED.fullmatch(text)
    left, equals, text = (bracketed[1] if bracketed else text).rpartition("=")
    if equals and not _names_a_value(left):
        return None
    lead = _LEAD.match(text)
    assert lead  # it matches the empty string
    value = _VALUE.match(text, lead.end())
    scale = value and _SCALE.match(text, value.end())
    if value is None or scale is None or _UNIT.fullmatch(text, scale.end()) is None:
        return None
    signs = lead["before"] + lead["after"]
    size = _size(value) if len(signs) < 2 else None
    size = size and size * prod(SCALES[word.removesuffix("s")] for word in scale[0].lower().split())
    return -size if size is not None and signs == "-" else size


# --- finding the answer ---

_VERDICT = re.compile(rf"\b(?:{'|'.join(VERDICTS)})\b")


def _rest(completion: str, *, lenient: bool) -> str | None:
    """All text after the last `####`, for verifiers of several lines (grids); without `####`, the last line."""
    _, hashes, rest = completion.rpartition("####")
    if not hashes:
        rest = completion[-WINDOW:].strip().rpartition("\n")[2] if lenient else ""
    return rest.strip()[:WINDOW] or None


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_PROSE = re.compile(r"[A-Za-z][A-Za-z ,:']*[ :]")  # "The answer is " before a number
_OTHER_VALUE = re.compile(r"\b(?:not|never|minus|negative|half|third|quarter|twice|double|than|no)\b", re.IGNORECASE)
# At the end of `18</answer>`, `18<|im_end|>` and of a line of TeX.
_TAGS = re.compile(r"\s*(?:</[A-Za-z]{1,20}>|<\|[A-Za-z_]{1,20}\|>|\\\\)\s*$")


def _braced(chunk: str) -> str:
    """The contents of the braces at the start of `chunk`; empty if they do not close."""
    depth = 0
    for brace in _BRACE.finditer(chunk):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0 and brace[0] == "}":
            return chunk[1 : brace.start()].strip()
    return ""


def _line(chunk: str) -> str:
    """The first non-blank line; empty if it does not end within the window."""
    line, newline, _ = chunk.lstrip().partition("\n")
    return line.strip() if newline or len(chunk) < WINDOW else ""


def _last_number(text: str) -> str | None:
    """The last number that is not an exponent or an index (`cm^2`, `x_1`)."""
    end = 1 + max(map(text.rfind, "0123456789"))
    start = max(0, end - LOOKBACK)
    window = _tidy(text[start : end + 20])  # 20: up to the brace that closes a \frac, or the word that scales a number
    for number in reversed(list(_VALUE.finditer(window))):
        before = window[: number.start()]
        if start > 0 and not text[start].isspace() and not before.strip("0123456789,."):
            return None  # may be the end of a longer number
        if _POWER_OF.search(before[-9:]):  # `2^10` is not evaluated; the answer is neither 10 nor 2
            return None
        if not _INDEX.search(before[-9:]):
            scale = _SCALE.match(window, number.end())
            if _CHANGED.match(window, number.end()):  # `5²`, `0x10`, `5 squared`
                return None
            sign = "-" if _negated(before.rstrip("$€£")) else ""
            return sign + number[0] + (scale[0] if scale else "")
    return None


def _negated(before: str) -> bool:
    """Whether `before` ends in a sign: `is -4` does; `3-4`, `3 -4`, `covid-4` and the bullet `- 4` do not."""
    if not before.endswith("-"):
        return False
    before = before[:-1]
    return not (before.rstrip(" \t").endswith(_OPERAND_ENDS) or before[-1:].isalpha())


_CHANGED = re.compile(r"[²³½¼¾]|[xX][0-9A-Fa-f]|\s+(?:squared|cubed)\b")
_POWER_OF = re.compile(r"[0-9]\s*(?:\^\s*\{?|\*\*\s*)$")
_INDEX = re.compile(r"(?:[A-Za-z]|[_^]\s*\{?)$")
_OPERAND_ENDS = (*"0123456789)]}%",)


_JOINED = re.compile(r"\s*(?:,(?![0-9]{3}(?![0-9]))|;|\bor\b|\band\b|\\text\s*\{\s*(?:or|and)\s*\})\s*")


def _values(text: str) -> list[Fraction | str]:
    """The values of a list without brackets, or of a set, as numbers where they are; none where a part is empty."""
    text = _tidy(text).removeprefix("\\{").removesuffix("\\}").strip("$ ")
    if len(text) > WINDOW or re.search(r"[()\[\]]", text):
        return []
    parts = [part for part in _JOINED.split(text) if part]
    numbers = [parse_number(part) for part in parts]
    return [_plain(part) if number is None else number for part, number in zip(parts, numbers, strict=True)]


# --- normalising and comparing it ---

# Equivalent notations become one. The look-behind leaves `\\ `, a new row of a matrix, alone.
_SPELLINGS = [
    (re.compile(r"\\!\s*|\\,(?=[0-9]{3}(?![0-9]))|\\(?:left|right)(?![A-Za-z])|(?<!\\)\\[()\[\]]"), ""),
    (re.compile(r"(?<!\\)\\[,;: ]|~"), " "),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\(?:mbox|math(?:rm|bf|it)|text(?:rm|bf|it))(?=\s*\{)"), r"\\text"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\^(?:\{\\circ\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])"), "°"),
]
_PLAIN = [
    (re.compile(r"\\text\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\frac\s*([0-9])\s*([0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\sqrt\s*([0-9A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"([_^])\{([0-9A-Za-z])\}"), r"\1\2"),
    (re.compile(r"\$"), ""),
    (re.compile(r"\s+"), " "),
    (re.compile(r" (?![0-9A-Za-z])|(?<![0-9A-Za-z]) "), ""),  # but `1 2` is not `12`
]


def _tidy(text: str) -> str:
    text = text.strip().replace("\u2212", "-")
    if "\\" in text or "{" in text or "~" in text:
        for spelling, replacement in _SPELLINGS:
            text = spelling.sub(replacement, text)
    return text


def _plain(text: str) -> str:
    text = _tidy(text)
    for spelling, replacement in _PLAIN:
        text = spelling.sub(replacement, text)
    return text.removesuffix(".")


# Digits are [0-9], never \d, which matches other scripts. Possessive quantifiers (*+) never backtrack.
_DIGITS = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_POWER = r"(?:\{\s*[-+]?[0-9]{1,3}\s*\}|[-+]?[0-9]{1,3}(?![0-9]))"  # three digits bound the size of 10^p

_LEAD = re.compile(r"[\s*_`'\"]*+(?P<before>[-+]?)\s*+[$€£]{0,2}\s*+(?P<after>[-+]?)\s*+")
_VALUE = re.compile(
    rf"""
    (?=[0-9.\\])  # fails fast where no number begins
    (?: (?P<whole>[0-9][0-9,]*) (?: \s*(?=\\frac) | \s+(?=[0-9]+\s*/\s*[0-9]) ) )?
    (?: \\frac \s* (?: \{{ \s* (?P<top>[-+]?{_DIGITS}) \s* \}} | (?P<top1>[0-9]) )
               \s* (?: \{{ \s* (?P<bottom>[-+]?{_DIGITS}) \s* \}} | (?P<bottom1>[0-9]) )
      | (?P<over>{_DIGITS}) \s*/\s* (?P<under>{_DIGITS})
      | (?: (?P<mantissa>{_DIGITS}) \s* (?: \\times | \\cdot | [×·*x] ) \s* )? 10 \s*\^\s* (?P<power>{_POWER})
      | (?P<decimal>(?>{_DIGITS})) (?: [eE] (?P<exponent>[-+]?[0-9]{{1,3}}) (?![0-9]) )? (?![eE][-+]?[0-9])
    )
    """,
    re.VERBOSE,
)
_SCALE = re.compile(rf"(?:\s+(?:{'|'.join(SCALES)})s?\b)*+", re.IGNORECASE)
_NUMBER_AS_TEXT = re.compile(r"\\text\s*\{\s*([-+]?[$€£]?[0-9][0-9.,/]*)\s*\}")  # \text{25}
_BRACKETED = re.compile(r"[\[({]\s*([-+]?[$€£]?[0-9][0-9./]*)\s*[\])}][.,;]?")  # [18], but not the point (1,200)
_SEVERAL = re.compile(r"[<>!]$|[,;](?![0-9]{3})|\b(?:or|and)\b")  # `x >= 5`, `x = 5, y = 6`
_UNKNOWN = re.compile(r"[0-9][A-Za-z]|(?<![A-Za-z\\])(?!(?<=[0-9] )x [0-9])[A-Za-z](?![A-Za-z])")  # not `3 x 4`
_NAME = re.compile(r"\s*\$?[A-Za-z](?:_\{?[0-9A-Za-z]\}?)?(?:\([0-9A-Za-z]*\))?\s*")  # x, x_1, f(2)

# A unit is a symbol, a word after a space, an abbreviation without a space, or \text{...}; words may follow. `2k`,
# `2\pi`, `5 and a half` and `5!` have no unit: they are not the numbers 2, 2, 5 and 5.
_WORD = (
    r"(?:\b(?!(?:and|or|to|plus|minus|times|over|divided|half|pi|sqrt|sin|cos|tan|log|ln|mod)\b)"
    r"[A-Za-z]+[²³]?(?:\^[23]|\^\{[23]\})?)"
)
_TEXT = r"(?:\\text\s*\{[^{}\\0-9]*(?:\^[23]\s*)?\}(?:\^[23]|\^\{[23]\})?)"
_UNIT = re.compile(
    rf"""
    [\s*_`]*+
    (?: (?: [%°$€£]
          | {_TEXT}
          | (?:cm|mm|km|ft|in|kg|mg|lbs?|oz|mph|ml|mL|gal|hrs?|mins?|secs?|am|pm|st|nd|rd|th)(?![A-Za-z])
            [²³]?(?:\^[23]|\^\{{[23]\}})?
          | (?<=[\s*_`]) (?=[A-Za-z]{{2}}|[mgLsh](?![A-Za-z])) (?!(?:squared|cubed)\b) {_WORD}
          | /\s*(?=[A-Za-z]) {_WORD}  # $18/day
          | \(\s*(?=[A-Za-z]{{2}}) {_WORD}
        )
        (?: [\s/.,;:'’"()°%$!?*_`-] | {_WORD} | {_TEXT} )*+
    )?
    [\s.,;:?*_`$)'"]*+
    """,
    re.VERBOSE,
)


def _names_a_value(left: str) -> bool:
    """Whether `left = 12` states the value 12: true for `x`, `Total`, `3*4`; false for `2x + 1`, `x >`, `x = 5, y`."""
    if _SEVERAL.search(left):
        return False
    return all(_NAME.fullmatch(part) or not _UNKNOWN.search(part) for part in left.split("="))


def _size(value: re.Match[str]) -> Fraction | None:
    """The magnitude of a `_VALUE` match; None for a zero denominator or an improper `1 3/2`."""
    if value["decimal"]:
        size = _decimal(value["decimal"])
        return size * Fraction(10) ** int(value["exponent"]) if value["exponent"] else size
    if value["power"]:
        return _decimal(value["mantissa"] or "1") * Fraction(10) ** int(value["power"].strip("{}"))
    top = _decimal(value["top"] or value["top1"] or value["over"])
    bottom = _decimal(value["bottom"] or value["bottom1"] or value["under"])
    if bottom == 0:
        return None
    if value["whole"] is None:
        return top / bottom
    return _decimal(value["whole"]) + top / bottom if 0 < top < bottom else None


def _decimal(digits: str) -> Fraction:
    digits = digits.replace(",", "")
    return Fraction(digits) if "." in digits else Fraction(int(digits))
