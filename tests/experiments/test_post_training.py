"""The experiments beyond RL as a person runs them: what they leave, that they go on where they were, bad input."""

import json
import re
import shutil

import pytest

from jaxreason.models import merge
from jaxreason.tasks import load_task
from jaxreason.weights import load_folder, load_lora, load_model
from tests.experiments.harness import Experiment, coloured_pixels, rows, timeless

pytestmark = pytest.mark.slow

FEW = ("--smoke", "--steps", "4", "--save-every", "1")
LEFT = {"config.json", "metrics.jsonl", "checkpoints", "training.png", "before.json", "summary.json"}
METHODS = [  # each kind of batch is interrupted once
    ("sft.py", ("--lora-rank", "2", "--export"), {"model", "adapters"}, True),
    ("rejection_sampling.py", ("--problems", "24"), {"round_0.json", "round_1.json"}, True),
    ("distill.py", (), {"teacher.jsonl"}, False),
    ("distill.py", ("--method", "soft", "--teacher-top-k", "4", "--divergence", "reverse"), {"teacher.jsonl"}, False),
    ("distill.py", ("--method", "gkd", "--divergence", "jensen-shannon", "--lora-rank", "2"), set(), False),
    ("distill.py", ("--method", "on-policy"), set(), True),
    ("dpo.py", ("--generators", "tiny,tiny-base", "--pair-types", "tiny right>tiny-base wrong"), {"pairs.jsonl"}, True),
    ("reward_model.py", ("--lora-rank", "2"), {"pairs.jsonl", "held_out_pairs.jsonl", "model"}, False),
]


