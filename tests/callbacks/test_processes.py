"""Two processes: each row counts once, one result, the same training, and no process that waits for ever."""

import pytest
import pytorch_lightning as pl
from torch.utils.data import SubsetRandomSampler

from lightning_leep import LEEPCallback, advise
from lightning_leep.records import TransferabilityReport, load_history
from tests._helpers.block_networks import Network
from tests._helpers.distributed import fork_server, run_processes
from tests._helpers.fits_on_two_processes import everything, sorted_by_process
from tests._helpers.small_transfer import DATA, FEW_SCORES, Classifier, fit, make_source, reference_scores, train_loader

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return run_processes(everything, 2, str(tmp_path_factory.mktemp("processes")), timeout=150)


def single_process_report(source, **kwargs):
    fit(Classifier(), callback := LEEPCallback(source, strict=True, **kwargs))
    return callback.report.to_dict()


def scores(report):
    """What depends on the rows alone, not on the time nor on how labels are shuffled."""
    varying = ("seconds", "samples_per_second", "notes", "layers")
    layers = {f"{layer['name']}: {n}": value for layer in report["layers"] for n, value in layer.items()}
    return layers | {n: value for n, value in report.items() if n not in varying and not n.startswith("permutation")}


def assert_same_scores(report, other):
    found, wanted = scores(report), scores(other)
    numbers = {name for name, value in wanted.items() if isinstance(value, float)}
    assert {n: found[n] for n in numbers} == pytest.approx({n: wanted[n] for n in numbers}, rel=1e-6, abs=1e-6)
    assert {n: v for n, v in found.items() if n not in numbers} == {n: v for n, v in wanted.items() if n not in numbers}


def test_two_processes_score_as_one(seen):
    assert scores(seen[0]["scored report"]) == scores(seen[1]["scored report"])
    assert_same_scores(seen[0]["scored report"], single_process_report(make_source()))
    assert_same_scores(seen[0]["own source report"], single_process_report(None, scoring=FEW_SCORES))


def test_subset_is_the_same_on_any_number_of_processes(seen):
    rows = train_loader(shuffle=False, sampler=SubsetRandomSampler(range(21)))
    expected = single_process_report(make_source(), max_samples=15, dataloader=rows, scoring=FEW_SCORES)
    assert_same_scores(seen[0]["subset report"], expected)
    assert seen[0]["subset report"]["num_samples"] == 15


def expected_leep(rows=slice(None)):
    images, labels = (tensor[rows] for tensor in DATA.tensors)
    return pytest.approx(reference_scores(make_source().eval()(images), labels)["leep"], abs=1e-6)


def notes_on(report, text):
    return [note for note in report["notes"] if text in note]


def test_each_row_counts_once(seen):
    for rank in (0, 1):
        for name in ("function", "partial, own weights", "list of batches", "one batch"):
            report = seen[rank][f"{name} report"]
            assert (report["leep"], report["num_samples"]) == (expected_leep(), 50), name
            assert not notes_on(report, "processes")
        assert seen[rank]["three rows report"]["num_samples"] == 3  # no row is repeated to fill up


def test_what_cannot_be_divided_is_scored_on_each_and_noted(seen):
    report = seen[0]["stream report"]
    assert (report["leep"], report["num_samples"]) == (expected_leep(), 100)
    said = "Each of the 2 processes scored all that `dataloader`, a DataLoader of a Stream, yields"
    assert len(notes_on(report, said)) == 1


def test_processes_with_other_labels_find_one_number_of_classes(seen):
    rows = sorted_by_process()
    for rank in (0, 1):
        for name in ("classes apart", "classes apart, second pass"):
            report = seen[rank][f"{name} report"]
            assert (report["num_target_classes"], report["num_samples"]) == (3, len(rows))
            assert report["leep"] == expected_leep(rows)
            assert notes_on(report, "The number of target classes, 3, was found from the labels")


def test_training_is_the_same_with_and_without(seen):
    for rank in (0, 1):
        assert seen[rank]["with callbacks"] == seen[rank]["failed"] == seen[rank]["plain"]
        assert seen[rank]["resumed"] == seen[rank]["resumed plain"]
        assert seen[rank]["apart"] == seen[rank]["apart plain"]
        assert len(seen[rank]["plain"]["losses"]) == 6
    assert seen[0]["plain"]["batches"] != seen[1]["plain"]["batches"]
    assert seen[0]["plain"]["weights"]["head.weight"] == seen[1]["plain"]["weights"]["head.weight"]


