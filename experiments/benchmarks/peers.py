"""What the benchmarks measure: calls that do the work once, of this project and of its peers on the same weights.

A peer raises `ImportError` where it is not installed, or does not have the model's family.
"""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxreason.models import ModelConfig, Transformer, fuse
from jaxreason.objectives import GRPO
from jaxreason.sampling import Sampler, Sampling, TransformerDecoder, completion_keys, pad_prompts
from jaxreason.tasks import load_task
from jaxreason.text import Document, Tokenizer
from jaxreason.training import (
    MicrobatchedUpdate,
    init_state,
    make_batch,
    make_optimizer,
    make_sft_batch,
    sft_loss,
    supervised_update,
)
from jaxreason.weights import load_folder


def transformers_generate(folder: Path, ids: list[list[int]], *, group_size: int, tokens: int) -> Callable[[], None]:
    """Samples `group_size` completions of exactly `tokens` tokens for every prompt, padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    width = max(map(len, ids))
    prompts = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in ids])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in ids])

    def call() -> None:
        made = model.generate(
            input_ids=prompts,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=group_size,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        assert made.shape == (len(prompts) * group_size, width + tokens)

    return call


def tunix_sampler(
    folder: Path, config: ModelConfig, ids: list[list[int]], *, group_size: int, tokens: int
) -> Callable[[], None]:
    """The same with the vanilla sampler of tunix, whose prompts are repeated and padded to a power of two."""
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
        embed_dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        num_heads=config.heads,
        head_dim=config.head_dim,
        num_kv_heads=config.kv_heads,
        rope_theta=config.rope.theta,
        norm_eps=config.norm_eps,
        weight_tying=config.tie_embeddings,
    )
    model = llama3_params.create_model_from_safe_tensors(str(folder), sizes, dtype=jnp.float32)
    width = 1 << (max(map(len, ids)) - 1).bit_length()  # it pads prompts to a power of two
    cache = CacheConfig(width + tokens + 1, config.layers, config.kv_heads, config.head_dim)
    peer = Peer(model, Ids(), cache)
    prompts = [" ".join(map(str, prompt)) for prompt in ids for _ in range(group_size)]

    def call() -> None:
        peer(
            prompts,
            eos_tokens=[config.vocab - 1],
            seed=0,
            temperature=1.0,
            top_p=1.0,
            max_generation_steps=tokens,
            max_prompt_length=width,
        )

    return call


def prompts_of(tokenizer: Tokenizer, count: int, length: int) -> list[str]:
    """Questions after as many solved ones as make up `length` tokens."""
    problems, prompts = iter(load_task("grade-school").train), []
    while len(prompts) < count:
        text = f"{next(problems).question}\n"
        while len(tokenizer.encode(text)) < length:
            problem = next(problems)
            text = f"{problem.question}\n{problem.solution}\n#### {problem.answer}\n\n{text}"
        prompts.append(text)
    return prompts


def our_sampler(folder: Path, ids: list[list[int]], *, group_size: int, tokens: int) -> Callable[[], None]:
    """Samples `group_size` completions of exactly `tokens` tokens for every prompt."""
    config, params, _ = load_folder(folder)
    sample = Sampler(TransformerDecoder(Transformer(config)), Sampling(), max_tokens=tokens, stop_ids=())
    keys = completion_keys(jax.random.key(0), np.arange(len(ids)), group_size)
    return partial(sample, fuse(params), pad_prompts(ids), keys=keys)


def our_grpo_step(
    folder: Path, ids: list[list[int]], rewards: np.ndarray, *, tokens: int, memory: float
) -> Callable[[], None]:
    """One step of ours, the update in parts of at most `memory` bytes of activations."""
    config, params, _ = load_folder(folder)
    model, optimizer = Transformer(config), make_optimizer(1e-6)
    sample = Sampler(TransformerDecoder(model), Sampling(), max_tokens=tokens, stop_ids=())
    update = MicrobatchedUpdate(model=model, algorithm=GRPO, optimizer=optimizer, activation_bytes=memory)
    prompts, states = pad_prompts(ids), [init_state(fuse(params), optimizer, seed=0)]

    def step() -> None:
        state = states.pop()
        keys = completion_keys(jax.random.fold_in(state.key, state.step), np.arange(len(ids)), rewards.shape[1])
        rollouts = sample(state.params, prompts, keys=keys)
        state, _ = update(state, make_batch(rollouts, rewards, GRPO))
        states.append(jax.block_until_ready(state))

    return step


def trl_step(
    folder: Path, prompts: list[str], rewards: np.ndarray, *, tokens: int, rounds: int, rows: int = 0
) -> Callable[[], None]:
    """One step of TRL's `GRPOTrainer`, at most `rounds` times: it trains in a thread that waits to be asked.

    `rows` completions go through its update at a time, by default all.
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    settings = GRPOConfig(
        output_dir=str(folder.parent / "trl"),
        per_device_train_batch_size=rows or rewards.size,
        gradient_accumulation_steps=rewards.size // (rows or rewards.size),
        num_generations=rewards.shape[1],
        max_completion_length=tokens,
        generation_kwargs={"min_new_tokens": tokens},
        max_steps=rounds,
        learning_rate=1e-6,
        beta=0.0,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        shuffle_dataset=False,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        reward_funcs=lambda completions, **_: rewards.reshape(-1).tolist(),
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": prompts * rounds}),
        processing_class=tokenizer,
    )
    return one_step_at_a_time(trainer)


