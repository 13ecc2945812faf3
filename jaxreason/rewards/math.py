r"""Grading of LaTeX answers by what they mean: `\frac{\sqrt{3}}{3}` is `1/\sqrt{3}`, `x^2 + 2x + 1` is `(x+1)^2`.

The exact grader speaks first: most answers are equal as they stand, or are two numbers and differ. What is left goes
to Math-Verify (https://github.com/huggingface/Math-Verify) in processes of its own (`judge.py`), which are ended where
they take too long. Needs the extra `math`.
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
    """A reward: `numbers.lenient`, or 1.0 where Math-Verify finds the answer equal to the gold one.

    An answer that takes more than `seconds` of processor time is wrong. May be called from several threads; `workers`
    answers are judged at a time. The processes start when first needed and end with `close`, with this object, or with
    the program, however that ends.
    """

    def __init__(self, workers: int = 2, seconds: float = 1.0):
        if find_spec("math_verify") is None:
            raise InputError("grading LaTeX needs Math-Verify, which is not installed: pip install 'jaxreason[math]'")
        self._command = [sys.executable, "-m", "jaxreason.rewards.math_worker", str(seconds)]
        self._idle: SimpleQueue[Popen | None] = SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)
        self.close = weakref.finalize(self, _close, self._idle, workers)

    def __call__(self, completion: str, problem: Problem) -> float:
        if numbers.lenient(completion, problem):
            return 1.0
        answer, gold = numbers.extract_answer(completion, problem, lenient=True), problem.answer
        if answer is None or problem.verify or gold in numbers.VERDICTS or _BASE.search(answer + gold):
            return 0.0
        if numbers.parse_number(answer) is not None and numbers.parse_number(gold) is not None:
            return 0.0
        return float(self._same(_legible(gold), _legible(answer)))

    def _same(self, gold: str, answer: str) -> bool:
        judge = self._idle.get()
        try:
            judge = judge or Popen(self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
            judge.stdin.write(json.dumps([gold, answer]).encode() + b"\n")
            judge.stdin.flush()
            reply = judge.stdout.readline()
            if not reply:
                raise InputError(f"the process that grades LaTeX has ended: try it, {' '.join(self._command)}")
            return reply == b"true\n"
        except BaseException:  # Ctrl-C, too: what it says next would answer another question
            judge = _end(judge)
            raise
        finally:
            self._idle.put(judge)


_BASE = re.compile(r"[0-9]\s*_")  # 52_8 is octal, but Math-Verify reads 52
_UPRIGHT = re.compile(r"\\(?:mathrm|text)\s*(?:\{\s*([ei])\s*\}|([ei])(?![A-Za-z]))")  # constants that it drops
_DOLLAR = re.compile(r"\\?\$")


def _legible(answer: str) -> str:
    return _DOLLAR.sub("", _UPRIGHT.sub(r"{\1\2}", answer))


def _close(idle: "SimpleQueue[Popen | None]", workers: int) -> None:
    with suppress(Empty):  # a thread that never comes back keeps its judge, which ends with the program
        for _ in range(workers):
            _end(idle.get(timeout=10))
    for _ in range(workers):
        idle.put(None)


def _end(judge: Popen | None) -> None:
    if judge is not None:
        for pipe in (judge.stdin, judge.stdout):
            pipe.close()
        judge.wait()