def test_wrapper_of_the_module_is_not_called(seen):
    """Its forward pass is a collective: with uneven shares it would wait for ever."""
    assert [seen[rank]["wrapper calls"] for rank in (0, 1)] == [0, 0]


def test_resumed_run_does_not_score(seen):
    for rank in (0, 1):
        assert seen[rank]["resumed report"] == seen[0]["scored report"]
        assert "resumed error" not in seen[rank]


def test_fault_warns_once_where_it_happened(seen):
    for rank in (0, 1):
        assert "failed error" not in seen[rank]
        for name in ("one process failed", "all processes failed", "failed to start"):
            assert seen[rank][f"{name} report"] is None
    start = "LEEPCallback could not score the source model: "
    ((everywhere,), (on_second, to_start)) = (seen[rank]["failed warnings"] for rank in (0, 1))
    assert everywhere.startswith(f"{start}RuntimeError: no memory left on (0, 1)")
    assert on_second.startswith(f"{start}RuntimeError: no memory left on (1,)")
    assert to_start.startswith(f"{start}OSError: disk not mounted here")


def test_strict_raises_on_every_process(seen):
    assert seen[1]["strict error"] == "RuntimeError: no memory left on (1,)"
    assert seen[0]["strict error"] == "OtherProcessError: Process 1 failed; see the error there."
    assert seen[0]["strict"]["losses"] == []


def test_one_record_is_saved_and_all_agree_on_the_forecast(seen):
    assert seen[0]["scored forecast"] == seen[1]["scored forecast"] is not None
    # Each process has a folder of its own; that of the second one must stay empty.
    first, second = (load_history(f"{seen[0]['folder']}/{rank}") for rank in (0, 1))
    assert [record.test_size for record in first] == [40]
    assert len(second) == 0


def test_processes_stop_together_as_the_first_one_decides(seen):
    epochs = [[seen[rank][f"stuck on {stuck} epochs"] for rank in (0, 1)] for stuck in (0, 1)]
    assert epochs[0][0] == epochs[0][1] < 8
    assert epochs[1] == [8, 8]
    for stuck in (0, 1):
        assert seen[0][f"stuck on {stuck}"]["weights"] == seen[1][f"stuck on {stuck}"]["weights"]


def test_processes_train_the_same_layers_and_have_one_advice(seen):
    """And no parameter is unused, which would end the fit."""
    first, second = (seen[rank]["from a layer on"]["weights"] for rank in (0, 1))
    before = {f"net.{name}": value.tolist() for name, value in Network().named_parameters()}
    weights = before.keys() & first.keys() - {"net.head.weight", "net.head.bias"}
    assert {name: first[name] for name in weights} == {name: second[name] for name in weights}
    moved = {name for name in weights if first[name] != before[name]}
    assert not any(name.startswith(("net.stem", "net.blocks.0", "net.shift")) for name in moved)
    assert {"net.blocks.1.second.weight", "net.norm.weight"} <= moved
    advice = advise(TransferabilityReport.from_dict(seen[0]["advised report"]), test_size=40)
    assert seen[0]["recommended"] == seen[1]["recommended"] == advice.choice.trained_from
    assert seen[0]["advised forecast"] == seen[1]["advised forecast"]
    (record,) = load_history(f"{seen[0]['folder']}/advised")
    assert (record.trained_from, record.recommended) == ("blocks.1", seen[0]["recommended"])


def test_processes_that_the_trainer_starts_itself():
    """The callback travels to them, and its source still shares its layers with the module."""
    fork_server()  # the Trainer's processes get a pickled callback, as with "spawn", but import nothing again
    source = make_source()
    callback = LEEPCallback(source, strict=True)
    strategy = pl.strategies.DDPStrategy(start_method="forkserver")
    trainer = fit(Classifier(source), callback, strategy=strategy, devices=2, max_epochs=1)
    expected = single_process_report(make_source())
    assert trainer.callback_metrics["leep/predicted_accuracy"].item() == pytest.approx(
        expected["multi_layer_probe_accuracy"]
    )
    assert "leep/achieved_accuracy" in trainer.callback_metrics
