"""Outcomes of single rows as JSON, and reports that hold them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_leep import TransferabilityReport, score_outputs
from lightning_leep.records import AccuracyCurve, TransferRecord
from lightning_leep.records.row_outcomes import RowOutcomes, labels_checksum

shares = st.floats(0, 1, width=16) | st.just(math.nan)
likelihoods = st.floats(-700, 0, width=16) | st.just(math.nan)


@given(st.lists(st.tuples(shares, likelihoods), min_size=1), st.integers(0, 2**32 - 1))
def test_json_keeps_what_half_precision_can(rows, labels):
    outcomes = RowOutcomes(*map(tuple, zip(*rows, strict=True)), labels)
    restored = RowOutcomes.from_dict(outcomes.to_dict())
    for name in ("correct", "log_likelihood"):
        assert getattr(restored, name) == pytest.approx(getattr(outcomes, name), rel=0, abs=0, nan_ok=True)
    assert restored.labels == labels


def test_a_likelihood_below_half_precision_becomes_its_least_number_and_the_checksum_knows_the_order():
    found = RowOutcomes.from_dict(RowOutcomes((1.0, 0.0), (-math.inf, -1e6), 0).to_dict())
    assert found.log_likelihood == (-math.inf, -65504.0)
    assert labels_checksum([0, 1, 1]) == labels_checksum([0, 1, 1]) != labels_checksum([1, 0, 1])


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"correct": "AAAA"}, ValueError, "`correct`.*base 64"),  # three bytes
        ({"correct": "A"}, ValueError, "`correct`.*base 64"),
        ({"correct": "ADw!AAA=="}, ValueError, "`correct`.*base 64"),  # two numbers and a sign of another alphabet
        ({"correct": "AAA="}, ValueError, "one number for each row, got 1 and 2"),
        ({"log_likelihood": 3}, TypeError, "`log_likelihood` must be a text"),
        ({"labels": "3"}, TypeError, "`labels`"),
        ({"labels": -1}, ValueError, "`labels`"),
        ({"more": 1}, ValueError, "`values`"),
    ],
)
def test_damage(change, error, said):
    values = RowOutcomes((1.0, 0.0), (-0.1, -2.0), 5).to_dict() | change
    with pytest.raises(error, match=said):
        RowOutcomes.from_dict(values)


@pytest.mark.parametrize(("correct", "likelihood"), [((1.5,), (0.0,)), ((1.0,), (0.5,)), ((), ()), ((1.0,), ())])
def test_impossible_values(correct, likelihood):
    with pytest.raises(ValueError, match="must"):
        RowOutcomes(correct, likelihood, 0)


@pytest.fixture(scope="module")
def report():
    target = torch.arange(40) % 2
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) + target.unsqueeze(1)
    return score_outputs(features, target, 2, features=features, layers={"first": features[:, :2]})


def test_a_report_keeps_them_in_json_and_spells_them_out_in_no_text(report):
    restored = TransferabilityReport.from_json(report.to_json())
    assert restored == report
    assert restored.linear_probe_rows.labels == report.linear_probe_rows.labels
    assert restored.linear_probe_rows.correct == report.linear_probe_rows.correct
    likelihood = pytest.approx(report.multi_layer_probe_rows.log_likelihood, rel=1e-3)
    assert restored.multi_layer_probe_rows.log_likelihood == likelihood
    assert "of 40 rows" in report.describe()
    assert max(map(len, report.describe().splitlines())) < 400
    assert len(str(report.linear_probe_rows)) < 20


def test_other_numbers_of_rows_are_refused(report):
    values = report.to_dict()
    values["linear_probe_rows"] = RowOutcomes((1.0,), (0.0,), 0).to_dict()
    with pytest.raises(ValueError, match="`linear_probe_rows` must hold outcomes of 40 rows"):
        TransferabilityReport.from_dict(values)
    values["linear_probe_rows"] = "rows"
    with pytest.raises(TypeError, match="`values` must be a mapping"):
        TransferabilityReport.from_dict(values)


def test_a_record_does_not_keep_them(report):
    record = TransferRecord(report=report, curve=AccuracyCurve((1,), (0.9,)), trainable="head")
    restored = TransferRecord.from_json(record.to_json())
    assert restored == record
    assert restored.report.linear_probe_rows is None
    assert len(record.to_json()) < 4000
