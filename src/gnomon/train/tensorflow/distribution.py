"""The strategies of TensorFlow: how many replicas of the model train, and how what they computed is added up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from itertools import count
from typing import Any

from gnomon.errors import ConfigError, LaunchError, did_you_mean
from gnomon.train.examples import Array
from gnomon.train.supervised_settings import SupervisedConfig
from gnomon.train.tensorflow.cluster import Cluster, find_cluster
from gnomon.train.tensorflow.library import eager_context, tensorflow

_OPTIONS: Mapping[str, tuple[str, ...]] = {"single": (), "mirrored": ("replicas",), "multi_worker": ("port",)}
_LEAVE_TIMEOUT_MS = 10_000
_barriers = count()
_TORCH_TWINS = {"ddp": "multi_worker", "horovod": "multi_worker"}


class Distribution:
    """A strategy of TensorFlow and the place of this process in it; make one with `create_distribution`."""

    def __init__(self, name: str, strategy: Any, cluster: Cluster) -> None:
        self.name = name
        self.strategy = strategy
        self.cluster = cluster
        self.replicas = int(strategy.num_replicas_in_sync)
        self.local_replicas = self.replicas // cluster.world_size
        self._sum = self._create_sum()

    def scatter(self, array: Array, axis: int) -> Any:
        """Return the local batch for `strategy.run`: each local replica gets its share along `axis`."""
        tf = tensorflow()
        if self.local_replicas == 1:
            return tf.convert_to_tensor(array)
        parts = [tf.convert_to_tensor(part) for part in _split(array, self.local_replicas, axis)]
        first = self.cluster.rank * self.local_replicas
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group - first]
        )

    def sum(self, value: float) -> float:
        """Return the sum of `value` over all processes; each must call this."""
        return value if self.cluster.world_size == 1 else float(self._sum(value))

    def leave(self) -> None:
        """Wait for the other processes, at most ten seconds: what they still reduce ends in an error if this one exits.

        A process that is lost is not waited for. Call it as the last thing of a run, also after an error.
        """
        if self.cluster.world_size == 1:
            return
        with suppress(tensorflow().errors.OpError):
            eager_context().wait_at_barrier(f"gnomon-{next(_barriers)}", _LEAVE_TIMEOUT_MS)

    def _create_sum(self) -> Any:
        tf = tensorflow()

        @tf.function(input_signature=[tf.TensorSpec([], tf.float64)], autograph=False)  # type: ignore[untyped-decorator]
        def total(value: Any) -> Any:
            shares = self.strategy.run(lambda: value / self.local_replicas)
            return self.strategy.reduce("SUM", shares, axis=None)

        return total


def create_distribution(config: SupervisedConfig) -> Distribution:
    """Return the strategy that the settings name, with its devices; `auto` is `multi_worker` for several processes.

    Raises ConfigError for an unknown strategy or option, and LaunchError when it does not fit the processes or the
    devices. Nothing else is used instead of a strategy that cannot be had.
    """
    name, options = config.strategy_name, config.strategy_options
    _check(name, options)
    port = _positive(options, "port")
    cluster = find_cluster(os.environ, port)
    if name == "auto":
        name = "multi_worker" if cluster.world_size > 1 else "single"
    if name == "multi_worker" and cluster.world_size == 1:
        raise LaunchError(
            "strategy=multi_worker, but this process is alone. Start several with torchrun or SLURM, set TF_CONFIG, "
            "or set strategy=single."
        )
    if name != "multi_worker" and cluster.world_size > 1:
        raise LaunchError(
            f"strategy={name} is for one process, but {cluster.world_size} were started. "
            "Set strategy=multi_worker (or auto), or start one."
        )
    gpus = _visible_gpus(config.device, cluster)
    if name == "mirrored":
        return Distribution(name, _mirrored(_positive(options, "replicas"), gpus), cluster)
    if name == "multi_worker":
        return Distribution(name, _multi_worker(cluster), cluster)
    return Distribution(name, tensorflow().distribute.get_strategy(), cluster)


def _check(name: str, options: Mapping[str, Any]) -> None:
    if name != "auto" and name not in _OPTIONS:
        twin = _TORCH_TWINS.get(name)
        hint = f"What it does, '{twin}' does here." if twin else did_you_mean(name, ["auto", *_OPTIONS])
        raise ConfigError(f"strategy='{name}' is not one of TensorFlowTrainer. {hint}")
    known = _OPTIONS.get(name, ())
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known) if known else "It has no options."
            raise ConfigError(f"strategy '{name}' has no option '{option}'. {hint}")


def _positive(options: Mapping[str, Any], name: str) -> int | None:
    value = options.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(f"The strategy's {name} is {value!r}; set it to a whole number of at least 1.")
    return value


def _visible_gpus(device: str, cluster: Cluster) -> list[Any]:
    """Return the GPUs of this process, and hide the others from TensorFlow; workers of one host take one each."""
    tf = tensorflow()
    gpus = list(tf.config.list_physical_devices("GPU"))
    if device == "cuda" and not gpus:
        raise LaunchError(
            f"device='cuda', but TensorFlow {tf.__version__} finds no GPU. Set device=cpu or device=auto, "
            "or install a build with CUDA: pip install 'tensorflow[and-cuda]'."
        )
    wanted = [] if device == "cpu" else gpus
    if wanted and cluster.world_size > 1 and "TF_CONFIG" not in os.environ:
        if cluster.local_rank >= len(gpus):
            raise LaunchError(
                f"Local rank {cluster.local_rank} needs GPU {cluster.local_rank}, but this machine shows {len(gpus)}. "
                "Start fewer processes, or set device=cpu."
            )
        wanted = [gpus[cluster.local_rank]]
    if wanted != tf.config.get_visible_devices("GPU"):
        _before_start(lambda: tf.config.set_visible_devices(wanted, "GPU"), f"device={device}")
    for gpu in wanted:  # otherwise TensorFlow takes all memory of the GPU at once
        if not tf.config.experimental.get_memory_growth(gpu):
            _before_start(lambda gpu=gpu: tf.config.experimental.set_memory_growth(gpu, True), "memory growth")
    return wanted


def _mirrored(replicas: int | None, gpus: list[Any]) -> Any:
    tf = tensorflow()
    if gpus:
        wanted = replicas or len(gpus)
        if wanted > len(gpus):
            raise LaunchError(f"strategy=mirrored with replicas={wanted}, but there are {len(gpus)} GPUs. Lower it.")
        return tf.distribute.MirroredStrategy([f"GPU:{index}" for index in range(wanted)])
    if replicas is None:
        raise LaunchError(
            "strategy=mirrored, but there is no GPU to mirror the model on. Set strategy={name: mirrored, replicas: 2} "
            "for parts of the CPU, or strategy=single."
        )
    # to list the logical devices starts TensorFlow, after which they can no longer be made
    if not eager_context()._initialized or len(tf.config.list_logical_devices("CPU")) < replicas:
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * replicas
        _before_start(lambda: tf.config.set_logical_device_configuration(cpu, parts), f"replicas={replicas} on the CPU")
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])


@cache  # TensorFlow joins the workers once per process
def _multi_worker(cluster: Cluster) -> Any:
    tf = tensorflow()
    try:
        if "TF_CONFIG" in os.environ:
            return tf.distribute.MultiWorkerMirroredStrategy()
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
            task_type="worker",
            task_id=cluster.rank,
            rpc_layer="grpc",
        )
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except (RuntimeError, tf.errors.OpError) as error:
        raise LaunchError(
            f"Worker {cluster.rank} at {cluster.addresses[cluster.rank]} cannot join the {cluster.world_size} workers: "
            f"{str(error).splitlines()[0]} Check that all are started and that their ports are free; multi_worker must "
            "be the first use of TensorFlow in a process."
        ) from None


def _before_start(configure: Any, what: str) -> None:
    try:
        configure()
    except RuntimeError:
        raise LaunchError(
            f"{what} must be set before TensorFlow computes anything in this process, which it has done already. "
            "Start a new process for this run."
        ) from None


def _split(array: Array, parts: int, axis: int) -> list[Array]:
    size = array.shape[axis] // parts
    return [array.take(range(index * size, (index + 1) * size), axis=axis) for index in range(parts)]
