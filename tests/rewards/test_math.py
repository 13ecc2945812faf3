"""Symbolic grading against results by hand; hostile answers hit the limit, and no process outlives its owner."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxreason.rewards.grading import grade
from jaxreason.rewards.math import MathGrader
from jaxreason.tasks import Problem, load_task


def gold(answer: str) -> Problem:
    return Problem(question="", answer=answer, solution="", index=0)


@pytest.fixture(scope="module")
def grader():
    grader = MathGrader()
    yield grader
    grader.close()


@pytest.mark.parametrize(
    ("answer", "other", "same"),
    [
        ("\\frac{\\sqrt{3}}{3}", "1/\\sqrt{3}", True),
        ("3\\sqrt{2}", "$\\sqrt{18}$", True),
        ("x^2+2x+1", "(x+1)^2", True),
        ("6-5i", "-5i+6", True),
        ("1,-2", "-2, 1", True),
        ("1024", "2^{10}", True),
        ("y=2x+3", "2x-y+3=0", True),
        ("\\left(3,\\frac{\\pi}{2}\\right)", "(3, \\pi/2)", True),
        ("1-\\frac{1}{\\mathrm e}", "1 - e^{-1}", True),
        ("\\sqrt{3}", "\\sqrt{2}", False),
        ("(1,2]", "(1,2)", False),
        ("1,-2", "1", False),
        # Math-Verify alone finds these equal
        ("1-\\frac{1}{e}", "1+\\frac{1}{\\mathrm{e}}", False),
        ("52_8", "52", False),
        ("(1,2)", "\\{1,2\\}", False),
        ("2\\pi", "6.283185", False),
        ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}", False),
        # hostile
        ("\\sqrt{2}", "9^{9^{9^{9}}}", False),
        ("\\sqrt{2}", "(((9999!)!)!)!", False),
        ("\\sqrt{2}", "\\frac{" * 100, False),
        ("\\sqrt{2}", "__import__('os').abort()", False),
    ],
)
def test_symbolic_equality(grader, answer, other, same):
    assert grader(f"so \\boxed{{{other}}}", gold(answer)) == float(same)


def test_a_hanging_answer_affects_no_other(grader):
    """Alternating with hostile answers, in two threads."""
    texts = [["\\boxed{\\sqrt{8}}", "\\boxed{(x+y+z+w)^{300}}", "\\boxed{\\sqrt{9}}", "\\boxed{9999999!}"]] * 2
    grades = grade(texts, [gold("2\\sqrt{2}")] * 2, grader)
    np.testing.assert_array_equal(grades, [[1, 0, 0, 0]] * 2)


def test_ctrl_c_discards_the_unread_reply():
    def interrupt(*_):
        raise KeyboardInterrupt

    grader = MathGrader(workers=1)
    assert grader("\\boxed{\\sqrt{8}}", gold("2\\sqrt{2}")) == 1
    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(KeyboardInterrupt):
        grader("\\boxed{9999999!}", gold("2\\sqrt{2}"))
    signal.signal(signal.SIGALRM, previous)
    assert grader("\\boxed{\\sqrt{8}}", gold("2\\sqrt{2}")) == 1
    grader.close()


def test_the_exact_grader_starts_no_process():
    grader = MathGrader(workers=0)  # a process would never start
    assert [grader(f"\\boxed{{{x}}}", gold("\\frac12")) for x in ("\\dfrac{1}{2}", "0.5", "0.25")] == [1, 1, 0]
    assert grader("nothing", gold("\\sqrt{2}")) == grader("\\boxed{no}", gold("yes")) == 0


def test_math500_answers_equal_only_themselves(data, grader):
    answers = [problem.answer for problem in load_task("math500", data).test if "\\" in problem.answer][:12]
    grades = grade([[f"\\boxed{{{other}}}" for other in answers] for _ in answers], list(map(gold, answers)), grader)
    np.testing.assert_array_equal(grades, np.eye(len(answers)))


OWNER = """
import sys, threading
from jaxreason.rewards.math import MathGrader
from jaxreason.tasks import Problem
grader = MathGrader(workers=1)
problem = Problem(question="", answer="\\\\sqrt{2}", solution="", index=0)
grader("\\\\boxed{x}", problem)
print(grader._idle.get().pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_a_child_killed_between_answers_leaves_no_reply_behind():
    grader = MathGrader(workers=1)
    assert grader("\\boxed{\\sqrt{8}}", gold("2\\sqrt{2}")) == 1
    worker = grader._idle.get()
    grader._idle.put(worker)
    os.kill(int(Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text()), signal.SIGKILL)
    time.sleep(0.2)
    assert grader("\\boxed{\\sqrt{8}}", gold("2\\sqrt{2}")) == 1
    grader.close()


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_no_process_outlives_a_killed_owner():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    worker = int(owner.stdout.readline())
    children = [int(p) for p in Path(f"/proc/{worker}/task/{worker}/children").read_text().split()]
    assert len(children) == 1
    owner.kill()
    owner.communicate()
    for _ in range(100):
        if not any(alive(pid) for pid in (worker, *children)):
            return
        time.sleep(0.1)
    raise AssertionError("a worker is still alive")


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
