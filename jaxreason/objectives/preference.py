"""Losses over pairs of completions, one chosen and one rejected."""

import jax
from jaxtyping import Array, Float


def dpo(
    logps: Float[Array, "P 2"], reference_logps: Float[Array, "P 2"], *, beta: float = 0.1
) -> tuple[Float[Array, "P"], Float[Array, "P"]]:
    """-log sigmoid(m), m = β [(log π/π_ref)(chosen) - (log π/π_ref)(rejected)]: DPO (arXiv 2305.18290, eq. 7).

    Log-probabilities of whole completions, chosen first. Returns the loss and the margin m of each pair.
    """
    rewards = beta * (logps - reference_logps)
    margin = rewards[:, 0] - rewards[:, 1]
    return -jax.nn.log_sigmoid(margin), margin
