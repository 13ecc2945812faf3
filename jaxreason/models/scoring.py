"""Log-probability and entropy of given tokens, and divergences from a teacher, without holding logits of sequences.

`[*, V]` logits of a batch are most of an update's memory, so the unembedding stands inside a scan over chunks of the
vocabulary whose body is rematerialised: the backward pass recomputes one chunk's logits at a time, and writes that
chunk of the unembedding's gradient once. (Chunks of rows would add up a gradient of the whole table for each.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxreason.distributed.mesh import MESH_AXES, constrain
from jaxreason.models.attention import KV
from jaxreason.models.transformer import (
    PromptKV,
    Transformer,
    compute_logits,
    run_completions,
    run_packed,
    run_prompts,
    unembed,
    unembedding,
)
from jaxreason.types import PackedBatch, Params, Prompts

Divergence = Callable[[Array, Array], Array]
"""(student's, teacher's log-probability) -> terms to sum over the vocabulary: `jaxreason.objectives.divergence`."""

CHUNK_FLOATS = 2**22
"""Logits held at once: 16 MiB in float32, which caches of CPUs hold, more for over 4,096 rows."""
NARROWEST = 1024
"""Entries of the vocabulary in a chunk, at least: below, adding up the gradient of the rows outweighs the products."""


class Scores(NamedTuple):
    logps: Float[Array, "*batch"]
    """Log-probability (nats) of each token under the tempered distribution; 0 where masked."""
    entropy: Float[Array, "*batch"]
    """Entropy (nats) of the distribution each token was drawn from; 0 where masked."""
    certainty: Float[Array, "*batch"]
    """KL (nats) of that distribution from the uniform one, KL(U || p): self-certainty (arXiv 2502.18581); 0 where
    masked."""


class RunningLogSumExp(NamedTuple):
    """Each row's softmax denominator after some chunks of the vocabulary: it grows beside the maximum so far (Milakov &
    Gimelshein, https://arxiv.org/abs/1805.02867)."""

    largest: Float[Array, "R"]
    exps: Float[Array, "R"]
    """Sum of exp(logit - largest)."""

    @property
    def log(self) -> Float[Array, "R"]:
        return self.largest + jnp.log(self.exps)


class Sums(NamedTuple):
    """What is known of each row's distribution after some chunks of the vocabulary."""

    total: RunningLogSumExp
    weighted: Float[Array, "R"]
    """Sum of logit * exp(logit - largest)."""
    all: Float[Array, "R"]
    """Sum of the logits."""
    chosen: Float[Array, "R C"]
    """Logits of the row's tokens."""


def score_hidden(
    params: Params,
    hidden: Float[Array, "*batch D"],
    tokens: Int[Array, "*batch"],
    mask: Bool[Array, "*batch"],
    *,
    model: Transformer,
    temperature: float = 1.0,
) -> Scores:
    """Scores `tokens` under softmax(unembed(hidden) / temperature), in float32."""
    sums = _sums(params, _rows(hidden, mask, model), tokens.reshape(mask.size, 1), model, temperature)
    log_total = sums.total.log
    vocabulary = len(unembedding(params, model=model))
    scores = Scores(
        sums.chosen[:, 0] - log_total,
        log_total - sums.weighted / sums.total.exps,
        log_total - sums.all / vocabulary - jnp.log(vocabulary),
    )
    return Scores(*(jnp.where(mask, x.reshape(mask.shape), 0.0) for x in scores))


class TopK(NamedTuple):
    """A teacher's most probable tokens, as they are stored."""

    ids: Int[Array, "*batch C"]
    logps: Float[Array, "*batch C"]


