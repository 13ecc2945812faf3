"""Published tasks, a task from a JSONL file, the split, downloads, and error messages."""

import hashlib
import json
import random
import re

import pytest

from jaxreason.errors import InputError
from jaxreason.tasks import Problem, files, load_task, messages
from jaxreason.tasks.files import File


def all_problems(task):
    return sorted(task.train + task.test, key=lambda problem: problem.index)


def test_gsm8k(data):
    task = load_task("gsm8k", data)
    assert (len(task.train), len(task.test)) == (7473, 1319)
    first = task.test[0]
    assert first.question.startswith("Janet\u2019s ducks lay 16 eggs per day.")
    assert (first.answer, first.index) == ("18", 0)
    assert first.solution.startswith("Janet sells 16 - 3 - 4 = 9 duck eggs a day.\n")  # the file has <<16-3-4=9>>9
    assert not any("<<" in problem.solution or ">>" in problem.solution for problem in task.train)
    # facts of the dataset, counted independently of this loader
    assert sum("," in problem.answer for problem in task.train) == 79
    assert sum(problem.answer.startswith("-") for problem in task.test) == 2


def test_tasks_of_one_file(data):
    svamp, mawps, math500 = (load_task(name, data) for name in ("svamp", "mawps", "math500"))
    assert [len(all_problems(task)) for task in (svamp, mawps, math500)] == [1000, 2065, 500]

    assert all_problems(svamp)[0].answer == "145"
    assert "organized into 93 groups. How big is each group of bananas?" in all_problems(svamp)[0].question
    assert sum(".." in problem.question for problem in all_problems(svamp)) == 1  # as in the source

    assert all_problems(mawps)[0].answer == "43"
    answers = {problem.answer for problem in all_problems(mawps)}
    assert {"11.5", "2/3", "10/3"} <= answers and "0.6666666667" not in answers

    assert all_problems(math500)[2].answer == "\\frac{14}{3}"
    for task in (svamp, mawps, math500):
        assert 0.15 < len(task.test) / len(all_problems(task)) < 0.25
        assert not {p.question for p in task.train} & {p.question for p in task.test}
        assert [p.index for p in all_problems(task)] == list(range(len(all_problems(task))))


def test_the_split_depends_on_the_question_only():
    problems = [Problem(f"question {i}", "1", "", i) for i in range(2000)]
    _, test = files.split_by_hash(problems)
    assert abs(len(test) - 2000 * 51 / 256) < 4 * (2000 * 0.2 * 0.8) ** 0.5  # four standard deviations
    random.Random(0).shuffle(problems)
    assert files.split_by_hash(problems)[1] == test
    abc = Problem("abc", "1", "", 0)  # the sha256 of abc begins with ba (FIPS 180-2), far from the lowest fifth
    assert files.split_by_hash([abc]) == ([abc], [])


def write_task(folder, count=60):
    lines = [{"question": f"What is {i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(count - 2)]
    lines += [{"question": "Half of 3?", "answer": 1.5}, {"question": "Half of 4?", "answer": "2"}]
    path = folder / "sums.jsonl"
    path.write_text("\ufeff" + "\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    return path


def test_own_file(tmp_path):
    task = load_task(str(write_task(tmp_path)))
    assert task.name == "sums"
    problems = all_problems(task)
    assert problems[4] == Problem("What is 4 + 1?", "5", "It is 5.", 4)
    assert [(p.answer, p.solution) for p in problems[-2:]] == [("1.5", ""), ("2", "")]
    (turn,) = messages(task, problems[4])
    assert turn["role"] == "user"
    assert turn["content"].startswith("What is 4 + 1?\n\n") and "####" in turn["content"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"question": "q"}', "line 3 lacks the field 'answer'"),
        ('{"question": "q", "answer": true}', "line 3 has 'answer' = true; it must be a str or int or float"),
        ('{"question": "q", "answer": " "}', "line 3 has an empty question or answer"),
        ('{"question": "q", "answer": []}', "line 3 has 'answer' = []; give texts or numbers, at least one"),
        ('{"question": "q", "answer": [{}]}', "line 3 has 'answer' = [{}]; give texts or numbers, at least one"),
        ('{"question": "q", "answer": ["2", ""]}', "line 3 has an empty question or answer"),
        ("question: q", "line 3 is not JSON"),
        ('{"question": "q", "answer": ' + "9" * 5000 + "}", "line 3 is not JSON"),
        ("[" * 100_000, "line 3 is not JSON"),
        ("[1]", "line 3 is not a JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, complaint):
    path = tmp_path / "own.jsonl"
    good = '{"question": "q", "answer": "1"}'
    path.write_text(f"{good}\n{good}\n{line}\n")
    with pytest.raises(InputError, match=re.escape(f"{path} {complaint}")):
        load_task(str(path))


def test_a_list_of_answers_that_are_all_right(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(f'{{"question": "q{i}", "answer": ["2", 3.0, "#### half"]}}\n' for i in range(20)))
    task = load_task(str(path))
    assert {problem.golds for problem in task.train + task.test} == {("2", "3", "#### half")}


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match=r"'gms8k' is unknown, the closest is 'gsm8k'; choose .*, math500, rg:NAME"):
        load_task("gms8k")
    with pytest.raises(InputError, match=r"none\.jsonl cannot be read"):
        load_task(str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="nowhere is not a folder; pass --data FOLDER"):
        load_task("gsm8k", tmp_path / "nowhere")


def test_a_wrong_checksum_is_refused(tmp_path):
    (tmp_path / "math500").mkdir()
    (tmp_path / "math500" / "test.jsonl").write_text("{}\n")
    actual = hashlib.sha256(b"{}\n").hexdigest()
    with pytest.raises(
        InputError, match=rf"test\.jsonl has sha256 {actual}, expected 35dc\w+; replace it with https://"
    ):
        load_task("math500", tmp_path)


def test_a_download_is_verified_before_it_is_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "source.jsonl"
    source.write_bytes(b"problems")
    good = File("toy/test.jsonl", source.as_uri(), hashlib.sha256(b"problems").hexdigest())

    with pytest.raises(InputError, match=r"source\.jsonl has sha256 .*; try again later"):
        files.load_file(good._replace(sha256="0" * 64), None)
    missing = good._replace(url=(tmp_path / "gone").as_uri())
    with pytest.raises(InputError, match=r"gone cannot be downloaded .*pass --data FOLDER containing toy/test\.jsonl"):
        files.load_file(missing, None)
    assert not (tmp_path / "cache").exists()

    assert files.load_file(good, tmp_path) == b"problems"  # not in the data folder, so downloaded
    assert [path.name for path in (tmp_path / "cache" / "jaxreason" / "data" / "toy").iterdir()] == ["test.jsonl"]
    assert files.load_file(missing, None) == b"problems"  # from the cache
    (tmp_path / "cache" / "jaxreason" / "data" / "toy" / "test.jsonl").write_bytes(b"broken")
    with pytest.raises(InputError, match="delete it to download it again"):
        files.load_file(good, None)
