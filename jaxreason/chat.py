"""Talk to a model in the terminal: `python -m jaxreason.chat --model tiny`.

With `--guide` and `--base` a small reasoner guides it (ThinkLogit). A line is a turn; `/new` forgets the conversation,
`/quit` or Ctrl-D ends it. Questions may also come through a pipe, one a line.
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
    load_inference_model,
    stream,
    thinking_format,
)
from jaxreason.runs import check_limits, choose, main
from jaxreason.runs.study import DTYPES
from jaxreason.sampling import Sampling
from jaxreason.sampling.rollout import check_prompt


@dataclass(frozen=True)
class Config:
    model: str = "tiny"  # alias, folder with safetensors, .gguf file or Hugging Face repository id
    guide: str = ""  # a small reasoner that guides the model while it decodes; with --base
    base: str = ""  # the model that the guide was made from
    mapped: str = ""  # tokens of model and guide, if they differ: text, or a JSON file of tokens
    alpha: float = 1.0  # strength of the guidance
    guide_after: int = 0  # tokens of an answer that the model writes alone
    max_tokens: int = 256  # of an answer, thinking included
    thinking_budget: int = -1  # tokens after which thinking has to end; 0: no thinking; -1: no limit
    hide_thinking: bool = False  # show only how long it was
    temperature: float = 0.7
    top_p: float = 1.0
    seed: int = 0
    dtype: str = "float32"


LIMITS = {"max_tokens": (1, inf), "thinking_budget": (-1, inf), "alpha": (-inf, inf), "guide_after": (0, inf)}
LIMITS |= {"temperature": (0, 1e3), "seed": (0, 2**32 - 1)}
ANSWER_TOKENS = 64  # that are left for the answer when thinking is cut


def run(cfg: Config) -> None:
    check_limits(cfg, LIMITS)
    console = Console(highlight=False, soft_wrap=True)
    guided = {"guide": cfg.guide, "base": cfg.base, "mapped": cfg.mapped, "alpha": cfg.alpha, "warmup": cfg.guide_after}
    how = {
        "sampling": Sampling(cfg.temperature, top_p=cfg.top_p),
        "max_tokens": cfg.max_tokens,
        "ask": lambda asked: asked,
    }
    reasoner = load_inference_model(cfg.model, dtype=choose("dtype", cfg.dtype, DTYPES), **guided, **how)
    budget = cfg.max_tokens if cfg.thinking_budget < 0 else cfg.thinking_budget
    if budget + ANSWER_TOKENS > cfg.max_tokens and cfg.thinking_budget >= 0:
        raise InputError(
            f"--thinking-budget {budget} and {ANSWER_TOKENS} tokens for the answer are more than --max-tokens "
            f"{cfg.max_tokens}: lower one or raise the other"
        )
    style, turns, key = thinking_format(reasoner.tokenizer), [], jax.random.key(cfg.seed)
    for count, line in enumerate(questions(console)):
        if line == "/new":
            turns = []
            console.print("a new conversation")
            continue
        turns.append({"role": "user", "content": line})
        try:
            prompt = reasoner.prompt(turns)
            for config in reasoner.configs:
                check_prompt(prompt.tokens, cfg.max_tokens, config, "this conversation", "a model's")
        except InputError as error:
            turns.pop()
            console.print(f"{error}; /new begins another one", style="red")
            continue
        said = answer(reasoner, prompt, jax.random.fold_in(key, count), budget, style, cfg, console)
        turns.append({"role": "assistant", "content": said})


def questions(console: Console) -> Iterator[str]:
    """Lines from whoever asks, without the blank ones, until `/quit` or the end."""
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
    reasoner: InferenceModel,
    prompt: Prompt,
    key: jax.Array,
    budget: int,
    style: ThinkingFormat,
    cfg: Config,
    console: Console,
) -> str:
    """Writes an answer to the console as it comes, thinking dimmed or hidden, and returns its text."""
    tokenizer, speech, written = reasoner.tokenizer, IncrementalDetokenizer(reasoner.tokenizer), []
    mark = tokenizer.backend.token_id(style.end) if style.end else None
    limited = cfg.thinking_budget >= 0

    def add(tokens: Iterable[int], dim: bool) -> None:
        for token in tokens:
            written.append(token)
            if token not in tokenizer.stop_ids and (text := speech.add(token)) and not (dim and cfg.hide_thinking):
                console.print(Text(text, style="dim" if dim else ""), end="")

    def say(most: int, ends: tuple[int, ...], turn: int, dim: bool) -> None:
        begun = reasoner.extended(prompt, written)
        add(stream(reasoner, begun, jax.random.fold_in(key, turn), most=most, stop_ids=ends), dim)

    if budget:
        say(budget, tokenizer.stop_ids if mark is None else (*tokenizer.stop_ids, mark), 0, limited or mark is not None)
    last = written[-1] if written else None
    if limited and last != mark and last not in tokenizer.stop_ids:
        add(tokenizer.encode_continuation(style.close), True)
        last = mark
    if cfg.hide_thinking and written:
        console.print(Text(f"({len(written)} tokens of thinking) ", style="dim"), end="")
    if last == mark and (limited or mark is not None) and len(written) < cfg.max_tokens:
        say(cfg.max_tokens - len(written), tokenizer.stop_ids, 1, False)
    console.print()
    return speech.said


if __name__ == "__main__":
    main(run, Config, __doc__)