def topk_divergence(
    params: Params,
    hidden: Float[Array, "*batch D"],
    teacher: TopK,
    mask: Bool[Array, "*batch"],
    *,
    model: Transformer,
    divergence: Divergence,
    temperature: float = 1.0,
) -> Float[Array, "*batch"]:
    """The divergence over the teacher's stored tokens and one entry more: all the probability that is left.

    A lower bound of the divergence over the whole vocabulary. 0 where masked; the stored numbers are taken to be of
    the same temperature.
    """
    count = teacher.ids.shape[-1]
    sums = _sums(params, _rows(hidden, mask, model), teacher.ids.reshape(mask.size, count), model, temperature)
    student = _with_rest(sums.chosen - sums.total.log[:, None])
    known = _with_rest(jnp.where(mask[..., None], teacher.logps, -jnp.log(count + 1.0)).reshape(mask.size, count))
    return jnp.where(mask, divergence(student, known).sum(axis=-1).reshape(mask.shape), 0.0)


def full_divergence(
    params: Params,
    hidden: Float[Array, "*batch D"],
    teacher: Params,
    teacher_hidden: Float[Array, "*batch E"],
    mask: Bool[Array, "*batch"],
    *,
    model: Transformer,
    teacher_model: Transformer,
    divergence: Divergence,
    temperature: float = 1.0,
) -> Float[Array, "*batch"]:
    """The divergence of softmax(logits / temperature) from the teacher's, over the whole vocabulary; 0 where masked.

    Two passes over chunks of the vocabulary: the denominators, then the sum. Entries of one vocabulary beyond the
    other's end are padding and left out. The teacher gets no gradient.
    """
    hidden = _rows(hidden, mask, model)
    teacher_hidden = _rows(jax.lax.stop_gradient(teacher_hidden), mask, teacher_model)
    weights = unembedding(params, model=model), jax.lax.stop_gradient(unembedding(teacher, model=teacher_model))
    vocabulary = min(map(len, weights))
    weights = tuple(weight[:vocabulary] for weight in weights)

    def logits(weights: tuple[Array, Array]) -> list[Float[Array, "R V"]]:
        return [compute_logits(x, w) / temperature for x, w in zip((hidden, teacher_hidden), weights, strict=True)]

    def totals(
        sofar: tuple[RunningLogSumExp, RunningLogSumExp], weights: tuple[Array, Array], _: Array
    ) -> tuple[RunningLogSumExp, RunningLogSumExp]:
        return tuple(_grown(total, x)[0] for total, x in zip(sofar, logits(weights), strict=True))

    empty = _nothing(len(hidden))
    student, known = (total.log[:, None] for total in _over_vocabulary(totals, (empty, empty), weights, 2 * mask.size))

    def add(sum: Array, weights: tuple[Array, Array], _: Array) -> Float[Array, "R"]:
        ours, theirs = logits(weights)
        return sum + divergence(ours - student, theirs - known).sum(axis=-1)

    terms = _over_vocabulary(add, jnp.zeros(len(hidden)), weights, 2 * mask.size)
    return jnp.where(mask, terms.reshape(mask.shape), 0.0)


def _rows(hidden: Float[Array, "*batch D"], mask: Bool[Array, "*batch"], model: Transformer) -> Float[Array, "R D"]:
    """A NaN in padding must not reach a gradient: masking the result alone would multiply it by a zero cotangent.

    On a mesh every device takes its share of rows and the whole vocabulary, chunk by chunk."""
    rows = jnp.where(mask[..., None], hidden, 0).reshape(mask.size, -1)
    return rows if model.mesh is None or mask.size % model.mesh.size else constrain(rows, model.mesh, MESH_AXES)


def _with_rest(logps: Float[Array, "R C"]) -> Float[Array, "R C+1"]:
    """With the probability of everything else as a last entry, at least that of rounding."""
    rest = jnp.maximum(1.0 - jnp.exp(logps).sum(axis=-1, keepdims=True), jnp.finfo(jnp.float32).eps)
    return jnp.concatenate([logps, jnp.log(rest)], axis=-1)


