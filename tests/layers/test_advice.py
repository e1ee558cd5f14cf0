"""What to train: the choices, their costs, and which one is recommended and why."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_leep import advise
from lightning_leep.forecast import forecast_accuracy
from lightning_leep.layers.layer_transfer import LayerTransfer
from lightning_leep.records.layers import LayerScore
from tests._helpers.simulated_transfers import make_record, make_report

NAMES = ("stem", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "head input")
SIZES = (10, 20, 30, 40, 50, 60, 70, 20)


def report(head=0.6, together=0.75, earlier=0.5, names=NAMES, sizes=SIZES, rows_per_class=200, **values):
    """Layers that are no better than the head's, but for the third, which has ``earlier``."""
    accuracies = [min(0.4, head or 0.4)] * (len(names) - 1) + [head]
    accuracies[2] = earlier
    layers = [
        LayerScore(name=name, width=8, kept_width=8, probe_accuracy=p, num_parameters=size, feeds_head=last)
        for name, p, size, last in zip(names, accuracies, sizes, [False] * (len(names) - 1) + [True], strict=True)
    ]
    known = {"multi_layer_probe_accuracy": together, "layers": tuple(layers)}
    return make_report(5, rows_per_class, probe=head, **{**known, **values})


def by_name(advice):
    return {choice.what: choice for choice in advice.choices}


def test_four_ways_with_what_each_costs():
    choices = by_name(advise(report()))
    costs = {what: (choice.trained_share, choice.backward_share) for what, choice in choices.items()}
    assert costs == {
        "a linear head on the last features": (0.0, 0.0),
        "a linear head on layer1.1": (0.0, 0.0),
        "from layer3.0 on": ((60 + 70 + 20) / 300, 3 / 8),
        "all layers": (1.0, 1.0),
    }


def test_each_has_the_forecast_of_what_it_trains():
    scores, history = report(), [make_record(0.6, report=report(head=p)) for p in (0.55, 0.6, 0.65)]
    choices = by_name(advise(scores, history, test_size=90))
    options = {"history": history, "test_size": 90}
    part = forecast_accuracy(scores, trainable="part", trained_from="layer3.0", **options)
    assert choices["a linear head on the last features"].forecast == forecast_accuracy(scores, **options)
    assert choices["from layer3.0 on"].forecast == part
    assert choices["all layers"].forecast == forecast_accuracy(scores, trainable="all", **options)
    assert choices["a linear head on layer1.1"].forecast.value == 0.5


def test_a_head_on_a_projected_layer_is_said_to_reach_more_perhaps():
    plain = report()
    layers = [replace(layer, width=512, kept_width=80) for layer in plain.layers]
    advice = advise(replace(plain, layers=tuple(layers)))
    assert [note for note in advice.notes if "may reach more" in note] == [
        "A head on layer1.1 may reach more: 80 of its 512 features were scored."
    ]
    assert not any("may reach more" in note for note in advise(plain).notes)


def test_parameters_of_a_function_are_unknown():
    layers = tuple(replace(layer, num_parameters=None) for layer in report().layers)
    advice = advise(report(layers=layers))
    assert {choice.trained_share for choice in advice.choices} == {None}
    assert "unknown" in str(advice)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (("stem", "layer1.0", "layer1.1", "layer1.2", "layer2.0", "layer2.1", "layer2.2"), "layer2.0"),
        (("stem", *(f"blocks.{i}" for i in range(12)), "head input"), "blocks.8"),  # one row: its last third
        (("0", "2", "4", "head input"), "4"),
        (("a.0", "a.1", "b.0", "c.0"), "c.0"),  # the last row has one layer
        (("stem", "a.0", "a.1", "b.0", "a.2", "a.3"), "a.3"),  # the last row is not one
        (("a", "a (run 2)", "b", "c", "d (run 2)"), "c"),
        (("stem", "a", "b"), None),  # two layers have no stages
    ],
)
def test_the_last_stage(names, first):
    advice = advise(report(names=names, sizes=(5,) * len(names)))
    part = [choice.trained_from for choice in advice.choices if choice.trainable == "part"]
    assert part == ([] if first is None else [first])


@pytest.mark.parametrize(
    ("scores", "chosen", "why"),
    [
        ({"head": 0.6, "together": 0.8}, "all layers", "No cheaper way is expected to reach as much"),
        ({"head": 0.785, "together": 0.8}, "from layer3.0 on", "cannot be told from the best, all layers (0.800)"),
        ({"head": 0.75, "together": 0.75}, "a linear head on the last features", "cannot be told apart on 1000 rows"),
        (
            {"head": 0.8, "together": 0.7},
            "a linear head on the last features",
            "No costlier way",
        ),
        # With 50 rows a standard error is 0.064, with 10,000 it is 0.005.
        ({"head": 0.7, "together": 0.72, "rows_per_class": 10}, "a linear head on the last features", "told apart"),
        ({"head": 0.7, "together": 0.72, "rows_per_class": 2000}, "from layer3.0 on", "cannot be told from the best"),
        ({"head": 0.6, "together": 0.64, "earlier": 0.75}, "a linear head on layer1.1", "cheaper way"),
        # A standard error is 0.015: the best of seven layers may be better than the last one by two of them by luck.
        ({"head": 0.6, "together": 0.6, "earlier": 0.629}, "a linear head on the last features", "told apart"),
    ],
)
def test_the_cheapest_that_cannot_be_told_from_the_best(scores, chosen, why):
    advice = advise(report(**scores))
    assert advice.choice.what == chosen
    assert why in advice.describe()
    assert chosen in advice.describe()


