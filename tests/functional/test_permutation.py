"""The permutation null against shuffles by NumPy, and what its p-value is worth."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_leep.functional import leep, permutation_null
from lightning_leep.functional.permutation import check_num_permutations, deal_labels
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.references import random_task, reference_softmax

C, Z = 4, 12


def blocks(theta, labels, size=17):
    return list(torch.as_tensor(theta).split(size)), list(torch.as_tensor(labels).split(size))


def null_of(theta, labels, num_permutations=20, **kwargs):
    return permutation_null(*blocks(theta, labels), C, Z, num_permutations, **kwargs).numpy()


def dense_leep(theta, labels, num_target_classes=C):
    joint = np.stack([theta[labels == y].sum(axis=0) for y in range(num_target_classes)])
    return np.log((theta @ (joint / joint.sum(axis=0)).T)[np.arange(len(labels)), labels]).mean()


def task(n=60, seed=0, scale=3.0):
    """Distributions that know something of their labels, which are imbalanced."""
    logits, labels = random_task(n, Z, C, seed, scale)
    labels[::3] = 0
    return reference_softmax(logits), labels.numpy()


def p_value(theta, labels, num_permutations=20, seed=0):
    observed = leep(torch.as_tensor(theta), torch.as_tensor(labels), C, from_logits=False).item()
    return (1 + (null_of(theta, labels, num_permutations, seed=seed) >= observed).sum()) / (1 + num_permutations)


@pytest.mark.slow
def test_every_arrangement_of_a_small_task_is_as_likely():
    """Two rows of class 0 among five: ten arrangements, each with a value of its own."""
    theta, _ = task(5, scale=3.0)
    pairs = [(i, j) for i in range(5) for j in range(i)]
    values = [dense_leep(theta, np.where(np.isin(np.arange(5), pair), 0, 1), 2) for pair in pairs]
    null = null_of(theta, np.array([0, 0, 1, 1, 1]), 2000)
    nearest = np.abs(null[:, None] - np.array(values)).argmin(axis=1)
    np.testing.assert_allclose(null, np.array(values)[nearest], atol=1e-10)
    counts = np.bincount(nearest, minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.slow
def test_p_value_is_uniform_on_labels_without_relation():
    """200 tasks of noise: with 19 shuffles p takes the values 1/20, 2/20, ..., 1, each as often."""
    rng = np.random.default_rng(0)
    ranks = []
    for seed in range(200):
        theta = reference_softmax(3 * rng.normal(size=(24, Z)))
        ranks.append(round(20 * p_value(theta, rng.integers(0, C, 24), 19, seed)))
    assert stats.chisquare(np.bincount(ranks, minlength=21)[1:]).pvalue > 1e-3
    # No more than 5% of useless sources may pass for useful ones, but for chance (four standard deviations).
    assert np.mean(np.array(ranks) == 1) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200)


def test_blocks_and_seeds():
    theta, labels = task()
    whole = permutation_null([torch.as_tensor(theta)], [torch.as_tensor(labels)], C, Z)
    np.testing.assert_allclose(null_of(theta, labels), whole, rtol=1e-12)
    assert (null_of(theta, labels) != null_of(theta, labels, seed=1)).all()
    assert len(np.unique(null_of(theta, labels))) == 20


def test_neither_rows_nor_permutations():
    assert permutation_null([], [], C, Z, 0).shape == (0,)
    assert permutation_null(*blocks(*task()), C, Z, 0).shape == (0,)
    assert permutation_null([], [], C, Z).isnan().all()


def test_numbers_of_permutations_that_are_refused():
    for number in (-1, 1, 18, 20.0, True, "20"):
        with pytest.raises(ValueError, match="`num_permutations` must be"):
            check_num_permutations(number)
    for number in (0, 19, 1000):
        check_num_permutations(number)


def test_every_deal_to_two_processes_is_as_likely():
    """Labels 0, 0, 1, 1 to two rows each: six arrangements. Shuffles alike on both would make two of them rare."""
    counts = dict.fromkeys(set(itertools.permutations([0, 0, 1, 1])), 0)
    for permutation in range(1200):
        dealt = [deal_labels(np.array([2, 2]), [2, 2], rank, (0, permutation)).tolist() for rank in (0, 1)]
        counts[tuple(dealt[0] + dealt[1])] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


# -- processes ---------------------------------------------------------------------------------------------------------


def all_reduce(value):
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total


def on_shards(rank, world_size):
    """A null of many shuffles, and the bytes that few shuffles send of few and of many rows."""
    null, _ = null_on_shards(rank, (7, 0, 53), 200)
    sent = [null_on_shards(rank, shards, 20)[1] for shards in ((7, 0, 53), (700, 0, 5300))]
    return null, sent


def null_on_shards(rank, shards, num_permutations):
    theta, labels = task(sum(shards))
    order = np.argsort(labels, kind="stable")  # each process holds classes that the others do not
    theta, labels = torch.as_tensor(theta[order]), torch.as_tensor(labels[order])
    mine = blocks(theta.split(shards)[rank], labels.split(shards)[rank]) if shards[rank] else ([], [])
    with counted_traffic() as sent:
        null = permutation_null(*mine, C, Z, num_permutations, reduce=all_reduce, rank=rank, world_size=len(shards))
    return null.numpy(), sum(size for _, _, size in sent)


@pytest.mark.distributed
def test_processes_shuffle_the_labels_of_all_and_send_none():
    """Even where a process has but one class, whose shuffles within it would change nothing."""
    theta, labels = task()
    rng = np.random.default_rng(1)
    reference = np.array([dense_leep(theta, rng.permutation(labels)) for _ in range(400)])
    found = run_processes(on_shards, 3)
    assert all((null == found[0][0]).all() for null, _ in found)
    assert stats.ks_2samp(found[0][0], reference).pvalue > 1e-3
    # Class counts, rows of each process; joints and sums.
    assert [sent for _, sent in found] == [[8 * (C + 3 + 20 * (C * Z + 1))] * 2] * 3