def _sums(
    params: Params, hidden: Float[Array, "R D"], tokens: Int[Array, "R C"], model: Transformer, temperature: float
) -> Sums:
    def add(sums: Sums, weight: Float[Array, "C D"], first: Int[Array, ""]) -> Sums:
        logits = compute_logits(hidden, weight) / temperature
        total, exps, shrink = _grown(sums.total, logits)
        place = jnp.clip(tokens - first, 0, len(weight) - 1)
        here = jnp.take_along_axis(logits, place, axis=-1)
        return Sums(
            total,
            sums.weighted * shrink + (exps * logits).sum(axis=-1),
            sums.all + logits.sum(axis=-1),
            sums.chosen + jnp.where(tokens - first == place, here, 0.0),
        )

    rows = len(hidden)
    nothing = Sums(_nothing(rows), jnp.zeros(rows), jnp.zeros(rows), jnp.zeros(tokens.shape))
    return _over_vocabulary(add, nothing, unembedding(params, model=model), rows)


def _nothing(rows: int) -> RunningLogSumExp:
    return RunningLogSumExp(jnp.full(rows, -jnp.inf), jnp.zeros(rows))


def _grown(
    total: RunningLogSumExp, logits: Float[Array, "R V"]
) -> tuple[RunningLogSumExp, Float[Array, "R V"], Float[Array, "R"]]:
    """The denominator with these logits; their exponentials, and by what the sums so far shrink."""
    largest = jnp.maximum(total.largest, jax.lax.stop_gradient(logits.max(axis=-1)))
    exps, shrink = jnp.exp(logits - largest[:, None]), jnp.exp(total.largest - largest)
    return RunningLogSumExp(largest, total.exps * shrink + exps.sum(axis=-1)), exps, shrink


