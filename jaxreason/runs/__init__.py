"""The edge of the library: flags, command line, runs and what an experiment composes."""

from jaxreason.runs.cli import main, parse, run_experiment
from jaxreason.runs.config import (
    PRETRAINED_DEFAULTS,
    SMOKE_DEFAULTS,
    AlgorithmFlags,
    DataFlags,
    DeviceFlags,
    DistillFlags,
    EvaluationFlags,
    ModelFlags,
    OptimizerFlags,
    PairFlags,
    PolicyConfig,
    PolicySamplingFlags,
    RolloutFlags,
    RunFlags,
    SamplingFlags,
    TrainConfig,
    check_divides,
    check_limits,
    choose,
    defaults,
    flag,
    flatten,
    set_flags,
    with_defaults,
)
from jaxreason.runs.evaluation import (
    evaluate_run,
    evaluate_sets,
    evaluation_key,
    export_model,
    generate_samples,
    merged_params,
    problem_means,
    validation_metrics,
)
from jaxreason.runs.examples import (
    count_pair_types,
    load_teacher,
    sampled_examples,
    sft_example,
    teacher_examples,
    write_pairs,
)
from jaxreason.runs.folder import RunFolder, read_rows, write_csv, write_json, write_text
from jaxreason.runs.jitted_updates import make_grpo_update, make_policy_update, make_update, resolve_algorithm, timed
from jaxreason.runs.notebook import notebook_folder, notebook_run, runtime
from jaxreason.runs.run import Run
from jaxreason.runs.setup import (
    Setup,
    evaluation_sets,
    initial_state,
    load_setup,
    load_task,
    make_graders,
    make_monitors,
    make_optimizer,
    make_reference,
    make_reward,
    make_sampler,
    make_scorer,
    needs_scores,
)

__all__ = [
    "PRETRAINED_DEFAULTS", "SMOKE_DEFAULTS", "AlgorithmFlags", "DataFlags", "DeviceFlags", "DistillFlags",
    "EvaluationFlags", "ModelFlags", "OptimizerFlags", "PairFlags", "PolicyConfig", "PolicySamplingFlags",
    "RolloutFlags", "Run", "RunFlags", "RunFolder", "SamplingFlags", "Setup", "TrainConfig", "check_divides",
    "check_limits", "choose", "count_pair_types", "defaults", "evaluate_run", "evaluate_sets", "evaluation_key",
    "evaluation_sets", "export_model", "flag", "flatten", "generate_samples", "initial_state", "load_setup",
    "load_task", "load_teacher", "main", "make_graders", "make_grpo_update", "make_monitors", "make_optimizer",
    "make_policy_update", "make_reference", "make_reward", "make_sampler", "make_scorer", "make_update",
    "merged_params", "needs_scores", "notebook_folder", "notebook_run", "parse", "problem_means", "read_rows",
    "resolve_algorithm", "run_experiment", "runtime", "sampled_examples", "set_flags", "sft_example",
    "teacher_examples", "timed", "validation_metrics", "with_defaults", "write_csv", "write_json", "write_pairs",
    "write_text",
]  # fmt: skip
