"""What an experiment that tunes a model on a task begins and ends with: how the model is asked, what is trained of it,
its accuracy before and after, its run folder."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from rich.console import Console

from jaxreason.distributed.mesh import gather_to_host, mesh_from_flag, shard_batch
from jaxreason.distributed.multihost import is_main_process
from jaxreason.evaluation import Evaluation, evaluate
from jaxreason.models import Transformer, fuse, unfuse
from jaxreason.models.lora import Lora, attach_scale, init_lora, merge, merge_trees
from jaxreason.models.partition import ADAPTERS, check_mesh, constrain_params, partition_rules, shard_params
from jaxreason.rewards import Reward
from jaxreason.runs.cli import check_limits, choose
from jaxreason.runs.conclude import conclude
from jaxreason.runs.display import evaluate_sets
from jaxreason.runs.folder import RunFolder
from jaxreason.runs.train import Advance, train
from jaxreason.sampling import ProblemSampler, Sampling, check_prompts, transformer_sampler
from jaxreason.tasks import Problem, load_task, messages
from jaxreason.text import Document, Tokenizer, encode_answer, encode_prompt, prompt_completion
from jaxreason.training import EVALUATION, TrainState, make_optimizer, supervised_update
from jaxreason.training.state import init_sharded_state
from jaxreason.training.updates import Metrics
from jaxreason.types import Params
from jaxreason.weights import load_model, save_folder
from jaxreason.weights.adapters import save_lora

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
LIMITS = dict.fromkeys(("steps", "max_tokens", "eval_problems", "eval_samples", "save_every"), (1, inf))
LIMITS |= dict.fromkeys(("shots", "warmup_updates", "lora_rank", "lora_alpha", "token_budget"), (0, inf))
LIMITS |= {"temperature": (0, 1e3), "learning_rate": (1e-12, 1), "max_grad_norm": (1e-9, inf), "seed": (0, 2**32 - 1)}
PRETRAINED_DEFAULTS = {
    "task": "gsm8k",
    "max_tokens": 160,
    "temperature": 0.7,
    "learning_rate": 2e-5,
    "eval_problems": 100,
}
SMOKE_DEFAULTS = {"steps": 2, "max_tokens": 16, "eval_problems": 4}
SETS = ("held-out", "new_stories")
BATCHES = ("prompts_per_step", "pairs_per_step", "rows")
"""Flags with the size of what lies over a mesh."""


@dataclass(frozen=True)
class Tuning:
    """The flags that experiments share; each adds its own."""

    model: str = "tiny-base"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    task: str = "grade-school"  # gsm8k for models that do not ship; also svamp, mawps, math500, rg:NAME, a .jsonl file
    data: str = ""  # folder with the task's files; empty: $JAXREASON_DATA, else they are downloaded
    shots: int = 0  # worked examples before each question
    steps: int = 100  # a finished run goes further with more
    token_budget: int = 0  # ends the training once so many tokens have gone through updates; 0: steps alone do
    seed: int = 0
    out: str = ""  # folder of the run; empty: runs/EXPERIMENT/MODEL-TASK-SEED
    smoke: bool = False  # shrink what no flag sets to a minute's work

    learning_rate: float = 5e-4
    warmup_updates: int = 5  # optimiser updates until the full learning rate; 0 for none
    max_grad_norm: float = 1.0  # gradients of a larger global norm are scaled down to it
    lora_rank: int = 0  # train adapters of this rank and nothing else; 0: train everything
    lora_alpha: float = 0.0  # what the adapters' outputs are multiplied with, times the rank; 0: twice the rank
    dtype: str = "float32"  # of activations and matmuls; parameters stay float32
    mesh: str = ""  # devices over data,fsdp,tensor, as 1,4,2; empty: all there are over fsdp
    hosts: str = ""  # several processes: auto (TPU pods, SLURM), or HOST:PORT,COUNT,NUMBER of each
    remat: bool = False  # recompute activations instead of keeping them; not on CPUs, whose compiler undoes it

    max_tokens: int = 72  # longest completion
    temperature: float = 1.0  # of everything that is sampled; 0: the most probable token
    eval_problems: int = 500  # held-out problems before and after, of each held-out set
    eval_samples: int = 1  # completions for each of them
    save_every: int = 20  # steps between checkpoints
    profile: str = ""  # steps to trace to OUT/profile, as 3 or 3-5
    export: bool = False  # write the tuned model to OUT/model, and adapters to OUT/adapters


class Study:
    """`limits` are those of the experiment's own flags; `sampling` and `rows`, completions side by side, of what it
    samples."""

    def __init__(
        self,
        cfg: Tuning,
        name: str,
        limits: Mapping[str, tuple[float, float]],
        *,
        sampling: Sampling | None = None,
        rows: int = 256,
    ):
        check_limits(cfg, LIMITS | dict(limits))
        self.sampling, self.rows = sampling or Sampling(cfg.temperature), rows
        self.graders: dict[str, Reward] = {}
        """Of evaluations, beside the strict and the lenient one."""
        self.cfg, self.name, self.console = cfg, name, Console(highlight=False, quiet=not is_main_process())
        self.console.print(f"loading {cfg.model} and {cfg.task}")
        self.config, params, self.tokenizer = load_model(cfg.model)
        self.task = load_task(cfg.task, cfg.data or os.environ.get("JAXREASON_DATA"))
        self.held_out = {key: self.task.held_out[key][: cfg.eval_problems] for key in SETS if key in self.task.held_out}
        self.mesh, self.rules = mesh_from_flag(cfg.mesh), partition_rules(self.config)
        for name in BATCHES:
            if self.mesh and hasattr(cfg, name):
                check_mesh(self.mesh, self.config, name, getattr(cfg, name))
        remat = cfg.remat and jax.default_backend() != "cpu"
        self.model = Transformer(self.config, choose("dtype", cfg.dtype, DTYPES), remat, self.mesh)
        self.sampler = self.asked(self.model)
        check_prompts(
            self.sampler, chain(self.task.train, *self.held_out.values()), max_tokens=cfg.max_tokens, config=self.config
        )
        joined = params if self.mesh and self.mesh.shape["tensor"] > 1 else fuse(params)
        self.base, self.lora = shard_params(joined, self.mesh, self.rules), None
        if cfg.lora_rank:
            alpha, self.rules = cfg.lora_alpha or 2.0 * cfg.lora_rank, ADAPTERS
            self.lora = init_lora(jax.random.key(cfg.seed), params, rank=cfg.lora_rank, alpha=alpha)
            self.lora = self.lora._replace(adapters=shard_params(self.lora.adapters, self.mesh, ADAPTERS))
        self.frozen = self.lora and attach_scale(self.base, self.lora)
        self.optimizer = make_optimizer(
            cfg.learning_rate, warmup_updates=cfg.warmup_updates, max_norm=cfg.max_grad_norm
        )

    @cached_property
    def folder(self) -> RunFolder:
        """Made when it is first needed, so that what is refused before leaves nothing behind."""
        cfg, task = self.cfg, self.task.name.replace(":", "-")
        place = f"{Path(cfg.model).resolve().name}-{task}-{cfg.seed}" + "-smoke" * cfg.smoke
        return RunFolder(Path(cfg.out or f"runs/{self.name}/{place}"), asdict(cfg))

    def asked(self, model: Transformer, tokenizer: Tokenizer | None = None) -> ProblemSampler:
        """How a model, with this tokenizer or another one, answers the task's problems."""
        words = tokenizer or self.tokenizer
        sample = transformer_sampler(model, words, self.sampling, max_tokens=self.cfg.max_tokens, rows=self.rows)
        return ProblemSampler(partial(self.encode, tokenizer=words), sample, words)

    def encode(self, problem: Problem, tokenizer: Tokenizer | None = None) -> list[int]:
        return encode_prompt(tokenizer or self.tokenizer, messages(self.task, problem, self.cfg.shots))

    def lesson(self, problem: Problem, completion: str) -> Document:
        """The problem as it is asked, and an answer to be learned."""
        answer = encode_answer(self.tokenizer, messages(self.task, problem, self.cfg.shots), completion)
        return prompt_completion(self.encode(problem), answer, f"{self.task.name} problem {problem.index}")

    def lessons(self, samples: Sequence[dict[str, Any]]) -> list[Document]:
        """Sampled answers to training problems (`Evaluation.samples`), to be learned."""
        problems = {problem.index: problem for problem in self.task.train}
        return [self.lesson(problems[sample["index"]], sample["completion"]) for sample in samples]

    def written(
        self,
        name: str,
        params: Params,
        problems: Sequence[Problem],
        *,
        group_size: int,
        key: Key[Array, ""],
        model: Transformer | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> list[dict[str, Any]]:
        """`Evaluation.samples` of answers to training problems, by `params` of this or another `model` called `name`;
        what they cost is added to OUT/written.jsonl."""
        sampler = self.sampler if model is None else self.asked(model, tokenizer)
        summary, samples = evaluate(params, problems, sampler=sampler, group_size=group_size, key=key)
        cost = {"tokens": summary["tokens"], "seconds": summary["seconds_sampling"]}
        self.folder.append("written.jsonl", [{"name": name, "answers": len(samples), **cost}])
        self.console.print(f"{name}: {summary['pass@1']:.1%} of {len(samples)} answers are right")
        return samples

    def updates(self, loss: Callable, *given: Any, micro_batches: int = 1) -> Callable:
        """The jitted `supervised_update` on `loss(params, batch, *given)`, on the study's mesh; donates the state."""
        update = partial(supervised_update, loss=loss, optimizer=self.optimizer, micro_batches=micro_batches)

        def kept(state: TrainState, batch: Any, *given: Any, frozen: Params) -> tuple[TrainState, Metrics]:
            state, metrics = update(state, batch, *given, frozen=frozen)
            return constrain_params(state, self.mesh, self.rules), metrics

        jitted = jax.jit(kept, donate_argnums=0)
        return lambda state, batch: jitted(state, shard_batch(batch, self.mesh), *given, frozen=self.frozen)

    def reference(self) -> Params:
        """The model before tuning; a copy, where training takes over the original."""
        return self.base if self.lora is not None else jax.tree.map(jnp.copy, self.base)

    def run(self, advance: Advance) -> dict[str, Any]:
        """Measures, trains along `advance`, measures again; writes everything and returns the summary."""
        before = self.folder.load_or_compute("before.json", lambda: self.measure(self.base, "before"))
        trained = self.train(self.base if self.lora is None else self.lora.adapters, advance)
        if self.cfg.export:
            self.export(trained)
        after = self.measure(merge_trees(self.frozen, trained), "after")
        title = f"{self.name}: {self.cfg.model} on {self.cfg.task}"
        return conclude(self.folder, before, after, title=title, console=self.console)

    def train(self, params: Params, advance: Advance) -> Params:
        """`params`, which are taken over, after the last step."""
        cfg, state = self.cfg, init_sharded_state(params, self.optimizer, self.cfg.seed, self.mesh, self.rules)
        how = {"steps": cfg.steps, "save_every": cfg.save_every, "token_budget": cfg.token_budget}
        how |= {"profile": cfg.profile}
        return train(state, advance, **how, folder=self.folder, console=self.console, title=self.name).params

    def measure(self, params: Params, label: str) -> dict[str, dict[str, Any]]:
        """Each held-out set."""
        return evaluate_sets(params, self.held_out, self.evaluate, self.console, label)

    def evaluate(self, params: Params, problems: Sequence[Problem]) -> Evaluation:
        key = jax.random.fold_in(jax.random.key(self.cfg.seed), EVALUATION)
        how = {"sampler": self.sampler, "group_size": self.cfg.eval_samples, "graders": self.graders}
        return evaluate(params, problems, key=key, **how)

    def export(self, trained: Params) -> None:
        trained = gather_to_host(trained)
        merged = self.merged(trained)
        if self.lora is not None and is_main_process():
            save_lora(self.folder.path / "adapters", Lora(trained, self.lora.scale), base=self.cfg.model)
        if is_main_process():
            save_folder(self.folder.path / "model", merged, self.config, self.tokenizer)

    def merged(self, trained: Params) -> Params:
        """What was trained, on the host, as plain parameters."""
        if self.lora is None:
            return trained
        return merge(unfuse(gather_to_host(self.base), self.config), Lora(trained, self.lora.scale))
