"""Which of six pre-trained networks should be taken for new data? Ranked before training, checked afterwards.

    python examples/rank_sources.py

The sources have 64 or 8 features below their head and were trained on other digits: five or two, well, briefly or
not at all. The target task has 60 images of each of the digits 5 to 9. After the ranking, a new head is trained on
the frozen layers of each source, to see whether the order held. Nothing is downloaded. Needs the extra `figures`.
"""

import argparse
from pathlib import Path

import torch
from digits import TARGET_DIGITS, Digits, make_network, pretrain
from torch import nn
from torch.utils.data import TensorDataset

from lightning_leep import Source, rank_sources


def pretrained(digits: tuple[int, ...], width: int, epochs: int) -> nn.Module:
    """A classifier of these digits with ``width`` features below its head; without epochs it is never trained."""
    torch.manual_seed(0)
    network = nn.Sequential(*make_network(width), nn.ReLU(), nn.Linear(width, len(digits)))
    return pretrain(digits, epochs=epochs, network=network)


def achieved(network: nn.Sequential, train: TensorDataset, val: TensorDataset) -> float:
    """Accuracy on the validation images after training a new head on the frozen layers."""
    body = network[:-1].eval()
    with torch.no_grad():
        features, held_out = body(train.tensors[0]), body(val.tensors[0])
    head = nn.Linear(features.shape[1], len(TARGET_DIGITS))
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(head(features), train.tensors[1]) + 1e-4 * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return float((head(held_out).argmax(dim=1) == val.tensors[1]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("ranking"), help="where the ranking is written")
    parser.add_argument("--epochs", type=int, default=15, help="epochs of the best-trained sources")
    arguments = parser.parse_args()
    five, two, well = (0, 1, 2, 3, 4), (0, 1), arguments.epochs
    networks = {
        "5 digits, 64": pretrained(five, 64, well),
        "5 digits, 8": pretrained(five, 8, well),
        "5 digits, 8, brief": pretrained(five, 8, 1),
        "2 digits, 64": pretrained(two, 64, well),
        "2 digits, 8": pretrained(two, 8, well),
        "untrained, 8": pretrained(five, 8, 0),
    }
    data = Digits(images_per_class=60)
    data.setup()
    sources = {name: Source(network) for name, network in networks.items()}
    ranking = rank_sources(sources, data.train, trainable=("head", "all"), target="digits 5-9")
    print(ranking)
    ranking.to_json(arguments.folder / "ranking.json")
    ranking.figure().savefig(arguments.folder / "ranking.png")

    print("\nAchieved by a new head, in the order of the ranking:")
    for source in ranking.sources:
        accuracy = achieved(networks[source.name], data.train, data.val)
        forecast = source.forecasts["head"]
        print(f"{source.name:<24} {accuracy:.3f}  (forecast {forecast.low:.2f}-{forecast.high:.2f})")


if __name__ == "__main__":
    main()
