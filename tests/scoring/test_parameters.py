"""Parameters of a source and of its layers, against sizes counted by hand."""

import dataclasses

import pytest
import torch
from torch import nn

from lightning_leep import TransferabilityReport, score, score_outputs
from lightning_leep.records.layers import LayerScore
from lightning_leep.records.report import check_report
from tests._helpers.head_sources import Parts

C = 2
Y = torch.arange(24) % C
BATCHES = [(torch.randn(24, 3, 4, 4, generator=torch.Generator().manual_seed(0)), Y)]


def block(inputs, width):
    return Parts(
        lambda s, x: s.b(s.a(x).relu()), a=nn.Conv2d(inputs, width, 1), b=nn.Conv2d(width, width, 1, bias=False)
    )


def make_source():
    """Stem, stage, transition, stage, normalisation, head; and a scale of its own."""
    source = Parts(
        lambda s, x: s.fc(s.norm(s.stage2(s.transition(s.stage1(s.conv(x * s.scale)))).mean((2, 3)))),
        conv=nn.Conv2d(3, 4, 1),
        stage1=nn.Sequential(block(4, 5), block(5, 5)),
        transition=nn.Conv2d(5, 6, 1),
        stage2=nn.Sequential(block(6, 7), block(7, 7)),
        norm=nn.LayerNorm(7),
        fc=nn.Linear(7, 9),
    )
    source.scale = nn.Parameter(torch.ones(1, 3, 1, 1))
    return source


SIZES = {
    "stem": 3 + (3 * 4 + 4),
    "stage1.0": (4 * 5 + 5) + 5 * 5,
    "stage1.1": (5 * 5 + 5) + 5 * 5,
    "stage2.0": (5 * 6 + 6) + (6 * 7 + 7) + 7 * 7,
    "stage2.1": (7 * 7 + 7) + 7 * 7,
    "head input": 7 + 7,
}
HEAD = 7 * 9 + 9


def run(source, **kwargs):
    return score(source, BATCHES, C, progress=False, num_permutations=0, **kwargs)


def counts(report):
    return {layer.name: layer.num_parameters for layer in report.layers}


def test_each_layer_counts_what_lies_before_it_and_the_head_counts_in_none():
    report = run(make_source())
    assert counts(report) == SIZES
    assert report.num_parameters == sum(SIZES.values()) + HEAD
    assert TransferabilityReport.from_json(report.to_json()) == dataclasses.replace(report, joint=None)


def test_named_layers_share_out_the_same_parameters():
    found = counts(run(make_source(), layers=["stage1.0", "stage1", "stage2"]))
    before = SIZES["stem"] + SIZES["stage1.0"]
    assert found == {"stage1.0": before, "stage1": SIZES["stage1.1"], "stage2": SIZES["stage2.0"] + SIZES["stage2.1"]}


def test_a_shared_layer_counts_once_and_another_run_has_none():
    source = make_source()
    source.stage2[1] = source.stage2[0]
    source.stage2[0].a = nn.Conv2d(6, 6, 1)
    source.stage2[0].b = nn.Conv2d(6, 6, 1, bias=False)
    source.norm, source.fc = nn.LayerNorm(6), nn.Linear(6, 9)
    report = run(source)
    found = counts(report)
    assert report.num_parameters == sum(p.numel() for p in source.parameters())
    assert sum(found.values()) == report.num_parameters - (6 * 9 + 9)
    assert sorted(found[name] for name in found if name.startswith("stage2")) == [0, (5 * 6 + 6) + (6 * 6 + 6) + 36]


def test_lazy_layers_count_once_they_have_a_shape():
    source = nn.Sequential(nn.Flatten(), nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, 3))
    report = run(source)
    assert report.num_parameters == (48 * 5 + 5) + (5 * 6 + 6) + (6 * 3 + 3)
    assert counts(report) == {"stem": 48 * 5 + 5, "2": 0, "4": 5 * 6 + 6}  # a layer ends with its activation


def test_a_function_and_outputs_computed_before_have_none():
    source = make_source()
    assert run(lambda x: source(x)).num_parameters is None
    assert run(source.forward).num_parameters == run(source, layers=None).num_parameters == run(source).num_parameters
    report = score_outputs(torch.randn(24, 3), Y, C, features=torch.randn(24, 2), layers={"a": torch.randn(24, 2)})
    assert report.num_parameters is None
    assert counts(report) == {"a": None, "head input": None}


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_impossible_numbers_are_refused(value, error):
    with pytest.raises(error, match="`num_parameters`"):
        LayerScore(name="a", width=1, kept_width=1, num_parameters=value)
    report = score_outputs(torch.randn(24, 3), Y, C)
    with pytest.raises(error, match="`num_parameters`"):
        check_report(dataclasses.replace(report, num_parameters=value))
