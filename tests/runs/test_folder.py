"""The files of a run survive what ends one: kills inside a line, full disks, strange text."""

import json
import math
import subprocess
import sys
from pathlib import Path
from socket import gethostname

import pytest

from jaxreason.errors import InputError
from jaxreason.runs.folder import RunFolder

SAMPLES = [{"step": 1, "completion": "a\u2028b\u0085c\nd 二"}]


def test_resuming_keeps_whole_lines_up_to_the_step_and_drops_the_rest(tmp_path):
    folder = RunFolder(tmp_path, {"seed": 0})
    folder.resume(0)
    for step in (1, 2, 3):
        folder.log({"step": step, "loss": math.nan}, [{**SAMPLES[0], "step": step}])
    folder.close()
    with open(tmp_path / "samples.jsonl", "ab") as file:
        file.write('{"step": 4, "completion": "二'.encode()[:-1])  # a kill in the middle of a character
    RunFolder(tmp_path, {"seed": 0}).resume(2)
    lines = (tmp_path / "samples.jsonl").read_text().split("\n")
    assert [json.loads(line)["step"] for line in lines[:-1]] == [1, 2]
    assert json.loads(lines[0])["completion"] == SAMPLES[0]["completion"]
    assert folder.metrics() == [{"step": 1, "loss": None}, {"step": 2, "loss": None}]


def test_another_config_is_refused_with_every_difference(tmp_path):
    RunFolder(tmp_path, {"seed": 0, "group_size": 8, "steps": 5})
    RunFolder(tmp_path, {"seed": 0, "group_size": 8, "steps": 9})
    with pytest.raises(InputError, match="group_size = 8, not 4, seed = 0, not 1: choose another --out"):
        RunFolder(tmp_path, {"seed": 1, "group_size": 4, "steps": 9})


def test_other_folders_and_damaged_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"not a folder of such a run, it holds 'thesis.tex': choose another --out"):
        RunFolder(tmp_path, {"seed": 0})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    run = tmp_path / "run"
    RunFolder(run, {"seed": 0})
    (run / "before.json").write_text('{"n": 5')
    with pytest.raises(InputError, match=r"before\.json is not JSON .* delete it or choose another --out"):
        RunFolder(run, {"seed": 0}).load_or_compute("before.json", dict)
    (run / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="not a folder of such a run"):
        RunFolder(run, {"seed": 0})
    (run / "config.json").write_text('{"see')
    with pytest.raises(InputError, match=r"config\.json is not JSON"):
        RunFolder(run, {"seed": 0})


def test_a_run_that_went_further_is_not_taken_for_a_shorter_one(tmp_path):
    RunFolder(tmp_path, {"steps": 10}).resume(10)
    with pytest.raises(InputError, match="at step 10 already, beyond --steps 5: give at least 10, or another --out"):
        RunFolder(tmp_path, {"steps": 5}).resume(10)
    assert json.loads((tmp_path / "config.json").read_text()) == {"steps": 10}


def test_a_full_disk_is_named_with_the_file(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    folder = RunFolder(tmp_path, {})
    (tmp_path / "samples.jsonl").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"samples\.jsonl cannot be written \(No space left on device\)"):
        folder.log({"step": 1}, SAMPLES)


def test_a_recipe_is_stored_and_another_one_refused(tmp_path):
    RunFolder(tmp_path, {"seed": 0}).record("recipe", "grpo")
    RunFolder(tmp_path, {"seed": 0}).record("recipe", "grpo")
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 0, "recipe": "grpo"}
    with pytest.raises(InputError, match="recipe = 'grpo', not 'rloo': choose another --out"):
        RunFolder(tmp_path, {"seed": 0}).record("recipe", "rloo")


def test_an_untouched_folder_is_discarded_and_no_other(tmp_path):
    new = RunFolder(tmp_path / "new", {"seed": 0})
    new.discard_if_untouched()
    assert not new.path.exists()
    used = RunFolder(tmp_path / "used", {"seed": 0})
    used.load_or_compute("before.json", dict)
    used.discard_if_untouched()
    assert (used.path / "config.json").exists()
    again = RunFolder(used.path, {"seed": 0})
    (used.path / "before.json").unlink()
    again.discard_if_untouched()
    assert (used.path / "config.json").exists()  # it was made by another start


HOLD = """
import sys, time
from pathlib import Path
from socket import gethostname
from jaxreason.runs.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]), {"seed": 0})
print("open", flush=True)
time.sleep(600)
"""


def test_a_folder_has_one_writer(tmp_path):
    run, config = tmp_path / "run", {"seed": 0}
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(
            InputError, match=rf"run is written to by process {owner.pid} on .*: wait for it, or choose"
        ):
            RunFolder(run, config)
        owner.kill()
    folder = RunFolder(run, config)  # kill -9 left the lock behind: it is taken over
    RunFolder(run, config).close()  # the same process may open it again
    folder.close()
    assert not (run / ".lock").exists()
    (run / ".lock").write_text(f"{2**22 + 1}\n{gethostname()}\n")  # no such process
    RunFolder(run, config).close()
    (run / ".lock").write_text("1\nanother-host\n")
    with pytest.raises(InputError, match=r"by process 1 on another-host: if it is gone, delete .*\.lock, or choose"):
        RunFolder(run, config)


def test_a_lost_runtimes_lock_on_drive_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxreason.runs.folder.DRIVE", tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("1\nanother-host\n")
    RunFolder(tmp_path / "run", {"seed": 0}).close()
