"""The README's commands and its library example do what they say."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_library_examples_run(capsys):
    learning, asking = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    exec(compile(learning, "README.md", "exec"), {})
    reward, grad_norm = map(float, capsys.readouterr().out.split())
    assert 0 < reward < 1 and grad_norm > 0
    exec(compile(asking, "README.md", "exec"), {})
    assert "####" in (printed := capsys.readouterr().out) and "flops=" in printed


@cache
def flags_of(program: str) -> set[str]:
    command = [sys.executable, *program.split(), "--help"]
    return flags_in(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


COMMANDS = re.findall(r"python (experiments/[\w/]+\.py|-m jaxreason\.\w+)([^`|&#\n]*)", README)


@pytest.mark.parametrize(("program", "arguments"), [each for each in COMMANDS if "--" in each[1]])
def test_every_command_of_the_readme_has_its_flags(program, arguments):
    assert flags_in(arguments) <= flags_of(program) | {"--help"}


def test_every_flag_of_the_readme_exists():
    programs = [f"experiments/{name}.py" for name in ("grpo_gsm8k", "sft", "dpo", "distill", "thinklogit")]
    known = set.union(*map(flags_of, [*programs, "-m jaxreason.chat", "-m jaxreason.plan"]))
    prose = README
    for program, arguments in COMMANDS:
        prose = prose.replace(f"python {program}{arguments}", "")
    assert flags_in(prose) - known - {"--no-deps", "--xla"} == set()


@pytest.mark.parametrize("file", sorted(set(re.findall(r"(?<![\w/.-])((?:\w+/)+\w+\.py)\b", README))))
def test_every_file_of_the_readme_exists(file):
    assert (ROOT / file).exists() or (ROOT / "jaxreason" / file).exists()


@pytest.mark.parametrize("folder", re.findall(r"^  (\w+)/  ", README, flags=re.M))
def test_every_folder_of_the_readme_exists(folder):
    assert (ROOT / "jaxreason" / folder / "__init__.py").exists()
