"""The training loop. Subclasses say which model, which data and which loss; what is off costs nothing."""

from __future__ import annotations

import math
import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gnomon.component import Component
from gnomon.errors import ConfigError, DataError, InterruptedRunError, TrackerWarning, TrainingError
from gnomon.launch.rank_errors import report_checkpoint
from gnomon.runtime.devices import resolve_device
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.run_directory import RunDirectory
from gnomon.runtime.seeds import seed_everything
from gnomon.runtime.signals import StopFlag
from gnomon.strategy.base import Strategy
from gnomon.strategy.registry import create_strategy
from gnomon.track.base import Tracker
from gnomon.train.agreement import StopAgreement, on_main_rank
from gnomon.train.batches import endless, move
from gnomon.train.checkpoint import Checkpointer
from gnomon.train.clock import StepClock
from gnomon.train.config import TrainingConfig
from gnomon.train.optimizer import create_adamw, warmup_cosine
from gnomon.train.precision import in_precision
from gnomon.train.run_files import drop_later_rows, open_run, write_settings

_EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


class Trainer(Component):
    """Trains a model for `num_steps` optimizer steps; `execute` does it all and returns the run directory.

    A subclass must define `create_model`, `create_loader` and `training_step`, and may override every other hook.
    After `setup`, `run_step` can also be called alone; `model` is then the wrapped `module`.
    """

    strategy: Strategy
    device: torch.device
    module: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    loader: Iterable[Any]

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.step = 0
        self.grad_norm: Tensor | None = None
        self.trackers: list[Tracker] = []
        self._checkpointer: Checkpointer | None = None
        self._lock: int | None = None
        self._is_set_up = False

    # What a subclass says

    @abstractmethod
    def create_model(self) -> nn.Module:
        """Return the model, on the CPU; all generators have been seeded alike on every rank."""

    @abstractmethod
    def create_loader(self) -> Iterable[Any]:
        """Return this rank's micro-batches; begun anew when it ends, and resumed if it has a `state_dict`."""

    @abstractmethod
    def training_step(self, batch: Any) -> Tensor:
        """Return the mean loss of one micro-batch, computed with `self.model`."""

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of `self.module`; its learning rates are set before each step."""
        return create_adamw(self.module, self.config)

    def create_evaluation_loader(self) -> Iterable[Any] | None:
        """Return this rank's micro-batches for one evaluation, the same each time."""
        return None

    def validation_step(self, batch: Any) -> Tensor:
        """Return the mean loss of one micro-batch, without gradients."""
        return self.training_step(batch)

    def create_schedule(self) -> Callable[[int], float]:
        """Return the learning rate as a function of the step, which counts from 1."""
        return warmup_cosine(self.config)

    def identity(self) -> dict[str, Any]:
        """Return what must stay the same between a checkpoint and the run that continues it (JSON values)."""
        return {"seed": self.config.seed}

    def tokens_per_step(self) -> int | None:
        """Return the tokens of one optimizer step over all ranks, or None where there are none."""
        return None

    def mfu(self, step_time_s: float) -> float | None:
        """Return model FLOPs over peak, or None where one of them is unknown."""
        return None

    # The loop

    def execute(self) -> RunDirectory:
        """Train to the last step and return the run directory.

        Raises InterruptedRunError after a signal, once the checkpoint is written; TrainingError for a loss that is
        not finite; CheckpointError, DataError and RunDirectoryError as their names say.
        """
        with StopFlag() as flag:
            try:
                self.setup()
                run = on_main_rank(self.strategy, self._open_run)
                self._checkpointer = Checkpointer(
                    run.checkpoints, self.strategy, self.config.keep_checkpoints, self.identity()
                )
                if self.config.resume:
                    self._restore(self._checkpointer, run)
                on_main_rank(self.strategy, lambda: write_settings(run, self.config))
                on_main_rank(self.strategy, lambda: self.trackers.extend(self.create_trackers(run)))
                self.train(StopAgreement(self.strategy, flag, self.step))
            finally:
                self.teardown()
        return run

    def setup(self) -> None:
        """Join the other ranks and build everything that a step needs."""
        config = self.config
        environment = RankEnvironment.detect()
        self.device = resolve_device(config.device, environment.local_rank)
        self.strategy = create_strategy(config.strategy, environment, self.device)
        self._is_set_up = True
        self.strategy.setup()
        seed_everything(config.seed)
        self.model = self.strategy.prepare(self.create_model())
        self.module = self.strategy.module(self.model)
        self.model.train()
        self.optimizer = self.strategy.prepare_optimizer(self.model, self.create_optimizer(), config.grad_clip)
        self.loader = self.create_loader()
        if config.eval_every:
            self._evaluation_batches()  # what is wrong with them is better said now than after an hour
        seed_everything(config.seed, environment.rank)
        self._schedule = self.create_schedule()
        # every step reads these two, and a pydantic model answers ten times slower than a plain attribute
        self._accumulation, self._grad_clip = config.accumulation, config.grad_clip
        self._parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self._training_step = in_precision(self.training_step, config.precision, self.device)
        self._validation_step = in_precision(self.validation_step, config.precision, self.device)
        self._batches = endless(self.loader, self.device)

    def train(self, stop: StopAgreement) -> None:
        """Run the steps that are left, and log, evaluate and save as often as the configuration says."""
        num_steps = self.config.num_steps
        clock = StepClock(self.device, self.step)
        actions = self._actions(clock)
        while self.step < num_steps:
            loss = self.run_step()
            for every, act in actions:
                if self.step % every == 0 or self.step == num_steps:
                    act(loss)
            if self.step < num_steps and stop.reached(self.step):
                self._interrupt(loss, stop.signal_name())

    def run_step(self) -> Tensor:
        """Do one optimizer step and return its loss, the mean over the micro-batches of this rank, detached."""
        loss = self.strategy.forward_backward(self.model, self._training_step, self._batches, self._accumulation)
        if self._grad_clip is not None:
            self.grad_norm = self.strategy.clip(self._parameters, self._grad_clip)
        rate = self._schedule(self.step + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss

    def teardown(self) -> None:
        """Close the trackers and leave the other ranks; harmless when `setup` failed or was never called."""
        for tracker in self.trackers:
            self._tell(tracker.close)
        self.trackers = []
        if self._is_set_up:
            self.strategy.teardown()
            self._is_set_up = False
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @staticmethod
    def _tell(call: Callable[[], None]) -> None:
        """Make a call of a tracker; its failure is a warning, because no tracker may stop a run."""
        try:
            call()
        except (Exception, SystemExit) as error:  # rich leaves the program when its terminal has gone
            warnings.warn(f"A tracker failed: {type(error).__name__}: {error}", TrackerWarning, stacklevel=2)

    def create_trackers(self, run: RunDirectory) -> list[Tracker]:
        """Return what takes the rows of the run; called on rank 0 only."""
        from gnomon.track.console import ConsoleTracker
        from gnomon.track.jsonl import JsonlTracker

        trackers: list[Tracker] = [JsonlTracker(run.metrics)]
        if self.config.progress:
            trackers.append(ConsoleTracker(self.config.num_steps))
        return trackers

    # What the loop does now and then

    def _open_run(self) -> RunDirectory:
        run, self._lock = open_run(self.config)
        return run

    def _actions(self, clock: StepClock) -> list[tuple[int, Callable[[Tensor], None]]]:
        """Return what is on, with its interval; each is also done at the last step."""
        every = self.config
        actions: list[tuple[int, Callable[[Tensor], None]]] = [
            (every.log_every, lambda loss: self._log(loss, clock)),
            (every.eval_every, clock.leave_out(self._evaluate)),
            (every.checkpoint_every, clock.leave_out(self._save)),
        ]
        return [(interval, act) for interval, act in actions if interval > 0]

    def _log(self, loss: Tensor, clock: StepClock) -> None:
        value = self._finite_loss(loss)
        step_time_s = clock.lap(self.step)
        tokens = self.tokens_per_step()
        row = {
            "step": self.step,
            "tokens": None if tokens is None else tokens * self.step,
            "loss": value,
            "lr": self._schedule(self.step),
            "grad_norm": None if self.grad_norm is None else self.grad_norm.item(),
            "step_time_s": step_time_s,
            "tokens_per_s": None if tokens is None else tokens / step_time_s,
            "mfu": self.mfu(step_time_s),
        }
        for tracker in self.trackers:
            self._tell(partial(tracker.log, row))

    def _finite_loss(self, loss: Tensor) -> float:
        """Return the mean loss over the ranks; raise TrainingError, on every rank, if training has diverged."""
        value = self.strategy.collectives.all_reduce(loss).item()
        norm = 0.0 if self.grad_norm is None else self.grad_norm.item()
        if math.isfinite(value) and math.isfinite(norm):
            return value
        newest = self._checkpointer.newest() if self._checkpointer else None
        found = f"The loss is {value}" if not math.isfinite(value) else f"The norm of the gradients is {norm}"
        advice = f"'{newest}' is the last good checkpoint: continue from it" if newest else "Start again"
        raise TrainingError(
            f"{found} at step {self.step} with learning_rate={self.config.learning_rate:g}, "
            f"precision={self.config.precision}. {advice} with a lower learning_rate, more warmup_steps or a lower "
            f"grad_clip{', and resume=true' if newest else ', in another run_dir'}."
        )

    @torch.no_grad()
    def _evaluate(self, loss: Tensor) -> None:
        self.model.eval()
        losses = []
        for _, batch in zip(range(self.config.eval_batches), self._evaluation_batches(), strict=False):
            losses.append(self._validation_step(move(batch, self.device)))
        self.model.train()
        if not losses:
            raise DataError("The evaluation loader gave no batch at all. Give more data, or set eval_every=0.")
        value = self.strategy.collectives.all_reduce(torch.stack(losses).mean()).item()
        for tracker in self.trackers:
            self._tell(partial(tracker.log, {"step": self.step, "eval_loss": value}))

    def _evaluation_batches(self) -> Iterable[Any]:
        batches = self.create_evaluation_loader()
        if batches is None:
            raise ConfigError(
                f"eval_every={self.config.eval_every}, but {self.name} has no create_evaluation_loader. "
                "Define it, or set eval_every=0."
            )
        return batches

    def _save(self, loss: Tensor) -> None:
        assert self._checkpointer is not None  # made by execute, before the loop
        self._finite_loss(loss)  # never let a checkpoint of NaN replace a good one
        state = {"loader": self.loader.state_dict()} if hasattr(self.loader, "state_dict") else {}
        path = self._checkpointer.save(self.step, self.model, self.optimizer, state)
        if self.strategy.environment.is_main:
            report_checkpoint(self.step, path)

    def _restore(self, checkpointer: Checkpointer, run: RunDirectory) -> None:
        state = checkpointer.restore(self.model, self.optimizer)
        if state is not None:
            self.step = state["step"]
            if hasattr(self.loader, "load_state_dict"):
                self.loader.load_state_dict(state["loader"])
        on_main_rank(self.strategy, lambda: drop_later_rows(run, self.step))
        if self.strategy.environment.is_main:
            where = f"continues from step {self.step}" if state else "has no checkpoint and starts from step 0"
            print(f"The run in '{run.path}' {where} of {self.config.num_steps}.", flush=True)

    def _interrupt(self, loss: Tensor, signal_name: str) -> None:
        assert self._checkpointer is not None
        if self._checkpointer.last_saved != self.step:
            self._save(loss)
        error = InterruptedRunError(
            f"{signal_name} arrived; training stopped after step {self.step} of {self.config.num_steps}. "
            f"The checkpoint '{self._checkpointer.newest()}' is complete; continue from it with resume=true."
        )
        error.exit_code = _EXIT_CODES.get(signal_name, InterruptedRunError.exit_code)
        raise error
