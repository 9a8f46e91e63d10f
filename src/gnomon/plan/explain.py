"""Where each headline figure of an estimate comes from, and what it takes for granted."""

from __future__ import annotations

from gnomon.plan.stages import whole_chunks
from gnomon.spec import ClusterSpec, Layout, ModelSpec, StackSpec, Workload

STORAGE = {
    "autocast": "fp32 weights and gradients; products, attention and activations in the compute dtype",
    "mixed": "16-bit weights, fp32 masters",
    "pure": "weights and gradients in 16 bits",
}


def sources(cluster: ClusterSpec, layout: Layout, workload: Workload, stack: StackSpec) -> dict[str, str]:
    """Return {headline figure: where it comes from}."""
    mask = "half of the square, causal" if workload.attention_mask == "causal" else "the full square"
    mask += ", an encoder's and that to it over all of theirs" if workload.encoder_seq_len else ""
    rates = achieved_rates(cluster)
    if cluster.efficiency is None and cluster.rates is not None:
        rates += f" and of the stack {stack.name}"
    peak = f"peak {workload.precision} ({cluster.peak_source})"
    return {
        "num_parameters": "counted tensor by tensor from the model's sizes",
        "model_flops": f"3 x forward: 2 m n k for each matrix product, attention over {mask}",
        "step_time_s": f"operators at achieved rates ({rates}), launches, bubble and exposed communication",
        "tokens_per_s": f"{workload.global_batch} x {workload.seq_len} tokens / step time",
        "mfu": f"model FLOPs / step time / ({layout.num_ranks} x {peak})",
        "communication_s": _communication(cluster, layout),
        **_pipeline(layout, workload),
        "memory": "weights, gradients, optimizer state, and the tensors that autograd keeps, on the fullest stage",
    }


def achieved_rates(cluster: ClusterSpec) -> str:
    """Return where the achieved rates of a cluster come from: its measurement, else its generation's constants."""
    if cluster.efficiency is not None:
        return cluster.source or cluster.name
    return f"constants of {cluster.rates.name}" if cluster.rates is not None else ""


def _pipeline(layout: Layout, workload: Workload) -> dict[str, str]:
    if layout.pp == 1:
        return {}
    interleaved = f", {layout.vpp} chunks per rank" if layout.vpp > 1 else ""
    count = workload.accumulation(layout.dp)
    return {"bubble_s": f"{layout.schedule}: {layout.pp} stages{interleaved}, {count} micro-batches"}


def _communication(cluster: ClusterSpec, layout: Layout) -> str:
    if layout.num_ranks == 1:
        return "one rank: nothing to send"
    measured = cluster.efficiency.collectives.get("all_reduce") if cluster.efficiency else None
    if measured is not None and measured.ranks == layout.dp:
        return "measured all-reduce by size"
    return "rings over " + " and ".join(tier.name for tier in cluster.tiers)


def assumptions(
    model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: Workload, stack: StackSpec
) -> tuple[str, ...]:
    """Return what the estimate takes for granted, one sentence each."""
    kernel = workload.attention_kernel or ("flash" if stack.flash_attention else "unfused")
    lines = [f"AdamW; {_storage(workload, stack)}", _recompute(layout), _kernel(kernel)]
    efficiency = cluster.efficiency
    lines.append(_launches(cluster, stack))
    if layout.dp > 1:
        usual = stack.overlap_data if layout.pp == 1 or stack.overlap_piped else 0.0
        overlap = efficiency.communication_overlap if efficiency else usual
        lines.append(f"{overlap:.0%} of the gradient reduction hides behind backward")
    if efficiency is None:
        lines.append(
            "achieved rates are the generation's, not measured on this machine: gnomon calibrate measures them"
        )
    if cluster.rates is not None and efficiency is None and cluster.rates.variation and layout.num_ranks > 1:
        lines.append(
            f"equal devices differ by {cluster.rates.variation:.1%} (standard deviation), and the slowest of "
            f"{layout.num_ranks} is waited for"
        )
    if not (efficiency.framework_bytes if efficiency else stack.framework_bytes):
        lines.append("memory of framework, libraries and allocator is unknown for this hardware and counted as 0")
    if model.moe is not None:
        lines.append(_busiest_expert(workload))
    if model.encoder is not None:
        lines.append("the encoder attends both ways; tokens per second are those of the decoder")
    if model.diffusion is not None:
        lines.append("tokens are patches; what encodes images and text before the transformer is not counted")
    if layout.pp > 1 and model.num_layers % layout.pp:
        lines.append("layers do not divide by the stages: the largest are priced, the first and the last have fewer")
    if layout.vpp > 1 and not whole_chunks(model.num_layers, layout.pp * layout.vpp):
        chunks = layout.pp * layout.vpp
        lines.append(f"{chunks} chunks do not divide {model.num_layers} layers: they are priced as if equally long")
    return tuple(lines)


def _launches(cluster: ClusterSpec, stack: StackSpec) -> str:
    """Return how far launches hide; a measured machine runs ahead throughout or not at all."""
    measured = cluster.efficiency
    if not stack.asynchronous or (measured and not measured.asynchronous):
        return "each operator waits for its launch"
    share = 1.0 if measured else stack.run_ahead
    part = f" in {share:.0%} of the step; elsewhere each operator waits for what its launch takes longer"
    return "launches hide behind the device's work" + (part if share < 1.0 else "")


def _storage(workload: Workload, stack: StackSpec) -> str:
    wide = workload.precision in ("fp32", "tf32")
    size = min(stack.moment_bytes, 2) if stack.storage == "pure" and not wide else stack.moment_bytes
    moments = f"moments in {8 * size} bits each"
    if wide:
        return f"weights and gradients in fp32, {moments}; products in {workload.precision}"
    return f"{STORAGE[stack.storage]}; {moments}"


def _recompute(layout: Layout) -> str:
    if layout.recompute == "none":
        return "no recomputation: every activation is kept"
    what = {
        "full": "whole layers are",
        "per_op": "every second product and what lies between products are",
        "products": "products are",
        "selective": "the attention core is",
    }[layout.recompute]
    if layout.recompute == "products":
        return (
            f"{layout.recompute_share:.0%} of each layer's {what} computed again in the backward pass, attention is not"
        )
    part = "" if layout.recompute_share == 1.0 else f" in {layout.recompute_share:.0%} of the layers"
    return f"{what} computed again in the backward pass{part}"


def _busiest_expert(workload: Workload) -> str:
    most, room = workload.expert_imbalance, workload.capacity_factor
    if room is None or room > most:
        return f"the busiest expert gets {most:g} times the mean number of tokens"
    dropped = f", and {1.0 - room:.1%} of the tokens' experts at least are left out, of the model's FLOPs too"
    kept = "tokens beyond are dropped" + (dropped if room < 1 else "")
    return f"an expert has room for {room:g} times the mean number of tokens; {kept}"


def _kernel(kernel: str) -> str:
    return "fused attention kernel (scores are never stored)" if kernel == "flash" else "attention scores are stored"
