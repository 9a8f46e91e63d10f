"""The strategies that gnomon ships pass the suite that it gives to third parties."""

from importlib.util import find_spec
from typing import ClassVar

import pytest

from gnomon.strategy.conformance import StrategyConformance


class TestSingle(StrategyConformance):
    strategy = "single"
    ranks = 1


@pytest.mark.torch_dist
class TestDDP(StrategyConformance):
    strategy = "ddp"
    ranks = 2


@pytest.mark.torch_dist
class TestFSDP(StrategyConformance):
    strategy = "fsdp"
    ranks = 2


@pytest.mark.torch_dist
class TestHybridFSDPWithOffload(StrategyConformance):
    strategy = "fsdp"
    options: ClassVar = {"zero_stage": 2, "replicas": 2, "offload": True}
    ranks = 4


@pytest.mark.gpu
class TestDDPOnCUDA(StrategyConformance):
    strategy = "ddp"
    ranks = 2
    device = "cuda"

    @classmethod
    def setup_class(cls) -> None:
        import torch

        if torch.cuda.device_count() < cls.ranks:
            pytest.skip(f"needs {cls.ranks} CUDA devices, found {torch.cuda.device_count()}")
        super().setup_class()


@pytest.mark.torch_dist
class TestDeepSpeed2WithOffload(StrategyConformance):
    strategy = "deepspeed"
    options: ClassVar = {"zero_stage": 2, "offload": True}


@pytest.mark.torch_dist
class TestDeepSpeed3(StrategyConformance):
    strategy = "deepspeed"
    options: ClassVar = {"zero_stage": 3, "zero": {"stage3_param_persistence_threshold": 0}}


@pytest.mark.torch_dist
@pytest.mark.skipif(find_spec("horovod") is None, reason="Horovod is not built: make horovod")
class TestHorovod(StrategyConformance):
    strategy = "horovod"
