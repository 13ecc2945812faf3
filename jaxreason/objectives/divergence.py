"""Distillation: how far a student's next-token distribution is from a teacher's, a term for each vocabulary entry.

Arrays of log-probabilities in, terms out; summed over the vocabulary they are the divergence. As terms they can be
summed chunk by chunk (`jaxreason.models.full_divergence`).
"""

import jax.numpy as jnp
from jaxtyping import Float

from jaxreason.types import Array


def forward_kl(student: Float[Array, "*batch"], teacher: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """p_T (log p_T - log p_S): the student covers all that the teacher may say (Hinton et al., arXiv 1503.02531)."""
    return jnp.exp(teacher) * (teacher - student)


def reverse_kl(student: Float[Array, "*batch"], teacher: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """p_S (log p_S - log p_T): the student says only what the teacher may say (MiniLLM, arXiv 2306.08543)."""
    return forward_kl(teacher, student)


def jensen_shannon(
    student: Float[Array, "*batch"], teacher: Float[Array, "*batch"], *, weight: float = 0.5
) -> Float[Array, "*batch"]:
    """w p_T (log p_T - log m) + (1 - w) p_S (log p_S - log m), m = w p_T + (1 - w) p_S, 0 < w < 1.

    Generalised Jensen-Shannon divergence (GKD, arXiv 2306.13649, eq. 1); divided by w it is near the forward KL for
    small w, divided by 1 - w near the reverse KL for w near 1.
    """
    mixture = jnp.logaddexp(jnp.log(weight) + teacher, jnp.log1p(-weight) + student)
    return weight * forward_kl(mixture, teacher) + (1 - weight) * forward_kl(mixture, student)
