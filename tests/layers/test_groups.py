"""Groups of parameters for people who write ``configure_optimizers`` themselves."""

import pytest
import torch
from torch import nn

from lightning_leep import LayerTransfer
from lightning_leep.layers import layer_groups, rate_factors
from tests._helpers.block_networks import Network, Tuned
from tests._helpers.small_transfer import fit
from tests.layers.test_layer_transfer import Beside


def rates_by_name(module, groups):
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {names[p]: group["lr"] for group in groups for p in group["params"]}


def test_each_parameter_is_in_one_group_with_the_rate_of_its_depth():
    module = Tuned()
    groups = layer_groups(module, 0.1, learning_rates=0.5)
    rates = rates_by_name(module, groups)
    assert sum(len(group["params"]) for group in groups) == len(rates) == len(list(module.parameters()))
    assert [group["name"] for group in groups] == ["net.blocks.0", "net.blocks.1", "net.blocks.2", "head"]
    assert [group["lr"] for group in groups] == pytest.approx([0.0125, 0.025, 0.05, 0.1])
    torch.optim.AdamW(groups)  # takes them as they are


def test_frozen_and_earlier_layers_are_in_no_group():
    module = Tuned()
    module.net.blocks[1].norm.requires_grad_(False)
    rates = rates_by_name(module, layer_groups(module, 0.1, trained_from="blocks.1"))
    assert not any(name.startswith(("net.stem", "net.shift", "net.blocks.0", "net.blocks.1.norm")) for name in rates)
    assert {"net.blocks.1.first.weight", "net.norm.bias", "net.head.bias"} <= set(rates)


def test_a_head_beside_the_backbone_has_the_whole_rate():
    module = Beside()
    rates = rates_by_name(module, layer_groups(module, 1.0, learning_rates=0.5))
    assert (rates["classifier.weight"], rates["backbone.norm.weight"], rates["backbone.stem.weight"]) == (1, 0.5, 0.125)


def test_a_frozen_source_in_the_module_changes_no_rate():
    module = Tuned()
    module.scale = nn.Parameter(torch.ones(1))
    before = rates_by_name(module, layer_groups(module, 1.0, learning_rates=0.5))
    module.source = Network(7).requires_grad_(False)
    assert rates_by_name(module, layer_groups(module, 1.0, learning_rates=0.5)) == before


def test_a_network_without_a_head_counts_from_its_last_block():
    module = Network(None)
    factors = {name: rate_factors(module, 0.5)[p][1] for name, p in module.named_parameters()}
    assert (factors["blocks.2.first.weight"], factors["stem.bias"]) == (0.5, 0.125)


def test_a_plain_network_has_its_last_layer_as_head():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    factors = {name: rate_factors(module, 0.5)[p][1] for name, p in module.named_parameters()}
    assert (factors["0.weight"], factors["2.bias"], factors["4.weight"]) == (0.25, 0.5, 1.0)


def test_factors_by_name_take_the_longest_name_that_fits():
    module = Tuned()
    factors = rate_factors(module, {"net": 0.1, "net.blocks.2": 0.5, "net.head": 1})
    by_name = {name: factors[p][1] for name, p in module.named_parameters()}
    assert [by_name[f"net.{name}"] for name in ("stem.weight", "blocks.2.norm.bias", "head.bias")] == [0.1, 0.5, 1]
    with pytest.raises(ValueError, match=r"\['nett'\] fit no parameter"):
        fit(Tuned(), LayerTransfer(learning_rates={"nett": 0.1}))


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_a_learning_rate_that_is_none(rate):
    with pytest.raises(ValueError, match="learning_rate"):
        layer_groups(Tuned(), rate)
