"""The theory of pattern selection: a question, a pattern drawn from a softmax policy, an answer that is right with the
pattern's own probability, which training does not change (Zhao et al., arXiv 2506.04695).

    dθ_r/dt = π_r (p_r - ACC) - β π_r (log(π_r / π_ref,r) - KL(π || π_ref)),    ACC = Σ_r π_r p_r

is the policy gradient of reward less β KL, on average. NumPy, float64; shares and success rates are vectors over
patterns. Rewards other than the truth take the place of p.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, minimize_scalar

from jaxreason.errors import InputError

Vector = Float[np.ndarray, "R"]


class Path(NamedTuple):
    times: Float[np.ndarray, "N"]
    shares: Float[np.ndarray, "N R"]
    accuracy: Float[np.ndarray, "N"]


def checked(shares, success) -> tuple[Vector, Vector]:
    shares, success = np.asarray(shares, np.float64), np.asarray(success, np.float64)
    if shares.shape != success.shape or shares.ndim != 1 or len(shares) < 2:
        raise InputError(f"{shares.size} shares and {success.size} success rates: give one of each for every pattern")
    if not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise InputError(f"shares {shares.tolist()} are not positive numbers that add up to 1; give a distribution")
    return shares / shares.sum(), success


def slope(theta: Vector, rewards: Vector, reference: Vector, beta: float) -> Vector:
    """dθ/dt of the gradient flow."""
    shares = _softmax(theta)
    away = np.log(shares / reference)
    return shares * (rewards - shares @ rewards - beta * (away - shares @ away))


def flow(shares, success, times, *, beta: float = 0.0, rewards=None) -> Path:
    """The policy at `times` under the gradient flow from `shares`, which are the reference too; `success` rates make
    the accuracy, and the rewards unless others are given."""
    reference, success = checked(shares, success)
    rewards = success if rewards is None else np.asarray(rewards, np.float64)
    times = np.asarray(times, np.float64)
    solved = solve_ivp(
        lambda _, theta: slope(theta, rewards, reference, beta),
        (0.0, max(float(times.max()), 1e-12)),
        np.log(reference),
        method="LSODA",
        t_eval=times,
        rtol=1e-8,
        atol=1e-10,
    )
    path = np.apply_along_axis(_softmax, 0, solved.y).T
    return Path(times, path, path @ success)


def optimal_policy(reference, rewards, beta: float) -> Vector:
    """π ∝ π_ref exp(R / β): what maximises E[R] - β KL(π || π_ref) (arXiv 2506.04695, proposition 5.2)."""
    reference, rewards = checked(reference, rewards)
    return _softmax(np.log(reference) + rewards / beta)


def rewards_from_inside(answers: Float[np.ndarray, "R A"]) -> Vector:
    """-(1/|A|) Σ_a log π(a | r): what self-certainty pays a pattern with these chances of its answers, whichever is the
    right one."""
    return -np.log(answers).mean(axis=-1)


class Regime(NamedTuple):
    kind: str
    """`fast`: every other pattern succeeds less often than the start's accuracy, so that the best one only gains.
    `entangled`: one rival succeeds more often, and gains first. `several rivals`: more than one."""
    best: int
    rivals: list[int]
    gamma: float
    """(1 - π_ref of the strongest rival) / π_ref of the best: how slow the entangled regime is expected to be; of the
    others NaN."""


def regime(shares, success) -> Regime:
    """Which of the two regimes a start is in (theorems 5.3 and 5.4), from shares and success rates alone."""
    shares, success = checked(shares, success)
    accuracy, best = shares @ success, int(success.argmax())
    rivals = [r for r in np.argsort(-success).tolist() if r != best and success[r] > accuracy]
    gamma = float((1 - shares[rivals[0]]) / shares[best]) if rivals else float("nan")
    kind = ("fast", "entangled")[len(rivals)] if len(rivals) < 2 else "several rivals"
    return Regime(kind, best, rivals, gamma)


def transition_time(shares, success, *, share: float = 0.8, limit: float = 1e7) -> float:
    """When the best pattern first holds `share` under the gradient flow without a KL; infinite beyond `limit`."""
    shares, success = checked(shares, success)
    best = int(success.argmax())
    if shares[best] >= share:
        return 0.0

    def reached(_, theta: Vector) -> float:
        return _softmax(theta)[best] - share

    reached.terminal, reached.direction = True, 1
    solved = solve_ivp(
        lambda _, theta: slope(theta, success, shares, 0.0),
        (0.0, limit),
        np.log(shares),
        method="LSODA",
        events=reached,
        rtol=1e-8,
        atol=1e-10,
    )
    return float(solved.t_events[0][0]) if solved.t_events[0].size else float("inf")


def time_of_two(shares, success, share: float) -> float:
    """The same in closed form for two patterns: u = log π_1 / π_2 obeys du/dt = 2 (p_1 - p_2) π_1 π_2, so that
    t = [u + sinh u] / (p_1 - p_2) between its start and its end. About 1 / (2 ε (p_1 - p_2)) for share = 1 - ε."""
    shares, success = checked(shares, success)
    best = int(success.argmax())
    start, end = (np.log(x / (1 - x)) for x in (shares[best], share))
    return float((end + np.sinh(end) - start - np.sinh(start)) / abs(success[0] - success[1]))


def share_of_two(shares, success, time: float) -> float:
    """The best pattern's share at a time: `time_of_two` the other way round."""
    high = 1 - 1e-12
    return brentq(lambda share: time_of_two(shares, success, share) - time, min(shares), high)


class Fit(NamedTuple):
    path: Path
    """At the measured steps."""
    speed: float
    """Time of the flow in a step: all that is fitted."""
    error: float
    """Root mean square difference of the shares."""


def fit_flow(steps, measured: Float[np.ndarray, "N R"], success, *, beta: float = 0.0) -> Fit:
    """The flow from the first measured shares [N R] with the starting success rates, and how fast its clock has to run
    to come closest to the measured ones."""
    steps, measured = np.asarray(steps, np.float64), np.asarray(measured, np.float64)
    start = np.maximum(measured[0], 1e-6)
    start, times = start / start.sum(), steps - steps[0]

    def away(log_speed: float) -> float:
        path = flow(start, success, times * np.exp(log_speed), beta=beta)
        return float(np.square(path.shares - measured).mean())

    coarse = np.linspace(np.log(1e-4), np.log(1e4), 41)
    near = coarse[np.argmin([away(x) for x in coarse])]
    best = minimize_scalar(away, bounds=(near - 0.5, near + 0.5), method="bounded").x
    speed = float(np.exp(best))
    return Fit(flow(start, success, times * speed, beta=beta), speed, away(best) ** 0.5)


def _softmax(theta: Vector) -> Vector:
    weights = np.exp(theta - theta.max())
    return weights / weights.sum()
