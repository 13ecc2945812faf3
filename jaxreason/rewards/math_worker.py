"""The process in which Math-Verify judges: `python -m jaxreason.rewards.math_worker SECONDS`, one JSON pair a line.

Whatever symbolic mathematics does with a hostile answer, it does here. The kernel ends a judge that takes more than
SECONDS of processor time for one pair, be it in Python or in C; its parent then answers in its place and forks the
next one, with everything already imported. Processor time, since a busy machine must not make an answer wrong.
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

MEMORY = 4 << 30
"""Bytes of address space of a judge; what needs more fails, and counts as different."""
AGREEMENT = 1e-12
"""Largest relative difference of equal numbers. Math-Verify's own limit is absolute, and makes 1/99! equal 1/98!."""

WARM = ("\\frac{\\sqrt{2}}{2}", "(1, \\pi/2)", "[1, 2)", "\\{1, 2\\}", "y=x^2+1", "1+i")
"""What is compared once before any judge starts: the grammar fills its tables as it meets constructs."""


def main(seconds: float) -> None:
    replies = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no reply
    logging.disable()
    equal = load()
    with contextlib.suppress(ValueError):  # not every system can lower it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who ask; when they are gone, the input ends
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    asked = mmap.mmap(-1, 1)  # shared with the judge: 1 while a pair waits for its verdict
    while (judge := os.fork()) != 0:
        _, status = os.waitpid(judge, 0)
        if status == 0:
            return
        if asked[0]:  # else it was ended between two pairs, and a verdict would be taken for the next one's
            os.write(replies, b"false\n")
            asked[0] = 0
    for line in sys.stdin:
        asked[0] = 1
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            same = equal(*json.loads(line))
        except Exception:
            same = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        asked[0] = 0
        os.write(replies, b"true\n" if same else b"false\n")


def load() -> Callable[[str, str], bool]:
    """Math-Verify's equality of LaTeX texts, gold first since it is not symmetric."""
    from math_verify import parse, verify
    from sympy import FiniteSet, Interval

    def read(text: str) -> list:
        return parse(f"${text}$", fallback_mode="no_fallback", parsing_timeout=None)

    def equal(gold: str, answer: str) -> bool:
        sides = read(gold), read(answer)
        if not all(sides) or not verify(*sides, float_rounding=15, timeout_seconds=None):
            return False
        a, b = (side[0] for side in sides)
        if isinstance(a, Interval) != isinstance(b, Interval) and isinstance(a, FiniteSet) != isinstance(b, FiniteSet):
            return False  # it takes (1, 2) for {1, 2}
        if getattr(a, "is_number", False) and getattr(b, "is_number", False):
            return bool(abs(a - b).evalf() <= AGREEMENT * abs(a).evalf())
        return True

    for text in WARM:
        equal(text, text + "+1")
    return equal


if __name__ == "__main__":
    main(float(sys.argv[1]))
