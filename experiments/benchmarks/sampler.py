"""How fast are rollouts, beside the libraries a user would take instead?

    python experiments/benchmarks/sampler.py
    python experiments/benchmarks/sampler.py --prompts 1 --group-size 1
    python experiments/benchmarks/sampler.py --uneven

Same weights, prompts, lengths and precision, in turns within one process: this sampler, `transformers` generate and the
`Sampler` of tunix; a peer that is not installed is named. No completion ends early. With `--uneven` it is this sampler
against itself: completions of very different length, against running every row to the end of the longest.
"""

import random
from dataclasses import dataclass
from functools import partial
from math import exp, log
from pathlib import Path
from statistics import NormalDist
from tempfile import TemporaryDirectory

import jax
import jax.numpy as jnp
import numpy as np
from peers import our_sampler, transformers_generate, tunix_sampler
from rich.console import Console
from timing import benchmark, start_workers

from jaxreason.errors import InputError
from jaxreason.models import Transformer, fuse
from jaxreason.runs import check_limits, defaults, flag, main
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder, completion_keys, generate, pad_prompts
from jaxreason.tasks import load_task, messages
from jaxreason.text import encode_prompt
from jaxreason.weights import load_model, save_folder

flag_defaults = defaults(smoke={"model": "tiny", "prompts": 2, "group_size": 2, "tokens": 4, "rounds": 1})


@dataclass(frozen=True)
class Config:
    model: str = "smollm2-135m"
    prompts: int = flag(4, 1, 1e3)
    group_size: int = flag(8, 1)  # completions per prompt
    tokens: int = flag(64, 1)  # of every completion; with --uneven of the median one
    rounds: int = flag(5, 1)
    uneven: bool = False
    longest: float = flag(8.0, 1, 100)  # with --uneven: the longest completion, in medians
    out: str = ""  # file for the figures as JSON
    smoke: bool = False  # the tiny model, a few tokens


def run(cfg: Config) -> dict:
    check_limits(cfg)
    if cfg.uneven and cfg.prompts < 2:
        raise InputError(f"--uneven with --prompts {cfg.prompts}: give at least 2")
    console = Console(highlight=False)
    config, params, tokenizer = load_model(cfg.model)
    params = fuse(params)
    model, task = Transformer(config), load_task("grade-school")
    texts = [messages(task, problem) for problem in task.test[: cfg.prompts]]
    ids = [encode_prompt(tokenizer, text) for text in texts]
    keys = completion_keys(jax.random.key(0), np.arange(cfg.prompts), cfg.group_size)
    console.print(
        f"{cfg.prompts} prompts of about {np.mean([len(p) for p in ids]):.0f} tokens, {cfg.group_size} completions"
    )
    if cfg.uneven:
        contenders, work = uneven(cfg, TransformerDecoder(model), params, ids, keys, console)
        return benchmark(contenders, cfg, console, work=work, unit="tokens/s")
    sizes = {"group_size": cfg.group_size, "tokens": cfg.tokens}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_folder(folder, params, config, tokenizer)
        contenders = {
            "jaxreason": partial(our_sampler, folder, ids, **sizes),
            "transformers": partial(transformers_generate, folder, ids, **sizes),
            "tunix": partial(tunix_sampler, folder, config, ids, **sizes),
        }
        calls = start_workers(contenders, console)
    return benchmark(calls, cfg, console, work=cfg.prompts * cfg.group_size * cfg.tokens, unit="tokens/s")


# --- against itself ---


@dataclass(frozen=True)
class Planned:
    """A decoder whose completions are as long as the number that their prompt begins with, whatever the model says."""

    inner: TransformerDecoder
    stop: int

    def prefill(self, params, prompts, group_size, slots):
        logits, state = self.inner.prefill(params, prompts, group_size, slots)
        plan = prompts.tokens[:, 0]
        return self.force(logits, plan == 1), state._replace(prompt=(plan, state.prompt))

    def decode(self, params, tokens, state):
        plan, prompt = state.prompt
        logits, state = self.inner.decode(params, tokens, state._replace(prompt=prompt))
        last = state.slot - state.begin + 1 == plan
        return self.force(logits, last[:, None]), state._replace(prompt=(plan, state.prompt))

    def force(self, logits, last):
        return logits.at[..., self.stop].set(jnp.where(last, 1e9, -1e9))


def uneven(cfg: Config, decoder: TransformerDecoder, params, ids: list[list[int]], keys, console: Console):
    """Lengths at the quantiles of a log-normal distribution with the given median and longest."""
    quantiles = NormalDist().inv_cdf((cfg.prompts - 0.5) / cfg.prompts)
    lengths = [
        max(1, round(cfg.tokens * exp(log(cfg.longest) / quantiles * NormalDist().inv_cdf((i + 0.5) / cfg.prompts))))
        for i in range(cfg.prompts)
    ]
    random.Random(0).shuffle(lengths)
    console.print(f"lengths: median {cfg.tokens}, mean {np.mean(lengths):.0f}, longest {max(lengths)}")
    prompts = pad_prompts([[length, *prompt[1:]] for length, prompt in zip(lengths, ids, strict=True)])
    stop = decoder.model.cfg.vocab - 1
    ours = Sampler(Planned(decoder, stop), Sampling(), max_tokens=max(lengths), stop_ids=(stop,))
    whole = partial(generate, decoder=ours.decoder, sampling=ours.sampling, max_tokens=max(lengths), stop_ids=(stop,))
    whole = jax.jit(whole)
    assert (np.asarray(ours(params, prompts, keys=keys).lengths) == np.array(lengths)[:, None]).all()
    contenders = {
        "finished rows leave": partial(ours, params, prompts, keys=keys),
        "every row to the end": lambda: jax.block_until_ready(whole(params, prompts, keys=keys)),
    }
    return contenders, sum(lengths) * cfg.group_size


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)