@pytest.mark.parametrize(("earlier", "said"), [(0.805, True), (0.5, False), (0.95, False)])
def test_a_higher_forecast_that_was_passed_over_is_explained(earlier, said):
    """Beside it, "no cheaper way is expected to reach as much" looks wrong."""
    advice = advise(report(head=0.79, together=0.8, earlier=earlier))
    assert ("a linear head on layer1.1 counts less" in advice.describe()) == said


@pytest.mark.parametrize(
    "values",
    [{"layers": ()}, {"together": None}, {"head": None}, {"together": math.nan}, {"head": 0.21, "together": 0.22}],
    ids=str,
)
def test_when_nothing_can_be_told_it_says_so(values):
    advice = advise(report(**{"earlier": 0.2, **values}))
    assert advice.choice is None
    assert advice.describe().startswith("Nothing can be recommended: ")
    assert advice.describe() in str(advice)
    with pytest.raises(ValueError, match="Nothing can be recommended"):
        advice.callback()


@given(
    st.floats(0.05, 1),
    st.floats(0.05, 1),
    st.floats(0.05, 1),
    st.integers(4, 400),
)
def test_nothing_recommended_is_clearly_below_the_best(head, together, earlier, rows_per_class):
    advice = advise(report(head, together, earlier, rows_per_class=rows_per_class))
    best = max((c for c in advice.choices if not c.reads), key=lambda c: c.forecast.value)
    if advice.choice is not None:
        gap = best.forecast.value - advice.choice.forecast.value
        assert gap <= max(0.005, 0.5 * math.hypot(best.standard_error, advice.choice.standard_error))
    assert json.loads(json.dumps(advice.to_dict(), allow_nan=False))["recommended"] == advice.recommended


@pytest.mark.parametrize(
    ("rows_per_class", "leep", "words"),
    [
        (20, -0.1, "Little data, similar"),
        (200, -0.1, "Much data, similar"),
        (20, -1.6, "Little data, different"),
        (200, -1.6, "Much data, different"),
        (200, math.nan, "is unknown"),
    ],
)
def test_the_row_of_the_table_in_words(rows_per_class, leep, words):
    advice = advise(report(rows_per_class=rows_per_class, leave_one_out_leep=leep))
    assert words in advice.data
    assert f"{rows_per_class} rows a class" in advice.data
    if math.isfinite(leep):  # the floor is the entropy of 5 equal classes
        assert f"{max(0, 1 + leep / math.log(5)):.0%}" in advice.data


@pytest.mark.parametrize(
    ("scores", "first"),
    [
        ({"head": 0.7, "together": 0.7}, "head"),
        ({"head": 0.785, "together": 0.8}, "layer3.0"),
        ({"together": 0.9}, None),
    ],
)
def test_the_callback_trains_what_is_recommended(scores, first):
    callback = advise(report(**scores)).callback(learning_rates=0.5)
    assert isinstance(callback, LayerTransfer)
    assert (callback.trained_from, callback.learning_rates) == (first, 0.5)


def test_a_head_on_an_earlier_layer_needs_another_module():
    with pytest.raises(ValueError, match=r"a linear head on layer1\.1, for which the module must be built anew"):
        advise(report(earlier=0.9)).callback()


@pytest.mark.parametrize(
    ("given", "options", "error", "named"),
    [
        ({"leep": -1.0}, {}, TypeError, "report"),
        (report(), {"test_size": 0}, ValueError, "test_size"),
        (report(), {"history": "transfer_history"}, TypeError, "history"),
    ],
)
def test_bad_input_is_named(given, options, error, named):
    with pytest.raises(error, match=f"`{named}`"):
        advise(given, **options)


def test_it_prints_as_a_table():
    lines = str(advise(report(together=0.9))).splitlines()
    assert lines[0].split("  ")[0] == "what to train"
    assert len({line.index("0.") for line in lines[1:5]}) == 1  # the columns are aligned
    assert [line for line in lines if " *" in line] == [lines[4]]
    assert lines[4].startswith("all layers *")
    assert lines[4].split()[-2:] == ["100%", "100%"]
    assert lines[5].startswith("* recommended")
    assert max(map(len, lines[:6])) <= 80
