"""The training loop. Subclasses say which model, which data and which loss; what is off costs nothing."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gnomon.component import Component
from gnomon.errors import ConfigError, DataError, PipelineError
from gnomon.runtime.devices import resolve_device
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.run_directory import RunDirectory
from gnomon.runtime.seeds import rng_state, seed_everything, set_rng_state
from gnomon.runtime.signals import StopFlag, deadly_signals
from gnomon.strategy.base import Strategy, Tensors
from gnomon.strategy.registry import create_strategy
from gnomon.track.base import Tracker
from gnomon.train.agreement import StopAgreement, on_main_rank
from gnomon.train.batches import count_samples, endless, move
from gnomon.train.best import create_best
from gnomon.train.callbacks import Callback, overridden
from gnomon.train.checkpoint import Checkpointer, create_checkpointer
from gnomon.train.clock import StepClock
from gnomon.train.config import TrainingConfig
from gnomon.train.ema import WeightAverage
from gnomon.train.evaluation import WeightedMean, plain, set_states, synchronised, total_states
from gnomon.train.finite import first_not_finite
from gnomon.train.memory_errors import explain_out_of_memory
from gnomon.train.optimizer import create_adamw
from gnomon.train.outcomes import diverged, interrupted, no_figure
from gnomon.train.precision import create_scaler, in_precision
from gnomon.train.run_files import drop_later_rows, open_run, write_settings
from gnomon.train.run_trackers import tell, trackers_of
from gnomon.train.running_statistics import RunningStatistics, warn_of_batch_norm
from gnomon.train.schedule import learning_rates
from gnomon.train.scheduler import resumable

if TYPE_CHECKING:
    from torchmetrics import Metric


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
    metrics: dict[str, Metric]
    train_metrics: dict[str, Metric]
    plateau_metric: str | None = "eval_loss"
    """The evaluation metric that ReduceLROnPlateau follows."""

    def __init__(self, config: TrainingConfig, callbacks: Sequence[Callback] = ()) -> None:
        self.config = config
        self.callbacks = list(callbacks)
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

    def create_metrics(self) -> dict[str, Metric]:
        """Return what to measure besides the loss: `self.metrics`, which `validation_step` updates.

        They are computed over the samples of all ranks after each evaluation, logged as eval_<name>, and reset.
        """
        return {}

    def create_train_metrics(self) -> dict[str, Metric]:
        """Return `self.train_metrics`, which `training_step` updates; computed, logged and reset with each log row."""
        return {}

    def create_schedule(self) -> Callable[[int], float]:
        """Return the learning rate as a function of the step, which counts from 1."""
        return learning_rates(self.config)

    def create_scheduler(self) -> torch.optim.lr_scheduler.LRScheduler | None:
        """Return a scheduler of `self.optimizer` to use instead of `create_schedule`; stepped after each step.

        ReduceLROnPlateau is stepped after each evaluation, with its loss.
        """
        return None

    def identity(self) -> dict[str, Any]:
        """Return what must stay the same between a checkpoint and the run that continues it (JSON values)."""
        return {"seed": self.config.seed}

    def on_trained(self) -> None:
        """Do what is left after the last step, before the checkpoint is complete; by default nothing."""

    def samples_per_step(self) -> int | None:
        """Return the samples of one optimizer step over all ranks, or None to leave them out of the log."""
        return None

    def tokens_per_step(self) -> int | None:
        """Return the tokens of one optimizer step over all ranks, or None where there are none."""
        return None

    def mfu(self, step_time_s: float) -> float | None:
        """Return model FLOPs over peak, or None where one of them is unknown."""
        return None

    # The loop

    def execute(self, *inputs: Any) -> Any:
        """Do what `run` does; a subclass that takes inputs, such as datasets, overrides it."""
        if inputs:
            raise PipelineError(f"{self.name} takes no input, but was given {len(inputs)}; it makes its data itself.")
        return self.run()

    def run(self) -> RunDirectory:
        """Train to the last step and return the run directory.

        Raises InterruptedRunError after a signal, once the checkpoint is written; TrainingError for a loss or weights
        that are not finite; CheckpointError, DataError and RunDirectoryError as their names say.
        """
        with StopFlag() as flag:
            try:
                self.setup()
                run = on_main_rank(self.strategy, self._open_run)
                self._checkpointer = self._create_checkpointer(run)
                if self.config.resume:
                    self._restore(self._checkpointer, run)
                on_main_rank(self.strategy, lambda: write_settings(run, self.config))
                self._open_trackers(run)
                self.train(StopAgreement(self.strategy, flag, self.step))
                self.on_trained()
                self._statistics.settle()
                self._checkpointer.wait()
            finally:
                self.teardown()
        return run

    def setup(self) -> None:
        """Join the other ranks and build everything that a step needs."""
        config = self.config
        environment = RankEnvironment.detect()
        self.device = resolve_device(config.device, environment.local_rank)
        self.strategy = create_strategy(config.strategy_name, environment, self.device, config.strategy_options)
        self._is_set_up = True
        with deadly_signals():  # waiting for a rank that has died would outlast them
            self.strategy.setup()
        seed_everything(config.seed)
        self.model = self.strategy.prepare(self.create_model())
        self.module = self.strategy.module(self.model)
        self.model.train()
        self.optimizer = self.strategy.prepare_optimizer(self.model, self.create_optimizer(), config.grad_clip)
        self.loader = self.create_loader()
        if config.eval_every:
            self._evaluation_batches()  # what is wrong with them is better said now than after an hour
        # every step reads these two, and a pydantic model answers ten times slower than a plain attribute
        self._accumulation, self._grad_clip = config.accumulation, config.grad_clip
        self._parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self._schedule = self.create_schedule()
        self._scheduler = resumable(self.create_scheduler(), config.eval_every, self.plateau_metric)
        self._scaler = create_scaler(config.precision, self.strategy)
        self._backward = Tensor.backward if self._scaler is None else self._scaled_backward
        self._average = None if config.ema_decay is None else WeightAverage(self.module, config.ema_decay)
        self._statistics = RunningStatistics([self.module], self.strategy)
        warn_of_batch_norm(self.module, environment, config.accumulation)
        self._best = create_best(config)
        self.metrics, self.train_metrics = self.create_metrics(), self.create_train_metrics()
        for metric in (*self.metrics.values(), *self.train_metrics.values()):
            synchronised(metric.to(self.device), self.strategy.collectives, environment.world_size)
        if config.compile:
            self.model.compile()
        self._training_step = in_precision(self.training_step, config.precision, self.device)
        self._validation_step = in_precision(self.validation_step, config.precision, self.device)
        self._batches = endless(self.loader, self.device)
        self._on_step_end = overridden(self.callbacks, "on_step_end")
        seed_everything(config.seed, environment.rank)

    def train(self, stop: StopAgreement) -> None:
        """Run the steps that are left, and log, evaluate and save as often as the configuration says."""
        num_steps = self.config.num_steps
        clock = StepClock(self.device, self.step)
        actions = self._actions(clock)
        self._call("on_train_start")
        with explain_out_of_memory(lambda: self.step):
            while self.step < num_steps and not self.is_done:
                loss = self.run_step()
                for callback in self._on_step_end:
                    callback(self, loss)
                for every, act in actions:
                    if self.step % every == 0 or self.step == num_steps or self.is_done:
                        act(loss)
                if self.step < num_steps and stop.reached(self.step):
                    self._interrupt(loss, stop.signal_name())
        self._check_weights()
        self._call("on_train_end")

    @property
    def is_done(self) -> bool:
        """True once early stopping has seen enough."""
        return self._best is not None and self._best.exhausted

    def run_step(self) -> Tensor:
        """Do one optimizer step and return its loss, the mean over the micro-batches of this rank, detached."""
        loss = self.strategy.forward_backward(
            self.model, self._training_step, self._batches, self._accumulation, self._backward
        )
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        if self._grad_clip is not None:
            self.grad_norm = self.strategy.clip(self._parameters, self._grad_clip)
        groups = self.optimizer.param_groups
        if self._scheduler is None:
            rate = self._schedule(self.step + 1)
            for group in groups:
                group["lr"] = rate
        self.learning_rate = groups[0]["lr"]
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        if self._scheduler is not None:
            self._scheduler.step()
        if self._average is not None:
            self._average.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss

    def _scaled_backward(self, loss: Tensor) -> None:
        assert self._scaler is not None
        self._scaler.scale(loss).backward()

    def teardown(self) -> None:
        """Close the trackers and leave the other ranks; harmless when `setup` failed or was never called."""
        for tracker in self.trackers:
            tell(tracker.close)
        self.trackers = []
        if self._checkpointer is not None:
            self._checkpointer.close()
            self._checkpointer = None
        if self._is_set_up:
            self.strategy.teardown()
            self._is_set_up = False
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def create_trackers(self, run: RunDirectory) -> list[Tracker]:
        """Return what takes the rows of the run; called on every rank, on rank 0 first."""
        return [trackers_of(self.config, run, self.strategy.environment)]

    # What the loop does now and then

    def _open_run(self) -> RunDirectory:
        run, self._lock = open_run(self.config)
        return run

    def _open_trackers(self, run: RunDirectory) -> None:
        generators = rng_state()
        on_main_rank(self.strategy, lambda: self.trackers.extend(self.create_trackers(run)))
        if not self.strategy.environment.is_main:
            self.trackers.extend(self.create_trackers(run))
        set_rng_state(generators)  # trackers draw random numbers: rich does when it is imported

    def _create_checkpointer(self, run: RunDirectory) -> Checkpointer:
        identity = self.identity() if self._average is None else {**self.identity(), "ema": True}
        return create_checkpointer(run.checkpoints, self.strategy, self.config, identity)

    def _call(self, method: str, *arguments: Any) -> None:
        for callback in overridden(self.callbacks, method):
            callback(self, *arguments)

    def _actions(self, clock: StepClock) -> list[tuple[int, Callable[[Tensor], None]]]:
        """Return what is on, with its interval; all of it is also done at the last step, early or not."""
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
            "lr": self.learning_rate,
            "grad_norm": None if self.grad_norm is None else self.grad_norm.item(),
            "step_time_s": step_time_s,
            "tokens_per_s": None if tokens is None else tokens / step_time_s,
            "mfu": self.mfu(step_time_s),
            **_samples(self.samples_per_step(), self.step, step_time_s),
            **self._computed(self.train_metrics, "train_"),
        }
        self.report(row)

    def report(self, row: Mapping[str, Any]) -> None:
        """Give the trackers a row of figures, with the present step if it has none."""
        row = row if "step" in row else {"step": self.step, **row}
        for tracker in self.trackers:
            tell(partial(tracker.log, row))

    @staticmethod
    def _computed(metrics: Mapping[str, Metric], prefix: str) -> dict[str, float]:
        values = plain({name: metric.compute() for name, metric in metrics.items()}, prefix)
        for metric in metrics.values():
            metric.reset()
        return values

    def _finite_loss(self, loss: Tensor) -> float:
        """Return the mean loss over the ranks; raise TrainingError, on every rank, if training has diverged."""
        value = self.strategy.collectives.all_reduce(loss).item()
        # with a loss scale, steps whose gradients overflow are left out; that is no divergence
        norm = 0.0 if self.grad_norm is None or self._scaler is not None else self.grad_norm.item()
        if math.isfinite(value) and math.isfinite(norm):
            return value
        found = f"The loss is {value}" if not math.isfinite(value) else f"The norm of the gradients is {norm}"
        raise diverged(found, self.step, self.config, self._last_checkpoint())

    def _check_weights(self) -> None:
        """Raise TrainingError, on every rank, if a weight or average is not finite, unless that was just looked at."""
        if self._checkpointer is not None and self._checkpointer.last_saved == self.step:
            return
        if (name := first_not_finite(self.trained_tensors(), self.strategy.collectives)) is not None:
            raise diverged(f"The weight {name} is not finite", self.step, self.config, self._last_checkpoint())

    def trained_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what training changes, by name: the weights and their averages."""
        yield from (pair for pair in self.module.named_parameters() if pair[1].requires_grad)
        if self._average is not None:
            yield from ((f"{name} (its average)", tensor) for name, tensor in self._average.tensors.items())

    def checked(self, metrics: dict[str, float], name: str) -> dict[str, float]:
        """Return the metrics of an evaluation; raise TrainingError, on every rank, if metric `name` is not finite."""
        if math.isfinite(metrics.get(name, 0.0)):
            return metrics
        self._check_weights()
        raise no_figure(name, metrics[name], self.step, self._last_checkpoint())

    def _last_checkpoint(self) -> Path | None:
        if self._checkpointer is None:
            return None
        self._checkpointer.wait()
        return self._checkpointer.newest()

    def _evaluate(self, loss: Tensor) -> None:
        metrics = self.evaluate()
        self.report(metrics)
        if self._scheduler is not None:
            self._scheduler.evaluated(metrics)
        self._call("on_evaluation_end", metrics)
        if self._best is not None and self._best.update(self.step, metrics):
            self._save(loss)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Any] | None = None, prefix: str = "eval_") -> dict[str, float]:
        """Return `prefix`loss and the other evaluation metrics over the samples of all ranks.

        Without `batches` it is over those of `create_evaluation_loader`, `eval_batches` of them at most.

        With `ema_decay` it is the averaged weights that are evaluated. Raises DataError if there is no sample, and
        TrainingError for a loss that is not finite.
        """
        self.model.eval()
        mean = WeightedMean(self.device)
        with self._evaluated_weights():
            limit = self.config.eval_batches if batches is None else None
            for batch in islice(self._evaluation_batches() if batches is None else batches, limit):
                mean.add(self._validation_step(move(batch, self.device)), count_samples(batch))
        self.model.train()
        value = mean.compute(self.strategy.collectives)
        if value is None:
            raise DataError("The evaluation loader gave no batch at all. Give more data, or set eval_every=0.")
        return self.checked({f"{prefix}loss": value, **self._computed(self.metrics, prefix)}, f"{prefix}loss")

    @contextmanager
    def _evaluated_weights(self) -> Iterator[None]:
        """Let the module compute with what is evaluated: averages over steps and over ranks; a collective call."""
        with self._statistics.averaged(), nullcontext() if self._average is None else self._average.in_place():
            yield

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
        if self._checkpointer.last_saved == self.step:
            return
        self._finite_loss(loss)  # never let a checkpoint of NaN replace a good one
        self._check_weights()
        with self._statistics.averaged():
            path = self._checkpointer.save(self.step, self._tensors(), self._state())
        self._call("on_checkpoint", path)

    def _tensors(self) -> Tensors:
        tensors = {
            **self.strategy.state(self.model, self.optimizer),
            "random": {str(self.strategy.environment.rank): rng_state()},
            "statistics": self._statistics.state(),
        }
        if self._average is not None:
            tensors["ema"] = self._average.tensors
        if self.train_metrics:
            tensors["metrics"] = total_states(self.train_metrics)
        return tensors

    def _state(self) -> dict[str, Any]:
        """Return the JSON values of a checkpoint: of every part that is there and has a state."""
        parts: dict[str, Any] = {
            "loader": self.loader,
            "scheduler": self._scheduler,
            "scaler": self._scaler,
            "best": self._best,
        }
        state = {name: part.state_dict() for name, part in parts.items() if hasattr(part, "state_dict")}
        return {**state, "callbacks": [callback.state_dict() for callback in self.callbacks]}

    def _restore(self, checkpointer: Checkpointer, run: RunDirectory) -> None:
        tensors = self._tensors()
        state = checkpointer.restore(tensors)
        if state is not None:
            self._take_over(tensors, state)
        on_main_rank(self.strategy, lambda: drop_later_rows(run, self.step))
        if self.strategy.environment.is_main:
            where = f"continues from step {self.step}" if state else "has no checkpoint and starts from step 0"
            print(f"The run in '{run.path}' {where} of {self.config.num_steps}.", flush=True)

    def _take_over(self, tensors: Tensors, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.strategy.load_state(self.model, self.optimizer, tensors)
        set_rng_state({**rng_state(), **tensors.get("random", {}).get(str(self.strategy.environment.rank), {})})
        self._statistics.load_state(tensors.get("statistics", {}))
        set_states(self.train_metrics, tensors.get("metrics", {}), self.strategy.environment.is_main)
        for name in ("loader", "scheduler", "scaler", "best"):
            part = self.loader if name == "loader" else getattr(self, f"_{name}")
            if part is not None and name in state and hasattr(part, "load_state_dict"):
                part.load_state_dict(state[name])
        for callback, saved in zip(self.callbacks, state.get("callbacks", []), strict=False):
            callback.load_state_dict(saved)

    def _interrupt(self, loss: Tensor, signal_name: str) -> None:
        assert self._checkpointer is not None
        self._save(loss)
        self._checkpointer.wait()
        raise interrupted(signal_name, self.step, self.config.num_steps, self._checkpointer.newest())


def _samples(per_step: int | None, step: int, step_time_s: float) -> dict[str, float]:
    return {} if per_step is None else {"samples": per_step * step, "samples_per_s": per_step / step_time_s}
