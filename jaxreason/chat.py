"""Chat with a model in the terminal: `python -m jaxreason.chat --model tiny`.

With `--guide` and `--base` a small reasoner guides it (ThinkLogit). A line is a turn; `/new` starts a new conversation,
`/quit` or Ctrl-D ends the chat. Questions may also come through a pipe, one a line.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf

import jax
from rich.console import Console
from rich.text import Text

from jaxreason.errors import InputError
from jaxreason.inference import (
    IncrementalDetokenizer,
    InferenceModel,
    Prompt,
    ThinkingFormat,
    detect_thinking_format,
    load_guided_model,
    load_inference_model,
    stream,
)
from jaxreason.runs import check_limits, choose, flag, main
from jaxreason.runs.setup import DTYPES
from jaxreason.sampling import Sampling
from jaxreason.tasks import Problem


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    guide: str = ""  # a small reasoner that guides the model while it decodes; with --base
    base: str = ""  # the model that the guide was made from
    token_map: str = ""  # for a guide with another vocabulary: text, or a JSON file of tokens
    alpha: float = flag(1.0, -inf)  # strength of the guidance
    warmup: int = flag(0, 0)  # tokens of an answer that the model samples alone
    max_tokens: int = flag(256, 1)  # of an answer, thinking included
    thinking_budget: int = flag(-1, -1)  # tokens after which thinking has to end; 0: no thinking; -1: no limit
    hide_thinking: bool = False  # show only its length
    temperature: float = flag(0.7, 0, 1e3)
    top_p: float = 1.0
    seed: int = flag(0, 0, 2**32 - 1)
    dtype: str = "float32"


ANSWER_TOKENS = 64  # reserved for the answer when thinking is cut


def run(cfg: Config) -> None:
    check_limits(cfg)
    console = Console(highlight=False, soft_wrap=True)
    model = load(cfg)
    budget = cfg.max_tokens if cfg.thinking_budget < 0 else cfg.thinking_budget
    if budget + ANSWER_TOKENS > cfg.max_tokens and cfg.thinking_budget >= 0:
        raise InputError(
            f"--thinking-budget {budget} and {ANSWER_TOKENS} answer tokens are more than --max-tokens "
            f"{cfg.max_tokens}: lower one or raise the other"
        )
    thinking_format, turns = detect_thinking_format(model.tokenizer), []
    for count, line in enumerate(questions(console)):
        if line == "/new":
            turns = []
            console.print("a new conversation")
            continue
        turns.append({"role": "user", "content": line})
        try:
            prompt = model.encode(turns)
            model.check_prompt(prompt, "this conversation")
        except InputError as error:
            turns.pop()
            console.print(f"{error}; /new starts another one", style="red")
            continue
        key = jax.random.fold_in(jax.random.key(cfg.seed), count)
        text = answer(model, prompt, key, budget, thinking_format, cfg, console)
        turns.append({"role": "assistant", "content": text})


def load(cfg: Config) -> InferenceModel:
    def question(problem: Problem) -> str:
        return problem.question

    sampling, dtype = Sampling(cfg.temperature, top_p=cfg.top_p), choose("dtype", cfg.dtype, DTYPES)
    if not (cfg.guide or cfg.base):
        return load_inference_model(cfg.model, sampling, cfg.max_tokens, question, dtype=dtype)
    return load_guided_model(
        cfg.model,
        cfg.guide,
        cfg.base,
        sampling,
        cfg.max_tokens,
        question,
        token_map=cfg.token_map,
        alpha=cfg.alpha,
        warmup=cfg.warmup,
        dtype=dtype,
    )


def questions(console: Console) -> Iterator[str]:
    """Lines of standard input, without blank ones, until `/quit` or its end."""
    while True:
        try:
            line = (console.input("[bold]> [/bold]") if sys.stdin.isatty() else input()).strip()
        except EOFError:
            return
        if line == "/quit":
            return
        if line:
            yield line


def answer(
    model: InferenceModel,
    prompt: Prompt,
    key: jax.Array,
    budget: int,
    thinking_format: ThinkingFormat,
    cfg: Config,
    console: Console,
) -> str:
    """Prints an answer as it is sampled, thinking dimmed or hidden, and returns its text."""
    tokenizer, detokenizer = model.tokenizer, IncrementalDetokenizer(model.tokenizer)
    tokens: list[int] = []
    end_id = tokenizer.backend.token_id(thinking_format.end) if thinking_format.end else None
    limited = cfg.thinking_budget >= 0

    def show(new_tokens: Iterable[int], dim: bool) -> None:
        for token in new_tokens:
            tokens.append(token)
            text = "" if token in tokenizer.stop_ids else detokenizer.add(token)
            if text and not (dim and cfg.hide_thinking):
                console.print(Text(text, style="dim" if dim else ""), end="")

    def sample(max_tokens: int, stop_ids: tuple[int, ...], phase: int, dim: bool) -> None:
        prefix, phase_key = model.extend(prompt, tokens), jax.random.fold_in(key, phase)
        show(stream(model, prefix, phase_key, max_tokens=max_tokens, stop_ids=stop_ids), dim)

    if budget:
        thinking_ends = tokenizer.stop_ids if end_id is None else (*tokenizer.stop_ids, end_id)
        sample(budget, thinking_ends, 0, limited or end_id is not None)
    last = tokens[-1] if tokens else None
    if limited and last != end_id and last not in tokenizer.stop_ids:
        show(tokenizer.encode_continuation(thinking_format.close), True)
        last = end_id
    if cfg.hide_thinking and tokens:
        console.print(Text(f"({len(tokens)} tokens of thinking) ", style="dim"), end="")
    if last == end_id and (limited or end_id is not None) and len(tokens) < cfg.max_tokens:
        sample(cfg.max_tokens - len(tokens), tokenizer.stop_ids, 1, False)
    console.print()
    return detokenizer.text


if __name__ == "__main__":
    main(run, Config, __doc__)