@pytest.mark.parametrize(
    ("script", "flags", "also", "interrupted"), METHODS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_method_ends_and_goes_on_after_an_interruption(script, flags, also, interrupted, tmp_path):
    run = Experiment(script, tmp_path / "run", *FEW, *flags)
    done = run.run()
    assert done.returncode == 0, done.stderr
    assert {file.name for file in run.folder.iterdir()} >= LEFT | also
    metrics, summary = rows(run.folder / "metrics.jsonl"), json.loads((run.folder / "summary.json").read_text())
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    assert all(row["train_tokens"] >= row["tokens"] > 0 for row in metrics)
    assert summary["before"].keys() == summary["after"].keys() and summary["tokens"] > 0
    if interrupted:
        shutil.rmtree(run.folder / "checkpoints" / "4")  # as if killed after the checkpoint of step 3
        again = run.run()
        assert again.returncode == 0, again.stderr
        assert timeless(rows(run.folder / "metrics.jsonl")) == timeless(metrics)


def test_exported_adapters_merge_to_the_exported_model(tmp_path):
    flags = ("--lora-rank", "2", "--lora-alpha", "6", "--export", "--learning-rate", "0.01", "--model", "tiny")
    run = Experiment("sft.py", tmp_path / "run", *FEW, *flags)
    assert run.run().returncode == 0
    params = load_model("tiny").params
    lora = load_lora(run.folder / "adapters", params)
    assert lora.scale == 3.0
    merged, exported = merge(params, lora), load_folder(run.folder / "model").params
    weights = [tree["model"]["layers"]["0"]["mlp"]["up_proj"]["weight"] for tree in (merged, exported, params)]
    assert (weights[0] == weights[1]).all() and (weights[0] != weights[2]).any()


def test_a_budget_of_tokens_ends_the_training(tmp_path):
    run = Experiment("sft.py", tmp_path / "run", *FEW, "--token-budget", "700")
    assert run.run().returncode == 0
    read = [row["train_tokens"] for row in rows(run.folder / "metrics.jsonl")]
    assert sum(read[:-1]) < 700 <= sum(read) and len(read) < 4


def test_a_reward_model_is_a_reward(tmp_path):
    trained = Experiment("reward_model.py", tmp_path / "reward_model", *FEW)
    assert trained.run().returncode == 0
    flags = ("--reward", str(tmp_path / "reward_model" / "model"), "--lora-rank", "2", "--smoke")
    done = Experiment("grpo_gsm8k.py", tmp_path / "run", *flags).run()
    assert done.returncode == 0, done.stderr
    metrics = rows(tmp_path / "run" / "metrics.jsonl")
    assert all(row["reward_mean"] not in (row["strict_share"], row["lenient_share"]) for row in metrics)
    refused = Experiment("sft.py", tmp_path / "other", *FEW, "--model", str(tmp_path / "reward_model" / "model")).run()
    assert refused.returncode == 2 and "is a reward model; give a language model" in refused.stderr


@pytest.mark.parametrize(
    ("script", "flags", "line", "complaint"),
    [
        ("sft.py", ("--train-file", "FILE"), {"prompt": "a", "completion": ""}, "FILE line 1 has the completion ''"),
        (
            "sft.py",
            ("--train-file", "FILE"),
            {"prompt": "a " * 200, "completion": "b"},
            "FILE line 1 has .* tokens, more",
        ),
        ("sft.py", ("--task", "TASK"), {}, "--task sums has no worked solutions: give --train-file FILE"),
        ("sft.py", ("--lora-alpha", "8"), {}, "--lora-alpha 8 scales no adapters: give --lora-rank too"),
        ("distill.py", ("--method", "on-policy", "--temperature", "0"), {}, "--temperature 0 with --method on-policy"),
        ("sft.py", ("--rows", "3", "--micro-batches", "2"), {}, "--micro-batches 2 does not divide --rows 3"),
        ("dpo.py", ("--pair-types", "tiny right>large wrong"), {}, "is not 'A>B' of two among tiny right, tiny wrong"),
        ("dpo.py", ("--pairs", "FILE"), {"prompt": "a", "chosen": "b", "rejected": "b"}, "FILE line 1 has the same"),
        (
            "distill.py",
            ("--teacher-file", "FILE"),
            {"question": "Why?", "completion": "#### 1"},
            "FILE line 1 asks what no",
        ),
        (
            "distill.py",
            ("--teacher-file", "FILE", "--method", "soft", "--teacher-top-k", "1", "--unfiltered"),
            {
                "question": "QUESTION",
                "completion": "7",
                "tokens": [5, 1],
                "top_ids": [[5], [1]],
                "top_logps": [[-0.1], [-0.1]],
                "temperature": 1.0,
            },
            "FILE line 1 was written with another tokenizer",
        ),
        ("distill.py", ("--method", "hardly"), {}, "--method 'hardly' is unknown, the closest is 'hard'"),
        ("distill.py", ("--method", "gkd", "--teacher", "MODEL"), {}, "have different vocabularies, of 1024 and 31"),
    ],
)
def test_bad_input_is_one_line(script, flags, line, complaint, model, task, tmp_path):
    file = tmp_path / "FILE"
    if line.get("question") == "QUESTION":
        line = line | {"question": load_task("grade-school").train[0].question}
    file.write_text(json.dumps(line) + "\n")
    flags = [str({"MODEL": model, "TASK": task}.get(flag, flag)) for flag in flags]
    done = Experiment(script, tmp_path / "run", *FEW, *flags).run()
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert re.search(complaint, done.stderr), done.stderr


def test_methods_are_compared_in_one_table(tmp_path):
    run = Experiment("post_training_methods.py", tmp_path / "methods", "--smoke", "--methods", "solutions,dpo")
    done = run.run()
    assert done.returncode == 0, done.stderr
    header, *lines = (run.folder / "methods.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["solutions", "dpo"]
    table = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    assert all(int(row["train_tokens"]) >= 500 and float(row["teraflops"]) > 0 for row in table)
    assert int(table[0]["tokens_generated_before"]) == 0 < int(table[1]["tokens_generated_before"])
    again = run.run()  # every method is finished: nothing is trained
    assert again.returncode == 0 and "the first step" not in again.stdout
    assert coloured_pixels(run.folder / "methods.png") > 500
