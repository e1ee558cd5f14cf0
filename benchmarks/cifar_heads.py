"""Two fixed recipes that re-train a softmax head on frozen features: what the cheap scores are compared with.

Both were written down before any score was compared with them, and neither has a setting that depends on the task.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def logistic_head(features: Tensor, target: Tensor, num_classes: int) -> nn.Module:
    """Multinomial logistic regression to convergence on standardised features.

    Minimises sum_i cross-entropy_i + ||W||^2 / 2 (scikit-learn's default strength, C = 1) by L-BFGS; the bias is free.
    """
    mean, std = features.mean(0), features.std(0).clamp_min(1e-8)
    x, num_rows = (features - mean) / std, features.shape[0]
    weight = torch.zeros(num_classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-5, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(x @ weight.T + bias, target) + weight.square().sum() / (2 * num_rows)
        loss.backward()
        return loss

    optimizer.step(closure)
    return _linear(weight.detach() / std, bias.detach() - weight.detach() @ (mean / std))


def sgd_head(features: Tensor, target: Tensor, num_classes: int, epochs: int = 50, seed: int = 0) -> nn.Module:
    """SGD on the raw features: batches of 64, rate 0.1 annealed to 0 by a cosine, momentum 0.9, weight decay 5e-4."""
    generator = torch.Generator().manual_seed(seed)
    head = _linear(torch.zeros(num_classes, features.shape[1]), torch.zeros(num_classes))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    steps = epochs * -(-features.shape[0] // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(features.shape[0], generator=generator).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(head(features[rows]), target[rows]).backward()
            optimizer.step()
            schedule.step()
    return head


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    head = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head


@torch.no_grad()
def accuracy(head: nn.Module, features: Tensor, target: Tensor) -> float:
    """Fraction of rows whose largest output is their own class."""
    return (head(features).argmax(1) == target).double().mean().item()
