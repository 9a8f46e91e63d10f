"""Which strategy a name and the ranks lead to."""

import pytest
import torch
from torch import nn

from gnomon.errors import ConfigError, LaunchError
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy import registry
from gnomon.strategy.ddp import DDPStrategy
from gnomon.strategy.registry import create_strategy, list_strategies
from gnomon.strategy.single import SingleStrategy

CPU = torch.device("cpu")
ALONE = RankEnvironment()
SECOND_OF_TWO = RankEnvironment(rank=1, local_rank=1, world_size=2, local_world_size=2, source="torchrun")


@pytest.mark.parametrize(
    ("name", "environment", "kind"),
    [
        ("auto", ALONE, SingleStrategy),
        ("auto", RankEnvironment(source="torchrun"), SingleStrategy),
        ("auto", SECOND_OF_TWO, DDPStrategy),
        ("single", ALONE, SingleStrategy),
        ("ddp", SECOND_OF_TWO, DDPStrategy),
    ],
)
def test_the_name_leads_to_the_strategy(name: str, environment: RankEnvironment, kind: type) -> None:
    strategy = create_strategy(name, environment, CPU)
    assert type(strategy) is kind
    assert (strategy.environment, strategy.device) == (environment, CPU)


@pytest.mark.parametrize(
    ("name", "environment", "kind", "message"),
    [
        ("dpp", ALONE, ConfigError, "Did you mean 'ddp'"),
        ("ddp", ALONE, LaunchError, "not started by torchrun.*torchrun --standalone --nproc-per-node=2"),
        ("single", SECOND_OF_TWO, LaunchError, "strategy=single, but WORLD_SIZE=2.*Set strategy=ddp"),
    ],
)
def test_a_choice_that_does_not_fit(
    name: str, environment: RankEnvironment, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        create_strategy(name, environment, CPU)


def test_installed_strategies_are_listed() -> None:
    assert {"ddp", "single"} <= set(list_strategies())


def test_a_plugin_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = registry.EntryPoint("broken", "no_such_package:Strategy", registry.GROUP)
    monkeypatch.setattr(registry, "_entries", lambda: {"broken": broken})
    with pytest.raises(LaunchError, match="does not load from 'no_such_package:Strategy'"):
        create_strategy("broken", ALONE, CPU)


def test_ranks_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    strategy = create_strategy("ddp", SECOND_OF_TWO, CPU)
    with pytest.raises(LaunchError, match=r"Rank 1 of 2 cannot join the others over gloo.*MASTER_ADDR"):
        strategy.setup()
    strategy.teardown()


def test_a_model_without_trainable_weights_is_left_as_it_is() -> None:
    model = nn.Identity()
    assert create_strategy("ddp", SECOND_OF_TWO, CPU).prepare(model) is model
