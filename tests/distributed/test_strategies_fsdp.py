"""What fsdp shards, and what it refuses."""

import pytest
import torch
from torch import nn

from gnomon.errors import ConfigError, LaunchError
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.fsdp import FSDPStrategy
from gnomon.strategy.registry import create_strategy
from gnomon.train.gpt import GPT
from training_fixtures import TINY_MODEL

CPU = torch.device("cpu")
SECOND_OF_FOUR = RankEnvironment(rank=1, local_rank=1, world_size=4, local_world_size=4, source="torchrun")


def fsdp(**options) -> FSDPStrategy:
    strategy = create_strategy("fsdp", SECOND_OF_FOUR, CPU, options)
    assert isinstance(strategy, FSDPStrategy)
    return strategy


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"zero_stage": 1}, ConfigError, "zero_stage=1, but strategy=fsdp .* strategy=deepspeed for stage 1"),
        ({"replicas": 3}, LaunchError, "replicas=3 does not divide the 4 ranks"),
        ({"replica": 2}, ConfigError, "Did you mean 'replicas'"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_an_error(options, kind, message):
    with pytest.raises(kind, match=message):
        fsdp(**options)


def gpt(**changes) -> nn.Module:
    from gnomon.spec import ModelSpec

    return GPT(ModelSpec.from_mapping({**TINY_MODEL, **changes}))


def test_the_blocks_of_a_gpt_are_sharded_each_on_its_own():
    assert list(fsdp()._blocks(gpt())) == ["blocks.0", "blocks.1"]


def test_containers_in_containers_are_looked_into_and_layers_without_weights_left_out():
    inner = nn.ModuleList([nn.Linear(2, 2), nn.ModuleDict({"a": nn.Linear(2, 2)})])
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "body": nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "more": inner})
    assert list(fsdp()._blocks(model)) == ["body.0", "more.0"]


def test_modules_to_shard_can_be_named_inner_ones_first():
    assert list(fsdp(shard=["blocks.*", "head"])._blocks(gpt()))[-3:] == ["blocks.0", "blocks.1", "head"]
    assert fsdp(shard=[])._blocks(gpt()) == {}
    with pytest.raises(ConfigError, match=r"the model has no module 'block\.0'. Did you mean 'blocks\.0'"):
        fsdp(shard=["block.0"])._blocks(gpt())


def test_a_weight_that_two_shards_would_hold_is_refused():
    with pytest.raises(ConfigError, match=r"'head\.weight' and 'token_embedding\.weight' are one weight"):
        fsdp(shard=["head"]).prepare(gpt(tied_embeddings=True))


def test_offload_on_gpus_adds_up_on_both_devices():
    strategies = [FSDPStrategy(SECOND_OF_FOUR, torch.device("cuda", 0), offload=offload) for offload in (False, True)]
    assert [strategy.backend for strategy in strategies] == ["nccl", "cpu:gloo,cuda:nccl"]
    assert fsdp(offload=True).backend == "gloo"
