"""One optimizer step and one evaluation batch, as graphs that run on every replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gnomon.train.examples import Array
from gnomon.train.supervised_settings import Objective
from gnomon.train.tensorflow.distribution import Distribution
from gnomon.train.tensorflow.library import tensorflow

_CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class Steps:
    """Runs a model on batches of this process; all processes must call the same method at the same time."""

    def __init__(
        self,
        distribution: Distribution,
        model: Any,
        optimizer: Any,
        objective: Objective,
        *,
        batch: int,
        accumulation: int,
        grad_clip: float | None,
    ) -> None:
        """`batch` is the number of examples of one optimizer step over all processes."""
        tf = tensorflow()
        self._distribution = distribution
        self._model = model
        self._optimizer = optimizer
        self._batch = batch
        self._accumulation = accumulation
        self._grad_clip = grad_clip
        self._loss = example_losses(objective.loss)
        self._metrics = [example_metric(name, objective.loss) for name in objective.metrics]
        # as in Keras, models are traced as they are: their control flow on tensors is that of keras.ops
        self._train = tf.function(self._train_everywhere, autograph=False)
        self._evaluate = tf.function(self._evaluate_everywhere, autograph=False)

    def train(self, inputs: Array, targets: Array, stop: bool) -> tuple[Any, Any, Any]:
        """Do one optimizer step with (accumulation, micro_batch, ...); return tensors: loss, gradient norm, stops.

        The loss is the mean over the whole batch, the norm that before clipping (0 where nothing is clipped), and
        `stops` above 0 where a process was asked to stop.
        """
        scatter = self._distribution.scatter
        tf = tensorflow()
        return self._train(scatter(inputs, 1), scatter(targets, 1), tf.constant(float(stop)))

    def evaluate(self, inputs: Array, targets: Array, weights: Array) -> list[float]:
        """Return the sums over a batch of: weights, losses, and each metric, every example times its weight."""
        scatter = self._distribution.scatter
        sums = self._evaluate(scatter(inputs, 0), scatter(targets, 0), scatter(weights, 0))
        return [float(value) for value in sums.numpy()]

    def _train_everywhere(self, inputs: Any, targets: Any, stop: Any) -> tuple[Any, Any, Any]:
        tf = tensorflow()
        strategy = self._distribution.strategy
        loss, norm = strategy.run(self._train_replica, args=(inputs, targets))
        loss = strategy.reduce("SUM", loss, axis=None)
        norm = strategy.reduce("MEAN", norm, axis=None)
        if self._distribution.cluster.world_size == 1:
            return loss, norm, tf.zeros(())
        return loss, norm, strategy.reduce("SUM", strategy.run(lambda: tf.identity(stop)), axis=None)

    def _train_replica(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        tf = tensorflow()
        variables = self._model.trainable_variables
        loss, gradients = self._forward_backward(inputs[0], targets[0], variables)
        for index in range(1, self._accumulation):
            more, others = self._forward_backward(inputs[index], targets[index], variables)
            loss += more
            gradients = [
                tf.convert_to_tensor(a) + tf.convert_to_tensor(b) for a, b in zip(gradients, others, strict=True)
            ]
        norm = tf.zeros(())
        if self._grad_clip is not None:
            gradients, norm = self._clip(gradients)
        self._optimizer.apply(gradients, variables)  # adds the gradients of the replicas
        return loss, norm

    def _forward_backward(self, inputs: Any, targets: Any, variables: Any) -> tuple[Any, list[Any]]:
        """Return this replica's part of the mean loss of the batch, and its gradients."""
        tf = tensorflow()
        with tf.GradientTape() as tape:
            outputs = tf.cast(self._model(inputs, training=True), tf.float32)
            loss = tf.reduce_sum(self._loss(outputs, targets)) / self._batch
            penalties = [tf.cast(penalty, tf.float32) for penalty in self._model.losses]
            if penalties:
                loss += tf.add_n(penalties) / (self._distribution.replicas * self._accumulation)
        gradients = tape.gradient(loss, [each.value for each in variables], unconnected_gradients="zero")
        return loss, gradients

    def _clip(self, gradients: list[Any]) -> tuple[list[Any], Any]:
        """Return shares of the clipped gradients, whose sum over the replicas is at most `grad_clip` long.

        Keras clips what a replica has, before the sum; so the sum is taken here first.
        """
        tf = tensorflow()
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        replicas = self._distribution.replicas
        if replicas > 1:
            gradients = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        norm = tf.linalg.global_norm(gradients)
        scale = tf.minimum(self._grad_clip / (norm + _CLIP_EPSILON), 1.0) / replicas
        return [gradient * scale for gradient in gradients], norm

    def _evaluate_everywhere(self, inputs: Any, targets: Any, weights: Any) -> Any:
        strategy = self._distribution.strategy
        sums = strategy.run(self._evaluate_replica, args=(inputs, targets, weights))
        return strategy.reduce("SUM", sums, axis=None)

    def _evaluate_replica(self, inputs: Any, targets: Any, weights: Any) -> Any:
        tf = tensorflow()
        outputs = tf.cast(self._model(inputs, training=False), tf.float32)
        values = [tf.ones_like(weights), self._loss(outputs, targets)]
        values += [metric(outputs, targets) for metric in self._metrics]
        # a padded example may give a loss that is not finite, and must not count even then
        return tf.stack([tf.reduce_sum(tf.where(weights > 0, value * weights, 0.0)) for value in values])


ExampleValues = Callable[[Any, Any], Any]
"""Outputs and targets (batch, ...) to one float32 per example (batch,)."""


def example_losses(name: str) -> ExampleValues:
    """Return the loss of each example; logits for both cross-entropies (nat)."""
    tf = tensorflow()
    losses: dict[str, ExampleValues] = {
        "cross_entropy": lambda outputs, targets: tf.nn.sparse_softmax_cross_entropy_with_logits(targets, outputs),
        "binary_cross_entropy": lambda outputs, targets: _mean(
            tf.nn.sigmoid_cross_entropy_with_logits(targets, outputs)
        ),
        "mse": lambda outputs, targets: _mean(tf.math.squared_difference(outputs, targets)),
        "mae": lambda outputs, targets: _mean(tf.abs(outputs - targets)),
        "huber": lambda outputs, targets: _mean(_huber(tf.abs(outputs - targets))),
    }
    return losses[name]


def example_metric(name: str, loss: str) -> ExampleValues:
    """Return what is averaged over the examples for a metric; of the mean of `rmse` the root is still to be taken."""
    tf = tensorflow()
    if name != "accuracy":
        return example_losses("mse" if name == "rmse" else name)
    if loss == "binary_cross_entropy":
        return lambda outputs, targets: _mean(tf.cast((outputs > 0) == (targets > 0.5), tf.float32))
    return lambda outputs, targets: tf.cast(tf.argmax(outputs, -1, tf.int32) == targets, tf.float32)


def _huber(distance: Any) -> Any:
    return tensorflow().where(distance < 1.0, 0.5 * distance * distance, distance - 0.5)


def _mean(values: Any) -> Any:
    tf = tensorflow()
    return tf.reduce_mean(tf.reshape(values, [tf.shape(values)[0], -1]), axis=1)
