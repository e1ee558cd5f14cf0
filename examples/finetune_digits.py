"""The main use on real images: score a pre-trained network, fine-tune it, compare the forecast with the outcome.

    python examples/finetune_digits.py

A small network learns the digits 0-4. It is then fine-tuned on the digits 5-9 with 20 images of each, once with a new
head on frozen layers and once with all layers trained. The reference is the same network trained from random weights;
it is trained first, so that TensorBoard can show the difference in every epoch.
"""

import argparse
import logging
import os
import sys
import warnings

import pytorch_lightning as pl
from digits import SOURCE_DIGITS, DigitClassifier, Digits, pretrain
from lightning_utilities.core import rank_zero
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from lightning_leep import LEEPCallback
from lightning_leep.records import AccuracyCurve, convergence_scalars

#: A chart for TensorBoard's CUSTOM SCALARS: the achieved accuracy and the predicted interval.
OVERLAY = {"LEEP": {"accuracy": ["Multiline", ["leep/achieved_accuracy", "leep/predicted_"]]}}


class CurveRecorder(pl.Callback):
    """Records the validation accuracy of the reference, which needs no scores."""

    def __init__(self) -> None:
        self.curve = AccuracyCurve()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the accuracy of this epoch."""
        if not trainer.sanity_checking:
            self.curve = self.curve.append(trainer.current_epoch + 1, float(trainer.callback_metrics["val_acc"]))


def train(trainable: str, source, callback: pl.Callback, epochs: int, folder: str) -> AccuracyCurve:
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=epochs,
        default_root_dir=folder,  # the history is written here
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name=f"digits_{trainable}"),
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=5,
    )
    trainer.fit(DigitClassifier(trainable=trainable, source=source), Digits())
    trainer.logger.experiment.add_custom_scalars(OVERLAY)
    return callback.curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--folder", default="runs", help="folder for TensorBoard's files and the history")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", ".*does not have many workers.*|.*treespec.*")
    rank_zero.log.setLevel(logging.ERROR)  # hides Lightning's hints
    console = Console()

    console.print("Pre-training the source network on the digits 0-4 ...")
    source = pretrain(SOURCE_DIGITS)
    console.print("Training from scratch on the digits 5-9, 20 images of each: the reference ...")
    reference = train("scratch", source, CurveRecorder(), arguments.epochs, arguments.folder)

    table = Table(title="Digits 0-4 -> digits 5-9: predicted before training, achieved after it")
    columns = ("", "predicted (90%)", "EEP", "achieved", "epochs to 50/90/99%", "beats scratch from")
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    forecasts = []
    for trainable, name in (("head", "new head"), ("all", "all layers")):
        console.print(f"Fine-tuning, {name} ...")
        callback = LEEPCallback(
            source=source,
            monitor="val_acc",
            reference=reference,
            source_name="CNN of digits 0-4",
            target_name="digits 5-9",
            source_class_names=list(map(str, SOURCE_DIGITS)),
        )
        curve = train(trainable, source, callback, arguments.epochs, arguments.folder)
        forecast, report = callback.forecast, callback.report
        predicted = f"{forecast.value:.3f} ({forecast.low:.2f}-{forecast.high:.2f})"
        table.add_row(name, predicted, f"{report.eep_accuracy:.3f}", *outcome(curve, reference))
        forecasts.append(forecast)
    table.add_row("from scratch", "-", "-", *outcome(reference, None))

    console.print()
    console.print(table)
    console.print(
        f"LEEP {report.leep:.3f} (leave-one-out {report.leave_one_out_leep:.3f}) on a scale from {report.floor:.3f} "
        f"(the source says nothing) to 0. {report.num_samples} images were scored in {report.seconds:.2f} s."
    )
    for forecast in forecasts:
        console.print(forecast.describe(), highlight=False)
    notes = [note for forecast in forecasts for note in forecast.notes]
    for note in dict.fromkeys([*report.notes, *notes]):
        console.print(f"Note: {note}", highlight=False)
    python = os.path.relpath(sys.executable)
    console.print("EEP: accuracy of LEEP's own predictor, without any training; usually a lower bound.")
    console.print(
        f"\nThe history: {python} -m lightning_leep history {arguments.folder}/transfer_history", soft_wrap=True
    )
    console.print(f"TensorBoard: {python} -m tensorboard.main --logdir {arguments.folder}", soft_wrap=True)


def outcome(curve: AccuracyCurve, reference: AccuracyCurve | None) -> tuple[str, str, str]:
    """Table cells of one run: accuracy, convergence, comparison with the reference."""
    values = convergence_scalars(curve, reference=reference)
    epochs = "/".join(f"{values[f'epochs_to_{percent}_percent']:.0f}" for percent in (50, 90, 99))
    passed = values.get("epoch_reference_passed")
    return f"{curve.best:.3f}", epochs, "-" if passed is None else f"epoch {passed:.0f}"


if __name__ == "__main__":
    main()
