"""Runs Math-Verify in a time- and memory-limited process: `python -m jaxreason.rewards.math_worker SECONDS`.

Reads JSON pairs [gold, answer], one per line, and writes `true` or `false`. A forked child compares. The kernel kills a
child that takes more than SECONDS of processor time for one pair, in Python or in C; the parent then replies `false`
and forks another child, with everything imported. Processor time, because a busy machine must not make an answer wrong.
"""

import contextlib
import json
import logging
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

MEMORY = 4 << 30
"""Bytes of address space of a child; a pair that needs more counts as different."""
TOLERANCE = 1e-12
"""Largest relative difference of equal numbers. Math-Verify's tolerance is absolute and makes 1/99! equal 1/98!."""

WARM_UP = ("\\frac{\\sqrt{2}}{2}", "(1, \\pi/2)", "[1, 2)", "\\{1, 2\\}", "y=x^2+1", "1+i")
"""Compared once before the fork: the parser builds its tables lazily, by construct."""


def main(seconds: float) -> None:
    replies = os.dup(1)
    os.dup2(2, 1)  # libraries may print to stdout
    logging.disable()
    equal = load()
    with contextlib.suppress(ValueError):  # not supported on every system
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner handles Ctrl-C; when it exits, stdin ends
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    pending = mmap.mmap(-1, 1)  # shared with the child: 1 while a pair waits for its reply
    while (child := os.fork()) != 0:
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        if pending[0]:  # else the child was killed between pairs: a reply now would answer the next pair
            os.write(replies, b"false\n")
            pending[0] = 0
    for line in sys.stdin:
        pending[0] = 1
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            same = equal(*json.loads(line))
        except Exception:
            same = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        pending[0] = 0
        os.write(replies, b"true\n" if same else b"false\n")


def load() -> Callable[[str, str], bool]:
    """Math-Verify's equality of LaTeX texts, as `equal(gold, answer)`; it is not symmetric."""
    from math_verify import parse, verify
    from sympy import FiniteSet, Interval

    def expressions(text: str) -> list:
        no_timeout: Any = None  # annotated as int there, documented as optional
        return parse(f"${text}$", fallback_mode="no_fallback", parsing_timeout=no_timeout)

    def equal(gold: str, answer: str) -> bool:
        sides = expressions(gold), expressions(answer)
        if not all(sides) or not verify(*sides, float_rounding=15, timeout_seconds=None):
            return False
        a, b = (side[0] for side in sides)
        if isinstance(a, Interval) != isinstance(b, Interval) and isinstance(a, FiniteSet) != isinstance(b, FiniteSet):
            return False  # Math-Verify takes (1, 2) for {1, 2}
        if getattr(a, "is_number", False) and getattr(b, "is_number", False):
            return bool(abs(a - b).evalf() <= TOLERANCE * abs(a).evalf())
        return True

    for text in WARM_UP:
        equal(text, text + "+1")
    return equal


if __name__ == "__main__":
    main(float(sys.argv[1]))
