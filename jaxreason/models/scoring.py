"""Log-probability, entropy and rank of given tokens, and divergences from a teacher, without logits of sequences.

`[*, V]` logits of a batch are most of an update's memory. So everything here is a fold over chunks of the vocabulary
(`fold_vocabulary`): a step computes one chunk's logits and updates a carry that has an entry for each row. Steps are
rematerialised: the backward pass recomputes one chunk's logits at a time, and writes that chunk of the unembedding's
gradient once. (Chunks of rows would accumulate a gradient of the whole table for each chunk.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

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
from jaxreason.types import Array, PackedBatch, Params, Prompts

Divergence = Callable[[Array, Array], Array]
"""(student's, teacher's log-probabilities) -> terms to sum over the vocabulary: `jaxreason.objectives.divergence`."""

MAX_CHUNK_LOGITS = 2**22
"""Logits held at once: 16 MiB in float32, which fit the caches of CPUs; more for over 4,096 rows (`MIN_CHUNK`)."""
MIN_CHUNK = 1024
"""Vocabulary entries in a chunk, at least: in smaller ones, accumulating the rows' gradient costs more than the
products."""


class Scores(NamedTuple):
    logps: Float[Array, "*batch"]
    """Log-probability (nats) of each token under the tempered distribution; 0 where masked."""
    entropy: Float[Array, "*batch"]
    """Entropy (nats) of the distribution each token was drawn from; 0 where masked."""
    certainty: Float[Array, "*batch"]
    """KL (nats) of that distribution from the uniform one, KL(U || p): self-certainty (arXiv 2502.18581); 0 where
    masked."""


# --- the fold over the vocabulary ---

Carry = TypeVar("Carry")


def fold_vocabulary(step: Callable[[Carry, Any, Array], Carry], initial: Carry, weights: Any, rows: int) -> Carry:
    """Folds `step(carry, weights [chunk D], first entry) -> carry` over an unembedding [V D], or over two at once.

    `rows` is the number of rows of logits that a step computes."""
    step = jax.checkpoint(step)
    vocabulary = len(jax.tree.leaves(weights)[0])
    count, size = _chunks(vocabulary, max(MIN_CHUNK, MAX_CHUNK_LOGITS // max(rows, 1)))
    chunks = jax.tree.map(lambda weight: weight[: count * size].reshape(count, size, -1), weights)
    carry, _ = jax.lax.scan(
        lambda carry, chunk: (step(carry, *chunk), None), initial, (chunks, size * jnp.arange(count))
    )
    if count * size < vocabulary:
        rest = jax.tree.map(lambda weight: weight[count * size :], weights)
        carry = step(carry, rest, jnp.int32(count * size))
    return carry


def _chunks(vocabulary: int, max_size: int) -> tuple[int, int]:
    """(number, size) of chunks: equal ones if at most twice the fewest possible will do, else with a remainder."""
    fewest = -(-vocabulary // max_size)
    count = next((n for n in range(fewest, 2 * fewest + 1) if vocabulary % n == 0), fewest)
    return count, vocabulary // count


class RunningLogSumExp(NamedTuple):
    """Each row's softmax denominator over the chunks so far, beside the maximum so far (Milakov & Gimelshein, arXiv
    1805.02867)."""

    max_logit: Float[Array, "R"]
    sum_exp: Float[Array, "R"]
    """Sum of exp(logit - max_logit)."""

    @property
    def value(self) -> Float[Array, "R"]:
        return self.max_logit + jnp.log(self.sum_exp)


class SoftmaxStats(NamedTuple):
    """Sums over the chunks so far, from which a row's log-probabilities and entropy follow."""

    logsumexp: RunningLogSumExp
    weighted: Float[Array, "R"]
    """Sum of logit * exp(logit - max_logit)."""
    total: Float[Array, "R"]
    """Sum of the logits."""
    chosen: Float[Array, "R C"]
    """Logits of the row's given tokens."""


