"""Predict rows of a table from their configuration alone, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from gnomon.errors import GnomonError, PlanError
from gnomon.plan.arrays import Array, stack
from gnomon.plan.cases import Cases
from gnomon.plan.evaluate import Evaluation, evaluate
from gnomon.plan.memory import MemoryTerms, layer_bytes, stage_memory, state_bytes
from gnomon.plan.published.columns import configuration, integer, number, text, with_plain_flags
from gnomon.plan.published.conventions import OURS, TokenFlops, convention_of
from gnomon.plan.published.memory_kinds import MemoryKind, memory_kind
from gnomon.plan.published.rows import Problem, read_row
from gnomon.plan.schedule import SCHEDULES, supported
from gnomon.plan.stages import STAGES, stage_layers
from gnomon.spec.device_rates import operand_dtype

Row = Mapping[str, Any]
NOT_CONFIGURATION = ("id", "config_group", "grade", "missing", "split")
POSITIVE = (
    "n_accel", "hidden", "vocab", "seq_len", "gbs", "mbs", "accel_per_node", "n_heads", "n_layers", "tp", "pp", "cp",
)  # fmt: skip
NOT_NEGATIVE = (
    "ffn_hidden", "n_kv_heads", "experts", "top_k", "ep", "etp", "vp_or_interleave", "grad_accum",
    "moe_ffn_hidden", "mtp_layers", "window", "peak_tflops_used",
)  # fmt: skip
# more is a slip of the pen, and overflows further on
LARGEST = 1e12
LARGEST_SIZES = {
    **dict.fromkeys(("n_layers", "n_heads", "n_kv_heads", "experts", "top_k", "n_shared_experts", "mtp_layers"), 1e5),
    **dict.fromkeys(("hidden", "ffn_hidden", "head_dim", "moe_ffn_hidden", "shared_ffn_hidden", "v_head_dim"), 1e7),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_nope_dim", "qk_rope_dim"), 1e7),
    **dict.fromkeys(("vocab", "params_b", "n_accel", "gbs", "mbs"), 1e9),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What is predicted of one configuration, or why it is refused; the numbers of a refused one are NaN.

    Tokens are those of the batch that the row states. `memory_gb_per_accel` is in the unit of the row's `mem_kind`.
    `token_flops`, `peak_flops` (of one accelerator) and `recompute` turn a stated TFLOP/s or MFU into a time.
    """

    refused: str | None = None
    remarks: tuple[str, ...] = ()
    step_time_s: float = float("nan")
    tokens_per_s_per_accel: float = float("nan")
    mfu_pct: float = float("nan")
    memory_gb_per_accel: float = float("nan")
    tokens: float = float("nan")
    ranks: int = 1
    peak_flops: float = float("nan")
    recompute: bool = False
    token_flops: TokenFlops | None = None


class Prepared(NamedTuple):
    """A row that can be priced."""

    problem: Problem
    cases: Cases
    remarks: tuple[str, ...]


