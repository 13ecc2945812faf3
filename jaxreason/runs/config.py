"""Flags as nested dataclasses: one group a topic, one name for a flag in every experiment.

A comment beside a field is its help text, `flag` gives its limits. Flags are unique across the groups of a
configuration, so that a flat dictionary of them (`flatten`, `set_flags`) says the same as the nested record.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from math import inf
from typing import Any, TypeVar

from jaxreason.errors import InputError
from jaxreason.weights import BUNDLED

Config = TypeVar("Config", bound=Any)
Option = TypeVar("Option")
Defaults = Callable[[Any], Mapping[str, Any]]
"""Replacement defaults for flags that were not given, from the configuration as it was given."""
NONE: Mapping[str, Any] = {}


def flag(default: Any, low: int | float = -inf, high: int | float = inf) -> Any:
    """A dataclass field whose value must be None or a finite number from `low` to `high`, both included."""
    return field(default=default, metadata={"limits": (low, high)})


@dataclass(frozen=True)
class ModelFlags:
    """what is trained"""

    model: str = "tiny-base"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    lora_rank: int = flag(0, 0)  # train adapters of this rank and nothing else; 0: train everything
    lora_alpha: float = flag(0.0, 0)  # scale of the adapters' outputs times the rank; 0: twice the rank


@dataclass(frozen=True)
class DataFlags:
    """problems and how they are put to the model"""

    task: str = "grade-school"  # gsm8k for models not bundled; also svamp, mawps, math500, rg:NAME, a .jsonl file
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    shots: int = flag(0, 0)  # worked examples before each question


@dataclass(frozen=True)
class SamplingFlags:
    """how completions are sampled, in training and evaluation"""

    max_tokens: int = flag(72, 1)  # length limit of a completion
    temperature: float = flag(1.0, 0, 1e3)  # 0: greedy
    top_k: int = flag(0, 0)  # sample among the k most probable tokens; 0: all
    top_p: float = flag(1.0, 0, 1)  # sample among the smallest set of tokens with this probability
    min_p: float = flag(0.0, 0, 1)  # sample among tokens at least this fraction as probable as the most probable one


@dataclass(frozen=True)
class PolicySamplingFlags(SamplingFlags):
    """how completions are sampled, in training and evaluation"""

    temperature: float = flag(1.0, 1e-3, 1e3)  # above 0: the policy's gradient is that of the tempered distribution


@dataclass(frozen=True)
class AlgorithmFlags:
    """the objective; a flag that is not given keeps what the algorithm's published record says"""

    algorithm: str = ""  # see jaxreason.objectives.ALGORITHMS; empty: grpo, for bundled models with a KL weight of 0.1
    reward: str = "lenient"  # a verifier, an intrinsic reward, or the folder of a reward model: README, "Rewards"
    kl_weight: float | None = flag(None, 0)  # weight of the KL to the initial model; 0 keeps no copy of it
    entropy_weight: float | None = flag(None, 0)  # weight of an entropy bonus for every token
    top_entropy: float | None = flag(None, 1e-6, 1)  # share of the tokens, of the highest entropy, with an advantage
    overlong_buffer: float | None = flag(
        None, 0
    )  # tokens before --max-tokens over which the reward falls by 1; 0: none
    max_gen_batches: int | None = flag(None, 1)  # batches sampled, at most, until enough groups have a signal
    inner_updates: int = flag(1, 1)  # optimiser steps on each batch of rollouts


@dataclass(frozen=True)
class RolloutFlags:
    """the batch of a step, and what is logged of it"""

    prompts_per_step: int = flag(32, 1)
    group_size: int = flag(8, 2)  # completions per prompt: advantages compare them
    replay: int = flag(0, 0)  # age in steps up to which groups replace those without a signal; 0: none
    patterns: str = ""  # log shares and success of ways of reasoning: structural or cognitive
    eval_every: int = flag(50, 0)  # steps between evaluations on validation problems; the best is kept; 0: never


