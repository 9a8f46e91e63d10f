"""The batches of this process: for training step by step without end, for evaluation each example once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from gnomon.data.batch_sampler import BatchRequest, GlobalBatchSampler
from gnomon.errors import ConfigError
from gnomon.train.examples import Array, Examples
from gnomon.train.supervised_settings import SupervisedConfig
from gnomon.train.tensorflow.distribution import Distribution

FitTargets = Callable[[Array], Array]
"""What makes a batch of targets fit the model, or raises DataError."""


class TrainingFeed:
    """Inputs and targets of one optimizer step after the other, in an order drawn from (seed, epoch)."""

    def __init__(
        self, examples: Examples, config: SupervisedConfig, distribution: Distribution, fit: FitTargets
    ) -> None:
        self._examples = examples
        self._fit = fit
        self._sampler = _create_sampler(examples, config, distribution, config.accumulation)
        self._requests: Iterator[BatchRequest] = iter(())
        self._taken = 0

    def next_step(self) -> tuple[Array, Array]:
        """Return arrays (accumulation, micro_batch, ...) of inputs and targets."""
        requests = list(islice(self._requests, self._sampler.accumulation))
        if not requests:
            self.load_state_dict(self.state_dict())
            requests = list(islice(self._requests, self._sampler.accumulation))
        self._taken += 1
        pairs = [self._examples.take(request) for request in requests]
        return np.stack([inputs for inputs, _ in pairs]), np.stack([self._fit(targets) for _, targets in pairs])

    def state_dict(self) -> dict[str, Any]:
        """Return the position, which any number of processes can continue from."""
        return self._sampler.advance(self._taken)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; raise DataError if it belongs to other data."""
        self._sampler.load_state_dict(state)
        self._requests = self._sampler.requests()
        self._taken = 0


def evaluation_batches(
    examples: Examples, config: SupervisedConfig, distribution: Distribution, fit: FitTargets
) -> Iterator[tuple[Array, Array, Array]]:
    """Yield inputs, targets and weights (micro_batch, ...), as many on every process; a weight of 0 only pads."""
    sampler = _create_sampler(examples, config, distribution, None)
    for request in sampler.requests():
        weights = (np.arange(len(request.indices)) < request.num_real).astype(np.float32)
        inputs, targets = examples.take(request)
        yield inputs, fit(targets), weights


def _create_sampler(
    examples: Examples, config: SupervisedConfig, distribution: Distribution, accumulation: int | None
) -> GlobalBatchSampler:
    """Return the sampler for training, or with an accumulation of None for evaluation."""
    processes, per_process = distribution.cluster.world_size, distribution.local_replicas
    parts = processes * per_process * (accumulation or 1)
    if config.batch % parts:
        raise ConfigError(
            f"batch={config.batch} does not divide by {distribution.replicas} replica(s) x "
            f"accumulation={accumulation or 1}. Set batch to a multiple of {parts}."
        )
    return GlobalBatchSampler(
        len(examples),
        config.batch,
        config.batch // (processes * (accumulation or 1)),
        rank=distribution.cluster.rank,
        world_size=processes,
        seed=config.seed,
        shuffle=accumulation is not None,
        last="pad" if accumulation is None else "drop",
    )
