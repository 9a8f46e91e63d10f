"""A LightningModule trained by Lightning's own Trainer, as a step of a pipeline and in a run directory of ours."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from gnomon.component import Component
from gnomon.data.resumable import create_loader
from gnomon.errors import CheckpointError, ConfigError, DataError, did_you_mean
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.run_directory import RunDirectory
from gnomon.runtime.signals import StopFlag
from gnomon.train.lightning.library import as_module, lightning
from gnomon.train.lightning.settings import LightningConfig
from gnomon.train.loaders import as_dataset
from gnomon.train.memory_errors import explain_out_of_memory
from gnomon.train.run_files import open_run, write_settings

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_CHECKPOINT = re.compile(r"step-(\d{6,})\.ckpt")


class LightningTrainer(Component):
    """Fits `model`, a LightningModule or a function that makes one, with `lightning.pytorch.Trainer`.

    The data are datasets given to `execute`, of which each rank reads its share in an order that depends on the seed
    alone, or a LightningDataModule. `trainer` are further arguments of Lightning's Trainer. Several ranks are started
    by torchrun or by a pipeline (`--ranks`), never by Lightning itself.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | LightningConfig,
        model: Any,
        datamodule: Any = None,
        callbacks: Sequence[Any] = (),
        trainer: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config if isinstance(config, LightningConfig) else LightningConfig.from_mapping(config, "config")
        self._model = model
        self._datamodule = datamodule
        self._callbacks = list(callbacks)
        self._arguments = dict(trainer or {})

    def execute(self, train: Any = None, validation: Any = None, test: Any = None) -> tuple[Any, Any, Any, Any]:
        """Train, test if there are test data, and return (train, validation, test, trained module).

        Raises InterruptedRunError after a signal, with a checkpoint; TrainingError for a loss that is not finite;
        ConfigError for what Lightning refuses; RunDirectoryError, CheckpointError and DataError as their names say.
        """
        library = lightning()
        if (train is None) == (self._datamodule is None):
            raise DataError("Give training data: either a dataset as the first input, or a datamodule, and not both.")
        library.seed_everything(self.config.seed, workers=True, verbose=False)
        module = as_module(self._model)
        environment = RankEnvironment.detect()
        run, lock = self._open(environment)
        logger = self._create_logger(run, environment)
        try:
            with StopFlag() as flag:
                self._fit(run, environment, logger, flag, module, train, validation, test)
        finally:
            logger.tracker.close()
            if lock is not None:
                os.close(lock)
        return train, validation, test, module

    def _fit(
        self, run: RunDirectory, environment: RankEnvironment, logger: Any, flag: StopFlag, module: Any, *data: Any
    ) -> None:
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        newest = _newest(run.checkpoints) if self.config.resume else None
        try:
            trainer = self._create_trainer(run, environment, logger, flag, has_validation=data[1] is not None)
            with explain_out_of_memory(lambda: trainer.global_step):
                trainer.fit(module, **self._loaders(environment, *data[:2]), ckpt_path=newest, weights_only=True)
                if self.config.checkpoint_every:
                    trainer.save_checkpoint(run.checkpoints / f"step-{trainer.global_step:06d}.ckpt")
                if data[2] is not None:
                    trainer.test(module, self._evaluation_loader(data[2], environment), verbose=False)
        except MisconfigurationException as error:
            raise ConfigError(f"Lightning refuses this: {' '.join(str(error).split())}") from error

    def _open(self, environment: RankEnvironment) -> tuple[RunDirectory, int | None]:
        """Return the run directory, which rank 0 makes and locks; another rank only reads and writes below it."""
        if not environment.is_main:
            return RunDirectory(self.config.run_dir), None
        config = cast(Any, self.config)  # it has what these two need of a TrainingConfig
        run, lock = open_run(config)
        write_settings(run, config)
        return run, lock

    def _create_logger(self, run: RunDirectory, environment: RankEnvironment) -> Any:
        from gnomon.track.collection import create_trackers
        from gnomon.track.lightning import GnomonLogger

        return GnomonLogger(create_trackers(self.config.trackers, run, environment, self.config.num_steps), run.path)

    def _create_trainer(
        self, run: RunDirectory, environment: RankEnvironment, logger: Any, flag: StopFlag, has_validation: bool
    ) -> Any:
        from gnomon.train.lightning.guard import RunGuard

        config = self.config
        guard = RunGuard(flag, run.checkpoints, config.log_every, lambda: _newest(run.checkpoints))
        ours = {
            "default_root_dir": str(run.path),
            "logger": logger,
            "callbacks": [*self._callbacks, guard, *self._create_checkpoints(run)],
            "accelerator": {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[config.device],
            "devices": environment.local_world_size,
            "num_nodes": environment.world_size // environment.local_world_size,
            "strategy": "ddp" if config.strategy == "auto" and environment.world_size > 1 else config.strategy,
            "precision": _PRECISIONS[config.precision],
            "max_steps": config.num_steps or -1,
            "max_epochs": -1 if config.epochs is None else config.epochs,
            "accumulate_grad_batches": config.accumulation,
            "gradient_clip_val": config.grad_clip,
            "log_every_n_steps": config.log_every,
            "enable_checkpointing": bool(config.checkpoint_every),
            "enable_progress_bar": config.progress,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        if config.eval_every and has_validation:
            # Lightning counts micro-batches here
            ours |= {"val_check_interval": config.eval_every * config.accumulation, "check_val_every_n_epoch": None}
        taken = sorted(ours.keys() & self._arguments.keys())
        if taken:
            raise ConfigError(f"trainer sets {', '.join(taken)}, which follow from config. Leave them out there.")
        try:
            return lightning().Trainer(**ours, **self._arguments)
        except TypeError as error:
            wrong = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if wrong is None:
                raise
            known = inspect.signature(lightning().Trainer.__init__).parameters
            raise ConfigError(
                f"trainer.{wrong[1]} is no argument of Lightning's Trainer. {did_you_mean(wrong[1], known)}"
            ) from None

    def _create_checkpoints(self, run: RunDirectory) -> list[Any]:
        """Return what saves every so many steps and keeps the newest ones."""
        if not self.config.checkpoint_every:
            return []
        from lightning.pytorch.callbacks import ModelCheckpoint

        return [
            ModelCheckpoint(
                dirpath=run.checkpoints, filename="step-{step:06d}", auto_insert_metric_name=False, monitor="step",
                mode="max", save_top_k=self.config.keep_checkpoints, every_n_train_steps=self.config.checkpoint_every,
            )
        ]  # fmt: skip

    def _loaders(self, environment: RankEnvironment, train: Any, validation: Any) -> dict[str, Any]:
        if self._datamodule is not None:
            return {"datamodule": self._datamodule}
        per_step = environment.world_size * self.config.accumulation
        if self.config.batch % per_step:
            raise ConfigError(
                f"batch={self.config.batch} does not divide by {environment.world_size} rank(s) x "
                f"accumulation={self.config.accumulation}. Set batch to a multiple of {per_step}."
            )
        loader = create_loader(
            as_dataset(train),
            global_batch=self.config.batch,
            micro_batch=self.config.batch // per_step,
            rank=environment.rank,
            world_size=environment.world_size,
            seed=self.config.seed,
        )
        evaluation = None if validation is None else self._evaluation_loader(validation, environment)
        return {"train_dataloaders": loader, "val_dataloaders": evaluation}

    def _evaluation_loader(self, dataset: Any, environment: RankEnvironment) -> Any:
        from torch.utils.data import DataLoader

        return DataLoader(as_dataset(dataset), batch_size=max(1, self.config.batch // environment.world_size))


def _newest(folder: Path) -> Path | None:
    """Return the newest checkpoint; raise CheckpointError if there are files, but none of ours."""
    if not folder.is_dir():
        return None
    found = {int(match[1]): path for path in folder.iterdir() if (match := _CHECKPOINT.fullmatch(path.name))}
    if not found and any(folder.iterdir()):
        raise CheckpointError(
            f"'{folder}' holds no step-N.ckpt, so it belongs to a run of another trainer. Choose another run_dir."
        )
    return found[max(found)] if found else None