@dataclass(frozen=True)
class PairFlags:
    """preference pairs"""

    pairs: str = ""  # JSONL of prompt, chosen and rejected; empty: completions of the generators
    generators: str = ""  # models whose completions are paired, with commas between; empty: --model
    pair_types: str = ""  # 'MODEL right>MODEL wrong', several with commas between; empty: --model's own
    problems: int = flag(1000, 1)  # training problems that each generator answers
    samples: int = flag(4, 1)  # completions of each
    max_per_problem: int = flag(1, 1)  # pairs of each type, at most, of each problem
    pairs_per_step: int = flag(32, 1)


@dataclass(frozen=True)
class DistillFlags:
    """the teacher, and what is learned from it"""

    teacher: str = "tiny"  # as --model, with the same vocabulary
    method: str = "hard"  # hard, soft, gkd or on-policy
    teacher_file: str = ""  # JSONL of question and completion, for soft also stored tokens; empty: the teacher samples
    unfiltered: bool = False  # learn also what the verifier rejects
    problems: int = flag(2000, 1)  # training problems that the teacher answers
    samples: int = flag(2, 1)  # completions of each
    max_per_problem: int = flag(1, 1)  # completions that are learned, at most, of each problem
    examples: int = flag(0, 0)  # completions that are learned in all, at most; 0: all
    divergence: str = "forward"  # soft and gkd: forward, reverse or jensen-shannon
    distill_temperature: float = flag(1.0, 1e-3, 1e3)  # soft and gkd: temperature of both distributions
    teacher_top_k: int = flag(0, 0)  # soft: store and compare the teacher's k most probable tokens; 0: the vocabulary
    rows: int = flag(32, 1)  # packed rows in a step
    seq_len: int = flag(160, 2)  # tokens a row
    micro_batches: int = flag(4, 1)  # parts of the rows that go through one after the other, to save memory
    prompts_per_step: int = flag(32, 1)  # gkd and on-policy
    group_size: int = flag(4, 1)  # on-policy: completions per prompt


@dataclass(frozen=True)
class OptimizerFlags:
    """AdamW after clipping by global norm"""

    learning_rate: float = flag(5e-4, 1e-12, 1)
    warmup_updates: int = flag(5, 0)  # optimiser updates until the full learning rate; 0: none
    max_grad_norm: float = flag(1.0, 1e-9)  # gradients of a larger global norm are scaled down to it


@dataclass(frozen=True)
class DeviceFlags:
    """devices, processes and precision"""

    dtype: str = "float32"  # of activations and matrix products; parameters stay float32
    mesh: str = ""  # devices over data,fsdp,tensor, as 1,4,2; empty: all of them over fsdp
    hosts: str = ""  # several processes: auto (TPU pods, SLURM), or HOST:PORT,COUNT,NUMBER of each
    remat: bool = False  # recompute activations in the backward pass; ignored on CPUs, whose compiler undoes it
    activation_gb: float = flag(0.075, 1e-9)  # GB of activations in an RL update, about: sets the micro-batch


@dataclass(frozen=True)
class EvaluationFlags:
    """accuracy before and after"""

    eval_problems: int = flag(500, 1)  # held-out problems of each evaluation set
    eval_samples: int = flag(1, 1)  # completions a problem


@dataclass(frozen=True)
class RunFlags:
    """length, seed and files of the run"""

    steps: int = flag(100, 1)  # a finished run goes further with more
    token_budget: int = flag(0, 0)  # stop once so many tokens have gone through updates; 0: no budget
    seed: int = flag(0, 0, 2**32 - 1)
    out: str = ""  # folder of the run; empty: runs/EXPERIMENT/MODEL-TASK-SEED
    save_every: int = flag(20, 1)  # steps between checkpoints
    profile: str = ""  # steps to trace to OUT/profile, as 3 or 3-5
    export: bool = False  # write the trained model to OUT/model, and adapters to OUT/adapters
    smoke: bool = False  # shrink what no flag sets to a minute's work