class Predictor:
    """Predicts blocks of rows; equal configurations are priced once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Prediction] = {}

    def __call__(self, rows: Sequence[Row]) -> list[Prediction]:
        """Return one prediction per row, in order. Outcome columns are dropped before anything is read."""
        plain = [configuration(row) for row in rows]
        keys = [tuple((k, v) for k, v in row.items() if k not in NOT_CONFIGURATION and v is not None) for row in plain]
        fresh = {key: row for key, row in zip(keys, plain, strict=True) if key not in self._known}
        self._known.update(zip(fresh, _predict(list(fresh.values())), strict=True))
        return [self._known[key] for key in keys]


def predict(rows: Sequence[Row]) -> list[Prediction]:
    """Return one prediction per row, in order."""
    return Predictor()(rows)


def prepare(row: Row) -> Prepared:
    """Return the problem of a row as nouns and as arrays of one; raise PlanError with the reason for refusing it."""
    row = with_plain_flags(configuration(row))
    _check_numbers(row)
    try:
        problem, taken = read_row(row)
        cases = Cases.of(*problem)
    except GnomonError as error:
        raise PlanError(str(error)) from None
    remarks = list(taken)
    if integer(row, "n_heads") is None:
        remarks.append(f"n_heads is blank: taken as {problem.model.num_heads}")
    batch, workload, dp = integer(row, "gbs"), problem.workload, problem.layout.dp
    if batch is not None and batch != workload.global_batch:
        remarks.append(
            f"gbs is no multiple of dp x micro-batch = {dp} x {workload.micro_batch}: "
            f"the busiest rank runs {workload.accumulation(dp)} micro-batches"
        )
    pp, layers = problem.layout.pp, problem.model.num_layers
    if layers % pp:
        stages = stage_layers(cases)
        busiest = float(np.max([stages.first, stages.last] if pp == 2 else list(vars(stages).values())))
        remarks.append(
            f"pp={pp} does not divide the {layers} layers: the busiest stage is priced, of {busiest:g} layers"
        )
    if not _supported(cases):
        padded = _padded(cases)
        if not _supported(padded):
            evaluate(cases)  # raises with what the schedule needs
        cases = padded
        if problem.layout.vpp > 1:
            remarks.append("the micro-batches are no multiple of pp: priced on the line through the next two multiples")
        else:
            schedule, count = problem.layout.schedule, workload.accumulation(dp)
            remarks.append(
                f"{schedule} does not run with {count} micro-batches: priced on the line of more that it can run"
            )
    return Prepared(problem, cases, tuple(remarks))


def _check_numbers(row: Row) -> None:
    for column in POSITIVE:
        value = number(row, column)
        if value is not None and value <= 0:
            raise PlanError(f"column {column} is {value:g}; it must be greater than 0")
    for column in NOT_NEGATIVE:
        value = number(row, column)
        if value is not None and value < 0:
            raise PlanError(f"column {column} is {value:g}; it must not be negative")
    for column in {*POSITIVE, *NOT_NEGATIVE, *LARGEST_SIZES}:
        value, most = number(row, column), LARGEST_SIZES.get(column, LARGEST)
        if value is not None and value > most:
            raise PlanError(f"column {column} is {value:g}; it must be at most {most:g}")


def _supported(cases: Cases) -> bool:
    split = cases.split
    return bool(np.all(supported(split.schedule, split.pp, split.vpp, cases.accumulation)))


def _padded(cases: Cases) -> Cases:
    """Return the cases with their micro-batches rounded up to the next number that the schedule can run."""
    split, step = cases.split, _round(cases)
    rounded = np.ceil(cases.accumulation / step) * step
    for _ in range(2):  # a folded pipeline needs two for each stage
        rounded = np.where(supported(split.schedule, split.pp, split.vpp, rounded), rounded, rounded + split.pp)
    return replace(cases, accumulation=rounded)


def _round(cases: Cases) -> Array:
    """Return by how many micro-batches a pipeline grows at a time: interleaved ones by one for each stage."""
    interleaved = (cases.split.vpp > 1) & (cases.split.schedule == SCHEDULES.index("1f1b"))
    return np.where(interleaved, cases.split.pp, 2.0)


def step_time_s(cases: Cases, evaluation: Evaluation, micro_batches: Array) -> Array:
    """Return the step times for the `micro_batches` that were asked, which `prepare` may have rounded up.

    A pipeline's time grows by the same amount with each further round of micro-batches, so it is read off the line
    through the two next numbers. With fewer micro-batches than stages each passes all stages, and only its last chunk
    waits for those before it: p + (m - 1) / v times what one takes on one rank, with two chunks where it is folded.
    """
    time = np.broadcast_to(evaluation.step_time_s, micro_batches.shape)
    extra = cases.accumulation - micro_batches
    if not np.any(extra > 0):
        return time
    step = _round(cases)
    further = evaluate(replace(cases, accumulation=np.where(extra > 0, cases.accumulation + step, cases.accumulation)))
    each = (further.step_time_s - time) / step
    missing = np.maximum(np.minimum(cases.split.pp, cases.accumulation) - micro_batches, 0.0)
    chunks = np.where(cases.split.vpp > 1, cases.split.vpp, 2.0)
    return time - (extra - missing + missing / chunks) * each


def _predict(rows: Sequence[Row]) -> list[Prediction]:
    results: list[Prediction | None] = []
    prepared: list[Prepared] = []
    for row in rows:
        try:
            prepared.append(prepare(row))
            results.append(None)
        except PlanError as error:
            results.append(Prediction(refused=str(error)))
    open_rows = [row for row, result in zip(rows, results, strict=True) if result is None]
    priced = iter(_price(open_rows, prepared))
    return [result if result is not None else next(priced) for result in results]


def _price(rows: Sequence[Row], prepared: Sequence[Prepared]) -> list[Prediction]:
    if not prepared:
        return []
    cases = stack([p.cases for p in prepared])
    asked = np.asarray([p.problem.workload.accumulation(p.problem.layout.dp) for p in prepared], dtype=np.float64)
    with np.errstate(all="ignore"):
        evaluation = evaluate(cases)
        times = step_time_s(cases, evaluation, asked)
        flops = TokenFlops.of(cases.model, cases.seq_len)
    if np.any(asked < cases.accumulation):
        evaluation = replace(evaluation, memory=_memory_with(cases, asked))
    memory = memory_of(evaluation, [memory_kind(text(row, "mem_kind")) for row in rows])
    return [
        _prediction(row, p, float(times[i]), float(memory[i]), _one(flops, i))
        for i, (row, p) in enumerate(zip(rows, prepared, strict=True))
    ]


def _memory_with(cases: Cases, micro_batches: Array) -> dict[str, MemoryTerms]:
    """Return the memory of each stage with the `micro_batches` that were asked, which `prepare` may have rounded up."""
    asked = replace(cases, accumulation=np.minimum(micro_batches, cases.accumulation))
    return stage_memory(asked, layer_bytes(asked), {stage: state_bytes(asked, stage) for stage in STAGES})


def _one(flops: TokenFlops, index: int) -> TokenFlops:
    return TokenFlops(**{name: getattr(flops, name)[index] for name in flops.__dataclass_fields__})


def memory_of(evaluation: Evaluation, kinds: Sequence[MemoryKind]) -> Array:
    """Return the memory of each row in the unit and of the kind that it asks for."""
    stages = {stage: terms.tensors for stage, terms in evaluation.memory.items()}
    ends = np.maximum(stages["first"], stages["last"])
    tensors = np.where([k.ends for k in kinds], ends, np.maximum.reduce(list(stages.values())))
    reserve = np.where([k.quantity == "allocated" for k in kinds], 0.0, evaluation.memory_overhead)
    context = np.where([k.quantity == "device" for k in kinds], evaluation.framework_bytes, 0.0)
    return np.asarray((tensors * (1.0 + reserve) + context) / [k.unit_bytes for k in kinds])


def _prediction(row: Row, prepared: Prepared, time: float, memory: float, flops: TokenFlops) -> Prediction:
    problem = prepared.problem
    workload, ranks = problem.workload, problem.layout.num_ranks
    if not (np.isfinite(time) and np.isfinite(memory) and time > 0):
        return Prediction(refused="the numbers of this row are too large to compute with")
    tokens = float((integer(row, "gbs") or workload.global_batch) * workload.seq_len)
    stated = number(row, "peak_tflops_used")
    peaks = {str(dtype): peak for dtype, peak in problem.cluster.accelerator.peak_flops.items()}
    peak = stated * 1e12 if stated else peaks[operand_dtype(workload.precision)]
    rate = tokens / (time * ranks)
    convention = convention_of(text(row, "flop_convention")) or OURS
    return Prediction(
        remarks=prepared.remarks,
        step_time_s=time,
        tokens_per_s_per_accel=rate,
        mfu_pct=100.0 * rate * float(flops.count(convention)) / peak,
        memory_gb_per_accel=memory,
        tokens=tokens,
        ranks=ranks,
        peak_flops=peak,
        recompute=problem.layout.recompute == "full",
        token_flops=flops,
    )
