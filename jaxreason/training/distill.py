"""Learning from a teacher: its distribution on given or sampled documents, or its scores of the student's tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxreason.models.lora import merge_trees
from jaxreason.models.scoring import Divergence, Scores, encode_packed, packed_divergence, topk_divergence
from jaxreason.models.transformer import Transformer
from jaxreason.objectives.aggregate import token_mean
from jaxreason.sampling.rollout import ProblemSampler
from jaxreason.tasks import Problem
from jaxreason.text.documents import Document, prompt_completion
from jaxreason.training.batch import Batch
from jaxreason.training.collect import next_prompt_batch
from jaxreason.training.state import TrainState
from jaxreason.training.supervised import SFTBatch
from jaxreason.training.updates import LossStats
from jaxreason.types import Array, Params, Rollouts


def distill_loss(
    params: Params,
    batch: SFTBatch,
    teacher: Params,
    *,
    model: Transformer,
    teacher_model: Transformer,
    divergence: Divergence,
    temperature: float = 1.0,
) -> tuple[Float[Array, ""], LossStats]:
    """mean_t D(teacher(. | document before t), student(. | document before t)), over the target tokens and all of V.

    At a temperature other than 1 the gradient shrinks with its square (Hinton et al., arXiv 1503.02531, section 2); it
    is not multiplied back.
    """
    values = packed_divergence(
        params,
        teacher,
        batch.packed,
        model=model,
        teacher_model=teacher_model,
        divergence=divergence,
        temperature=temperature,
    )
    return _mean(values, batch)


def topk_distill_loss(
    params: Params, batch: SFTBatch, *, model: Transformer, divergence: Divergence, temperature: float = 1.0
) -> tuple[Float[Array, ""], LossStats]:
    """`distill_loss` from the teacher's stored most probable tokens (see `topk_divergence`)."""
    if batch.topk is None:
        raise ValueError("the batch stores no tokens of a teacher: give documents with `topk`, or use distill_loss")
    hidden, _ = encode_packed(params, batch.packed, model=model)
    values = topk_divergence(
        params, hidden, batch.topk, batch.packed.loss_mask, model=model, divergence=divergence, temperature=temperature
    )
    return _mean(values, batch)


def _mean(values: Float[Array, "P M"], batch: SFTBatch) -> tuple[Float[Array, ""], LossStats]:
    loss = jnp.sum(batch.weights * values)
    return loss, jax.lax.stop_gradient(LossStats({"loss": loss}, {}))


class StudentSamples(NamedTuple):
    """The student's completions of the next problems."""

    prompts: list[list[int]]
    rollouts: Rollouts

    def documents(self) -> list[Document]:
        """The first completion of each prompt, to be learned from the teacher's distribution: GKD (Agarwal et al.,
        arXiv 2306.13649) with the student's samples alone. No gradient flows through the sampling."""
        tokens, mask = (np.asarray(x)[:, 0] for x in (self.rollouts.tokens, self.rollouts.mask))
        rows = zip(self.prompts, tokens, mask, strict=True)
        return [prompt_completion(prompt, row[real].tolist()) for prompt, row, real in rows]


def student_samples(
    state: TrainState,
    problems: Sequence[Problem],
    sampler: ProblemSampler,
    *,
    prompts_per_step: int,
    group_size: int = 1,
    frozen: Params = None,
) -> StudentSamples:
    """What the student now answers to the next problems."""
    chosen, keys = next_prompt_batch(state, problems, prompts_per_step, group_size)
    rollouts = sampler.sample(merge_trees(frozen, state.params), sampler.prompts(chosen), keys=keys)
    return StudentSamples([sampler.encode(problem) for problem in chosen], rollouts)


def on_policy_batch(rollouts: Rollouts, teacher: Scores) -> tuple[Batch, dict[str, float | int]]:
    """The student's rollouts with log p_T - log p_S as the advantage of each token, and what they log.

    The expected gradient of a token is that of its reverse KL (on-policy distillation, Lu et al. 2025,
    https://thinkingmachines.ai/blog/on-policy-distillation). `reverse_kl` is the mean over the sampled tokens.
    """
    mask = np.asarray(rollouts.mask)
    advantages = np.where(mask, np.asarray(teacher.logps) - rollouts.logps, 0.0)
    batch = Batch(
        rollouts,
        advantages,
        np.asarray(token_mean(jnp.asarray(mask))),
        np.zeros_like(advantages),
        np.array(len(mask), np.int32),
    )
    metrics = {
        "reverse_kl": float(-advantages.sum() / mask.sum()),
        "length_mean": float(mask.sum(axis=-1).mean()),
        "tokens": int(mask.sum()),
        "train_tokens": int(mask.sum() + rollouts.prompts.mask.sum()),
    }
    return batch, metrics