def _softmax_stats(
    params: Params, hidden: Float[Array, "R D"], tokens: Int[Array, "R C"], model: Transformer, temperature: float
) -> SoftmaxStats:
    def step(stats: SoftmaxStats, weight: Float[Array, "chunk D"], first: Int[Array, ""]) -> SoftmaxStats:
        logits = compute_logits(hidden, weight) / temperature
        logsumexp, exps, shrink = _update_logsumexp(stats.logsumexp, logits)
        index = jnp.clip(tokens - first, 0, len(weight) - 1)
        in_chunk = tokens - first == index
        return SoftmaxStats(
            logsumexp,
            stats.weighted * shrink + (exps * logits).sum(axis=-1),
            stats.total + logits.sum(axis=-1),
            stats.chosen + jnp.where(in_chunk, jnp.take_along_axis(logits, index, axis=-1), 0.0),
        )

    rows = len(hidden)
    initial = SoftmaxStats(_empty_logsumexp(rows), jnp.zeros(rows), jnp.zeros(rows), jnp.zeros(tokens.shape))
    return fold_vocabulary(step, initial, unembedding(params, model=model), rows)


def _empty_logsumexp(rows: int) -> RunningLogSumExp:
    return RunningLogSumExp(jnp.full(rows, -jnp.inf), jnp.zeros(rows))


def _update_logsumexp(
    before: RunningLogSumExp, logits: Float[Array, "R chunk"]
) -> tuple[RunningLogSumExp, Float[Array, "R chunk"], Float[Array, "R"]]:
    """(after these logits, exp(logits - new maximum), the factor by which earlier sums of exponentials shrink)."""
    max_logit = jnp.maximum(before.max_logit, jax.lax.stop_gradient(logits.max(axis=-1)))
    exps, shrink = jnp.exp(logits - max_logit[:, None]), jnp.exp(before.max_logit - max_logit)
    return RunningLogSumExp(max_logit, before.sum_exp * shrink + exps.sum(axis=-1)), exps, shrink


def _flatten_rows(
    hidden: Float[Array, "*batch D"], mask: Bool[Array, "*batch"], model: Transformer
) -> Float[Array, "R D"]:
    """Hidden states as rows, 0 where masked: masking only the result would multiply a NaN in padding by a zero
    cotangent, which is NaN.

    On a mesh each device takes its share of the rows, and all of the vocabulary chunk by chunk."""
    rows = jnp.where(mask[..., None], hidden, 0).reshape(mask.size, -1)
    return rows if model.mesh is None or mask.size % model.mesh.size else constrain(rows, model.mesh, MESH_AXES)


# --- what is computed with it ---


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
    rows = _flatten_rows(hidden, mask, model)
    stats = _softmax_stats(params, rows, tokens.reshape(mask.size, 1), model, temperature)
    log_total = stats.logsumexp.value
    vocabulary = len(unembedding(params, model=model))
    scores = Scores(
        logps=stats.chosen[:, 0] - log_total,
        entropy=log_total - stats.weighted / stats.logsumexp.sum_exp,
        certainty=log_total - stats.total / vocabulary - jnp.log(vocabulary),
    )
    return Scores(*(jnp.where(mask, x.reshape(mask.shape), 0.0) for x in scores))


