"""Rankings in figures and loggers."""

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_leep import SourceRanking, rank_sources
from lightning_leep.records.ranking import RankedSource
from lightning_leep.tensorboard.ranking import place_of, ranking_markdown
from tests._helpers.small_zoo import Sees, make_rows
from tests.records.test_ranking import FULL, source

RANKING = SourceRanking.from_dict(FULL.to_dict())


def test_figure_has_a_row_for_each_source_and_a_series_for_each_part():
    figure = RANKING.figure()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["best", "tied", "third"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["head", "all"]
    assert "1 other cannot be told" in " ".join(figure.texts[1].get_text().split())
    empty = SourceRanking(sources=(RankedSource(name="a"),), by="head", trainable=("head",), num_samples=0)
    with pytest.raises(ValueError, match="forecast"):
        empty.figure()


def test_tensorboard_gets_table_and_figure(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    RANKING.log_to(logger, step=3)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Images("ranking/forecasts")[0].step == 3
    (table,) = events.Tensors("ranking/table/text_summary")
    assert b"About 1,200 more" in table.tensor_proto.string_val[0]


def test_a_logger_of_numbers_gets_the_values_that_order(tmp_path):
    RANKING.log_to(CSVLogger(tmp_path, name="", version=""))
    header, values = (tmp_path / "metrics.csv").read_text().splitlines()
    logged = dict(zip(header.split(","), values.split(","), strict=True))
    assert float(logged["ranking/best"]) == 0.9
    assert "ranking/broken" not in logged


def test_markdown_shows_names_as_code_and_marks_one_source():
    named = SourceRanking(
        sources=(source("a|b <b>", 0.9, 1), source("vit", 0.8, 2, gap=0.1)),
        **{"by": "head", "trainable": ("head", "all"), "num_samples": 9, "target": "pets"},
    )
    text = ranking_markdown(named, "vit")
    assert "`vit` has rank 2 of 2" in text
    assert "**`vit`**" in text
    assert "10.0 points more" in text
    assert "`a|b <b>`" in text  # as code, which Markdown leaves alone


def test_place():
    assert place_of(RANKING, "best") == "`best` has rank 1 of 3; 1 other cannot be told from the best."
    assert place_of(RANKING, "broken") == "`broken` was not ranked."
    assert place_of(RANKING, "nobody").startswith("`nobody` is not in this ranking")
    assert place_of(RANKING, "") == ""
    # A gap of a million parameters is not one of points of accuracy.
    by_size = SourceRanking(
        sources=(source("large", 0.9, 1), source("small", 0.8, 2, gap=1e6)),
        **{"by": "num_parameters", "trainable": ("head", "all"), "num_samples": 9},
    )
    assert place_of(by_size, "small") == "`small` has rank 2 of 2: `large` is better."


def test_rank_sources_returns_what_can_be_drawn():
    ranking = rank_sources({"a": Sees(0, 1, 2), "b": Sees(0)}, make_rows(), progress=False)
    assert ranking.figure().axes
    assert SourceRanking.from_dict(ranking.to_dict()) == ranking
