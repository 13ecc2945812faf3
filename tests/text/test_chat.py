"""Chat templates: rendering, sandbox and errors; the loss mask of conversations."""

import pytest
import tokenizers

from jaxreason.errors import InputError
from jaxreason.text.chat import encode_answer, encode_conversation, encode_prompt, render
from jaxreason.text.tokenizer import HuggingFace, Tokenizer

SMOLLM2 = (  # as published with SmolLM2-Instruct
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QUESTION = [{"role": "user", "content": "2 + 2?"}]


def tokenizer(template: str | None, *, add_bos: bool = True) -> Tokenizer:
    """Ids are bytes plus two special tokens: 0 is BOS, 1 ends a turn."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(["<|im_start|>", "<|im_end|>", *alphabet])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    return Tokenizer(HuggingFace(backend), special, add_bos, (1,), template)


def test_smollm2_prompt():
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    user = "<|im_start|>user\n2 + 2?<|im_end|>\n"
    assert render(tokenizer(SMOLLM2), QUESTION) == system + user + "<|im_start|>assistant\n"
    conversation = [{"role": "system", "content": "Be brief."}, *QUESTION, {"role": "assistant", "content": "4"}]
    assert render(tokenizer(SMOLLM2), conversation, add_generation_prompt=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n" + user + "<|im_start|>assistant\n4<|im_end|>\n"
    )


def test_a_template_writes_its_own_bos():
    model = tokenizer("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}")
    content = model.encode("2 + 2?")
    assert encode_prompt(model, QUESTION) == [0, *content, 1]
    assert encode_prompt(model, "2 + 2?") == [0, *content]
    assert encode_prompt(tokenizer(SMOLLM2, add_bos=False), "2 + 2?") == content


def test_a_base_model_reads_the_contents_alone():
    model = tokenizer(None)
    messages = [{"role": "system", "content": "Add."}, *QUESTION]
    assert encode_prompt(model, messages) == [0, *model.encode("Add.\n\n2 + 2?\n")]
    with pytest.raises(InputError, match="no chat template"):
        render(model, messages)


@pytest.mark.parametrize(
    ("template", "text"),
    [  # features that published templates use
        ("  {% if true %}\na\n  {% endif %}\nb", "a\nb"),  # block lines leave no whitespace
        ("{{ {'b': '<é>', 'a': 1} | tojson }}", '{"b": "<é>", "a": 1}'),  # no HTML, no sorting, no ASCII
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "2 + 2?"),
        ("{{ strftime_now('%%') }}", "%"),
        ("{{ thinking }}{{ absent is defined }}", "yesFalse"),
    ],
)
def test_features_of_templates(template, text):
    assert render(tokenizer(template), QUESTION, thinking="yes") == text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for %}", "chat template failed: Expected"),
        ("{{ raise_exception('roles must\n\nalternate') }}", "chat template failed: roles must alternate;"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content + 1 }}", "concatenate"),
        ("{{ messages.nothing.more }}", "no attribute 'nothing'"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ range(10 ** 9) }}", "too big"),
    ],
)
def test_a_failing_template_is_one_line(template, words):
    with pytest.raises(InputError, match=words) as error:
        render(tokenizer(template), QUESTION)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__.__mro__[1].__subclasses__()",
        "''['__class__'].__mro__",
        "(''|attr('__class__')).__mro__",
        "'{0.__class__.__mro__}'.format('')",
        "'{x.__class__.__mro__}'.format_map({'x': ''})",
        "raise_exception.__globals__['os']",
        "strftime_now.__globals__.__builtins__",
        "namespace.__init__.__globals__",
        "lipsum.__globals__.os",
        "cycler.__init__.__globals__.os",
        "self.__init__.__globals__",
        "dict.mro()",
        "messages.append(1)",
        "messages[0].update(role='system')",
        "messages[0].clear()",
    ],
)
def test_templates_cannot_reach_python(expression):
    messages = [dict(QUESTION[0])]
    with pytest.raises(InputError, match=r"unsafe|not safely callable|undefined|has no attribute"):
        render(tokenizer("{{ " + expression + " }}"), messages)
    assert messages == QUESTION
    assert render(tokenizer("{{ ''.__class__ }}"), messages) == ""


@pytest.mark.parametrize("messages", [[{"role": "user"}], ["hello"], [{"role": "user", "content": 3}]])
def test_malformed_messages(messages):
    for template in (SMOLLM2, None):
        with pytest.raises(InputError, match=r"message 0 is .*'role' and 'content'"):
            encode_prompt(tokenizer(template), messages)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_renders_as_hugging_face_does(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = tokenizer(SMOLLM2)
    model.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    conversation = [*QUESTION, {"role": "assistant", "content": "<4>"}]
    for messages in (QUESTION, conversation):
        for opened in (True, False):
            expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
            assert render(model, messages, add_generation_prompt=opened) == expected
        expected = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert encode_prompt(model, messages) == expected


def trained(document) -> list[int]:
    return [token for token, loss in zip(document.tokens, document.loss_mask, strict=True) if loss]


def test_every_assistant_turn_has_a_loss_after_the_prompt_of_the_sampler():
    model = tokenizer(SMOLLM2)
    turns = [*QUESTION, {"role": "assistant", "content": "4"}, {"role": "user", "content": "+ 1?"}]
    turns += [{"role": "assistant", "content": "5"}]
    document = encode_conversation(model, turns)
    assert model.decode(document.tokens) == render(model, turns, add_generation_prompt=False)
    assert trained(document) == [*model.encode("4"), 1, *model.encode("5"), 1]  # stop tokens, no newline
    for end in (1, 3):
        prompt = encode_prompt(model, turns[:end])
        assert document.tokens[: len(prompt)] == prompt
        assert document.loss_mask[len(prompt) - 1 : len(prompt) + 1] == [False, True]
        answer = encode_answer(model, turns[:end], turns[end]["content"])
        assert document.tokens[len(prompt) : len(prompt) + len(answer)] == answer


def test_conversations_without_a_template_or_a_stop_token():
    plain = encode_conversation(tokenizer(None), [*QUESTION, {"role": "assistant", "content": "4"}])
    assert plain.tokens == [0, *tokenizer(None).encode("2 + 2?\n4"), 1] and trained(plain)[-1] == 1
    endless = tokenizer("{% for message in messages %}[{{ message['content'] }}]{% endfor %}")
    document = encode_conversation(endless, [*QUESTION, {"role": "assistant", "content": "4"}])
    assert trained(document) == [*endless.encode("[4]"), 1]


@pytest.mark.parametrize(
    ("turns", "complaint"),
    [
        (QUESTION, "does not end with the assistant's answer"),
        ([{"role": "assistant", "content": "4"}], "does not end with the assistant's answer"),
        ([*QUESTION, {"role": "assistant", "content": " "}], "empty assistant turn"),
    ],
)
def test_conversations_without_a_loss_are_refused(turns, complaint):
    with pytest.raises(InputError, match=complaint):
        encode_conversation(tokenizer(SMOLLM2), turns)


def test_a_template_that_rewrites_history_is_refused():
    last = "{% if loop.last or message['role'] == 'user' %}{{ message['content'] }}{{ eos_token }}{% endif %}"
    forgetful = tokenizer("{% for message in messages %}" + last + "{% endfor %}")
    turns = [*QUESTION, {"role": "assistant", "content": "4"}] * 2
    with pytest.raises(InputError, match="changes the turns before message 3"):
        encode_conversation(forgetful, turns)
