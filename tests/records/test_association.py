"""P(y|z) in a record: it survives JSON, and what is no matrix of probabilities with its names is refused."""

import json
import math

import pytest

from lightning_leep.records import TransferRecord
from lightning_leep.records.association import Association
from tests._helpers.simulated_transfers import make_record

GOOD = {"targets": ["cat", "</script>"], "sources": ["tabby"], "p": [[0.75], [0.25]], "left_out": "Shown: all."}


def test_round_trip_through_the_json_of_a_record_which_may_lack_it():
    record = make_record(association=Association.from_dict(GOOD))
    again = TransferRecord.from_json(record.to_json())
    assert again.association == record.association
    values = json.loads(record.to_json())
    assert values["association"] == GOOD
    del values["association"]  # as in older records
    assert TransferRecord.from_dict(values).association is None


@pytest.mark.parametrize(
    "damage",
    [{"targets": ["a"]}, {"targets": []}, {"targets": ["a", 3]}, {"targets": ["a", math.nan]}, {"sources": 3},
     {"sources": ["a"] * 21, "p": [[0.5] * 21] * 2}, {"targets": ["a", "b" * 41]}, {"p": [[0.5]]}, {"p": [[2], [0]]},
     {"p": [[math.nan], [0]]}, {"p": [[True], [0]]}, {"p": [["0"], [0]]}, {"p": [[0.5, 0.5], [0.5, 0.5]]}, {"p": 3},
     {"left_out": math.nan}, {"more": 1}],
)  # fmt: skip
def test_what_is_no_association_is_refused(damage):
    with pytest.raises(ValueError, match="damaged"):
        TransferRecord.from_dict({**make_record().to_dict(), "association": {**GOOD, **damage}})


@pytest.mark.parametrize("value", [3, "x", [GOOD]])
def test_only_an_association_is_accepted(value):
    with pytest.raises(TypeError, match="association"):
        make_record(association=value)
