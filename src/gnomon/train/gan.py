"""Generative adversarial training: a generator and a discriminator, each with its optimizer, in the common loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gnomon.data.resumable import ResumableLoader
from gnomon.data.sampler import epoch_order
from gnomon.errors import ConfigError, DataError
from gnomon.runtime.seeds import seed_everything
from gnomon.strategy.base import Tensors
from gnomon.track.base import Item
from gnomon.train.agreement import on_main_rank
from gnomon.train.callbacks import Callback
from gnomon.train.clock import StepClock
from gnomon.train.gan_losses import LOSSES, gradient_penalty
from gnomon.train.gan_networks import create_discriminator, create_generator
from gnomon.train.gan_quality import quality
from gnomon.train.gan_settings import DiscriminatorSettings, GANConfig, GeneratorSettings, read_network
from gnomon.train.image_grid import check_images, image_grid
from gnomon.train.loaders import as_dataset, create_step_loader
from gnomon.train.precision import in_precision
from gnomon.train.run_trackers import tell
from gnomon.train.running_statistics import RunningStatistics, warn_of_batch_norm
from gnomon.train.scheduler import resumable
from gnomon.train.trainer import Trainer

if TYPE_CHECKING:
    from torchmetrics import Metric

Network = nn.Module | Callable[[], nn.Module] | Mapping[str, Any] | str

__all__ = ["GANConfig", "GANTrainer"]

_STRATEGIES = ("single", "ddp")
_LATENT, _SHARES = 0, 1  # what random numbers are for
_QUALITY, _IMAGES = -1, -2  # in place of a step
_FIRST_STEP = -2


class GANTrainer(Trainer):
    """Trains `generator`, which is `self.model` to the loop, against `discriminator`.

    A network is a mapping such as {name: mlp, hidden: [128, 128]}, a module, or a function that makes one. The
    generator maps (batch, latent_dim) to samples, the discriminator samples to scores (batch, 1). All random numbers
    of a step are drawn from (seed, step), so they are the same for any number of ranks and after a resume.
    """

    config: GANConfig
    discriminator: nn.Module
    plateau_metric = None

    def __init__(
        self,
        config: Mapping[str, Any] | GANConfig,
        generator: Network,
        discriminator: Network,
        num_workers: int = 0,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        settings = config if isinstance(config, GANConfig) else GANConfig.from_mapping(config, "config")
        super().__init__(settings, callbacks)
        self._settings = settings
        self._generator: Any = (
            generator if callable(generator) else read_network(GeneratorSettings, generator, "generator")
        )
        self._chosen_samples: dict[int, Tensor] = {}
        self._discriminator: Any = (
            discriminator
            if callable(discriminator)
            else read_network(DiscriminatorSettings, discriminator, "discriminator")
        )
        self._num_workers = num_workers

    def execute(self, train: Any, validation: Any = None, test: Any = None) -> tuple[Any, Any, Any, nn.Module]:
        """Train, measure the quality against `test` at the end if there is one, and return the generator.

        The result is (train, validation, test, generator). Quality on the way is measured against `validation`, or
        against `train` without it. A dataset's items are samples, or pairs whose first part is one.
        """
        self._train, self._validation, self._test = (as_dataset(each) for each in (train, validation, test))
        if self._train is None:
            raise DataError("The trainer was given no training data (None). The step before must return a dataset.")
        self.config = self._settings.for_examples(len(self._train))
        self._sample_shape = tuple(np.shape(self.real_samples(self._train[0])))
        if self.config.image_every:
            check_images(self._sample_shape)
        self.run()
        return train, validation, test, self.module

    # What a subclass may say

    def create_model(self) -> nn.Module:
        """Return the generator."""
        if callable(self._generator):
            return _made(self._generator)
        return create_generator(self._generator, self.config.latent_dim, self._sample_shape)

    def create_discriminator(self) -> nn.Module:
        """Return the discriminator."""
        if callable(self._discriminator):
            return _made(self._discriminator)
        return create_discriminator(self._discriminator, self._sample_shape)

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Return Adam for the generator."""
        return self._adam(self.module, self.config.learning_rate)

    def create_discriminator_optimizer(self) -> torch.optim.Optimizer:
        """Return Adam for `self.discriminator`; its rates follow the generator's schedule at its own height."""
        return self._adam(self.discriminator, self._discriminator_rate)

    def create_discriminator_scheduler(self) -> torch.optim.lr_scheduler.LRScheduler | None:
        """Return a scheduler of `self.discriminator_optimizer` to use instead; stepped after each of its steps."""
        return None

    def real_samples(self, batch: Any) -> Any:
        """Return the samples of a batch, or the sample of an item: its first part where there are several."""
        return batch[0] if isinstance(batch, tuple | list) else batch

    def latent(self, count: int, generator: torch.Generator) -> Tensor:
        """Return what `count` samples are made of, drawn on the CPU from `generator`: a standard normal."""
        return torch.randn(count, self.config.latent_dim, generator=generator)

    def training_step(self, batch: Any) -> Tensor:
        """Return the generator's loss for a micro-batch of latent numbers."""
        return self._losses.generator(self.discriminator(self.model(batch)).float())

    def discriminator_step(self, batch: Any) -> Tensor:
        """Return the discriminator's loss for a micro-batch of real samples, latent numbers and shares.

        Both kinds of samples go through it as one batch, because DistributedDataParallel allows one forward pass.
        """
        real, latent, shares = batch
        with torch.no_grad():
            fake = self.module(latent).to(real.dtype)
        scores = self.discriminator_model(torch.cat([real, fake])).float()
        real_scores, fake_scores = scores[: len(real)], scores[len(real) :]
        loss = self._losses.discriminator(real_scores, fake_scores)
        for name, value in (("discriminator_loss", loss), ("real_score", real_scores), ("fake_score", fake_scores)):
            self.train_metrics[name].update(value.detach())
        if shares is None:
            return loss
        return loss + self.config.penalty * gradient_penalty(self.discriminator, real, fake, shares)

    def create_train_metrics(self) -> dict[str, Metric]:
        """Return means since the last row: the discriminator's loss without penalty, and its scores of both kinds."""
        import torchmetrics

        return {name: torchmetrics.MeanMetric() for name in ("discriminator_loss", "real_score", "fake_score")}

    def create_loader(self) -> ResumableLoader:
        """Return this rank's micro-batches of the training data, dealt anew each epoch."""
        accumulation, workers = self.config.accumulation, self._num_workers
        return create_step_loader(
            self._train, self.config, self.strategy, accumulation=accumulation, num_workers=workers
        )

    def create_evaluation_loader(self) -> Iterable[Tensor]:
        """Return the real samples that quality is measured against, as one batch."""
        return [self._chosen(self._train if self._validation is None else self._validation)]

    def on_trained(self) -> None:
        """Measure the quality against the test data and log it as test_<metric>."""
        if self._test is not None:
            self.report(self.evaluate([self._chosen(self._test)], "test_"))

    def samples_per_step(self) -> int:
        """Return the real samples of one step of the generator."""
        return self.config.batch * self.config.discriminator_steps

    def identity(self) -> dict[str, Any]:
        """Return seed, batch, loss, shape of the latent numbers and the number of training samples."""
        names = ("batch", "adversarial_loss", "latent_dim", "discriminator_steps")
        chosen = {name: getattr(self.config, name) for name in names}
        return {**super().identity(), **chosen, "samples": len(self._train)}

    # What the loop does

    def setup(self) -> None:
        """Build both networks and all that a step needs; raise ConfigError for a strategy that takes only one."""
        config = self.config
        super().setup()
        if self.strategy.name not in _STRATEGIES:
            raise ConfigError(
                f"strategy={self.strategy.name} wraps one network, but a GAN has two. Set strategy=ddp, single or auto."
            )
        seed_everything(config.seed)
        self.discriminator_model = self.strategy.prepare(self.create_discriminator())
        self.discriminator = self.strategy.module(self.discriminator_model)
        self.discriminator_model.train()
        self.discriminator_optimizer = self.strategy.prepare_optimizer(
            self.discriminator_model, self.create_discriminator_optimizer(), config.grad_clip
        )
        scheduler = self.create_discriminator_scheduler()
        self._discriminator_scheduler = resumable(scheduler, config.eval_every, self.plateau_metric)
        self._statistics = RunningStatistics([self.module, self.discriminator], self.strategy)
        warn_of_batch_norm(self.discriminator, self.strategy.environment, config.accumulation)
        self._discriminator_parameters = [p for p in self.discriminator.parameters() if p.requires_grad]
        self._is_penalised = config.penalty > 0.0
        if config.compile and not self._is_penalised:  # what is compiled has no second derivative
            self.discriminator_model.compile()
        self._discriminator_step = in_precision(self.discriminator_step, config.precision, self.device)
        self._losses = LOSSES[config.adversarial_loss]
        self._real_batches, self._batches = self._batches, self._latent_batches()
        seed_everything(config.seed, self.strategy.environment.rank)

    def run_step(self) -> Tensor:
        """Do the steps of the discriminator and one of the generator; return the generator's loss, detached."""
        for index in range(self.config.discriminator_steps):
            self._train_discriminator(index)
        for parameter in self._discriminator_parameters:
            parameter.requires_grad_(False)
        loss = super().run_step()
        for parameter in self._discriminator_parameters:
            parameter.requires_grad_(True)
        return loss

    def _train_discriminator(self, index: int) -> None:
        latent = self._drawn(self.step, _LATENT, index, self.latent)
        shares = self._drawn(self.step, _SHARES, index, _uniform) if self._is_penalised else [None] * self._accumulation
        parts = zip(latent, shares, strict=True)
        batches = ((self.real_samples(real), *next(parts)) for real in self._real_batches)
        self.strategy.forward_backward(self.discriminator_model, self._discriminator_step, batches, self._accumulation)
        if self._grad_clip is not None:
            self.strategy.clip(self._discriminator_parameters, self._grad_clip)
        if self._discriminator_scheduler is None:
            rate = self._schedule(self.step + 1) * self._discriminator_rate / self.config.learning_rate
            for group in self.discriminator_optimizer.param_groups:
                group["lr"] = rate
        self.discriminator_optimizer.step()
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        if self._discriminator_scheduler is not None:
            self._discriminator_scheduler.step()

    @torch.no_grad()
    def generate(self, count: int, purpose: int = _QUALITY) -> Tensor:
        """Return `count` samples on the CPU, always the same for the same weights; averaged ones if there are any."""
        latent = self.latent(count, self._generator_of(purpose, _LATENT, 0))
        self.model.eval()
        with self._averaged():
            batches = [self.module(part.to(self.device)).float().cpu() for part in latent.split(self.config.batch)]
        self.model.train()
        return torch.cat(batches)

    def evaluate(self, batches: Iterable[Any] | None = None, prefix: str = "eval_") -> dict[str, float]:
        """Return the figures of `gan_quality.quality` against the real samples, the same on every rank."""
        (real,) = self.create_evaluation_loader() if batches is None else batches

        def compare() -> dict[str, float]:
            return quality(real, self.generate(len(real)), self.config.seed)

        with self._statistics.averaged():
            figures = on_main_rank(self.strategy, compare)
        return {f"{prefix}{name}": value for name, value in figures.items()}

    @property
    def _discriminator_rate(self) -> float:
        return self.config.discriminator_learning_rate or self.config.learning_rate

    def _adam(self, module: nn.Module, rate: float) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(parameters, lr=rate, betas=self.config.betas, weight_decay=self.config.weight_decay)

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._average is None else self._average.in_place()

    # Random numbers: a pure function of (seed, step, purpose, index), drawn for the whole batch and then dealt

    def _latent_batches(self) -> Iterator[Tensor]:
        """Yield the latent numbers of the generator's micro-batches, those of `self.step` next."""
        while True:
            yield from self._drawn(self.step, _LATENT, self.config.discriminator_steps, self.latent)

    def _drawn(
        self, step: int, purpose: int, index: int, draw: Callable[[int, torch.Generator], Tensor]
    ) -> list[Tensor]:
        """Return this rank's micro-batches of the numbers that `draw` gives for the global batch."""
        shard, shards = self.strategy.data_shard
        share = self.config.batch // shards
        mine = draw(self.config.batch, self._generator_of(step, purpose, index))[shard * share : (shard + 1) * share]
        return [part.to(self.device) for part in mine.split(share // self._accumulation)]

    def _generator_of(self, step: int, purpose: int, index: int) -> torch.Generator:
        sequence = np.random.SeedSequence([self.config.seed, step - _FIRST_STEP, purpose, index])
        return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))

    def _chosen(self, dataset: Any) -> Tensor:
        """Return `quality_samples` samples drawn from the dataset by the seed; raise DataError if there are too few."""
        if id(dataset) not in self._chosen_samples:
            indices = epoch_order(len(dataset), self.config.seed, 0)[: self.config.quality_samples]
            samples = [torch.as_tensor(self.real_samples(dataset[int(index)])) for index in indices]
            self._chosen_samples[id(dataset)] = torch.stack(samples)
        return self._chosen_samples[id(dataset)]

    # Pictures and checkpoints

    def _actions(self, clock: StepClock) -> list[tuple[int, Callable[[Tensor], None]]]:
        actions = super()._actions(clock)
        if self.config.image_every:
            actions.append((self.config.image_every, clock.leave_out(self._record_images)))
        return actions

    def _record_images(self, loss: Tensor) -> None:
        with self._statistics.averaged():
            images = self.generate(self.config.image_count, _IMAGES) if self.strategy.environment.is_main else None
        if images is None:
            return
        real = self._chosen(self._train)
        grid = image_grid(images, (real.min().item(), real.max().item()))
        item = Item(kind="image", name="samples", value=grid, step=self.step)
        for tracker in self.trackers:
            tell(partial(tracker.record, item))

    def trained_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what training changes, by name, of both networks."""
        yield from super().trained_tensors()
        yield from (
            (f"{name} (of the discriminator)", weight) for name, weight in self.discriminator.named_parameters()
        )

    def _tensors(self) -> Tensors:
        discriminator = self.strategy.state(self.discriminator_model, self.discriminator_optimizer)
        return {**super()._tensors(), "discriminator": discriminator}

    def _state(self) -> dict[str, Any]:
        scheduler = self._discriminator_scheduler
        return {
            **super()._state(),
            **({} if scheduler is None else {"discriminator_scheduler": scheduler.state_dict()}),
        }

    def _take_over(self, tensors: Tensors, state: dict[str, Any]) -> None:
        super()._take_over(tensors, state)
        self.strategy.load_state(self.discriminator_model, self.discriminator_optimizer, tensors["discriminator"])
        if self._discriminator_scheduler is not None and "discriminator_scheduler" in state:
            self._discriminator_scheduler.load_state_dict(state["discriminator_scheduler"])


def _made(network: Any) -> nn.Module:
    module: nn.Module = network if isinstance(network, nn.Module) else network()
    return module


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator)