@dataclass(frozen=True)
class TrainConfig:
    """The groups that training experiments share; each adds one of its own."""

    model: ModelFlags = ModelFlags()
    data: DataFlags = DataFlags()
    sampling: SamplingFlags = SamplingFlags()
    optimizer: OptimizerFlags = OptimizerFlags()
    devices: DeviceFlags = DeviceFlags()
    evaluation: EvaluationFlags = EvaluationFlags()
    run: RunFlags = RunFlags()


@dataclass(frozen=True)
class PolicyConfig(TrainConfig):
    """The groups of reinforcement learning."""

    sampling: PolicySamplingFlags = PolicySamplingFlags()
    algorithm: AlgorithmFlags = AlgorithmFlags()
    rollout: RolloutFlags = RolloutFlags()


PRETRAINED_DEFAULTS = {"task": "gsm8k", "max_tokens": 160, "temperature": 0.7, "learning_rate": 2e-5}
PRETRAINED_DEFAULTS |= {"eval_problems": 100, "activation_gb": 4.0}
SMOKE_DEFAULTS = {"steps": 2, "max_tokens": 16, "eval_problems": 4}


def defaults(*, pretrained: Mapping[str, Any] = NONE, smoke: Mapping[str, Any] = NONE) -> Defaults:
    """Other defaults: `pretrained` for a `--model` that is not bundled, `smoke` where that flag is set."""

    def chosen(config: Any) -> dict[str, Any]:
        flags = flatten(config)
        other_model = bool(pretrained) and flags["model"] not in BUNDLED
        return {**(pretrained if other_model else NONE), **(smoke if flags["smoke"] else NONE)}

    return chosen


def flatten(config: Any) -> dict[str, Any]:
    """{flag: value} of all groups."""
    flags: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        flags |= flatten(value) if is_dataclass(value) else {each.name: value}
    return flags


def set_flags(config: Config, **flags: Any) -> Config:
    """The configuration with other values for some flags, wherever they are nested; unknown ones are a TypeError."""
    if unknown := flags.keys() - flatten(config).keys():
        raise TypeError(f"{type(config).__name__} has no flag {min(unknown)!r}")
    changes: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            changes[each.name] = set_flags(value, **{n: v for n, v in flags.items() if n in flatten(value)})
        elif each.name in flags:
            changes[each.name] = flags[each.name]
    return replace(config, **changes)


def with_defaults(config: type[Config], defaults: Defaults, **flags: Any) -> Config:
    """The configuration that the command line makes of these flags."""
    given = set_flags(config(), **flags)
    return set_flags(set_flags(config(), **defaults(given)), **flags)


def choose(flag_name: str, name: str, options: Mapping[str, Option]) -> Option:
    """The option of that name, or an error that lists them."""
    if name not in options:
        closest = "".join(f", the closest is {option!r}" for option in get_close_matches(name, options, n=1))
        raise InputError(f"--{flag_name} {name!r} is unknown{closest}; choose {', '.join(options)}")
    return options[name]


def check_limits(config: Any) -> None:
    """Refuses a flag outside the limits that its field states."""
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            check_limits(value)
        elif "limits" in each.metadata and value is not None:
            low, high = each.metadata["limits"]
            if not (math.isfinite(value) and low <= value <= high):
                allowed = f"of at least {low}" if high == inf else f"from {low} to {high}"
                name = each.name.replace("_", "-")
                raise InputError(f"--{name} {value} is out of range: give a number {allowed}")


def check_divides(name: str, value: int, other_name: str, other: int) -> None:
    """Refuses a flag that does not divide another."""
    if other % value:
        raise InputError(f"--{name} {value} does not divide --{other_name} {other}: give a divisor")
