"""A reward model: the decoder with one linear map on the hidden state of a completion's last token."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from jaxreason.models.config import ModelConfig
from jaxreason.models.transformer import Transformer, run_completions, run_prompts
from jaxreason.types import Array, Params, Prompts


def add_reward_head(key: Key[jax.Array, ""], params: Params, cfg: ModelConfig) -> tuple[Params, ModelConfig]:
    """A language model's decoder with a random, small reward head, as in `transformers`' sequence classifiers."""
    head = {"score": {"weight": jax.random.normal(key, (1, cfg.hidden_size)) / cfg.hidden_size}}
    return {"model": params["model"], **head}, replace(cfg, reward=True)


def score_rewards(
    params: Params, prompts: Prompts, tokens: Int[Array, "P G T"], mask: Bool[Array, "P G T"], *, model: Transformer
) -> Float[Array, "P G"]:
    """One reward for each completion, which must have at least one token. Each prompt runs once."""
    _, prompt_kv = run_prompts(params, prompts, model=model)
    hidden = run_completions(params, tokens, prompt_kv, model=model)
    last = jnp.take_along_axis(hidden, (mask.sum(axis=-1) - 1)[..., None, None], axis=2)[:, :, 0]
    return jnp.einsum("PGD,D->PG", last.astype(jnp.float32), params["score"]["weight"][0])