def rank_hidden(
    params: Params,
    hidden: Float[Array, "*batch D"],
    tokens: Int[Array, "*batch"],
    mask: Bool[Array, "*batch"],
    *,
    model: Transformer,
) -> Int[Array, "*batch"]:
    """Number of vocabulary entries that are more probable than each of `tokens`; 0 where masked."""
    rows = _flatten_rows(hidden, mask, model)
    chosen = _softmax_stats(params, rows, tokens.reshape(mask.size, 1), model, 1.0).chosen

    def step(above: Int[Array, "R"], weight: Float[Array, "chunk D"], _: Array) -> Int[Array, "R"]:
        return above + (compute_logits(rows, weight) > chosen).sum(axis=-1)

    above = fold_vocabulary(step, jnp.zeros(len(rows), jnp.int32), unembedding(params, model=model), mask.size)
    return jnp.where(mask, above.reshape(mask.shape), 0)


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
    """Divergence over the teacher's stored tokens and one more entry, the remaining probability; 0 where masked.

    A lower bound of the divergence over the whole vocabulary. The stored log-probabilities must have the same
    temperature.
    """
    count = teacher.ids.shape[-1]
    rows = _flatten_rows(hidden, mask, model)
    stats = _softmax_stats(params, rows, teacher.ids.reshape(mask.size, count), model, temperature)
    student_logps = _append_tail_mass(stats.chosen - stats.logsumexp.value[:, None])
    uniform = -jnp.log(count + 1.0)  # in padding, where stored numbers may be anything
    teacher_logps = jnp.where(mask[..., None], teacher.logps, uniform).reshape(mask.size, count)
    terms = divergence(student_logps, _append_tail_mass(teacher_logps)).sum(axis=-1)
    return jnp.where(mask, terms.reshape(mask.shape), 0.0)


def _append_tail_mass(logps: Float[Array, "R C"]) -> Float[Array, "R C+1"]:
    """Appends the log of the remaining probability, which is at least a rounding error."""
    rest = jnp.maximum(1.0 - jnp.exp(logps).sum(axis=-1, keepdims=True), jnp.finfo(jnp.float32).eps)
    return jnp.concatenate([logps, jnp.log(rest)], axis=-1)


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
    """Divergence of softmax(logits / temperature) from the teacher's, over the whole vocabulary; 0 where masked.

    Two folds: the denominators, then the sum of the terms. Where one vocabulary is longer, its last entries are padding
    and ignored. The teacher gets no gradient.
    """
    hidden = _flatten_rows(hidden, mask, model)
    teacher_hidden = _flatten_rows(jax.lax.stop_gradient(teacher_hidden), mask, teacher_model)
    weight, teacher_weight = unembedding(params, model=model), unembedding(teacher, model=teacher_model)
    vocabulary = min(len(weight), len(teacher_weight))
    weights = weight[:vocabulary], jax.lax.stop_gradient(teacher_weight)[:vocabulary]

    def logits(chunks: tuple[Array, Array]) -> list[Float[Array, "R chunk"]]:
        return [compute_logits(x, w) / temperature for x, w in zip((hidden, teacher_hidden), chunks, strict=True)]

    def update(carry: list[RunningLogSumExp], chunks: tuple[Array, Array], _: Array) -> list[RunningLogSumExp]:
        return [_update_logsumexp(sums, x)[0] for sums, x in zip(carry, logits(chunks), strict=True)]

    def add(carry: Float[Array, "R"], chunks: tuple[Array, Array], _: Array) -> Float[Array, "R"]:
        student_logits, teacher_logits = logits(chunks)
        return carry + divergence(student_logits - log_total, teacher_logits - teacher_log_total).sum(axis=-1)

    sums = fold_vocabulary(update, [_empty_logsumexp(len(hidden))] * 2, weights, 2 * mask.size)
    log_total, teacher_log_total = (each.value[:, None] for each in sums)
    terms = fold_vocabulary(add, jnp.zeros(len(hidden)), weights, 2 * mask.size)
    return jnp.where(mask, terms.reshape(mask.shape), 0.0)


# --- the same of whole completions and of packed rows ---


class EncodedPrompts(NamedTuple):
    """What scoring completions needs of their prompts; gradients flow back through all of it."""

    last: Float[Array, "P D"]
    """Hidden state of each prompt's last token, which predicts the first token of every completion."""
    kv: tuple[KV, ...]
    """[P K] heads of S keys, one `KV` a layer."""


def encode_prompts(params: Params, prompts: Prompts, *, model: Transformer) -> EncodedPrompts:
    """Runs each prompt once."""
    hidden, prompt_kv = run_prompts(params, prompts, model=model)
    return EncodedPrompts(hidden[jnp.arange(len(hidden)), prompt_kv.lengths - 1], prompt_kv.kv)