def our_sft_step(
    folder: Path, documents: list[Document], *, rows: int, length: int, micro_batches: int
) -> Callable[[], None]:
    """One step of fine-tuning on documents, packed into rows."""
    config, params, _ = load_folder(folder)
    optimizer, sizes = make_optimizer(1e-6), {"rows": rows, "length": length}
    update = partial(supervised_update, loss=partial(sft_loss, model=Transformer(config)), optimizer=optimizer)
    update = jax.jit(partial(update, micro_batches=micro_batches), donate_argnums=0)
    batch = make_sft_batch(documents, **sizes)
    states = [init_state(fuse(params), optimizer, seed=0)]

    def step() -> None:
        state, _ = update(states.pop(), batch)
        states.append(jax.block_until_ready(state))

    return step


def trainer_step(folder: Path, documents: list[Document], *, rounds: int) -> Callable[[], None]:
    """The same with transformers' `Trainer`, at most `rounds` times: a row for each document, padded to the longest."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    settings = TrainingArguments(
        output_dir=str(folder.parent / "trainer"),
        per_device_train_batch_size=len(documents),
        max_steps=rounds,
        learning_rate=1e-6,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    width = max(len(document.tokens) for document in documents)
    rows = [{name: torch.tensor(values) for name, values in padded(document, width).items()} for document in documents]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return one_step_at_a_time(Trainer(model, settings, train_dataset=rows * rounds))


def padded(document: Document, width: int) -> dict[str, list[int]]:
    """As transformers' collators do: padded on the right, what is not learned labelled -100."""
    tokens, learned = list(document.tokens), document.loss_mask or [True] * len(document.tokens)
    labels = [token if is_learned else -100 for token, is_learned in zip(tokens, learned, strict=True)]
    rest = width - len(tokens)
    mask = [1] * len(tokens) + [0] * rest
    return {"input_ids": tokens + [0] * rest, "labels": labels + [-100] * rest, "attention_mask": mask}


def one_step_at_a_time(trainer) -> Callable[[], None]:
    """A trainer of transformers' kind, in a thread that waits to be asked for each step."""
    from transformers import TrainerCallback

    go, done, errors = threading.Semaphore(0), threading.Semaphore(0), []

    class Waiting(TrainerCallback):
        def on_step_begin(self, *args, **kwargs) -> None:
            go.acquire()

        def on_step_end(self, *args, **kwargs) -> None:
            done.release()

    trainer.add_callback(Waiting())

    def train() -> None:
        try:
            trainer.train()
        except Exception as error:
            errors.append(error)
            done.release()

    threading.Thread(target=train, daemon=True).start()

    def step() -> None:
        go.release()
        done.acquire()
        if errors:
            raise errors[0]

    return step