def _over_vocabulary(add: Callable[[Any, Any, Array], Any], initial: Any, weights: Any, rows: int) -> Any:
    """`add(sums, chunk of weights, its first entry)` for every chunk of the vocabulary, rematerialised."""
    add = jax.checkpoint(add)
    vocabulary = len(jax.tree.leaves(weights)[0])
    count, size = _chunks(vocabulary, max(NARROWEST, CHUNK_FLOATS // max(rows, 1)))
    pieces = jax.tree.map(lambda weight: weight[: count * size].reshape(count, size, -1), weights)
    sums, _ = jax.lax.scan(lambda sums, piece: (add(sums, *piece), None), initial, (pieces, size * jnp.arange(count)))
    if count * size < vocabulary:
        rest = jax.tree.map(lambda weight: weight[count * size :], weights)
        sums = add(sums, rest, jnp.int32(count * size))
    return sums


def _chunks(vocab: int, widest: int) -> tuple[int, int]:
    """How many chunks of what size: equal ones if up to twice as many will do that, else with a remainder."""
    least = -(-vocab // widest)
    count = next((n for n in range(least, 2 * least + 1) if vocab % n == 0), least)
    return count, vocab // count


def rank_hidden(
    params: Params,
    hidden: Float[Array, "*batch D"],
    tokens: Int[Array, "*batch"],
    mask: Bool[Array, "*batch"],
    *,
    model: Transformer,
) -> Int[Array, "*batch"]:
    """How many tokens of the vocabulary are more probable than each of `tokens`; 0 where masked."""
    rows, flat = _rows(hidden, mask, model), tokens.reshape(mask.size, 1)
    chosen = _sums(params, rows, flat, model, 1.0).chosen

    def add(above: Array, weight: Float[Array, "C D"], _: Array) -> Int[Array, "R"]:
        return above + (compute_logits(rows, weight) > chosen).sum(axis=-1)

    above = _over_vocabulary(add, jnp.zeros(len(rows), jnp.int32), unembedding(params, model=model), mask.size)
    return jnp.where(mask, above.reshape(mask.shape), 0)


class EncodedPrompts(NamedTuple):
    """What completions need of their prompts, all of it with a gradient."""

    last: Float[Array, "P D"]
    """Hidden state of each prompt's last token, which predicts the first one of every completion."""
    kv: tuple[KV, ...]


def encode_prompts(params: Params, prompts: Prompts, *, model: Transformer) -> EncodedPrompts:
    hidden, context = run_prompts(params, prompts, model=model)
    return EncodedPrompts(hidden[jnp.arange(len(hidden)), context.lengths - 1], context.kv)


def score_given_prompts(
    params: Params,
    read: EncodedPrompts,
    prompts: Prompts,
    tokens: Int[Array, "P G T"],
    mask: Bool[Array, "P G T"],
    *,
    model: Transformer,
    temperature: float = 1.0,
) -> Scores:
    """Teacher-forced scores of completions of prompts that are `read`."""
    hidden = _predicting(params, read, prompts, tokens, model)
    return score_hidden(params, hidden, tokens, mask, model=model, temperature=temperature)


def _predicting(
    params: Params, read: EncodedPrompts, prompts: Prompts, tokens: Int[Array, "P G T"], model: Transformer
) -> Float[Array, "P G T D"]:
    """The hidden states that predict the tokens."""
    last = jnp.broadcast_to(read.last[:, None, None], (*tokens.shape[:2], 1, read.last.shape[-1]))
    hidden = run_completions(params, tokens[..., :-1], PromptKV(read.kv, prompts.mask), model=model)
    return jnp.concatenate([last, hidden], axis=2)


def token_ranks(
    params: Params, prompts: Prompts, tokens: Int[Array, "P G T"], mask: Bool[Array, "P G T"], *, model: Transformer
) -> Int[Array, "P G T"]:
    """Place of every token of the completions in the model's order of probability, 0 the most probable; 0 where
    masked."""
    read = encode_prompts(params, prompts, model=model)
    return rank_hidden(params, _predicting(params, read, prompts, tokens, model), tokens, mask, model=model)


def score_completions(
    params: Params,
    prompts: Prompts,
    tokens: Int[Array, "P G T"],
    mask: Bool[Array, "P G T"],
    *,
    model: Transformer,
    temperature: float = 1.0,
) -> Scores:
    """Teacher-forced scores of completions; each prompt runs once, gradients of its whole group flow back into it."""
    read = encode_prompts(params, prompts, model=model)
    return score_given_prompts(params, read, prompts, tokens, mask, model=model, temperature=temperature)


def encode_packed(
    params: Params, packed: PackedBatch, *, model: Transformer
) -> tuple[Float[Array, "P M D"], Int[Array, "P M"]]:
    """The hidden states that predict the learned tokens, and these tokens: nothing else meets the unembedding."""
    hidden = run_packed(params, packed.tokens, packed.segments, model=model)
    before = jnp.maximum(packed.target_positions - 1, 0)
    tokens = jnp.take_along_axis(packed.tokens, packed.target_positions, axis=1)
    return jnp.take_along_axis(hidden, before[..., None], axis=1), tokens


def score_packed(params: Params, packed: PackedBatch, *, model: Transformer) -> Scores:
    """Scores [P M] of the learned tokens, each given its own text up to it."""
    hidden, tokens = encode_packed(params, packed, model=model)
    return score_hidden(params, hidden, tokens, packed.loss_mask, model=model)


def packed_divergence(
    params: Params,
    teacher: Params,
    packed: PackedBatch,
    *,
    model: Transformer,
    teacher_model: Transformer,
    divergence: Divergence,
    temperature: float = 1.0,
) -> Float[Array, "P M"]:
    """At every learned token, how far the student's prediction of it is from the teacher's."""
    hidden, _ = encode_packed(params, packed, model=model)
    known, _ = encode_packed(teacher, packed, model=teacher_model)
    how = {"model": model, "teacher_model": teacher_model, "divergence": divergence, "temperature": temperature}
    return full_divergence(params, hidden, teacher, known, packed.loss_mask, **how)


def packed_topk(
    params: Params, packed: PackedBatch, *, count: int, model: Transformer, temperature: float = 1.0
) -> TopK:
    """The `count` most probable tokens [P M C] in the place of every learned one, at a temperature; to be stored
    (`topk_divergence`).

    Holds the logits of all rows at once: give it a few at a time.
    """
    hidden, _ = encode_packed(params, packed, model=model)
    logps, ids = jax.lax.top_k(jax.nn.log_softmax(unembed(params, hidden, model=model) / temperature), count)
    return TopK(ids, logps)
