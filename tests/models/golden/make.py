"""Writes the golden logits beside this file, with `transformers`: python -m tests.models.golden.make [name ...]

Run it when a tiny model of `families.py` changes on purpose, never to make a failing test pass.
Needs torch, transformers, accelerate and the two pip-installed models; about two minutes on two cores.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from jaxreason.models.config import config_to_hf
from jaxreason.text.tokenizer import tokenizer_from_gguf
from jaxreason.weights.gguf_reader import open_gguf
from jaxreason.weights.hub import PIP_MODELS, pip_model_file
from jaxreason.weights.load import save_folder
from tests.models.families import TINY, tiny_batch, tiny_params, tiny_tokenizer

GOLDEN = Path(__file__).parent
QUESTION = (
    "Question: Natalia sold 48 clips in April, and then she sold half as many clips in May. Each clip costs $1.25. "
    "How much money did she make altogether in April and May?\nAnswer: In May she sold 48 / 2 = <<48/2=24>>24 clips."
)


def saved(family: str, seed: int, folder: Path) -> torch.nn.Module:
    """The tiny model, written by jaxreason and read by transformers; every tensor must be used."""
    cfg = TINY[family]
    save_folder(folder, tiny_params(cfg, seed), cfg, tiny_tokenizer())
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()


def from_gguf(alias: str) -> torch.nn.Module:
    """A pip-installed model, dequantised by transformers."""
    path = pip_model_file(alias)
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
    """Logits [T V] after every token of one sequence, alone and without padding."""
    return model(torch.tensor(tokens, dtype=torch.long)[None]).logits[0].float().numpy()


def tiny_reference(model: torch.nn.Module, family: str, seed: int) -> np.ndarray:
    """Logits [P G S+T V] of each prompt followed by each of its completions, zero after the end."""
    prompts, completions = tiny_batch(TINY[family], seed)
    P, G, T = completions.shape
    out = np.zeros((P, G, prompts.tokens.shape[1] + T, TINY[family].vocab), np.float32)
    for p in range(P):
        prompt = np.asarray(prompts.tokens[p])[np.asarray(prompts.mask[p])]
        for g in range(G):
            row = np.concatenate([prompt, completions[p, g]])
            out[p, g, : len(row)] = logits(model, row)
    return out


def summary(values: np.ndarray) -> dict[str, np.ndarray]:
    """Of logits [T V]: 64 at the last position; the argmax and logsumexp at every position."""
    ids = np.linspace(0, values.shape[-1] - 1, 64).astype(np.int64)
    total = np.logaddexp.reduce(values.astype(np.float64), axis=-1).astype(np.float32)
    return {"ids": ids, "last": values[-1, ids], "argmax": values.argmax(-1), "logsumexp": total}


def main(names: list[str]) -> None:
    for name in names:
        if name in TINY:
            with tempfile.TemporaryDirectory() as folder:
                reference = tiny_reference(saved(name, 0, Path(folder) / name), name, 0)
            np.savez_compressed(GOLDEN / f"{name}.npz", config=json.dumps(config_to_hf(TINY[name])), logits=reference)
        else:
            tokenizer = tokenizer_from_gguf(open_gguf(pip_model_file(name)))
            tokens = np.array([tokenizer.bos_id] * tokenizer.add_bos + tokenizer.encode(QUESTION))
            np.savez_compressed(GOLDEN / f"{name}.npz", tokens=tokens, **summary(logits(from_gguf(name), tokens)))


if __name__ == "__main__":
    main(sys.argv[1:] or [*TINY, *PIP_MODELS])