def score_given_prompts(
    params: Params,
    encoded: EncodedPrompts,
    prompts: Prompts,
    tokens: Int[Array, "P G T"],
    mask: Bool[Array, "P G T"],
    *,
    model: Transformer,
    temperature: float = 1.0,
) -> Scores:
    """Teacher-forced scores of completions, given their encoded prompts."""
    hidden = _predictive_hidden(params, encoded, prompts, tokens, model)
    return score_hidden(params, hidden, tokens, mask, model=model, temperature=temperature)


def _predictive_hidden(
    params: Params, encoded: EncodedPrompts, prompts: Prompts, tokens: Int[Array, "P G T"], model: Transformer
) -> Float[Array, "P G T D"]:
    """The hidden states that predict `tokens`: the prompt's last one, then the completion's but its last."""
    last = jnp.broadcast_to(encoded.last[:, None, None], (*tokens.shape[:2], 1, encoded.last.shape[-1]))
    hidden = run_completions(params, tokens[..., :-1], PromptKV(encoded.kv, prompts.mask), model=model)
    return jnp.concatenate([last, hidden], axis=2)


def token_ranks(
    params: Params, prompts: Prompts, tokens: Int[Array, "P G T"], mask: Bool[Array, "P G T"], *, model: Transformer
) -> Int[Array, "P G T"]:
    """Rank of every completion token in the model's distribution, 0 the most probable; 0 where masked."""
    encoded = encode_prompts(params, prompts, model=model)
    return rank_hidden(params, _predictive_hidden(params, encoded, prompts, tokens, model), tokens, mask, model=model)


def score_completions(
    params: Params,
    prompts: Prompts,
    tokens: Int[Array, "P G T"],
    mask: Bool[Array, "P G T"],
    *,
    model: Transformer,
    temperature: float = 1.0,
) -> Scores:
    """Teacher-forced scores of completions. Each prompt runs once; gradients of its whole group flow back into it."""
    encoded = encode_prompts(params, prompts, model=model)
    return score_given_prompts(params, encoded, prompts, tokens, mask, model=model, temperature=temperature)


def encode_packed(
    params: Params, packed: PackedBatch, *, model: Transformer
) -> tuple[Float[Array, "P M D"], Int[Array, "P M"]]:
    """(hidden states that predict the target tokens, target tokens): only these M positions are unembedded."""
    hidden = run_packed(params, packed.tokens, packed.segments, model=model)
    before = jnp.maximum(packed.target_positions - 1, 0)
    tokens = jnp.take_along_axis(packed.tokens, packed.target_positions, axis=1)
    return jnp.take_along_axis(hidden, before[..., None], axis=1), tokens


def score_packed(params: Params, packed: PackedBatch, *, model: Transformer) -> Scores:
    """Scores [P M] of the target tokens, each given its own document up to it."""
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
    """`full_divergence` between student and teacher at every target token."""
    hidden, _ = encode_packed(params, packed, model=model)
    teacher_hidden, _ = encode_packed(teacher, packed, model=teacher_model)
    return full_divergence(
        params,
        hidden,
        teacher,
        teacher_hidden,
        packed.loss_mask,
        model=model,
        teacher_model=teacher_model,
        divergence=divergence,
        temperature=temperature,
    )


def packed_topk(
    params: Params, packed: PackedBatch, *, count: int, model: Transformer, temperature: float = 1.0
) -> TopK:
    """The `count` most probable tokens [P M C] at every target position, to be stored for `topk_divergence`.

    Holds the logits of all rows at once: give it a few rows at a time.
    """
    hidden, _ = encode_packed(params, packed, model=model)
    logps, ids = jax.lax.top_k(jax.nn.log_softmax(unembed(params, hidden, model=model) / temperature), count)
    return TopK(ids, logps)
