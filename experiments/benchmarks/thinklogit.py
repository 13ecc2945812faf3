"""What does guidance cost while decoding, beside the three models one after the other?

    python experiments/benchmarks/thinklogit.py
    python experiments/benchmarks/thinklogit.py --target smollm2-135m --guide smollm2-135m --base smollm2-135m

The same number of tokens from the fused model, and from target, guide and base each alone, in turns.
"""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from timing import interleave

from jaxreason.inference import InferenceModel, load_guided_model, load_inference_model
from jaxreason.runs import check_limits, defaults, flag, main, write_json
from jaxreason.sampling import Sampler, Sampling, completion_keys
from jaxreason.types import Prompts


@dataclass(frozen=True)
class Config:
    target: str = "tiny-large-base"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    guide: str = "tiny"
    base: str = "tiny-base"
    prompts: int = flag(4, 1)
    group_size: int = flag(8, 1)  # completions per prompt
    prompt_tokens: int = flag(128, 1)
    tokens: int = flag(64, 1)  # a completion
    rounds: int = flag(7, 1)
    out: str = ""  # file for the figures, as JSON
    smoke: bool = False  # a few tokens


flag_defaults = defaults(smoke={"prompts": 1, "group_size": 2, "prompt_tokens": 8, "tokens": 4, "rounds": 1})


def run(cfg: Config) -> dict:
    check_limits(cfg)
    console, names = Console(highlight=False), {"target": cfg.target, "guide": cfg.guide, "base": cfg.base}
    alone = {name: load_inference_model(model, Sampling(), cfg.tokens, str) for name, model in names.items()}
    fused = load_guided_model(cfg.target, cfg.guide, cfg.base, Sampling(), cfg.tokens, str)
    contenders = {name: work(cfg, model) for name, model in ({"fused": fused} | alone).items()}
    seconds = interleave(contenders, cfg.rounds, console)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians["fused"] / sum(medians[name] for name in alone)
    device = jax.devices()[0].device_kind
    figures = {"config": asdict(cfg), "device": device, "median_s": medians, "seconds": seconds, "ratio": ratio}
    console.print(f"fused: {ratio:.2f} times the sum of the three ({device})")
    if cfg.out:
        write_json(Path(cfg.out), figures)
    return figures


def work(cfg: Config, model: InferenceModel) -> Callable[[], object]:
    rng, known = np.random.default_rng(0), min(config.vocab for config in model.configs)
    tokens = rng.integers(0, known, (cfg.prompts, cfg.prompt_tokens)).astype(np.int32)
    prompts = Prompts(tokens, np.ones(tokens.shape, bool))
    keys = completion_keys(jax.random.key(0), np.arange(cfg.prompts), cfg.group_size)
    sample = Sampler(model.decoder, model.sampling, max_tokens=cfg.tokens, stop_ids=())
    return partial(sample, model.params, prompts, keys=keys)


if __name__ == "__main__":
    main(run, Config, __doc__, flag_defaults)
