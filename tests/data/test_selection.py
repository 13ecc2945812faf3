"""Selection among samples, by hand."""

from jaxreason.data import deduplicate, filter_correct, make_pairs, source


def sample(index, completion, strict, truncated=False, model="a") -> dict:
    return {"index": index, "completion": completion, "strict": strict, "truncated": truncated, "model": model}


SAMPLES = [
    sample(0, "1+1 = 2", 1.0),
    sample(0, "1+1  =  2\n", 1.0),  # equal up to whitespace
    sample(0, "2", 1.0),
    sample(0, "two, of course", 1.0),
    sample(0, "3", 0.0),
    sample(1, "so 7 and", 1.0, truncated=True),
    sample(1, "8", 0.0),
    sample(0, " \n", 0.0, model="b"),
    sample(0, "2", 1.0, model="b"),
    sample(0, "4", 0.0, model="b"),
]


def test_distinct_completions_of_each_problem():
    assert [row["completion"] for row in filter_correct(SAMPLES, max_per_problem=2)] == ["1+1 = 2", "2"]
    completions = [row["completion"] for row in deduplicate(SAMPLES, max_per_problem=9)]
    assert completions == ["1+1 = 2", "2", "two, of course", "3", "4", "8"]


def test_pairs_by_the_source_of_each_side():
    def texts(pair_types, limit):
        pairs = make_pairs(SAMPLES, pair_types, max_per_problem=limit)
        return [(chosen["completion"], rejected["completion"]) for chosen, rejected in pairs]

    assert texts([("a right", "a wrong")], 1) == [("1+1 = 2", "3")]
    assert texts([("a right", "b wrong"), ("b wrong", "a wrong")], 2) == [("1+1 = 2", "4"), ("4", "3")]
    assert texts([("b right", "b wrong")], 1) == [("2", "4")]  # although another model has the same text
    assert texts([("a right", "c wrong")], 1) == []
    assert source(SAMPLES[-1]) == "b wrong"
