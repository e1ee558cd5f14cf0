"""Accuracy of the expected empirical predictor."""

from torch import Tensor

from lightning_leep.metrics.joint import JointMetric


class EEPAccuracy(JointMetric):
    r"""Accuracy of the EEP, the classifier :math:`\arg\max_y \sum_z P(y|z) \theta(z)` whose log-likelihood is LEEP.

    It needs no training and usually lies well below the accuracy of a re-trained head. A row whose label is among k
    equally probable ones counts 1/k. It takes the input and the arguments of
    :class:`~lightning_leep.metrics.leep.LEEPMetric`, ``leave_one_out`` aside, and shares its state in a
    ``MetricCollection``. ``compute`` returns a 0-d float64 tensor in 0..1; NaN, with a warning, for fewer than two
    rows.

    Example:
        >>> import torch
        >>> metric = EEPAccuracy(num_target_classes=2, num_source_classes=2, from_logits=False)
        >>> metric.update(torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.1, 0.9]]), torch.tensor([0, 0, 1]))
        >>> metric.compute().item()
        1.0
    """

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    names = ("eep_accuracy",)

    def compute(self) -> Tensor:
        """Accuracy of the EEP on all rows seen so far, on all processes: 0-d, in 0..1; NaN for fewer than two rows."""
        mean, _ = self.mean_and_standard_error()
        return mean[0]
