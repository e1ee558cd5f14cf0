"""The permutation null against shuffles by NumPy, and what its p-value is worth."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_leep.functional import leep, permutation_null
from lightning_leep.functional.permutation import check_num_permutations, deal_labels
from tests._helpers.distributed import counted_traffic, run_processes
from tests._helpers.references import label_entropy, random_task, reference_softmax

C, Z = 4, 12


def blocks(theta, labels, size=17):
    return list(torch.as_tensor(theta).split(size)), list(torch.as_tensor(labels).split(size))


def null_of(theta, labels, num_permutations=20, **kwargs):
    return permutation_null(*blocks(theta, labels), C, Z, num_permutations, **kwargs).numpy()


def dense_leep(theta, labels):
    joint = np.stack([theta[labels == y].sum(axis=0) for y in range(C)])
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
def test_same_distribution_as_shuffles_by_numpy():
    theta, labels = task()
    rng = np.random.default_rng(1)
    reference = np.array([dense_leep(theta, rng.permutation(labels)) for _ in range(1500)])
    null = null_of(theta, labels, 1500)
    # Two samples of the same distribution: Kolmogorov-Smirnov, and z-scores of mean and spread.
    assert stats.ks_2samp(null, reference).pvalue > 1e-3
    error = reference.std() / np.sqrt(1500)
    assert abs(null.mean() - reference.mean()) < 4 * np.sqrt(2) * error
    assert null.std() == pytest.approx(reference.std(), rel=0.1)
    # Plain LEEP is in-sample, so that noise lies above the floor; what the source knows lies above noise.
    assert -label_entropy(labels) + 3 * null.std() < null.mean() < dense_leep(theta, labels) - 3 * null.std()


def test_labels_whose_order_does_not_matter_give_leep_itself():
    theta, _ = task(C)
    np.testing.assert_allclose(null_of(theta, np.full(C, 2)), 0.0, atol=1e-15)  # one class alone
    share = theta / theta.sum(axis=0)
    distinct = np.log((share * theta).sum(axis=1)).mean()
    np.testing.assert_allclose(null_of(theta, np.arange(C)), distinct, rtol=1e-12)  # one row of each class
    silent = np.full((3, Z), 1 / Z)
    entropy = 1 / 3 * np.log(1 / 3) + 2 / 3 * np.log(2 / 3)
    np.testing.assert_allclose(null_of(silent, np.array([0, 2, 2])), entropy, rtol=1e-12)


@pytest.mark.slow
def test_every_arrangement_of_a_small_task_is_as_likely():
    """Two rows of class 0 among five: ten arrangements, each with a value of its own."""
    theta, _ = task(5, scale=3.0)
    pairs = [(i, j) for i in range(5) for j in range(i)]
    values = [dense_leep_pair(theta, pair) for pair in pairs]
    null = null_of(theta, np.array([0, 0, 1, 1, 1]), 2000)
    nearest = np.abs(null[:, None] - np.array(values)).argmin(axis=1)
    np.testing.assert_allclose(null, np.array(values)[nearest], atol=1e-10)
    counts = np.bincount(nearest, minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-3


def dense_leep_pair(theta, pair):
    labels = np.ones(5, dtype=int)
    labels[list(pair)] = 0
    joint = np.stack([theta[labels == y].sum(axis=0) for y in range(2)])
    return np.log((theta @ (joint / joint.sum(axis=0)).T)[np.arange(5), labels]).mean()


@pytest.mark.slow
def test_p_value_is_uniform_on_labels_without_relation():
    """300 tasks of noise: with 19 shuffles p takes the values 1/20, 2/20, ..., 1, each as often."""
    rng = np.random.default_rng(0)
    ranks = []
    for seed in range(300):
        theta = reference_softmax(3 * rng.normal(size=(24, Z)))
        ranks.append(round(20 * p_value(theta, rng.integers(0, C, 24), 19, seed)))
    assert stats.chisquare(np.bincount(ranks, minlength=21)[1:]).pvalue > 1e-3
    # No more than 5% of useless sources may pass for useful ones, but for chance (four standard deviations).
    assert np.mean(np.array(ranks) == 1) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("seed", range(5))
def test_p_value_is_the_smallest_on_signal(seed):
    assert p_value(*task(80, seed)) == pytest.approx(1 / 21)


def test_blocks_and_seeds():
    theta, labels = task()
    whole = permutation_null([torch.as_tensor(theta)], [torch.as_tensor(labels)], C, Z)
    np.testing.assert_allclose(null_of(theta, labels), whole, rtol=1e-12)
    assert (null_of(theta, labels) != null_of(theta, labels, seed=1)).all()
    assert len(np.unique(null_of(theta, labels))) == 20
    state = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    null_of(theta, labels)
    assert torch.equal(state[0], torch.random.get_rng_state())
    assert state[1] == np.random.get_state()[1].tolist()


def test_neither_rows_nor_permutations():
    assert permutation_null([], [], C, Z, 0).shape == (0,)
    assert permutation_null(*blocks(*task()), C, Z, 0).shape == (0,)
    assert permutation_null([], [], C, Z).isnan().all()


@pytest.mark.parametrize("number", [-1, 1, 18, 20.0, True, "20"])
def test_numbers_of_permutations_that_are_refused(number):
    with pytest.raises(ValueError, match="`num_permutations` must be"):
        check_num_permutations(number)


def test_numbers_of_permutations_that_are_accepted():
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


def null_on_shards(rank, world_size, shards, num_permutations, n=60):
    theta, labels = task(n)
    order = np.argsort(labels, kind="stable")  # each process holds classes that the others do not
    theta, labels = torch.as_tensor(theta[order]), torch.as_tensor(labels[order])
    mine = blocks(theta.split(shards)[rank], labels.split(shards)[rank]) if shards[rank] else ([], [])
    with counted_traffic() as sent:
        null = permutation_null(*mine, C, Z, num_permutations, reduce=all_reduce, rank=rank, world_size=world_size)
    return null.numpy(), sum(size for _, _, size in sent)


@pytest.mark.distributed
@pytest.mark.parametrize("shards", [(30, 30), (7, 0, 53)])
def test_processes_shuffle_the_labels_of_all(shards):
    """Even where a process has but one class, whose shuffles within it would change nothing."""
    theta, labels = task()
    rng = np.random.default_rng(1)
    reference = np.array([dense_leep(theta, rng.permutation(labels)) for _ in range(400)])
    found = run_processes(null_on_shards, len(shards), shards, 400)
    assert all((null == found[0][0]).all() for null, _ in found)
    assert stats.ks_2samp(found[0][0], reference).pvalue > 1e-3


@pytest.mark.distributed
def test_no_label_travels():
    (_, few), _ = run_processes(null_on_shards, 2, (30, 30), 20)
    (_, many), _ = run_processes(null_on_shards, 2, (3000, 3000), 20, 6000)
    assert few == many == 8 * (C + 2 + 20 * (C * Z + 1))  # class counts, rows of each process; joints and sums
