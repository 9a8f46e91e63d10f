"""What `3dtrn` reports, section by section. Seconds are of one rank on the pipeline stage that decides."""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from gnomon.spec import FrozenMap, Noun

SCHEMA_VERSION = 1


class Hardware(Noun):
    """The machine."""

    node_type: str
    cluster: str
    accelerator: str
    num_accelerators: PositiveInt
    num_nodes: PositiveInt
    memory_bytes: NonNegativeFloat | None = Field(description="of one accelerator; None when unknown")
    peak_flops_per_s: NonNegativeFloat = Field(description="dense, of one accelerator")
    memory_bandwidth_bytes_per_s: NonNegativeFloat | None
    precision: str
    rates: str = Field(description="where the achieved rates come from")


class CrossDC(Noun):
    """Datacentres that hold equal numbers of replicas."""

    num_datacentres: PositiveInt
    replicas_per_datacentre: PositiveInt
    accelerators_per_datacentre: PositiveInt
    bandwidth_bytes_per_s: NonNegativeFloat = Field(description="of one datacentre's links together, per direction")
    bandwidth_per_accelerator_bytes_per_s: NonNegativeFloat
    latency_s: NonNegativeFloat


class Data(Noun):
    """The batch."""

    global_batch: PositiveInt
    tokens_per_step: PositiveInt
    batch_per_replica: PositiveInt
    num_micro_batches: PositiveInt
    seq_len: PositiveInt


class Architecture(Noun):
    """The model."""

    parameters: PositiveInt
    active_parameters: PositiveInt = Field(description="that one token meets")
    hidden_size: PositiveInt
    num_layers: PositiveInt
    num_moe_layers: NonNegativeInt
    num_heads: PositiveInt
    num_kv_heads: PositiveInt


class State(Noun):
    """One model state of a rank."""

    name: str
    elements: NonNegativeFloat
    bytes: NonNegativeFloat


class Activations(Noun):
    """Activations of the rank that needs the most memory."""

    per_layer_bytes: NonNegativeFloat = Field(description="of an average layer and one micro-batch")
    tensors: FrozenMap[str, NonNegativeFloat] = Field(description="what they are made of, bytes")
    micro_batches_in_flight: NonNegativeFloat
    num_layers: NonNegativeFloat
    interleaving_factor: NonNegativeFloat = Field(
        description="micro-batches in flight over those that the same stage has without interleaving"
    )
    layers_bytes: NonNegativeFloat
    rest_bytes: NonNegativeFloat = Field(description="logits, loss and the transients of backward")
    total_bytes: NonNegativeFloat


class Memory(Noun):
    """Memory at the peak of a step."""

    stage: str = Field(description="the pipeline stage that needs the most")
    states: tuple[State, ...]
    states_bytes: NonNegativeFloat
    activations: Activations
    buffers_bytes: NonNegativeFloat = Field(description="gathered weights")
    framework_bytes: NonNegativeFloat = Field(description="context, libraries and the allocator's reserve")
    total_bytes: NonNegativeFloat
    stages: FrozenMap[str, NonNegativeFloat] = Field(description="total by pipeline stage")
    capacity_bytes: NonNegativeFloat | None
    fits: bool | None = Field(description="None when the device's memory is unknown")


class Gemm(Noun):
    """One matrix product (m, k) by (k, n) of the forward pass, at the peak rates of the device.

    The seconds of the operands are None where the memory bandwidth is unknown.
    """

    name: str
    weight_shape: tuple[int, int] = Field(description="(k, n) of the whole model")
    local_shape: tuple[int, int] = Field(description="(k, n) of one rank")
    rows: NonNegativeFloat = Field(description="m: tokens")
    groups: NonNegativeFloat = Field(description="products of this shape: experts of one rank")
    flops: NonNegativeFloat = Field(description="of one group")
    compute_s: NonNegativeFloat
    input_bytes: NonNegativeFloat
    weight_bytes: NonNegativeFloat
    output_bytes: NonNegativeFloat
    input_s: NonNegativeFloat | None
    weight_s: NonNegativeFloat | None
    output_s: NonNegativeFloat | None


class Transfer(Noun):
    """One collective or transfer of an activation, before any overlap."""

    name: str
    seconds: NonNegativeFloat
    bytes: NonNegativeFloat = Field(description="of the tensor that is sent or gathered")


class GradientCollective(Noun):
    """A collective of data parallelism."""

    name: str
    latency_s: NonNegativeFloat = Field(description="of one bucket")
    bandwidth_s: NonNegativeFloat = Field(description="of one bucket")
    total_s: NonNegativeFloat = Field(description="of all buckets")
    exposed_s: NonNegativeFloat
    one_site_s: NonNegativeFloat = Field(description="of all buckets, were there one datacentre")


class DataParallel(Noun):
    """Data parallelism."""

    forward_s: NonNegativeFloat = Field(description="computation of one micro-batch on the slowest stage")
    backward_s: NonNegativeFloat
    parameters: NonNegativeFloat = Field(description="of one model-parallel rank")
    parameters_bytes: NonNegativeFloat
    num_buckets: PositiveInt | None = Field(description="None where gradients are cut by layer")
    collectives: tuple[GradientCollective, ...]


class Bubble(Noun):
    """The pipeline's bubble."""

    interleaving_multiplier: NonNegativeFloat = Field(description="1 / vpp")
    ideal_fraction: NonNegativeFloat = Field(description="(pp - 1) / (vpp m): bubble over work of equal stages")
    fraction: NonNegativeFloat = Field(description="bubble over work of the slowest stage, with the stages as they are")
    bubble_s: NonNegativeFloat


class Component(Noun):
    """A part of a transformer block or of the iteration."""

    name: str
    seconds: NonNegativeFloat
    forward_s: NonNegativeFloat | None = None
    backward_s: NonNegativeFloat | None = None


class Iteration(Noun):
    """Where the time of an iteration goes."""

    block_layers: str = Field(description="which layers the block stands for")
    block: tuple[Component, ...] = Field(description="one layer and micro-batch")
    block_s: NonNegativeFloat
    stage: str = Field(description="the pipeline stage that decides")
    components: tuple[Component, ...] = Field(description="one iteration")


class Final(Noun):
    """The figures that answer the question."""

    iteration_time_s: NonNegativeFloat
    tokens_per_day: NonNegativeFloat
    ideal_iteration_time_s: NonNegativeFloat = Field(description="model FLOPs at the peak")
    model_flops: NonNegativeFloat = Field(description="of one step over all ranks, without recomputation")
    mfu: NonNegativeFloat


class Training3D(Noun):
    """The whole report."""

    schema_version: int = SCHEMA_VERSION
    config: FrozenMap[str, Any]
    hardware: Hardware
    cross_dc: CrossDC | None
    data: Data
    architecture: Architecture
    memory: Memory
    gemms: tuple[Gemm, ...]
    tensor: tuple[Transfer, ...]
    context: tuple[Transfer, ...]
    expert: tuple[Transfer, ...]
    pipeline: tuple[Transfer, ...]
    bubble: Bubble
    data_parallel: DataParallel
    iteration: Iteration
    final: Final
    assumptions: tuple[str, ...]
