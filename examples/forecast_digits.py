"""Forecasts that learn from a history: run twelve small transfers, then forecast the thirteenth and run it.

    python examples/forecast_digits.py

Each transfer takes a network that knows some handwritten digits and trains a new head for other digits. The transfers
differ in their digits and in the number of images per class. LEEPCallback saves one record per run in a folder; the
forecast of the last transfer is made from the records before it.
"""

import argparse
import logging
import random
import warnings
from functools import cache
from pathlib import Path

import pytorch_lightning as pl
import torch
from digits import DigitClassifier, Digits, pretrain
from lightning_utilities.core import rank_zero
from pytorch_lightning.loggers import TensorBoardLogger
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lightning_leep import LEEPCallback
from lightning_leep.forecast import forecast_accuracy, forecast_convergence
from lightning_leep.records import load_history
from lightning_leep.tensorboard import history_figure, levels_figure, predicted_vs_achieved_figure

#: Digits of the source networks: five each, so that five others remain as targets.
SOURCES = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (0, 2, 4, 6, 8), (1, 3, 5, 7, 9))

network = cache(pretrain)  # the transfers share four source networks


def transfers(seed: int, count: int) -> list[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Source digits, target digits and images per class of each transfer."""
    generator = random.Random(seed)
    tasks = []
    for number in range(count):
        source = SOURCES[number % len(SOURCES)]
        others = [digit for digit in range(10) if digit not in source]
        target = tuple(sorted(generator.sample(others, generator.choice((3, 4, 5)))))
        tasks.append((source, target, generator.choice((5, 10, 20, 40))))
    return tasks


def run(
    source: tuple[int, ...], target: tuple[int, ...], images: int, draw: int, epochs: int, folder: Path, name: str
) -> LEEPCallback:
    """One transfer on images drawn with the seed ``draw``; its record is added to the history."""
    pl.seed_everything(0, verbose=False)
    callback = LEEPCallback(
        source=network(source),
        history=folder / "history",
        target_name=f"digits {''.join(map(str, target))} x {images}",
        source_name=f"digits {''.join(map(str, source))}",
        source_class_names=list(map(str, source)),
    )
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name=name),
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=5,
    )
    trainer.fit(
        DigitClassifier(len(target), trainable="head", source=network(source)),
        Digits(target, images_per_class=images, batch_size=10, seed=draw),
    )
    return callback


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40, help="by default enough for the accuracy to level off")
    parser.add_argument("--earlier", type=int, default=12, help="transfers before the one that is forecast")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/forecast"),
        help="folder for TensorBoard's files, the history and the pictures",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw of digits and numbers of images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*does not have many workers.*|.*treespec.*|.*logging interval.*")
    rank_zero.log.setLevel(logging.ERROR)  # hides Lightning's hints
    console = Console()

    *earlier, last = transfers(arguments.seed, arguments.earlier + 1)
    known = len(load_history(arguments.folder / "history"))
    console.print(f"Running {len(earlier)} transfers for the history (it already holds {known}) ...")
    # Without rules between the columns the table fits into 80 characters.
    table = Table(
        title="Predicted before training, achieved after it (from and to: digits)",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("run", "from", "to", "images", "predicted", "90%", "achieved", "based on"):
        table.add_column(column, justify="left" if column == "based on" else "right", no_wrap=True)
    for number, task in enumerate(earlier, start=1):
        add_row(table, number, task, run(*task, number, arguments.epochs, arguments.folder, f"{number:02d}"))

    past = load_history(arguments.folder / "history").filter(trainable="head")
    number = len(earlier) + 1
    callback = run(*last, number, arguments.epochs, arguments.folder, f"{number:02d}_forecast")
    table.add_section()
    add_row(table, number, last, callback)
    console.print(table)
    report, forecast, curve = callback.report, callback.forecast, callback.curve
    alone = forecast_accuracy(report, test_size=past[-1].test_size)
    convergence = forecast_convergence(report, past)
    inside = "inside" if forecast.low <= curve.best <= forecast.high else "outside"
    console.print(f"\nThe last one. {forecast.describe()}", highlight=False)
    console.print(f"Without the history: {alone.describe()}", highlight=False)
    if convergence is not None:  # it needs curves of more than one validation
        console.print(convergence.describe(), highlight=False)
    for note in forecast.notes:
        console.print(f"Note: {note}", highlight=False)
    console.print(
        f"It achieved {curve.best:.3f}, {inside} the interval; 90% of that after {curve.epochs_to(0.9):g} epochs.",
        highlight=False,
    )
    interval = (forecast.low, forecast.high)
    expected = None if convergence is None else convergence.accuracy(forecast)
    figures = {
        "forecast.png": predicted_vs_achieved_figure(
            curve, forecast.value, f"from {forecast.basis}", interval, expected=expected
        ),
        "history.png": history_figure(report, past, forecast, curve),
        "history_by_level.png": levels_figure(past, curve),
    }
    for name, figure in figures.items():
        figure.savefig(arguments.folder / name)
    console.print(f"Pictures: {', '.join(str(arguments.folder / name) for name in figures)}", highlight=False)
    console.print(f"The history as a table: python -m lightning_leep history {arguments.folder / 'history'}")
    console.print(f"The history as a page: python -m lightning_leep report {arguments.folder / 'history'}")
    console.print(f"See the runs: tensorboard --logdir {arguments.folder}", highlight=False)


def add_row(table: Table, number: int, task: tuple, callback: LEEPCallback) -> None:
    source, target, images = task
    forecast = callback.forecast
    table.add_row(
        str(number),
        "".join(map(str, source)),
        "".join(map(str, target)),
        str(images),
        f"{forecast.value:.3f}",
        f"{forecast.low:.2f}-{forecast.high:.2f}",
        f"{callback.curve.best:.3f}",
        f"{forecast.num_records} runs" if forecast.num_records else "probe",
    )


if __name__ == "__main__":
    main()
