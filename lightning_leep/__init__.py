"""How well a pre-trained model will transfer, before fine-tuning is paid for; how right that was, afterwards."""

from lightning_leep.metrics import EEPAccuracy, LEEPMetric

__version__ = "0.1.0"

__all__ = ["EEPAccuracy", "LEEPMetric", "__version__"]
