"""A batch small enough for loops, and an algorithm's loss and gradients on it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxreason.objectives.algorithms import TokenScores, advantages_of, policy_loss

P, G, T = 2, 3, 5
LENGTHS = np.array([[5, 2, 3], [1, 4, 5]])
MASK = np.arange(T) < LENGTHS[..., None]
REWARDS = np.array([[1.0, 0.0, 0.0], [1.0, 0.25, 1.0]])
RNG = np.random.default_rng(0)
OLD = np.where(MASK, -RNG.uniform(0.1, 2, MASK.shape), 0.0)
LOGPS = np.where(MASK, OLD + RNG.normal(0, 0.4, MASK.shape), 0.0)
REFERENCE = np.where(MASK, OLD + RNG.normal(0, 0.3, MASK.shape), 0.0)
OWN = np.where(MASK, OLD + RNG.normal(0, 0.8, MASK.shape), 0.0)
ENTROPY = np.where(MASK, RNG.uniform(0, 3, MASK.shape), 0.0)
TOKENS = [(p, g, t) for p in range(P) for g in range(G) for t in range(LENGTHS[p, g])]


def ours(algorithm, rewards=REWARDS):
    """Loss and its gradients by the tokens' log-probabilities and entropies."""
    arrays = (jnp.asarray(x, jnp.float32) for x in (LOGPS, OLD, REFERENCE, OWN, ENTROPY))
    logps, old, reference, own, entropy = arrays
    mask, rewards = jnp.asarray(MASK), jnp.asarray(rewards, jnp.float32).reshape(P, G, -1)
    advantages = advantages_of(
        algorithm, rewards, (1.0,) * rewards.shape[-1], TokenScores(old, mask, reference, own, entropy)
    )
    arrays = {"old_logps": own if algorithm.importance else old, "reference_logps": reference, "mask": mask}
    arrays |= {"advantages": advantages, "weights": algorithm.aggregate(mask)}

    def loss(logps, entropy):
        return policy_loss(algorithm, logps, entropy, **arrays).loss

    return jax.value_and_grad(loss, argnums=(0, 1))(logps, entropy)
