"""Which way of reasoning a text takes. A labeller is a function `str -> label`; one's own is as good as these."""

import re
from collections.abc import Callable, Collection, Sequence
from functools import cache

from jaxreason.analysis.lexicons import found
from jaxreason.errors import InputError

Labeller = Callable[[str], str]

_ANSWER = re.compile(r"####|\\boxed\{")
_CHECK = re.compile(r"^\s*(check|verify|verification)\b", re.IGNORECASE)
_STEP = re.compile(r"^\s*(step \d+|\d+[.)]|[-*•]|[^\W\d][\w ]{0,30}:)", re.IGNORECASE)
_MATHS = re.compile(r"[\d\s.,+\-*/x×÷=()$%^]+")
_OPERATOR = re.compile(r"(?<=[\d)\s])[+\-*/x×÷](?=[\d(\s])")


def structural(text: str) -> str:
    """By the form of what precedes the answer: `answer only`, `one expression` (a single equation that does all),
    `equations`, `steps` (numbered, bulleted or named lines), `checked steps` (one of its lines begins with a check),
    `prose`."""
    body = [line for line in text.splitlines() if line.strip() and not _ANSWER.search(line)]
    if not body:
        return "answer only"
    if any(map(_CHECK.match, body)):
        return "checked steps"
    if any(map(_STEP.match, body)):
        return "steps"
    if all(map(_MATHS.fullmatch, body)) and any("=" in line for line in body):
        several = len(_OPERATOR.findall(body[0].split("=")[0])) > 1
        return "one expression" if several and len(body) == 1 else "equations"
    return "prose"


def cognitive(text: str) -> str:
    """By what it does: those of verification, backtracking, subgoals, backward chaining and branching (Gandhi et al.,
    arXiv 2503.01307) whose words occur, joined by `+`; else `none`. The paper asks a judge model: see `judged`."""
    return "+".join(found(text)) or "none"


LABELLERS: dict[str, Labeller] = {"structural": structural, "cognitive": cognitive}


def judged(judge: Callable[[str], str], labels: Collection[str], *, otherwise: str = "other") -> Labeller:
    """A labeller from a judge, as a language model that was asked which of `labels` a text is.

    Each text is judged once. What the judge says is compared without regard to case and to what is around a label; an
    answer with none of them, or with several, is `otherwise`.
    """
    words = {label: re.compile(rf"(?<!\w){re.escape(label)}(?!\w)", re.IGNORECASE) for label in labels}

    @cache
    def label(text: str) -> str:
        said = judge(text)
        named = [name for name, word in words.items() if word.search(said)]
        return named[0] if len(named) == 1 else otherwise

    return label


def discovered(texts: Sequence[str], count: int, *, seed: int = 0) -> Labeller:
    """A labeller that finds `count` patterns in `texts`: clusters (k-means) of the words and word pairs that tell them
    apart (tf-idf, numbers read as one word), each named by its three heaviest. Needs the extra `patterns`.

    What Zhao et al. (arXiv 2506.04695) have a large model do with the base model's responses.
    """
    if not 2 <= count <= len(set(texts)):
        raise InputError(f"{count} patterns in {len(set(texts))} different texts: give from 2 to as many as there are")
    try:
        from sklearn.cluster import KMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise InputError("clusters need scikit-learn: pip install 'jaxreason[patterns]'") from error

    words = TfidfVectorizer(
        preprocessor=lambda text: re.sub(r"\d+(?:[.,]\d+)*", "0", text.lower()),
        token_pattern=r"\w+|[^\w\s]|\n",
        ngram_range=(1, 2),
        min_df=2 if len(texts) > 10 else 1,
        sublinear_tf=True,
    )
    clusters = KMeans(count, n_init=4, random_state=seed).fit(words.fit_transform(texts))
    names = words.get_feature_names_out()
    heaviest = [", ".join(names[i] for i in center.argsort()[::-1][:3]) for center in clusters.cluster_centers_]
    return lambda text: heaviest[clusters.predict(words.transform([text]))[0]]
