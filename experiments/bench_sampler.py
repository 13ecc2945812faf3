"""How fast are rollouts, beside the libraries a user would take instead?

    python experiments/bench_sampler.py
    python experiments/bench_sampler.py --prompts 1 --groups 1
    python experiments/bench_sampler.py --uneven

Same weights, prompts, lengths and precision, in turns within one process: this sampler, `transformers` generate and the
`Sampler` of tunix; a peer that is not installed is named. No completion ends early. With `--uneven` it is this sampler
against itself: completions of very different length, against running every row to the end of the longest.
"""

import json
import random
from dataclasses import asdict, dataclass
from functools import partial
from math import exp, inf, log
from pathlib import Path
from statistics import NormalDist
from tempfile import TemporaryDirectory

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxreason.models import Transformer, load_model, save_folder
from jaxreason.runs import check_limits, compare, interleave, main, write_json
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder, generate, pad_prompts, row_keys
from jaxreason.tasks import load_task, messages
from jaxreason.text import encode_prompt

LIMITS = dict.fromkeys(("groups", "tokens", "rounds"), (1, inf)) | {"prompts": (1, 1000), "longest": (1, 100)}
SMOKE = {"model": "tiny", "prompts": 2, "groups": 2, "tokens": 4, "rounds": 1}


@dataclass(frozen=True)
class Config:
    model: str = "smollm2-135m"
    prompts: int = 4
    groups: int = 8  # completions per prompt
    tokens: int = 64  # of every completion; with --uneven of the median one
    rounds: int = 5
    uneven: bool = False
    longest: float = 8.0  # with --uneven: the longest completion, in medians
    out: str = ""  # file for the figures as JSON
    smoke: bool = False  # the tiny model, a few tokens


def run(cfg: Config) -> dict:
    check_limits(cfg, LIMITS | {"prompts": (2, 1000)} if cfg.uneven else LIMITS)
    console = Console(highlight=False)
    config, params, tokenizer = load_model(cfg.model)
    model, task = Transformer(config), load_task("grade-school")
    texts = [messages(task, problem) for problem in task.test[: cfg.prompts]]
    ids = [encode_prompt(tokenizer, text) for text in texts]
    keys = row_keys(jax.random.key(0), np.arange(cfg.prompts), cfg.groups)
    console.print(
        f"{cfg.prompts} prompts of about {np.mean([len(p) for p in ids]):.0f} tokens, {cfg.groups} completions"
    )
    if cfg.uneven:
        contenders, work = uneven(cfg, TransformerDecoder(model), params, ids, keys, console)
    else:
        ours = Sampler(TransformerDecoder(model), Sampling(), max_tokens=cfg.tokens, stop_ids=())
        contenders = {"jaxreason": partial(ours, params, pad_prompts(ids), keys=keys)}
        work = cfg.prompts * cfg.groups * cfg.tokens
        with TemporaryDirectory() as folder:
            save_folder(Path(folder) / "model", params, config, tokenizer)
            for name, peer in (("transformers", transformers_generate), ("tunix", tunix_sampler)):
                try:
                    contenders[name] = peer(cfg, Path(folder) / "model", config, tokenizer, ids)
                except ImportError as error:
                    console.print(f"{name} is absent: {error}")
    figures, table = compare(interleave(contenders, cfg.rounds, console.print), work, "tokens/s")
    console.print(table)
    figures = {"config": asdict(cfg), **figures}
    print(json.dumps(figures))
    if cfg.out:
        write_json(Path(cfg.out), figures)
    return figures


# --- the peers ---


def transformers_generate(cfg: Config, folder: Path, config, tokenizer, ids: list[list[int]]):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    width = max(map(len, ids))
    tokens = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in ids])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in ids])
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": cfg.groups}
    how |= {"min_new_tokens": cfg.tokens, "max_new_tokens": cfg.tokens, "pad_token_id": 0}

    def call() -> None:
        made = model.generate(input_ids=tokens, attention_mask=mask, **how)
        assert made.shape == (cfg.prompts * cfg.groups, width + cfg.tokens)

    return call


def tunix_sampler(cfg: Config, folder: Path, config, tokenizer, ids: list[list[int]]):
    if config.family != "llama":
        raise ImportError(f"its {config.family} is not set up here")
    from tunix.generate.sampler import CacheConfig
    from tunix.generate.sampler import Sampler as Peer
    from tunix.models.llama3 import model as llama3
    from tunix.models.llama3 import params as llama3_params

    class Ids:
        """The tokenizer it asks for; prompts come as space-separated ids."""

        def encode(self, text: str) -> list[int]:
            return [int(word) for word in text.split()]

        def decode(self, ids) -> str:
            return ""

        def bos_id(self) -> int:
            return -1

        def eos_id(self) -> int:
            return config.vocab - 1

        def pad_id(self) -> int:
            return 0

    sizes = llama3.ModelConfig(
        num_layers=config.layers,
        vocab_size=config.vocab,
        embed_dim=config.width,
        hidden_dim=config.mlp_width,
        num_heads=config.heads,
        head_dim=config.head_width,
        num_kv_heads=config.kv_heads,
        rope_theta=config.rope.theta,
        norm_eps=config.norm_eps,
        weight_tying=config.tied,
    )
    model = llama3_params.create_model_from_safe_tensors(str(folder), sizes, dtype=jnp.float32)
    width = 1 << (max(map(len, ids)) - 1).bit_length()  # it pads prompts to a power of two
    cache = CacheConfig(width + cfg.tokens + 1, config.layers, config.kv_heads, config.head_width)
    peer = Peer(model, Ids(), cache)
    prompts = [" ".join(map(str, prompt)) for prompt in ids for _ in range(cfg.groups)]
    how = {"max_generation_steps": cfg.tokens, "max_prompt_length": width, "temperature": 1.0, "top_p": 1.0}

    def call() -> None:
        peer(prompts, eos_tokens=[config.vocab - 1], seed=0, **how)

    return call


# --- against itself ---


@dataclass(frozen=True)
class Planned:
    """A decoder whose completions are as long as the number that their prompt begins with, whatever the model says."""

    inner: TransformerDecoder
    stop: int

    def prefill(self, params, prompts, groups, slots):
        logits, state = self.inner.prefill(params, prompts, groups, slots)
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
    how = {"decoder": Planned(decoder, stop), "sampling": Sampling(), "max_tokens": max(lengths), "stop_ids": (stop,)}
    whole = jax.jit(partial(generate, **how))
    ours = Sampler(**how)
    assert (np.asarray(ours(params, prompts, keys=keys).lengths) == np.array(lengths)[:, None]).all()
    contenders = {
        "finished rows leave": partial(ours, params, prompts, keys=keys),
        "every row to the end": lambda: jax.block_until_ready(whole(params, prompts, keys=keys)),
    }
    return contenders, sum(lengths) * cfg.groups


if __name__ == "__main__":
    main(run, Config, __doc__, lambda cfg: SMOKE if cfg.smoke else {})
