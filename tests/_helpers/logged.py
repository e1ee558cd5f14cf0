"""What a run has logged: read back from TensorBoard's files, and a logger that keeps it."""

from pytorch_lightning.loggers.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def events(folder) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def series(accumulator: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def texts(accumulator: EventAccumulator, panel: str = "report") -> list[str]:
    """What a panel of text of the callback has shown, one after the other."""
    panels = accumulator.Tensors(f"leep/{panel}/text_summary")
    return [event.tensor_proto.string_val[0].decode() for event in panels]


class Recording(Logger):
    """A logger of the user's own: nothing but what Lightning demands."""

    name, version = "recording", 0

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics, step=None):
        self.records.append((step, metrics))

    def log_hyperparams(self, params):
        pass

    def of(self, tag: str) -> list[tuple[int, float]]:
        return [(step, metrics[tag]) for step, metrics in self.records if tag in metrics]
