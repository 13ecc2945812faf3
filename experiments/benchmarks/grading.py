"""How many answers a second are graded, and what do hostile ones cost?

    python experiments/benchmarks/grading.py

Exact grading on one core: worked solutions of generated problems, right and wrong, with the answer marked and unmarked.
LaTeX (extra `math`): answers written in another way than the gold one, wrong ones, and among them hostile ones that
would keep symbolic mathematics busy for ever; verdicts are compared with what is known of each.
"""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

from jaxreason.rewards import MathGrader, numbers
from jaxreason.runs import check_limits, defaults, flag, main, write_json
from jaxreason.tasks import Problem, load_task

flag_defaults = defaults(smoke={"answers": 20, "hostile": 1})
HOSTILE = ("9^{9^{9^{9}}}", "9999999!", "(((9999!)!)!)!", "(x+y+z+w)^{300}", "10^{10^{10}}", "\\int_0^1 e^{x^{x^x}} dx")


@dataclass(frozen=True)
class Config:
    answers: int = flag(1000, 1)  # LaTeX answers
    hostile: int = flag(20, 0)  # how many of them are
    workers: int = flag(2, 1)
    seed: int = 0
    out: str = ""  # file for the figures as JSON
    smoke: bool = False


def run(cfg: Config) -> dict:
    check_limits(cfg)
    figures = {"config": asdict(cfg), "exact": exact(), "latex": latex(cfg)}
    for name, value in figures["exact"].items():
        print(f"{name:<28}{value:10.0f} a second")
    print("LaTeX: {answers} answers in {seconds:.1f} s, {wrong} wrong verdicts".format(**figures["latex"]))
    print(json.dumps(figures))
    if cfg.out:
        write_json(Path(cfg.out), figures)
    return figures


def exact() -> dict[str, float]:
    problems = load_task("grade-school").train[:5000]
    others = problems[1:] + problems[:1]
    marked = [f"{problem.solution}\n#### {problem.answer}" for problem in problems]
    unmarked = [f"{problem.solution} The answer is {problem.answer}." for problem in problems]
    figures = {}
    for name, texts in (("marked", marked), ("unmarked", unmarked)):
        for kind, golds in (("right", problems), ("wrong", others)):
            begin = time.perf_counter()
            right = sum(numbers.lenient(text, gold) for text, gold in zip(texts, golds, strict=True))
            figures[f"{name}, {kind}"] = len(texts) / (time.perf_counter() - begin)
            assert (right == len(texts)) == (kind == "right")
    return figures


def latex(cfg: Config) -> dict[str, float]:
    rng = random.Random(cfg.seed)
    pairs = []
    for i in range(cfg.answers - cfg.hostile):
        gold, right, wrong = answers(rng)
        pairs.append((gold, wrong if i % 2 else right, i % 2 == 0))
    pairs += [("\\sqrt{2}", answer, False) for answer in islice(cycle(HOSTILE), cfg.hostile)]
    rng.shuffle(pairs)
    grader = MathGrader(cfg.workers)

    def verdict(pair: tuple[str, str, bool]) -> float:
        gold, answer, _ = pair
        return grader(f"so it is \\boxed{{{answer}}}", Problem(question="", answer=gold, solution="", index=0))

    begin = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        verdicts = list(pool.map(verdict, pairs))
    seconds = time.perf_counter() - begin
    grader.close()
    wrong = sum(verdict != right for verdict, (*_, right) in zip(verdicts, pairs, strict=True))
    return {"answers": len(pairs), "seconds": seconds, "wrong": wrong}


def answers(rng: random.Random) -> tuple[str, str, str]:
    """A gold answer, the same in other words, and another one."""
    a, b, c = (rng.randint(2, 12) for _ in range(3))
    return rng.choice(
        [
            (f"{a}\\sqrt{{{b}}}", f"\\sqrt{{{a * a * b}}}", f"\\sqrt{{{a * b * b + 1}}}"),
            (f"\\frac{{\\sqrt{{{b}}}}}{{{b}}}", f"\\frac{{1}}{{\\sqrt{{{b}}}}}", f"\\frac{{1}}{{\\sqrt{{{b + c}}}}}"),
            (f"x^2+{a + b}x+{a * b}", f"(x+{a})(x+{b})", f"(x+{a})(x+{b + c})"),
            (f"{a}+{b}i", f"{b}i+{a}", f"{b}i-{a}"),
            (f"\\{{{a},{a + b}\\}}", f"\\{{{a + b},{a}\\}}", f"\\{{{a + b},{a + c + 20}\\}}"),
            (f"\\left({a},\\frac{{\\pi}}{{{b}}}\\right)", f"({a}, \\pi/{b})", f"({a + c}, \\pi/{b})"),
            (f"[{a},{a + b})", f"\\left[ {a}, {a + b} \\right)", f"({a}, {a + b})"),
            (f"\\frac{{{a}x}}{{{b}}}", f"\\frac{{{a * c}x}}{{{b * c}}}", f"\\frac{{{a * c}x}}{{{b}}}"),
            (f"{a}^{{{b}}}", f"{a**b}", f"{a**b + c}"),
            (f"y={a}x+{b}", f"{a}x-y+{b}=0", f"{a}x-y-{b}=0"),
        ]
    )


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)
