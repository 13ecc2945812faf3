"""Learning from a teacher: its whole distribution on given texts, or its opinion of what the student says."""

import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxreason.models.lora import merge_trees
from jaxreason.models.scoring import Divergence, Scores, encode_packed, packed_divergence, topk_divergence
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.aggregate import token_mean
from jaxreason.sampling.rollout import ProblemSampler, pad_prompts
from jaxreason.tasks import Problem
from jaxreason.text.documents import Document, prompt_completion
from jaxreason.training.loop import Update, next_prompt_batch
from jaxreason.training.state import TrainState
from jaxreason.training.supervised import SFTBatch
from jaxreason.training.updates import Batch, Metrics, Statistics
from jaxreason.types import Params


def distill_loss(
    params: Params,
    batch: SFTBatch,
    teacher: Params,
    *,
    model: Transformer,
    teacher_model: Transformer,
    divergence: Divergence,
    temperature: float = 1.0,
) -> tuple[Float[Array, ""], Statistics]:
    """mean_t D(teacher(. | text before t), student(. | text before t)), over the learned tokens and all of V.

    At a temperature other than 1 the gradient shrinks with its square (Hinton et al., arXiv 1503.02531, section 2); it
    is not multiplied back.
    """
    how = {"model": model, "teacher_model": teacher_model, "divergence": divergence, "temperature": temperature}
    return _mean(packed_divergence(params, teacher, batch.packed, **how), batch)


def topk_distill_loss(
    params: Params, batch: SFTBatch, *, model: Transformer, divergence: Divergence, temperature: float = 1.0
) -> tuple[Float[Array, ""], Statistics]:
    """`distill_loss` from the teacher's most probable tokens, as they were stored (see `topk_divergence`)."""
    hidden, _ = encode_packed(params, batch.packed, model=model)
    how = {"model": model, "divergence": divergence, "temperature": temperature}
    return _mean(topk_divergence(params, hidden, batch.top, batch.packed.loss_mask, **how), batch)


def _mean(values: Float[Array, "P M"], batch: SFTBatch) -> tuple[Float[Array, ""], Statistics]:
    loss = jnp.sum(batch.weights * values)
    return loss, jax.lax.stop_gradient(Statistics({"loss": loss}, {}))


def student_samples(
    state: TrainState,
    problems: Sequence[Problem],
    *,
    prompts_per_step: int,
    sampler: ProblemSampler,
    frozen: Params = None,
) -> Iterator[Document]:
    """What the student now answers to the next problems, to be learned from the teacher (`distill_loss`): GKD, Agarwal
    et al., arXiv 2306.13649, with all texts the student's. No gradient flows through the writing."""
    chosen, keys = next_prompt_batch(state, problems, prompts_per_step, 1)
    prompts = [sampler.encode(problem) for problem in chosen]
    rollouts = sampler.sample(merge_trees(frozen, state.params), pad_prompts(prompts), keys=keys)
    tokens, mask = (np.asarray(x)[:, 0] for x in (rollouts.tokens, rollouts.mask))
    return (
        prompt_completion(prompt, row[real].tolist()) for prompt, row, real in zip(prompts, tokens, mask, strict=True)
    )


def on_policy_steps(
    state: TrainState,
    problems: Sequence[Problem],
    *,
    steps: int,
    prompts_per_step: int,
    group_size: int,
    sampler: ProblemSampler,
    teacher: Callable[..., Scores],
    update: Update,
    frozen: Params = None,
) -> Iterator[tuple[TrainState, Metrics]]:
    """Steps `state.step` to `steps`: the student writes, the teacher scores each of its tokens.

    The advantage of a token is log p_T - log p_S, so that the expected gradient of a token is that of its reverse KL
    (on-policy distillation, Lu et al. 2025, https://thinkingmachines.ai/blog/on-policy-distillation). `teacher` is
    `score_completions` of the teacher; `reverse_kl` is the mean over the sampled tokens.
    """
    for _ in range(int(state.step), steps):
        begin = time.perf_counter()
        chosen, keys = next_prompt_batch(state, problems, prompts_per_step, group_size)
        prompts = sampler.prompts(chosen)
        rollouts = sampler.sample(merge_trees(frozen, state.params), prompts, keys=keys)
        sampled = time.perf_counter()
        mask = np.asarray(rollouts.mask)
        told = np.where(mask, teacher(rollouts.prompts, rollouts.tokens, rollouts.mask).logps - rollouts.logps, 0.0)
        weights = token_mean(jnp.asarray(mask))
        state, metrics = update(state, Batch(rollouts, told, weights, np.zeros_like(told)))
        state = state._replace(step=state.step + 1, position=state.position + prompts_per_step)
        metrics = {name: float(value) for name, value in metrics.items()}
        yield (
            state,
            {
                **metrics,
                "reverse_kl": float(-told.sum() / mask.sum()),
                "length_mean": float(mask.sum(axis=-1).mean()),
                "tokens": int(mask.sum()),
                "train_tokens": int(mask.sum() + prompts.mask.sum()),
                "seconds_sampling": sampled - begin,
                "seconds_update": time.perf_counter() - sampled,
            },
        )
