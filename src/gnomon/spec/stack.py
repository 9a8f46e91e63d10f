"""`StackSpec`: what a training software stack does to every model alike, as numbers with a physical meaning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from gnomon.spec._noun import Noun

Storage = Literal["autocast", "mixed", "pure"]
# what a family takes from another one whose code it runs: {field that names the other: constants}
SHARED_FIELDS = {
    "layers_of": (
        "dispatch_s",
        "collective_dispatch_s",
        "run_ahead",
        "step_overhead_s",
        "elementwise_passes",
        "vocabulary_multiple",
        "fused_loss",
    ),
    "shards_of": ("shard_rate",),
    "memory_of": ("framework_bytes", "memory_overhead"),
}


class StackSpec(Noun):
    """A family of training software. Nothing in it depends on a model, a layout or a result."""

    name: str
    layers_of: str | None = Field(
        default=None,
        description="family whose layers it runs: what they take to launch and their memory passes are that family's",
    )
    shards_of: str | None = Field(
        default=None,
        description="family whose sharding it runs: how fast weights and gradients are gathered and scattered",
    )
    memory_of: str | None = Field(
        default=None,
        description="family whose memory it has beside the tensors: what context, libraries and allocator take",
    )
    storage: Storage = Field(
        description="autocast: fp32 weights and residual stream; mixed: 16-bit weights with fp32 masters; pure: 16-bit"
    )
    fused_elementwise: bool = Field(description="rotary positions, gates and biases are one kernel each")
    fused_accumulation: bool = Field(
        default=False, description="products of weight gradients add to the gradients of earlier micro-batches"
    )
    vocabulary_multiple: PositiveInt = Field(
        default=1, description="the vocabulary is padded to a multiple of this on each tensor-parallel rank; 1: not"
    )
    padded_values: bool = Field(
        default=False, description="latent attention pads its values to the width of the keys, for one kernel of both"
    )
    flash_attention: bool = Field(description="attention scores are never stored, unless a workload says otherwise")
    stops_early: bool = Field(
        default=False,
        description="recomputation leaves out the last product of a layer, whose result nothing in the backward pass "
        "needs (XLA; PyTorch's non-reentrant checkpoints since 2.1)",
    )
    own_attention: bool = Field(
        default=True,
        description="fused attention is a kernel made for the generation (cuDNN, XLA), else FlashAttention 2",
    )
    fused_loss: bool = Field(
        default=True, description="the loss is one kernel each way; else those of Megatron-LM's cross-entropy"
    )
    moment_bytes: Literal[1, 2, 4] = Field(default=4, description="bytes per element of each of the two moments")
    gradient_bytes: Literal[2, 4] = Field(description="bytes per gradient element as accumulated and reduced")
    asynchronous: bool = Field(default=True, description="the host runs ahead of the device")
    run_ahead: float = Field(default=1.0, ge=0, le=1, description="share of the step in which launches may run ahead")
    dispatch_s: NonNegativeFloat = Field(description="host seconds to launch one operator")
    collective_dispatch_s: NonNegativeFloat = Field(default=0.0, description="host seconds to launch one collective")
    step_overhead_s: NonNegativeFloat = Field(default=0.0, description="host seconds per step outside the model")
    overlap_tensor: float = Field(default=0.0, ge=0, le=1, description="share of tensor-parallel traffic hidden")
    overlap_data: float = Field(default=0.0, ge=0, le=1, description="share of the gradient reduction hidden")
    overlap_piped: bool = Field(
        default=True, description="the gradient reduction hides under pipeline parallelism too, not only without"
    )
    overlap_shard: float = Field(
        default=0.0, ge=0, le=1, description="share of the gathering of sharded weights hidden"
    )
    shard_rate: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of the network's rate that gathering and scattering weights, gradients and states reaches",
    )
    post_validates: bool = Field(
        default=False,
        description="with zero-bubble schedules a rank updates its weights before the norm of all gradients is known, "
        "and checks it afterwards (arXiv 2401.10241, section 4)",
    )
    sharded_masters: bool = Field(
        default=False, description="the fp32 masters are the weights; 16-bit copies exist while they are gathered alone"
    )
    gathers_each_pass: bool = Field(
        default=False,
        description="with ZeRO-2 too, weights are sharded between micro-batches and gathered for each (SHARD_GRAD_OP)",
    )
    overlap_context: float = Field(default=0.0, ge=0, le=1, description="share of context-parallel traffic hidden")
    overlap_expert: float = Field(default=0.0, ge=0, le=1, description="share of the experts' all-to-all hidden")
    elementwise_passes: float = Field(
        default=1.0, gt=0, description="memory passes of the elementwise kernels over the least possible"
    )
    memory_overhead: NonNegativeFloat = Field(default=0.0, description="allocator reserve over the tensors' peak")
    framework_bytes: NonNegativeFloat = Field(default=0.0, description="context, libraries and collectives' buffers")
    sources: str = ""
