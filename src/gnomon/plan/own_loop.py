"""What can be planned, but not trained by gnomon's own loop: refused before any rank starts."""

from __future__ import annotations

from gnomon.errors import LayoutError, PlanError, nearest_divisors, nearest_numbers
from gnomon.plan.checks import check_degrees, check_schedule
from gnomon.spec import Layout, ModelSpec, Workload
from gnomon.spec.workload import TRAINED_PRECISIONS

SCHEDULES = ("gpipe", "1f1b", "zb-h1", "zb-v")  # those that torch.distributed.pipelining has under these rules


def check_own_model(model: ModelSpec) -> None:
    """Raise PlanError for an architecture that can be planned, but not trained by gnomon's own loop."""
    parts = {
        "an encoder": model.encoder is not None,
        "image patches and a condition (diffusion)": model.diffusion is not None,
        "relative positions": model.position == "relative",
        "multi-token-prediction modules": model.num_mtp_layers > 0,
        "attention sinks": model.attention_sinks,
        "a bias that balances the experts": model.moe is not None and model.moe.selection_bias,
    }
    found = [name for name, has in parts.items() if has]
    if found:
        raise PlanError(
            f"Model '{model.name}' has {found[0]}: it can be planned, but gnomon's own loop does not train it. Choose "
            "another model, or plan it without training."
        )


def check_own_loop(layout: Layout, workload: Workload) -> None:
    """Raise LayoutError or PlanError for what can be planned, but not trained by gnomon's own loop."""
    plain = Layout()
    for name in ("expert_tp", "offload_activations", "offload_optimizer"):
        value, wanted = getattr(layout, name), getattr(plain, name)
        if value != wanted:
            raise LayoutError(
                f"layout.{name}={value} can be planned, but gnomon's own loop does not have it. Set {name}={wanted}."
            )
    if layout.recompute in ("per_op", "products"):
        raise LayoutError(
            f"layout.recompute={layout.recompute} can be planned, but gnomon's own loop does not have it. "
            "Choose none, selective or full."
        )
    if layout.zero_stage == 1:
        raise LayoutError(
            "layout.zero_stage=1 can be planned, but gnomon's own loop shards the gradients (2) or the weights too "
            "(3). Set zero_stage=2, which sends as much, or 0."
        )
    if layout.pp > 1 and layout.schedule not in SCHEDULES:
        raise LayoutError(
            f"layout.schedule='{layout.schedule}' can be planned, but torch.distributed.pipelining does not have it. "
            f"Choose schedule from {list(SCHEDULES)}."
        )
    if workload.precision not in TRAINED_PRECISIONS:
        raise PlanError(
            f"workload.precision={workload.precision!r} can be planned, but gnomon's own loop trains in "
            f"{' or '.join(TRAINED_PRECISIONS)}. Choose one of these."
        )
    if workload.stack != "gnomon":
        raise PlanError(
            f"workload.stack={workload.stack!r} is other software; gnomon's own loop is stack=gnomon. Leave stack out."
        )


def check_split(model: ModelSpec, layout: Layout, workload: Workload) -> None:
    """Raise LayoutError for a layout that does not divide what strategy=mesh splits."""
    _check_stages(model, layout, workload)
    check_degrees(model, layout, workload)
    check_schedule(layout, workload)
    if model.num_kv_heads % layout.tp:
        raise LayoutError(
            f"tp={layout.tp} does not divide num_kv_heads={model.num_kv_heads} of '{model.name}', and gnomon's own "
            "loop does not copy key heads. The nearest values that do: "
            f"{nearest_divisors('tp', layout.tp, model.num_kv_heads)}."
        )
    _check_ring(model, layout, workload)
    tokens = workload.seq_len // layout.cp
    if model.moe is not None and tokens % layout.tp:
        raise LayoutError(
            f"The {tokens} tokens of a sequence that one rank has are dealt to the experts by tp={layout.tp} ranks, "
            f"which does not divide. Set seq_len to a multiple of {layout.cp * layout.tp}."
        )


def _check_ring(model: ModelSpec, layout: Layout, workload: Workload) -> None:
    if layout.cp == 1 or layout.context_parallel != "ring":
        return
    if model.num_sliding_window_layers > 0 and (model.sliding_window or 0) < workload.seq_len:
        raise LayoutError(
            f"context_parallel=ring can be planned for '{model.name}', but gnomon's own ring has no windows "
            f"(sliding_window={model.sliding_window} < seq_len={workload.seq_len}). Set context_parallel=all_to_all."
        )


def _check_stages(model: ModelSpec, layout: Layout, workload: Workload) -> None:
    if layout.pp == 1:
        return
    per_rank = 2 if layout.schedule == "zb-v" else layout.vpp
    stages, layers = layout.pp * per_rank, model.num_layers
    is_given = layout.first_stage_layers is not None or layout.last_stage_layers is not None
    if is_given and per_rank > 1:
        raise LayoutError(
            f"first_stage_layers and last_stage_layers are for one stage per rank, but "
            f"{'schedule=zb-v' if layout.vpp == 1 else f'vpp={layout.vpp}'} makes {per_rank}. Leave them out."
        )
    if 0 in (layout.first_stage_layers, layout.last_stage_layers):
        raise LayoutError("A stage without layers cannot be trained. Set first_stage_layers and last_stage_layers > 0.")
    if not is_given and layers % stages:
        valid = [pp for pp in range(1, layers + 1) if layers % (pp * per_rank) == 0]
        raise LayoutError(
            f"{stages} pipeline stages (pp={layout.pp} x {per_rank}) do not divide the {layers} layers of "
            f"'{model.name}'. The nearest values that do: {nearest_numbers('pp', layout.pp, valid)}."
            + (" Or set first_stage_layers or last_stage_layers." if per_rank == 1 else "")
        )
    count = workload.accumulation(layout.dp)
    if layout.schedule == "1f1b" and layout.vpp == 1 and count < layout.pp:
        raise LayoutError(
            f"schedule='1f1b' of torch.distributed.pipelining needs at least pp={layout.pp} micro-batches, and "
            f"global_batch / (micro_batch x dp) is {count}. Set global_batch to "
            f"{layout.pp * layout.dp * workload.micro_batch} or more, lower micro_batch, or set schedule='gpipe'."
        )
    rounds = max(1, count // layout.pp)
    if (layout.vpp > 1 or layout.schedule == "zb-h1") and count % rounds:
        valid = [n for n in range(1, 4 * count) if n % max(1, n // layout.pp) == 0]
        raise LayoutError(
            f"{count} micro-batches cannot be dealt in {rounds} equal rounds of about pp={layout.pp}. "
            f"The nearest values that do: "
            f"{nearest_numbers('global_batch / (micro_batch x dp)', count, valid)}."
        )
    if layout.schedule == "zb-v" and layout.zero_stage and model.tied_embeddings:
        raise LayoutError(
            "schedule=zb-v puts the first and the last stage on one rank, and their shared embedding cannot be sharded "
            "twice. Set zero_stage=0, tied_embeddings=false or another schedule."
        )
