"""Figures, text and transfers for every logger that accepts them."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning_leep.tensorboard.plugin import PLUGIN_NAME

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tag_of(logger: Any, tag: str) -> str:
    """Return a tag as ``logger.log_metrics`` would write it, behind the prefix that the user gave the logger."""
    prefix = getattr(logger, "_prefix", None)
    return f"{prefix}{getattr(logger, 'LOGGER_JOIN_CHAR', '-')}{tag}" if prefix and isinstance(prefix, str) else tag


def takes_figures(logger: Any) -> bool:
    """Whether a Lightning logger accepts figures: that of TensorBoard, W&B or MLflow, or one with their methods."""
    experiment = _experiment(logger)
    return hasattr(experiment, "add_figure") or hasattr(logger, "log_image") or _is_mlflow(logger, "log_figure")


def log_figure(logger: Any, tag: str, figure: "Figure", step: int) -> None:
    """Add a figure: under IMAGES of TensorBoard, as an image of W&B, as an artifact of MLflow; else do nothing."""
    tag, experiment = tag_of(logger, tag), _experiment(logger)
    if hasattr(experiment, "add_figure"):
        experiment.add_figure(tag, figure, global_step=step)
    elif hasattr(logger, "log_image"):
        import numpy as np

        canvas: Any = figure.canvas
        canvas.draw()
        logger.log_image(tag, [np.asarray(canvas.buffer_rgba())[..., :3]], step=step)
    elif _is_mlflow(logger, "log_figure"):
        experiment.log_figure(logger.run_id, figure, f"{tag}.png")


def log_text(logger: Any, tag: str, markdown: str, step: int) -> None:
    """Add Markdown: under TEXT of TensorBoard, as a table of W&B, as an artifact of MLflow; else do nothing."""
    tag, experiment = tag_of(logger, tag), _experiment(logger)
    if hasattr(experiment, "add_text"):
        experiment.add_text(tag, markdown, global_step=step)
    elif hasattr(logger, "log_text"):
        logger.log_text(tag, columns=["report"], data=[[markdown]], step=step)
    elif _is_mlflow(logger, "log_text"):
        experiment.log_text(logger.run_id, markdown, f"{tag}.md")


def log_transfer(logger: Any, tag: str, content: Mapping[str, Any], step: int) -> None:
    """Add what the tab "Transfer" of TensorBoard shows of a run, as one string of JSON; else do nothing."""
    experiment = _experiment(logger)
    if not hasattr(experiment, "add_figure") or not hasattr(experiment, "_get_file_writer"):
        return
    # Opens a new file if training has closed the previous one. On all processes but the first it is a dummy.
    writer = experiment._get_file_writer()
    if not hasattr(writer, "add_summary"):
        return
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    # Readers that do not know a plugin skip a tensor whose metadata lack the class.
    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME), data_class=DATA_CLASS_TENSOR
    )
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    tensor = TensorProto(dtype="DT_STRING", string_val=[text], tensor_shape=TensorShapeProto())
    writer.add_summary(Summary(value=[Summary.Value(tag=tag_of(logger, tag), metadata=metadata, tensor=tensor)]), step)
    experiment.flush()


def _experiment(logger: Any) -> Any:
    return getattr(logger, "experiment", None)


def _is_mlflow(logger: Any, method: str) -> bool:
    """Whether the experiment is MLflow's client, whose methods take the run first."""
    return hasattr(logger, "run_id") and hasattr(_experiment(logger), method)
