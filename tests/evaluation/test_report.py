"""What the plots draw, and the cells of the tables, against the numbers they were given."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import t

from jaxreason.evaluation import before_after, one_line, plot_curve, plot_sets, plot_tokens, plot_training, sets_table

SUMMARY = {"n": 50, "pass@1": 0.4, "se": 0.07, "low": 0.3, "high": 0.55}
SUMMARY |= {"lenient_pass@1": 0.5, "lenient_se": 0.08, "lenient_low": 0.35, "lenient_high": 0.65}
SUMMARY |= {"length_mean": 20.0, "truncated_share": 0.1, "tokens": 1000, "seconds_sampling": 1.0}


def test_training_curves(tmp_path):
    steps = range(1, 31)
    rows = [{"step": i, "strict_share": i / 30, "lenient_share": 0.9, "loss": 30.0 - i, "other": 1} for i in steps]
    figure = plot_training(rows, tmp_path / "training.png", title="run")
    accuracy, loss = figure.axes  # only panels with metrics
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("accuracy", "loss")
    points, average, *lenient = accuracy.lines
    np.testing.assert_allclose(points.get_xydata(), [(i, i / 30) for i in steps])
    np.testing.assert_allclose(average.get_ydata()[1:-1], [i / 30 for i in range(2, 30)])  # a line stays one
    assert len(lenient) == 2 and set(lenient[0].get_ydata()) == {0.9}
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")


def test_sets_with_intervals(tmp_path):
    figure = plot_sets({"a": SUMMARY, "b": SUMMARY | {"pass@1": 0.0, "low": 0.0}}, tmp_path / "sets.png", title="sets")
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [0.4, 0.0]
    assert [bar.get_width() for bar in right.patches] == [20.0, 20.0]
    (errors,) = left.collections
    ends = [segment[:, 0] for segment in errors.get_segments()]
    np.testing.assert_allclose(ends, [(0.3, 0.55), (0.0, 0.55)], atol=1e-12)


def test_tokens_are_shaded_and_framed(tmp_path):
    rows = [("How many?", ["a", " b\n", "c"], [0.0, 2.0, 1.0], [False, True, False])]
    (axes,) = plot_tokens(rows, tmp_path / "tokens.png", title="tokens").axes
    heading, *tokens = axes.texts
    assert heading.get_text() == "How many?" and [text.get_text() for text in tokens] == ["a", "·b⏎", "c"]
    assert [text.get_position()[1] for text in tokens] == [1, 1, 2]  # a newline ends the line
    boxes = [text.get_bbox_patch() for text in tokens]
    assert [box.get_facecolor()[2] for box in boxes] == pytest.approx([1.0, 0.0, 0.5])
    assert [box.get_edgecolor()[3] for box in boxes] == [0.0, 1.0, 0.0]


def cells(table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_tables():
    right = {"before": [1, 0, 0, 0], "after": [1, 1, 1, 0]}
    samples = {when: [{"index": i, "strict": grade} for i, grade in enumerate(right[when])] for when in right}
    sets = {when: {"summary": SUMMARY, "samples": samples[when]} for when in samples}
    before = {"held-out": sets["before"], "new": sets["before"]}
    after = {"held-out": {"summary": SUMMARY | {"pass@1": 0.5}, "samples": samples["after"]}, "new": sets["before"]}
    table = before_after(before, after)
    assert cells(table) == [
        ["n", "50 problems", "50 problems"],
        ["pass@1", "40.0 % [30.0, 55.0]", "50.0 % [30.0, 55.0]"],
        ["lenient_pass@1", "50.0 % [35.0, 65.0]", "50.0 % [35.0, 65.0]"],
        ["length_mean", "20.0 tokens", "20.0 tokens"],
        ["truncated_share", "10.0 %", "10.0 %"],
        ["pass@1, new", "40.0 % [30.0, 55.0]", "40.0 % [30.0, 55.0]"],
    ]
    # differences 0 1 1 0 and one each of +1/2, -1/2 and 0: mean 2/6, mean square 3/6, t of three degrees of freedom
    half = t.ppf(0.975, 3) * np.sqrt((3 / 6 - (2 / 6) ** 2) / 6)
    _, main, other = table.caption.splitlines()
    assert main == f"pass@1, held-out: +50.0 points [{100 * (2 / 6 - half):+.1f}, {100 * min(1, 2 / 6 + half):+.1f}]"
    assert other.startswith("pass@1, new: +0.0 points [-")
    expected = ["a", "40.0 % [30.0, 55.0]", "50.0 % [35.0, 65.0]", "20.0 tokens", "10.0 %"]
    assert cells(sets_table({"a": SUMMARY})) == [expected]
    assert one_line(SUMMARY) == "pass@1 40.0 % [30.0, 55.0], lenient 50.0 % [35.0, 65.0], 50 problems"


def test_a_moving_average_is_centred():
    """The average of a straight line is that line, away from its ends, whatever the number of steps."""
    for steps in (19, 20, 40, 45):
        axes = Figure().subplots()
        plot_curve(axes, np.arange(steps), 2.0 * np.arange(steps), label="x")
        _, average = axes.lines
        inside = slice(5, -5)
        np.testing.assert_allclose(average.get_ydata()[inside], average.get_xdata()[inside] * 2.0)
