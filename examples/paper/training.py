"""How the experiments train: a new head on fixed features, the whole network, and heads for few images a class."""

import copy

import torch
from data import ResNet
from torch import Tensor, nn
from torch.nn import functional


def head_accuracy(features: Tensor, target: Tensor, test: Tensor, test_target: Tensor, num_classes: int) -> float:
    """Test accuracy of a softmax head, trained to convergence on fixed features ``[n, d]``.

    Minimises sum_i cross-entropy_i + ||W||^2 / 2 by L-BFGS on standardised features; the bias is free.
    """
    mean, std = features.mean(0), features.std(0).clamp_min(1e-8)
    x = (features - mean) / std
    weight = torch.zeros(num_classes, x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros(num_classes, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(x @ weight.T + bias, target) + weight.square().sum() / (2 * len(x))
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        predicted = (((test - mean) / std) @ weight.T + bias).argmax(1)  # [m]
    return (predicted == test_target).double().mean().item()


def augment(images: Tensor, generator: torch.Generator, flip: bool) -> Tensor:
    """Shift each image ``[m, c, h, h]`` by itself by up to an eighth of its size, and flip half of them if asked to."""
    num, channels, size, _ = images.shape
    if flip:
        chosen = torch.rand(num, generator=generator) < 0.5
        images = torch.where(chosen.view(-1, 1, 1, 1).to(images.device), images.flip(3), images)
    pad = size // 8
    padded = functional.pad(images, (pad, pad, pad, pad))
    top, left = torch.randint(2 * pad + 1, (2, num, 1), generator=generator)
    rows, columns = top + torch.arange(size), left + torch.arange(size)  # [m, h]
    index = torch.arange(num).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
    return padded[*index, rows[:, None, :, None], columns[:, None, None, :]]


@torch.no_grad()
def network_accuracy(model: nn.Module, images: Tensor, target: Tensor) -> float:
    """Test accuracy of a network, in evaluation mode."""
    model.eval()
    hits = [(model(batch).argmax(1) == y).sum() for batch, y in zip(images.split(250), target.split(250), strict=True)]
    return (torch.stack(hits).sum() / len(target)).item()


def train_network(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    test: Tensor,
    test_target: Tensor,
    epochs: int,
    seed: int,
    flip: bool = True,
    batch_size: int = 16,
    learning_rate: float = 0.01,
    only_last: bool = False,
) -> list[float]:
    """Train what requires a gradient by SGD and return the test accuracy after each epoch, or after the last only.

    Momentum 0.9, weight decay 5e-4, a learning rate that falls to 0 by a cosine. Layers without a trainable parameter
    stay in evaluation mode. Data and model are on one device; random numbers come from the CPU, so that they are the
    same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    model = model.to(memory_format=torch.channels_last)  # a third faster on a CPU
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [part for part in model.modules() if not any(p.requires_grad for p in part.parameters())]
    optimizer = torch.optim.SGD(trained, lr=learning_rate, momentum=0.9, weight_decay=5e-4)
    steps = epochs * -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    curve = []
    for epoch in range(1, epochs + 1):
        model.train()
        for part in frozen:
            part.training = False
        for rows in torch.randperm(len(images), generator=generator).split(batch_size):
            optimizer.zero_grad()
            batch = augment(images[rows], generator, flip)
            functional.cross_entropy(model(batch), target[rows]).backward()
            optimizer.step()
            schedule.step()
        if epoch == epochs or not only_last:
            curve.append(network_accuracy(model, test, test_target))
    return curve


def with_new_head(source: ResNet, num_classes: int, seed: int) -> ResNet:
    """A copy of the source with a new head."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = copy.deepcopy(source)
        model.linear = nn.Linear(source.linear.in_features, num_classes)
    return model


def nearest_mean_accuracy(features: Tensor, target: Tensor, test: Tensor, test_target: Tensor) -> float:
    """Test accuracy of the nearest class mean."""
    means = torch.stack([features[target == k].mean(0) for k in range(int(target.max()) + 1)])  # [C, d]
    return (torch.cdist(test, means).argmin(1) == test_target).double().mean().item()


def mahalanobis_accuracy(features: Tensor, target: Tensor, test: Tensor, test_target: Tensor) -> float:
    """Test accuracy of the head of Simple CNAPS (Bateni et al., CVPR 2020, eq. 2 and 3), on features in float64.

    The class with the smallest (f - mu_k)' Q_k^-1 (f - mu_k), where Q_k = l_k S_k + (1 - l_k) S + I, S_k is the
    covariance of the class, S that of all rows, and l_k = n_k / (n_k + 1).
    """
    features, test = features.double(), test.double()
    total, eye, distances = torch.cov(features.T), torch.eye(features.shape[1]).to(features), []
    for k in range(int(target.max()) + 1):
        rows = features[target == k]  # [n_k, d]
        weight, own = len(rows) / (len(rows) + 1), torch.cov(rows.T) if len(rows) > 1 else torch.zeros_like(total)
        factor = torch.linalg.cholesky(weight * own + (1 - weight) * total + eye)
        scaled = torch.linalg.solve_triangular(factor, (test - rows.mean(0)).T, upper=False)  # [d, m]
        distances.append(scaled.square().sum(0))
    return (torch.stack(distances).argmin(0) == test_target).double().mean().item()
