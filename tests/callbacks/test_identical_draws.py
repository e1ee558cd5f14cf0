"""Random generators of the user's, wherever they are, are where training without the callback would have them."""

from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from tests._helpers.compared_training import Noisy, explicit, run
from tests._helpers.small_transfer import make_data, train_loader

#: A generator of the module, as scripts have one; set anew by each loader that uses it.
GENERATORS: dict[str, torch.Generator] = {}


def draws_from_the_module() -> torch.Tensor:
    return torch.rand(1, generator=GENERATORS["own"])


def set_generator() -> None:
    GENERATORS["own"] = explicit()


def closure():
    generator = explicit()
    return lambda: torch.rand(1, generator=generator)


def noisy_collate(generator, rows):
    inputs, labels = default_collate(rows)
    return inputs + torch.rand(1, generator=generator), labels


class Collate:
    def __init__(self) -> None:
        self.generator = explicit()

    def __call__(self, rows):
        return noisy_collate(self.generator, rows)

    def collate(self, rows):
        return self(rows)


class OnItsClass(Noisy):
    generator = None

    def __init__(self) -> None:
        type(self).generator = explicit()
        super().__init__(lambda: torch.rand(1, generator=self.generator))


#: Places of a generator that augmentations draw from in the process that trains.
PLACES = {
    "closure": lambda: train_loader(Noisy(closure())),
    "global": lambda: set_generator() or train_loader(Noisy(draws_from_the_module)),
    "class": lambda: train_loader(OnItsClass()),
    "collate function": lambda: train_loader(collate_fn=partial(noisy_collate, explicit())),
    "collating method": lambda: train_loader(collate_fn=Collate().collate),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_generator_of_the_augmentation(place):
    plain = run(PLACES[place](), callback=False)
    assert run(PLACES[place](), callback=True) == plain


class Stream(IterableDataset):
    """Goes on where the last reading stopped, as a stream does."""

    def __init__(self) -> None:
        self.rows = iter(list(make_data()) * 9)

    def __iter__(self):
        for _ in range(50):
            yield next(self.rows)


@pytest.mark.slow
def test_generator_that_a_given_loader_shares_with_training():
    """Each reading of a loader draws a seed from it."""
    plain = run(train_loader(generator=explicit()), callback=False)
    for data, workers in ((Stream(), 0), (Stream(), 1), (make_data(), 0)):
        generator = explicit()
        given = DataLoader(data, batch_size=10, generator=generator, num_workers=workers)
        assert run(train_loader(generator=generator), callback=True, dataloader=given) == plain


def test_stream_that_a_given_loader_shares_with_training():
    plain = run(DataLoader(Stream(), batch_size=10), callback=False)
    for workers in (0, 1):
        stream = Stream()
        given = DataLoader(stream, batch_size=10, num_workers=workers)
        assert run(DataLoader(stream, batch_size=10), callback=True, dataloader=given) == plain
