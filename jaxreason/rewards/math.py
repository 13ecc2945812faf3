r"""Symbolic grading of LaTeX answers: `\frac{\sqrt{3}}{3}` equals `1/\sqrt{3}`, `x^2 + 2x + 1` equals `(x+1)^2`.

The exact grader comes first: most answers are equal as text, or are two different numbers. The others go to Math-Verify
(https://github.com/huggingface/Math-Verify) in separate processes with a time limit (`math_worker.py`). Needs the
extra `math`.
"""

import json
import re
import sys
import weakref
from contextlib import suppress
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from subprocess import DEVNULL, PIPE, Popen

from jaxreason.errors import InputError
from jaxreason.rewards import numbers
from jaxreason.tasks.problem import Problem


class MathGrader:
    """A reward: `numbers.lenient`, or 1.0 if Math-Verify finds the answer equal to the gold answer.

    An answer that takes more than `seconds` of processor time is wrong. Thread-safe; `workers` processes start when
    first needed and end with `close`, with this object, or with the program, even if that is killed.
    """

    def __init__(self, workers: int = 2, seconds: float = 1.0):
        if find_spec("math_verify") is None:
            raise InputError("symbolic grading needs Math-Verify; run: pip install 'jaxreason[math]'")
        self._command = [sys.executable, "-m", "jaxreason.rewards.math_worker", str(seconds)]
        self._idle: SimpleQueue[Popen | None] = SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)
        self.close = weakref.finalize(self, _close, self._idle, workers)

    def __call__(self, completion: str, problem: Problem) -> float:
        if numbers.lenient(completion, problem):
            return 1.0
        answer = numbers.extract_answer(completion, problem, lenient=True)
        if answer is None or problem.verify:
            return 0.0
        return float(any(self._may_equal(gold, answer) for gold in problem.golds))

    def _may_equal(self, gold: str, answer: str) -> bool:
        if gold in numbers.VERDICTS or _BASE.search(answer + gold):
            return False
        if numbers.parse_number(answer) is not None and numbers.parse_number(gold) is not None:
            return False
        return self._equal(_clean(gold), _clean(answer))

    def _equal(self, gold: str, answer: str) -> bool:
        worker = self._idle.get()
        try:
            worker = worker or Popen(self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
            assert worker.stdin and worker.stdout
            worker.stdin.write(json.dumps([gold, answer]).encode() + b"\n")
            worker.stdin.flush()
            reply = worker.stdout.readline()
            if not reply:
                raise InputError(f"the Math-Verify process has exited; to see its error, run {' '.join(self._command)}")
            return reply == b"true\n"
        except BaseException:  # also Ctrl-C: the worker's next reply would belong to this pair
            _end(worker)
            worker = None
            raise
        finally:
            self._idle.put(worker)


_BASE = re.compile(r"[0-9]\s*_")  # 52_8 is octal, but Math-Verify reads 52
_UPRIGHT = re.compile(r"\\(?:mathrm|text)\s*(?:\{\s*([ei])\s*\}|([ei])(?![A-Za-z]))")  # Math-Verify drops these
_DOLLAR = re.compile(r"\\?\$")


def _clean(answer: str) -> str:
    return _DOLLAR.sub("", _UPRIGHT.sub(r"{\1\2}", answer))


def _close(idle: "SimpleQueue[Popen | None]", workers: int) -> None:
    with suppress(Empty):  # a hung thread keeps its worker, which ends with the program
        for _ in range(workers):
            _end(idle.get(timeout=10))
    for _ in range(workers):
        idle.put(None)


def _end(worker: Popen | None) -> None:
    if worker is not None:
        with worker:  # closes the pipes, then waits
            pass
