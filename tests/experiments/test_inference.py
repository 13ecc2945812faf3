"""The experiments on more compute at inference, and the chat, as a person runs them."""

import csv
import json
import subprocess
import sys

import jax
import pytest

from jaxreason.inference import load_inference_model
from jaxreason.sampling import GREEDY
from tests.experiments.harness import Experiment, coloured_pixels

pytestmark = pytest.mark.slow


def table(file) -> list[dict]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_thinklogit_writes_its_rows_and_resumes(tmp_path):
    run = Experiment("thinklogit.py", tmp_path / "run", "--smoke")
    done = run.run()
    assert done.returncode == 0, done.stderr
    rows = table(run.folder / "rows.csv")
    names = ["target", "guide", "ThinkLogit", "ThinkLogit-DPO", "target fine-tuned"]
    assert [row["model"] for row in rows] == names
    assert all(float(row["flops"]) > 0 and "pass@2" in row and "maj@2" in row for row in rows)
    assert float(rows[2]["flops"]) > float(rows[0]["flops"])
    assert len(table(run.folder / "sweep.csv")) == 2
    pairs = map(json.loads, (run.folder / "seed-0" / "dpo" / "pairs.jsonl").read_text().splitlines())
    kinds = {(row["chosen_source"], row["rejected_source"]) for row in pairs}
    assert kinds <= {("tiny right", "tiny-large-base wrong"), ("tiny-large-base right", "tiny wrong")}
    pictures = [run.folder / name for name in ("sweep.png", "rows.png", "seed-0/guidance.png")]
    assert all(coloured_pixels(file) > 500 for file in pictures)
    (run.folder / "seed-0" / "ThinkLogit.json").unlink()
    assert run.run().returncode == 0
    again = table(run.folder / "rows.csv")
    timeless = [{name: value for name, value in row.items() if "seconds" not in name} for row in again]
    assert timeless == [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]


def test_inference_scaling_compares_every_method(tmp_path):
    run = Experiment("inference_scaling.py", tmp_path / "run", "--smoke")
    done = run.run()
    assert done.returncode == 0, done.stderr
    points = table(run.folder / "scaling.csv")
    price = {(point["method"], int(point["n"])): float(point["gigaflops"]) for point in points}
    assert len(points) > 15 and price["majority", 4] > price["majority", 2] > price["one answer", 1]
    assert price["best by certainty", 4] > price["best by log-probability", 4] == price["majority", 4]
    tokens = {(point["method"], int(point["n"])): float(point["tokens"]) for point in points}
    assert tokens["majority, early stop", 4] <= tokens["majority", 4]
    assert tokens["no thinking", 1] < tokens["one answer", 1]
    assert coloured_pixels(run.folder / "scaling.png") > 500


def test_the_benchmark_of_guidance_reports_its_ratio(tmp_path):
    run = Experiment("benchmarks/thinklogit.py", tmp_path / "figures.json", "--smoke")
    assert run.run().returncode == 0
    figures = json.loads(run.folder.read_text())
    assert figures["ratio"] > 0 and figures["median_s"].keys() == {"fused", "target", "guide", "base"}


@pytest.mark.parametrize(
    ("script", "flags", "complaint"),
    [
        ("thinklogit.py", ("--base", ""), "guide 'tiny' and base '': give both"),
        ("thinklogit.py", ("--alphas", "1,nan"), "--alphas '1,nan': give numbers of at least 0"),
        ("thinklogit.py", ("--warmups", "few"), "--warmups 'few': give numbers"),
        ("thinklogit.py", ("--pairs", "best"), "--pairs 'best' is unknown"),
        ("thinklogit.py", ("--max-tokens", "500"), "more than the model's context of 512"),
        ("thinklogit.py", ("--token-map", "nowhere.json"), "the token map nowhere.json cannot be read"),
        ("inference_scaling.py", ("--samples", "0"), "--samples 0 is out of range: give a number of at least 2"),
        ("inference_scaling.py", ("--budgets", "8,x"), "--budgets '8,x': give whole numbers"),
        ("inference_scaling.py", ("--budgets", "70"), "--budgets 70 with --answer-tokens 12 does not fit into"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line(script, flags, complaint, tmp_path):
    done = Experiment(script, tmp_path / "run", "--smoke", *flags).run()
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert complaint in done.stderr
    assert not (tmp_path / "run").exists()


def chat(*flags: str, lines: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "jaxreason.chat", "--temperature", "0", "--max-tokens", "80", *flags]
    return subprocess.run(command, input=lines, capture_output=True, text=True)


QUESTION = "Vizo has 12 bags with 4 eggs in each. Vizo gives 9 eggs to Hinir. How many eggs does Vizo have left?"


def test_a_chat_answers_as_the_model_does():
    model = load_inference_model("tiny", GREEDY, 80, str)
    messages = [{"role": "user", "content": QUESTION}]
    ((expected,),) = model.complete([model.encode(messages)], jax.random.split(jax.random.key(0), (1, 1)))
    done = chat(lines=f"{QUESTION}\n\n/new\n{QUESTION}\n/quit\nnever asked\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{expected.text}\na new conversation\n{expected.text}\n"
    thought, _, answer = expected.text.partition("####")
    hidden = chat("--hide-thinking", lines=QUESTION).stdout
    assert thought not in hidden and hidden.endswith(f"tokens of thinking) {answer}\n")
    cut = chat("--thinking-budget", "5", lines=QUESTION).stdout
    assert cut.startswith(thought[:3]) and "\n####" in cut and cut != expected.text


def test_a_guided_chat_and_bad_input():
    guided = chat("--model", "tiny-large-base", "--guide", "tiny", "--base", "tiny-base", lines=QUESTION)
    plain = chat("--model", "tiny-large-base", lines=QUESTION)
    assert guided.returncode == plain.returncode == 0
    assert plain.stdout.startswith("####") and len(guided.stdout) > len(plain.stdout)
    failed = chat("--thinking-budget", "60", lines=QUESTION)
    assert failed.returncode == 2 and "more than --max-tokens 80" in failed.stderr
    assert "this conversation has" in chat("--max-tokens", "500", lines=QUESTION).stdout
