"""Sampler and update together, against the enumerated gradient of the expected reward."""

from dataclasses import replace
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxreason.models.scoring import score_completions
from jaxreason.models.transformer import Transformer
from jaxreason.objectives import RLOO
from jaxreason.sampling import Sampling, TransformerDecoder, completion_keys, generate
from jaxreason.training import grpo_update, init_state, make_batch
from jaxreason.types import Prompts
from tests.models.families import TINY, tiny_params

VOCAB, LENGTH, STOP, TEMPERATURE = 4, 3, 0, 0.8
CFG = replace(TINY["qwen3"], layers=1, vocab=VOCAB)
MODEL, PARAMS = Transformer(CFG), tiny_params(CFG, seed=3)
PROMPTS = Prompts(jnp.array([[1, 2, 3]]), jnp.ones((1, 3), bool))


def completions() -> list[tuple[int, ...]]:
    """Every completion: those that stop, and those that the length limit cuts."""
    strings = [s for n in range(1, LENGTH + 1) for s in product(range(VOCAB), repeat=n)]
    return [s for s in strings if STOP not in s[:-1] and (s[-1] == STOP or len(s) == LENGTH)]


def reward(tokens: tuple[int, ...]) -> float:
    return float(sum((i + 1) * token for i, token in enumerate(tokens)) % 5)


def test_the_mean_update_is_the_gradient_of_the_expected_reward():
    """RLOO's estimate is unbiased: over groups of four it averages to the exact gradient, within 4 standard errors."""
    every = completions()
    tokens = np.zeros((1, len(every), LENGTH), np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, string in enumerate(every):
        tokens[0, row, : len(string)], mask[0, row, : len(string)] = string, True
    tokens, mask = jnp.array(tokens), jnp.array(mask)
    rewards = jnp.array([reward(string) for string in every])

    def expected_reward(params):
        scores = score_completions(params, PROMPTS, tokens, mask, model=MODEL, temperature=TEMPERATURE)
        probabilities = jnp.exp(scores.logps.sum(axis=-1)[0])
        return jnp.sum(probabilities * rewards), probabilities.sum()

    (_, total), exact = jax.jit(jax.value_and_grad(expected_reward, has_aux=True))(PARAMS)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)

    group, batches, repeats = 4, 200, 64
    algorithm = replace(RLOO, kl_weight=0.0)
    optimizer = optax.sgd(1.0)  # the update is minus the gradient
    update = jax.jit(
        partial(grpo_update, model=MODEL, algorithm=algorithm, optimizer=optimizer, temperature=TEMPERATURE)
    )
    prompts = jax.tree.map(lambda x: jnp.repeat(x, repeats, axis=0), PROMPTS)
    sample = jax.jit(
        partial(
            generate,
            decoder=TransformerDecoder(MODEL),
            max_tokens=LENGTH,
            stop_ids=(STOP,),
            sampling=Sampling(temperature=TEMPERATURE),
        )
    )
    estimates = []
    for batch_number in range(batches):
        keys = completion_keys(jax.random.key(batch_number), np.arange(repeats), group)
        rollouts = jax.device_get(sample(PARAMS, prompts, keys=keys))
        lengths = rollouts.lengths
        strings = [
            [tuple(t[:n]) for t, n in zip(*rows, strict=True)] for rows in zip(rollouts.tokens, lengths, strict=True)
        ]
        earned = np.array([[reward(string) for string in strings[p]] for p in range(repeats)], np.float32)
        state, _ = update(init_state(PARAMS, optimizer, seed=0), make_batch(rollouts, earned, algorithm))
        moved = jax.tree.map(jnp.subtract, state.params, PARAMS)
        estimates.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(moved)]))
    estimates, exact = np.array(estimates), np.concatenate([np.ravel(x) for x in jax.tree.leaves(exact)])
    rng = np.random.default_rng(0)
    directions = np.concatenate([exact[None], rng.normal(size=(20, exact.size))])  # along it, and at random
    along, expected = estimates @ directions.T, directions @ exact
    error = along.std(axis=0, ddof=1) / np.sqrt(batches)
    assert (np.abs(along.mean(axis=0) - expected) < 4 * error).all()
    assert along[:, 0].mean() > 10 * error[0]  # and it is told from zero
