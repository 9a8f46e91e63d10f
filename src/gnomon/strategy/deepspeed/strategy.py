"""Training through DeepSpeed's engine: ZeRO stages 0 to 3 (arXiv 1910.02054)."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gnomon.errors import ConfigError, LaunchError
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.base import Tensors
from gnomon.strategy.collectives import copy_from_rank_zero
from gnomon.strategy.deepspeed.engine import EngineModel, EngineOptimizer
from gnomon.strategy.deepspeed.partitions import create_state, full_state, load_full_state
from gnomon.strategy.process_group import DataParallelStrategy

_SHARED_MEMORY_OP = "deepspeed_shm_comm"


class DeepSpeedStrategy(DataParallelStrategy):
    """DeepSpeed over gloo (CPU) or NCCL (CUDA) with the trainer's own optimizer.

    `zero_stage` splits among the ranks: nothing (0), the optimizer state (1), the gradients too (2), the weights too
    (3). `offload` keeps the optimizer state, and in stage 3 the weights, in the memory of the CPU. `zero` are further
    settings of DeepSpeed's `zero_optimization`, as they are called there. Weights are fp32; mixed precision is the
    trainer's autocast. The norm that `clip` returns is filled in by the step that follows: the engine clips there.
    Raises ConfigError for a wrong option and LaunchError when DeepSpeed is not installed.
    """

    name = "deepspeed"
    can_scale_loss = False

    def __init__(
        self,
        environment: RankEnvironment,
        device: torch.device,
        zero_stage: int = 1,
        offload: bool = False,
        zero: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(environment, device)
        if zero_stage not in (0, 1, 2, 3):
            raise ConfigError(f"zero_stage={zero_stage}, but DeepSpeed's ZeRO has the stages 0, 1, 2 and 3.")
        if offload and zero_stage == 0:
            raise ConfigError("offload=true needs a part to keep on the CPU. Set zero_stage=1, 2 or 3.")
        self._stage = zero_stage
        self.gathers_weights = zero_stage == 3
        self._offload = offload
        self._zero = dict(zero or {})
        self._optimizer: EngineOptimizer | None = None

    def setup(self) -> None:
        """Join the other ranks, and let DeepSpeed talk to them over the same process group."""
        _import_deepspeed(self.device)
        super().setup()
        environment = self.environment
        for name, value in (
            ("RANK", environment.rank),
            ("LOCAL_RANK", environment.local_rank),
            ("WORLD_SIZE", environment.world_size),
        ):
            os.environ.setdefault(name, str(value))  # where another launcher than torchrun says it in its own way
        import deepspeed

        deepspeed.init_distributed(self.backend, auto_mpi_discovery=False, verbose=False)

    def prepare(self, model: nn.Module) -> EngineModel:
        """Return the model with rank 0's weights, to be called once `prepare_optimizer` has made its engine."""
        model = model.to(self.device)
        copy_from_rank_zero([*model.parameters(), *model.buffers()], self.collectives)
        return EngineModel(model)

    def prepare_optimizer(self, model: nn.Module, optimizer: Optimizer, max_norm: float | None) -> Optimizer:
        """Make the engine and return an optimizer whose step is the engine's."""
        import deepspeed

        assert isinstance(model, EngineModel)  # made by prepare
        engine, *_ = deepspeed.initialize(
            model=model.inner, optimizer=optimizer, config=self._config(max_norm), dist_init_required=False
        )
        model.attach(engine)
        if self._stage:
            create_state(engine.optimizer)
        self._optimizer = EngineOptimizer(engine, optimizer)
        return self._optimizer

    def forward_backward(
        self,
        model: nn.Module,
        training_step: Callable[[Any], Tensor],
        batches: Iterator[Any],
        count: int,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> Tensor:
        """Add the gradients of `count` micro-batches by the engine; return their mean loss on this rank, detached."""
        assert isinstance(model, EngineModel)
        engine = model.engine
        copy_from_rank_zero(model.module.buffers(), self.collectives)
        total = torch.zeros((), device=self.device)
        for index in range(count):
            engine.set_gradient_accumulation_boundary(index == count - 1)
            loss = training_step(next(batches)) / count
            engine.backward(loss, scale_wrt_gas=False)
            total += loss.detach()
        return total

    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> Tensor:
        """Return where the next step will write the norm of the gradients over all ranks, before it scales them.

        In stage 0 the gradients are scaled here, and the norm is there at once.
        """
        if self._stage == 0:
            return super().clip(parameters, max_norm)
        assert self._optimizer is not None  # made by prepare_optimizer
        return self._optimizer.norm_of_next_step(self.device)

    def module(self, model: nn.Module) -> nn.Module:
        """Return the model that the engine trains."""
        assert isinstance(model, EngineModel)
        return model.module

    def state(self, model: nn.Module, optimizer: Optimizer) -> Tensors:
        """Return the state under the names of the plain model, each rank holding its share as DTensor."""
        assert isinstance(optimizer, EngineOptimizer)
        if self._stage == 0:
            return super().state(model, optimizer.basic)
        module = self.module(model)
        copy_from_rank_zero(module.buffers(), self.collectives)
        return full_state(module, optimizer.engine.optimizer, self.device)

    def load_state(self, model: nn.Module, optimizer: Optimizer, tensors: Tensors) -> None:
        """Take over what `state` returned, after its tensors were filled from a checkpoint."""
        assert isinstance(optimizer, EngineOptimizer)
        if self._stage == 0:
            return super().load_state(model, optimizer.basic, tensors)
        return load_full_state(self.module(model), optimizer.engine.optimizer, tensors)

    def _leave(self) -> None:
        from deepspeed import comm

        comm.destroy_process_group()  # forgets its groups too, which the next run of this process would look for

    def _config(self, max_norm: float | None) -> dict[str, Any]:
        zero: dict[str, Any] = {**self._zero, "stage": self._stage}
        if self._offload:
            zero["offload_optimizer"] = {"device": "cpu"}
            if self._stage == 3:
                zero["offload_param"] = {"device": "cpu"}
        return {
            "train_micro_batch_size_per_gpu": 1,  # for its own log alone; the trainer divides the batch
            "gradient_accumulation_steps": 1,  # forward_backward sets the boundary
            "gradient_clipping": max_norm if max_norm is not None and self._stage else 0.0,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 2**31,
        }


def _import_deepspeed(device: torch.device) -> None:
    """Import DeepSpeed for the kind of device; raise LaunchError if it is not there or was imported for another."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    try:
        accelerator = importlib.import_module("deepspeed.accelerator").get_accelerator()
        operations = importlib.import_module("deepspeed.ops").__compatible_ops__
    except ImportError as error:
        raise LaunchError(
            f"strategy=deepspeed needs DeepSpeed: {error}. Install it with pip install 'gnomon[deepspeed]', "
            "or set strategy=fsdp."
        ) from error
    if accelerator.device_name() != device.type:
        raise LaunchError(
            f"device={device.type}, but DS_ACCELERATOR={accelerator.device_name()} tells DeepSpeed otherwise. "
            f"Unset it, or set it to {device.type}."
        )
    # A shared-memory all-reduce for CPUs, compiled at first use under a lock that a killed compiler leaves behind for
    # ever. Without it DeepSpeed takes gloo.
    operations[_SHARED_MEMORY_OP] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
