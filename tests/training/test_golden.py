"""One step of GRPO, SFT and DPO on the bundled `tiny`, against stored metrics.

These numbers are not right in themselves: they say that nothing moved. If a change is meant to move them, make them
again with `python tests/training/test_golden.py`, say in the commit what moved and why, and see that no other line of
golden/one_step.json changed.
"""

import json
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jaxreason.data import PreferencePair
from jaxreason.models import Transformer, fuse
from jaxreason.objectives import GRPO
from jaxreason.rewards import grade, numbers
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder, decode_completions, pad_prompts
from jaxreason.tasks import load_task, messages
from jaxreason.text import encode_answer, encode_prompt, prompt_completion
from jaxreason.training import (
    MicrobatchedUpdate,
    batch_pairs,
    completion_logps,
    init_state,
    make_batch,
    make_optimizer,
    make_sft_batch,
    next_prompt_batch,
    pair_loss,
    sft_loss,
    supervised_update,
)
from jaxreason.weights import load_model

GOLDEN = Path(__file__).parent / "golden" / "one_step.json"


def one_step() -> dict[str, dict[str, float]]:
    config, params, tokenizer = load_model("tiny")
    model, params, optimizer, task = Transformer(config), fuse(params), make_optimizer(1e-4), load_task("grade-school")
    state = init_state(jax.tree.map(np.copy, params), optimizer, seed=0)

    problems, keys = next_prompt_batch(state, task.train, 8, 8)
    prompts = [encode_prompt(tokenizer, messages(task, problem)) for problem in problems]
    sample = Sampler(TransformerDecoder(model), Sampling(), max_tokens=48, stop_ids=tokenizer.stop_ids)
    rollouts = sample(params, pad_prompts(prompts), keys=keys)
    completions = decode_completions(rollouts, tokenizer)
    rewards = grade(completions, problems, numbers.lenient)
    grpo = MicrobatchedUpdate(model=model, algorithm=GRPO, optimizer=optimizer, activation_bytes=1e8)

    solved = [f"{problem.solution}\n#### {problem.answer}" for problem in problems]
    answers = [encode_answer(tokenizer, messages(task, p), text) for p, text in zip(problems, solved, strict=True)]
    documents = [prompt_completion(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    sft = jax.jit(partial(supervised_update, loss=partial(sft_loss, model=model), optimizer=optimizer))

    rejected = [[*tokenizer.encode(group[0]), tokenizer.stop_ids[0]] for group in completions]
    pairs = [PreferencePair(*sides) for sides in zip(prompts, answers, rejected, strict=True)]
    reference = jax.jit(partial(completion_logps, model=model))(params, batch_pairs(pairs).completions)
    preferred = batch_pairs(pairs, np.asarray(reference) + 0.1 * np.arange(16).reshape(8, 2))
    dpo = jax.jit(partial(supervised_update, loss=partial(pair_loss, model=model), optimizer=optimizer))

    steps = {
        "grpo": grpo(state, make_batch(rollouts, rewards, GRPO)),
        "sft": sft(init_state(params, optimizer, 0), make_sft_batch(documents, rows=8, length=160)),
        "dpo": dpo(init_state(params, optimizer, 0), preferred),
    }
    metrics = {name: {k: float(v) for k, v in values.items()} for name, (_, values) in steps.items()}
    metrics["grpo"] |= {"reward_mean": float(rewards.mean()), "tokens": int(rollouts.mask.sum())}
    return metrics


def test_one_step_is_the_golden_one():
    metrics, golden = one_step(), json.loads(GOLDEN.read_text())
    for name in ("grpo", "sft", "dpo"):
        assert metrics[name].keys() == golden[name].keys()
        for key, value in golden[name].items():
            atol = 1e-4 if key.startswith("logp_difference") else 1e-5
            np.testing.assert_allclose(metrics[name][key], value, rtol=1e-4, atol=atol, err_msg=f"{name} {key}")


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(one_step(), indent=2) + "\n")
