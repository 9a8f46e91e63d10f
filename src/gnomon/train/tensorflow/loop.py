"""One training run: build, restore, step, log, evaluate, save."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from gnomon.launch.rank_errors import report_checkpoint
from gnomon.runtime.run_directory import RunDirectory
from gnomon.runtime.signals import StopFlag
from gnomon.track.base import Tracker
from gnomon.train.best import create_best
from gnomon.train.clock import StepClock
from gnomon.train.examples import Examples
from gnomon.train.outcomes import diverged, interrupted, no_figure
from gnomon.train.retention import Retention
from gnomon.train.run_files import drop_later_rows, open_run, write_settings
from gnomon.train.run_trackers import tell, trackers_of
from gnomon.train.schedule import learning_rates
from gnomon.train.supervised_settings import Objective, SupervisedConfig
from gnomon.train.tensorflow.checkpoint import KerasCheckpointer, on_main
from gnomon.train.tensorflow.distribution import Distribution
from gnomon.train.tensorflow.feed import TrainingFeed, evaluation_batches
from gnomon.train.tensorflow.library import keras
from gnomon.train.tensorflow.models import create_model, create_optimizer, first_not_finite, fit_targets
from gnomon.train.tensorflow.steps import Steps


class Loop:
    """A run of `TensorFlowTrainer`: `run` does it all, `close` lets go of what it holds."""

    def __init__(
        self,
        config: SupervisedConfig,
        objective: Objective,
        source: Any,
        distribution: Distribution,
        examples: Examples,
        held_out: Mapping[str, Examples],
    ) -> None:
        """Build what a step needs; `held_out` are the data to evaluate, by their role: "validation" and "test"."""
        self.config = config
        self.step = 0
        self._objective = objective
        self._distribution = distribution
        self._held_out = held_out
        self._trackers: list[Tracker] = []
        self._lock: int | None = None
        keras().utils.set_random_seed(config.seed)
        with distribution.strategy.scope(), _in_precision(config.precision):
            self.model, output_shape = create_model(source, examples.example(), distribution)
            self._optimizer = create_optimizer(config, objective, self.model)
        self._fit = partial(fit_targets, output_shape=output_shape, objective=objective)
        self._feed = TrainingFeed(examples, config, distribution, self._fit)
        self._steps = create_steps(distribution, self.model, self._optimizer, objective, config)
        self._rates, self._rate = learning_rates(config), math.nan
        self._best = create_best(config)
        self._identity = {
            "seed": config.seed,
            "batch": config.batch,
            "objective": objective.to_mapping(),
            "samples": len(examples),
        }

    def run(self, flag: StopFlag) -> None:
        """Train to the last step, unless the flag is raised before, and evaluate the test data after it."""
        run = on_main(self._distribution, self._open) or RunDirectory(self.config.run_dir)
        self._checkpointer = self._create_checkpointer(run)
        if self.config.resume:
            self._restore(run)
        on_main(self._distribution, lambda: write_settings(run, self.config))
        on_main(self._distribution, lambda: self._trackers.extend(self._create_trackers(run)))
        if not self._distribution.cluster.is_main:
            self._trackers.extend(self._create_trackers(run))
        self._train(flag)
        if "test" in self._held_out:
            self._report(self._checked(self.evaluate("test", "test_"), "test_loss"))

    def close(self) -> None:
        """Close the trackers, unlock the run directory and leave the other processes."""
        for tracker in self._trackers:
            tell(tracker.close)
        self._trackers = []
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._distribution.leave()

    def evaluate(self, role: str, prefix: str) -> dict[str, float]:
        """Return `prefix`loss and the metrics, over every example of the data with this role."""
        batches = evaluation_batches(self._held_out[role], self.config, self._distribution, self._fit)
        limit = self.config.eval_batches if role == "validation" else None
        totals = np.sum([self._steps.evaluate(*batch) for batch in islice(batches, limit)], axis=0)
        values = totals[1:] / totals[0]  # all weights together: the examples that were not padding
        means = dict(zip(("loss", *self._objective.metrics), values.tolist(), strict=True))
        if "rmse" in means:
            means["rmse"] = math.sqrt(means["rmse"])
        return {f"{prefix}{name}": value for name, value in means.items()}

    def _train(self, flag: StopFlag) -> None:
        num_steps = self.config.num_steps
        clock = StepClock(None, self.step)
        actions = self._actions(clock)
        while self.step < num_steps and not (self._best and self._best.exhausted):
            stop = self._run_step(flag)
            for every, act in actions:
                if self.step % every == 0 or self.step == num_steps:
                    act(None)
            if self.step < num_steps and stop:
                self._save(None)
                raise interrupted(flag.signal_name or "SIGTERM", self.step, num_steps, self._checkpointer.newest())
        self._check_weights()

    def _run_step(self, flag: StopFlag) -> bool:
        """Do one optimizer step; return True, on all processes alike, if any of them was asked to stop before it."""
        rate = self._rates(self.step + 1)
        if rate != self._rate:
            self._optimizer.learning_rate = self._rate = rate
        self._loss, self._norm, stops = self._steps.train(*self._feed.next_step(), stop=bool(flag))
        self.step += 1
        return bool(flag) if self._distribution.cluster.world_size == 1 else float(stops) > 0

    def _actions(self, clock: StepClock) -> list[tuple[int, Callable[[None], None]]]:
        """Return what is on, with its interval; each is also done at the last step."""
        config = self.config
        actions: list[tuple[int, Callable[[None], None]]] = [
            (config.log_every, lambda _: self._log(clock)),
            (config.eval_every, clock.leave_out(self._evaluate)),
            (config.checkpoint_every, clock.leave_out(self._save)),
        ]
        return [(interval, act) for interval, act in actions if interval > 0]

    def _log(self, clock: StepClock) -> None:
        loss = self._finite_loss()
        step_time_s = clock.lap(self.step)
        clipped = self.config.grad_clip is not None
        row = {
            "tokens": None,
            "loss": loss,
            "lr": self._rate,
            "grad_norm": float(self._norm) if clipped else None,
            "step_time_s": step_time_s,
            "tokens_per_s": None,
            "mfu": None,
            "samples": self.config.batch * self.step,
            "samples_per_s": self.config.batch / step_time_s,
        }
        self._report(row)

    def _report(self, row: Mapping[str, Any]) -> None:
        for tracker in self._trackers:
            tell(partial(tracker.log, {"step": self.step, **row}))

    def _finite_loss(self) -> float:
        """Return the loss of the step, which is the same on every process; raise TrainingError if it diverged."""
        for name, value in (("loss", float(self._loss)), ("norm of the gradients", float(self._norm))):
            if not math.isfinite(value):
                raise diverged(f"The {name} is {value}", self.step, self.config, self._checkpointer.newest())
        return float(self._loss)

    def _check_weights(self) -> None:
        """Raise TrainingError, on every process, if a weight is not finite, unless that was just looked at.

        The loss does not always tell: a ReLU of TensorFlow may make 0 of what is not a number.
        """
        if self._checkpointer.last_saved == self.step:
            return
        name = first_not_finite(self.model)
        if self._distribution.sum(float(name is not None)):
            found = f"The weight {name or 'of another process'} is not finite"
            raise diverged(found, self.step, self.config, self._checkpointer.newest())

    def _checked(self, metrics: dict[str, float], name: str) -> dict[str, float]:
        """Return the metrics of an evaluation; raise TrainingError, on every process, if its loss is not finite."""
        if math.isfinite(metrics[name]):
            return metrics
        self._check_weights()
        raise no_figure(name, metrics[name], self.step, self._checkpointer.newest())

    def _evaluate(self, _: None) -> None:
        metrics = self._checked(self.evaluate("validation", "eval_"), "eval_loss")
        self._report(metrics)
        if self._best is not None and self._best.update(self.step, metrics):
            self._save(None)

    def _save(self, _: None) -> None:
        if self._checkpointer.last_saved == self.step:
            return
        self._finite_loss()  # never let a checkpoint of NaN replace a good one
        self._check_weights()
        state = {"loader": self._feed.state_dict()}
        if self._best is not None:
            state["best"] = self._best.state_dict()
        path = self._checkpointer.save(self.step, state)
        if self._distribution.cluster.is_main:
            report_checkpoint(self.step, path)

    def _restore(self, run: RunDirectory) -> None:
        state = self._checkpointer.restore()
        if state is not None:
            self.step = state["step"]
            self._feed.load_state_dict(state["loader"])
            if self._best is not None and "best" in state:
                self._best.load_state_dict(state["best"])
        on_main(self._distribution, lambda: drop_later_rows(run, self.step))
        if self._distribution.cluster.is_main:
            where = f"continues from step {self.step}" if state else "has no checkpoint and starts from step 0"
            print(f"The run in '{run.path}' {where} of {self.config.num_steps}.", flush=True)

    def _open(self) -> RunDirectory:
        run, self._lock = open_run(self.config)
        return run

    def _create_checkpointer(self, run: RunDirectory) -> KerasCheckpointer:
        retention = Retention(newest=self.config.keep_checkpoints, every=self.config.keep_every)
        return KerasCheckpointer(
            run.checkpoints, self._distribution, retention, self._identity, self.model, self._optimizer
        )

    def _create_trackers(self, run: RunDirectory) -> list[Tracker]:
        return [trackers_of(self.config, run, self._distribution.cluster.environment)]


def create_steps(
    distribution: Distribution, model: Any, optimizer: Any, objective: Objective, config: SupervisedConfig
) -> Steps:
    """Return the steps that the settings describe."""
    return Steps(
        distribution,
        model,
        optimizer,
        objective,
        batch=config.batch,
        accumulation=config.accumulation,
        grad_clip=config.grad_clip,
    )


@contextmanager
def _in_precision(precision: str) -> Iterator[None]:
    """Let the layers that are made inside compute in bf16, with weights in fp32, if that is the precision."""
    policies = keras().config
    before = policies.dtype_policy()
    policies.set_dtype_policy("mixed_bfloat16" if precision == "bf16" else "float32")
    try:
        yield
    finally:
        policies.set_dtype_policy(before)
