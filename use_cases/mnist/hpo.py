"""A search for good settings: an Optuna study whose trials are runs of any gnomon trainer."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from search_space import overridden, read_space

from gnomon.component import Component
from gnomon.errors import ConfigError, LaunchError, TrainingError, did_you_mean
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.run_directory import RunDirectory
from gnomon.train.callbacks import Callback
from gnomon.train.run_files import open_run
from gnomon.train.trainer import Trainer

JOURNAL = "study.journal"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Pruning(Callback):
    """Tells a trial each evaluation and ends its run where the pruner says so; `best` is the best value seen."""

    def __init__(self, trial: optuna.Trial, metric: str, choose: Callable[..., float]) -> None:
        self._trial = trial
        self._metric = metric
        self._choose = choose
        self.best: float | None = None

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Report the metric; raise TrialPruned for a run that is not worth going on with."""
        value = metrics[self._metric]
        self.best = value if self.best is None else self._choose(self.best, value)
        self._trial.report(value, trainer.step)
        if self._trial.should_prune():
            raise optuna.TrialPruned


class Study(Component):
    """Runs `trials` trials of `trainer` with settings from `space`, and reports the best.

    `trainer` is a gnomon trainer with `_partial_: true`; `space` is a tree over its arguments, see `read_space`. What
    is sought is the trainer's own best_metric, and its run_dir holds the study: a run per trial in trials/, the
    journal of Optuna, metrics.jsonl with a row per trial, and best.json. With resume=true a study goes on where it was
    stopped; a trial that was under way then is begun anew. A run that diverges counts as pruned.
    """

    def __init__(
        self,
        trainer: Callable[..., Trainer],
        space: Mapping[str, Any],
        trials: int = 10,
        startup_trials: int = 4,
        warmup_steps: int = 0,
        seed: int = 0,
    ) -> None:
        if not isinstance(trainer, partial):
            raise ConfigError("The study's trainer was made already. Give it _partial_: true.")
        self.space = read_space(space)
        self.trials = trials
        self._trainer = trainer
        self._sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_trials)
        self._pruner = optuna.pruners.MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=warmup_steps)
        self._check_space()
        self.config = trainer().config
        if self.config.best_metric is None:
            raise ConfigError("The study needs to know what is best. Set best_metric and best_mode of its trainer.")

    def execute(self, train: Any, validation: Any, test: Any = None) -> dict[str, Any]:
        """Return {"best", "completed", "pruned"}; raise LaunchError on several ranks, and what `open_run` raises."""
        if RankEnvironment.detect().world_size > 1:
            raise LaunchError("A study runs its trials one after another on one process. Leave --ranks out.")
        run, lock = open_run(self.config)
        try:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            study = optuna.create_study(
                study_name="study",
                storage=JournalStorage(JournalFileBackend(str(run.path / JOURNAL))),
                direction="maximize" if self.config.best_mode == "max" else "minimize",
                sampler=self._sampler,
                pruner=self._pruner,
                load_if_exists=True,
            )
            _repeat_stopped(study)
            left = self.trials - len(study.get_trials(deepcopy=False, states=FINISHED))
            if left > 0:
                data = (train, validation, test)
                study.optimize(
                    lambda trial: self._run(trial, data),
                    n_trials=left,
                    callbacks=[lambda s, _: self._write_rows(run, s)],
                )
            return self._report(run, study)
        finally:
            os.close(lock)

    def _check_space(self) -> None:
        """Let the trainer refuse what it does not know, now: a misspelled setting, or a value out of its bounds."""
        known = inspect.signature(self._trainer.func).parameters
        for path in self.space:
            if (first := path.partition(".")[0]) not in known:
                raise ConfigError(f"space.{path}: the trainer has no argument '{first}'. {did_you_mean(first, known)}")
        firsts = {path: values.extremes()[0] for path, values in self.space.items()}
        for path, values in self.space.items():
            for value in values.extremes():
                self._create({**firsts, path: value})
        if "callbacks" not in known:
            raise ConfigError(f"{self._trainer.func.__name__} takes no callbacks, which pruning needs.")

    def _create(self, values: Mapping[str, Any], **more: Any) -> Trainer:
        return self._trainer.func(**{**overridden(self._trainer.keywords, values), **more})

    def _run_dir(self, number: int) -> str:
        return str(Path(self.config.run_dir, "trials", f"{number:04d}"))

    def _run(self, trial: optuna.Trial, data: tuple[Any, Any, Any]) -> float:
        values = {path: each.draw(trial, path) for path, each in self.space.items()}
        values |= {"config.run_dir": self._run_dir(trial.number), "config.resume": False}
        assert self.config.best_metric is not None
        pruning = Pruning(trial, self.config.best_metric, max if self.config.best_mode == "max" else min)
        try:
            self._create(values, callbacks=[pruning]).execute(*data)
        except TrainingError as error:
            trial.set_user_attr("error", str(error))
            raise optuna.TrialPruned from None
        assert pruning.best is not None  # best_metric needs eval_every, and the last step evaluates too
        return pruning.best

    def _write_rows(self, run: RunDirectory, study: optuna.Study) -> None:
        """Write metrics.jsonl: a row per finished trial."""
        rows = [
            {
                "step": trial.number,
                "state": trial.state.name.lower(),
                str(self.config.best_metric): trial.value,
                **_settings(trial),
            }
            for trial in study.get_trials(deepcopy=False, states=FINISHED)
        ]
        run.keep_metrics(rows)
        print("trial", *(f"{name}={value}" for name, value in rows[-1].items() if name != "step"), flush=True)

    def _report(self, run: RunDirectory, study: optuna.Study) -> dict[str, Any]:
        counts = {state: len(study.get_trials(deepcopy=False, states=(state,))) for state in FINISHED}
        if not counts[TrialState.COMPLETE]:
            raise TrainingError(f"None of {counts[TrialState.PRUNED]} trials came to its end. Narrow the space.")
        best = study.best_trial
        report = {
            "best": {
                "trial": best.number,
                "run_dir": self._run_dir(best.number),
                str(self.config.best_metric): best.value,
                "settings": _settings(best),
            },
            "completed": counts[TrialState.COMPLETE],
            "pruned": counts[TrialState.PRUNED],
        }
        run.write_text("best.json", json.dumps(report, indent=2) + "\n")
        return report


def _settings(trial: FrozenTrial) -> dict[str, Any]:
    """Return the drawn settings, with choices as they were before they became JSON."""
    return {name: json.loads(value) if isinstance(value, str) else value for name, value in trial.params.items()}


def _repeat_stopped(study: optuna.Study) -> None:
    """Begin trials anew that a stop of the process left unfinished, with the same settings."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
