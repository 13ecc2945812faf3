"""The theory of pattern selection (Zhao et al., arXiv 2506.04695): a softmax policy selects a pattern, and the answer
is correct with the success rate of the pattern, which training does not change.

    dθ_r/dt = π_r (p_r - ACC) - β π_r (log(π_r / π_ref,r) - KL(π || π_ref)),    ACC = Σ_r π_r p_r

is the expected policy gradient of reward - β KL; other rewards replace p. `shares` (π) and `success` (p) are vectors
over patterns. NumPy, float64.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.optimize import fminbound, root_scalar

from jaxreason.errors import InputError

Vector = Float[np.ndarray, "R"]


class Trajectory(NamedTuple):
    times: Float[np.ndarray, "N"]
    shares: Float[np.ndarray, "N R"]
    accuracy: Float[np.ndarray, "N"]


def _validated(shares: ArrayLike, success: ArrayLike) -> tuple[Vector, Vector]:
    shares, success = np.asarray(shares, np.float64), np.asarray(success, np.float64)
    if shares.shape != success.shape or shares.ndim != 1 or len(shares) < 2:
        raise InputError(f"{shares.size} shares and {success.size} success rates: give one of each per pattern")
    if not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise InputError(f"shares {shares.tolist()} are not positive numbers that sum to 1; give a distribution")
    return shares / shares.sum(), success


def flow_derivative(theta: Vector, rewards: Vector, reference: Vector, beta: float) -> Vector:
    """dθ/dt of the gradient flow."""
    shares = _softmax(theta)
    log_ratio = np.log(shares / reference)
    return shares * (rewards - shares @ rewards - beta * (log_ratio - shares @ log_ratio))


def flow(
    shares: ArrayLike, success: ArrayLike, times: ArrayLike, *, beta: float = 0.0, rewards: ArrayLike | None = None
) -> Trajectory:
    """The policy at `times` under the gradient flow from `shares`, which is also the reference of the KL.

    `success` gives the accuracy, and the rewards unless `rewards` are given.
    """
    reference, success = _validated(shares, success)
    rewards = success if rewards is None else np.asarray(rewards, np.float64)
    times = np.asarray(times, np.float64)
    solved = solve_ivp(
        lambda _, theta: flow_derivative(theta, rewards, reference, beta),
        (0.0, max(float(times.max()), 1e-12)),
        np.log(reference),
        method="LSODA",
        t_eval=times,
        rtol=1e-8,
        atol=1e-10,
    )
    path = np.apply_along_axis(_softmax, 0, solved.y).T
    return Trajectory(times, path, path @ success)


def optimal_policy(reference: ArrayLike, rewards: ArrayLike, beta: float) -> Vector:
    """π ∝ π_ref exp(R / β), which maximises E[R] - β KL(π || π_ref) (arXiv 2506.04695, proposition 5.2)."""
    reference, rewards = _validated(reference, rewards)
    return _softmax(np.log(reference) + rewards / beta)


def self_certainty_rewards(answers: Float[np.ndarray, "*batch R A"]) -> Float[np.ndarray, "*batch R"]:
    """-(1/|A|) Σ_a log π(a | r): the self-certainty of patterns with these answer probabilities."""
    return -np.log(answers).mean(axis=-1)


class Regime(NamedTuple):
    kind: str
    """`fast`: all other patterns have a success rate below the initial accuracy, so only the best one gains share.
    `entangled`: one rival is above it, and gains first. `several rivals`: more than one is above it."""
    best: int
    rivals: list[int]
    gamma: float
    """(1 - π_ref of the strongest rival) / π_ref of the best, which predicts the transition time of the entangled
    regime; NaN without rivals."""


def regime(shares: ArrayLike, success: ArrayLike) -> Regime:
    """The regime of an initial policy (theorems 5.3 and 5.4)."""
    shares, success = _validated(shares, success)
    accuracy, best = shares @ success, int(success.argmax())
    rivals = [r for r in np.argsort(-success).tolist() if r != best and success[r] > accuracy]
    gamma = float((1 - shares[rivals[0]]) / shares[best]) if rivals else float("nan")
    kind = ("fast", "entangled")[len(rivals)] if len(rivals) < 2 else "several rivals"
    return Regime(kind, best, rivals, gamma)


def transition_time(shares: ArrayLike, success: ArrayLike, *, share: float = 0.8, max_time: float = 1e7) -> float:
    """The time at which the best pattern reaches `share` in the flow with β = 0; infinite if after `max_time`."""
    shares, success = _validated(shares, success)
    best = int(success.argmax())
    if shares[best] >= share:
        return 0.0

    class Reached:  # the attributes are solve_ivp's
        terminal, direction = True, 1

        def __call__(self, _: float, theta: Vector) -> float:
            return _softmax(theta)[best] - share

    solved = solve_ivp(
        lambda _, theta: flow_derivative(theta, success, shares, 0.0),
        (0.0, max_time),
        np.log(shares),
        method="LSODA",
        events=Reached(),
        rtol=1e-8,
        atol=1e-10,
    )
    return float(solved.t_events[0][0]) if solved.t_events[0].size else float("inf")


def two_pattern_time(shares: ArrayLike, success: ArrayLike, share: float) -> float:
    """`transition_time` of two patterns in closed form: u = log π_1 / π_2 obeys du/dt = 2 (p_1 - p_2) π_1 π_2, so
    t = [u + sinh u] / (p_1 - p_2) from start to end. About 1 / (2 ε (p_1 - p_2)) for share = 1 - ε."""
    shares, success = _validated(shares, success)
    best = int(success.argmax())
    start, end = (np.log(x / (1 - x)) for x in (shares[best], share))
    return float((end + np.sinh(end) - start - np.sinh(start)) / abs(success[0] - success[1]))


def two_pattern_share(shares: ArrayLike, success: ArrayLike, time: float) -> float:
    """The best pattern's share at `time`: the inverse of `two_pattern_time`."""
    bracket = float(np.asarray(shares).min()), 1 - 1e-12
    return root_scalar(lambda share: two_pattern_time(shares, success, share) - time, bracket=bracket).root


class Fit(NamedTuple):
    path: Trajectory
    """At the measured steps."""
    speed: float
    """Flow time per training step: the only fitted parameter."""
    error: float
    """Root mean square error of the shares."""


def fit_flow(steps: ArrayLike, measured: ArrayLike, success: ArrayLike, *, beta: float = 0.0) -> Fit:
    """Fits the flow to measured shares [N R] by least squares over its speed; it starts from the first of them."""
    steps, measured = np.asarray(steps, np.float64), np.asarray(measured, np.float64)
    start = np.maximum(measured[0], 1e-6)
    start, times = start / start.sum(), steps - steps[0]

    def error(log_speed: float) -> float:
        path = flow(start, success, times * np.exp(log_speed), beta=beta)
        return float(np.square(path.shares - measured).mean())

    coarse = np.linspace(np.log(1e-4), np.log(1e4), 41)
    nearest = coarse[np.argmin([error(x) for x in coarse])]
    best: Any = fminbound(error, nearest - 0.5, nearest + 0.5)
    speed = float(np.exp(best))
    return Fit(flow(start, success, times * speed, beta=beta), speed, error(best) ** 0.5)


def _softmax(theta: Vector) -> Vector:
    weights = np.exp(theta - theta.max())
    return weights / weights.sum()
