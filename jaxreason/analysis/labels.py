"""Labels the reasoning pattern of a text. A labeller is any function `str -> str`."""

import re
from collections.abc import Callable, Collection, Sequence
from functools import cache

from jaxreason.analysis.lexicons import behaviours
from jaxreason.errors import InputError

Labeller = Callable[[str], str]

_ANSWER = re.compile(r"####|\\boxed\{")
_CHECK = re.compile(r"^\s*(check|verify|verification)\b", re.IGNORECASE)
_STEP = re.compile(r"^\s*(step \d+|\d+[.)]|[-*•]|[^\W\d][\w ]{0,30}:)", re.IGNORECASE)
_MATHS = re.compile(r"[\d\s.,+\-*/x×÷=()$%^]+")
_OPERATOR = re.compile(r"(?<=[\d)\s])[+\-*/x×÷](?=[\d(\s])")


def structural(text: str) -> str:
    """The form of the text before the answer: `answer only`, `one expression` (a single equation with several
    operators), `equations`, `steps` (numbered, bulleted or named lines), `checked steps` (a line begins with a check)
    or `prose`."""
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
    """The cognitive behaviours (Gandhi et al., arXiv 2503.01307) whose words occur, joined by `+`, or `none`.

    Verification, backtracking, subgoals, backward chaining, branching. The paper uses an LLM judge: `llm_labeller`.
    """
    return "+".join(behaviours(text)) or "none"


LABELLERS: dict[str, Labeller] = {"structural": structural, "cognitive": cognitive}


def llm_labeller(judge: Callable[[str], str], labels: Collection[str], *, otherwise: str = "other") -> Labeller:
    """A labeller from an LLM judge, a function from a text to the reply of a model prompted to choose among `labels`.

    The judge is called once per text. The label is the one that occurs in the reply, whatever the case; a reply with
    none, or with several, is `otherwise`.
    """
    words = {label: re.compile(rf"(?<!\w){re.escape(label)}(?!\w)", re.IGNORECASE) for label in labels}

    @cache
    def label(text: str) -> str:
        reply = judge(text)
        named = [name for name, word in words.items() if word.search(reply)]
        return named[0] if len(named) == 1 else otherwise

    return label


def cluster_labeller(texts: Sequence[str], count: int, *, seed: int = 0) -> Labeller:
    """A labeller by `count` k-means clusters of `texts`, on tf-idf of words and word pairs (all numbers are one word).

    A cluster is named by its three words of largest weight. Zhao et al. (arXiv 2506.04695) use a large model for this.
    Needs the extra `patterns`.
    """
    if not 2 <= count <= len(set(texts)):
        raise InputError(f"{count} clusters of {len(set(texts))} different texts: use from 2 to {len(set(texts))}")
    try:
        from sklearn.cluster import KMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise InputError("clusters need scikit-learn; run: pip install 'jaxreason[patterns]'") from error

    words = TfidfVectorizer(
        preprocessor=lambda text: re.sub(r"\d+(?:[.,]\d+)*", "0", text.lower()),
        token_pattern=r"\w+|[^\w\s]|\n",
        ngram_range=(1, 2),
        min_df=2 if len(texts) > 10 else 1,
        sublinear_tf=True,
    )
    kmeans = KMeans(count, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType] -- its default is a string
    clusters = kmeans.fit(words.fit_transform(texts))
    names = words.get_feature_names_out().tolist()
    heaviest = [", ".join(names[i] for i in center.argsort()[::-1][:3]) for center in clusters.cluster_centers_]
    return lambda text: heaviest[clusters.predict(words.transform([text]))[0]]
