"""The README's commands and its library example do what they say."""

import re
import subprocess
import sys
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
    assert "####" in (said := capsys.readouterr().out) and "flops=" in said


def test_every_flag_of_the_readme_exists():
    known = set()
    library = ("../jaxreason/chat.py", "../jaxreason/plan/__main__.py")
    for script in ("grpo_gsm8k.py", "sft.py", "dpo.py", "distill.py", "thinklogit.py", *library):
        command = [sys.executable, ROOT / "experiments" / script, "--help"]
        help_text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        known |= set(re.findall(r"(--[a-z][a-z-]+)", help_text))
    flags = set(re.findall(r"(--[a-z][a-z-]+)", README)) - {"--no-deps", "--xla"}
    assert flags and flags <= known


@pytest.mark.parametrize("folder", re.findall(r"^  (\w+)/  ", README, flags=re.M))
def test_every_folder_of_the_readme_exists(folder):
    assert (ROOT / "jaxreason" / folder / "__init__.py").exists()
