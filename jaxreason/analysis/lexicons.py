"""Word lists of reasoning behaviours: branching, backtracking, verification.

The lists are from ThinkLogit's published analysis (https://github.com/yunx-z/think-logit) and RAST (arXiv 2506.15710).
They lemmatise words with a tagger; here a word matches in its regular inflections.
"""

import re
from collections.abc import Iterable

LEXICONS = {
    "branching": "alternatively, another, try, suppose, consider, different, assume, also, option",
    "backtracking": "however, but, mistake, error, contradiction, wrong, revisit, actually, again, flawed",
    "verification": "check, verify, confirm, satisfy, plug, back, substitute, ensure, validate, test",
}


def _forms(word: str) -> str:
    stem = word.removesuffix("e").removesuffix("y")
    return rf"{word}|{stem}(?:y|e|s|es|ies|ed|ied|ing|ying|{stem[-1]}ing|{stem[-1]}ed)"


EXTRA_LEXICONS = {
    "subgoals": "first, firstly, second, secondly, next, step, finally, subproblem, goal",
    "backward chaining": "backward, backwards, reverse, working back, work back, to reach, to get to, in order to",
}
"""Written for this library, for behaviours that Gandhi et al. (arXiv 2503.01307) describe without a list."""

PATTERNS = {
    name: re.compile(rf"\b(?:{'|'.join(map(_forms, words.split(', ')))})\b", re.IGNORECASE)
    for name, words in (LEXICONS | EXTRA_LEXICONS).items()
}


def behaviours(text: str) -> list[str]:
    """The behaviours whose words occur in `text`."""
    return [name for name, pattern in PATTERNS.items() if pattern.search(text)]


def words_per_thousand(texts: Iterable[str]) -> dict[str, float]:
    """Occurrences of the words of each lexicon per thousand words of `texts`."""
    texts = list(texts)
    words = sum(len(re.findall(r"\w+", text)) for text in texts)
    return {name: 1000 * sum(len(PATTERNS[name].findall(text)) for text in texts) / max(1, words) for name in LEXICONS}
