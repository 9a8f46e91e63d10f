"""How long a pipeline takes, and how many micro-batches it holds, over arrays of layouts.

The order of operations and the closed form of each schedule are in `gnomon.plan.schedules`, one family per file;
`gnomon.plan.simulate` executes the same orders one operation at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gnomon.errors import PlanError
from gnomon.plan.schedules import CLOSED_FORMS, SCHEDULES
from gnomon.plan.schedules.case import Array, Case, ClosedForm, Integers, StageTimes

__all__ = ["SCHEDULES", "PipelineCost", "StageTimes", "in_flight", "pipeline_cost", "schedule_index", "supported"]


@dataclass(frozen=True, kw_only=True)
class PipelineCost:
    """What the pipeline of one optimizer step costs, without data-parallel reduction and optimizer.

    All are seconds. `unsynchronised_s` is the time from step to step when no rank waits for the others at the
    optimizer, as with the post-validation of arXiv 2401.10241 (section 4).
    """

    total_s: Array
    busy_s: Array
    bubble_s: Array
    send_s: Array
    unsynchronised_s: Array


def schedule_index(name: str) -> int:
    """Return the place of a schedule in SCHEDULES; raise PlanError for a name that is not there."""
    if name not in SCHEDULES:
        raise PlanError(f"There is no pipeline schedule '{name}'. Valid names: {', '.join(SCHEDULES)}.")
    return SCHEDULES.index(name)


def supported(schedule: ArrayLike, pp: ArrayLike, vpp: ArrayLike, num_microbatches: ArrayLike) -> NDArray[np.bool_]:
    """Return where a schedule can run with these numbers (see `docs/schedules.md` for the rule of each)."""
    code, p, v, m = np.broadcast_arrays(*(np.asarray(x) for x in (schedule, pp, vpp, num_microbatches)))
    result = np.zeros(code.shape, dtype=np.bool_)
    possible = (p >= 1) & (v >= 1) & (m >= 1)
    for index, form in _forms():
        here = code == index
        if here.any():
            result |= here & possible & form.supported(p, v, m)
    return result


def in_flight(
    schedule: ArrayLike, pp: ArrayLike, vpp: ArrayLike, num_microbatches: ArrayLike, stage_index: ArrayLike
) -> Array:
    """Return how many micro-batches' activations the rank `stage_index` holds at most; a chunk counts 1 / chunks.

    Activations live from the start of the forward pass to the end of the gradient by weight. `supported` says which
    combinations a schedule can run; for others the answer means nothing.
    """
    code, p, v, m, rank = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.int64) for x in (schedule, pp, vpp, num_microbatches, stage_index))
    )
    result = np.empty(code.shape)
    for index, form in _forms():
        here = code == index
        if here.any():
            result[here] = form.in_flight(p[here], v[here], m[here], rank[here])
    return result


def pipeline_cost(
    schedule: ArrayLike,
    pp: ArrayLike,
    vpp: ArrayLike,
    num_microbatches: ArrayLike,
    first: StageTimes,
    middle: StageTimes,
    last: StageTimes,
    send_s: ArrayLike,
) -> PipelineCost:
    """Return the time of one step and its parts, for every case of the broadcast arguments.

    `schedule` indexes SCHEDULES. `first` is the stage with the embedding, `last` the one with the head and the loss,
    `middle` each of the pp - 2 others, in seconds of one micro-batch; with pp = 1 `first` is the whole model. They
    always describe one stage of layers / pp layers: the schedules that fold the model (zb-v, v-half, v-min) put the
    embedding and the head on rank 0 by themselves. `send_s` is one transfer of activations, or of their gradient,
    between neighbouring ranks. The slowest rank computes for `busy_s`; `send_s` of the result is what the step would
    save if transfers were free; `bubble_s` is the rest. Raises PlanError for a combination that cannot run.
    """
    code, p, v, m = (np.asarray(x, dtype=np.int64) for x in (schedule, pp, vpp, num_microbatches))
    _check(*np.broadcast_arrays(code, p, v, m))
    times = [t for stage in (first, middle, last) for t in (stage.forward, stage.backward_input, stage.backward_weight)]
    alike, each = (
        [np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in arrays] for arrays in ((code, p, v, m, send_s), times)
    )
    own = np.broadcast_shapes(*(x.shape for x in alike))
    shape = np.broadcast_shapes(own, *(x.shape for x in each))
    times_alone = len(shape) == 2 and (len(own) == 1 or own[0] == 1)  # what is down differs in its times alone
    alike = [np.broadcast_to(x, (1, shape[1]) if times_alone else shape).reshape(1, -1) for x in alike]
    each = [np.broadcast_to(x, shape).reshape(shape[0] if times_alone else 1, -1) for x in each]
    out = np.empty((len(_FIELDS), *each[0].shape))
    for index, here in _by_schedule(alike[0][0]):
        for field, values in zip(out, _cost(index, *(x[:, here] for x in (*alike[1:], *each))), strict=True):
            field[:, here] = values
    return PipelineCost(**{name: field.reshape(shape) for name, field in zip(_FIELDS, out, strict=True)})


def _forms() -> Iterator[tuple[int, ClosedForm]]:
    """Yield every schedule's place in SCHEDULES and its formulas."""
    yield from ((SCHEDULES.index(name), form) for name, form in CLOSED_FORMS.items())


_FIELDS = ("total_s", "busy_s", "bubble_s", "send_s", "unsynchronised_s")


def _by_schedule(code: Array) -> Iterator[tuple[int, Integers | slice]]:
    """Yield each schedule that some columns have, and which: a slice where all have it, as in a search, so that its
    arrays are read in place."""
    for index in np.unique(code).astype(int).tolist():
        here = code == index
        yield index, slice(None) if here.all() else np.flatnonzero(here)


def _cost(index: int, p: Array, v: Array, m: Array, send_s: Array, *seconds: Array) -> tuple[Array, ...]:
    """Return the fields of PipelineCost for cases of one schedule."""
    form = CLOSED_FORMS[SCHEDULES[index]]
    first, middle, last = (
        StageTimes(forward=f, backward_input=b, backward_weight=w) for f, b, w in zip(*[iter(seconds)] * 3, strict=True)
    )
    case = Case(pp=p, vpp=v, num_microbatches=m, first=first, middle=middle, last=last, send_s=send_s)
    alone = p == 1
    busy = m * np.where(alone, first.total, form.slowest_s(case))
    (total, free), own_s = form.duration(case)
    if np.any(alone):
        total, own_s, free = (np.where(alone, busy, x) for x in (total, own_s, free))
    return total, busy, free - busy, total - free, own_s


def _check(code: Integers, p: Integers, v: Integers, m: Integers) -> None:
    """Raise PlanError that names the first case that cannot run."""
    bad = np.flatnonzero(~supported(code, p, v, m))
    if bad.size == 0:
        return
    at = bad[0]
    index, pp, vpp, batches = (int(x.reshape(-1)[at]) for x in (code, p, v, m))
    if not 0 <= index < len(SCHEDULES):
        raise PlanError(f"There is no pipeline schedule number {index}. Valid are 0 to {len(SCHEDULES) - 1}.")
    raise PlanError(
        f"The schedule '{SCHEDULES[index]}' cannot run with pp={pp}, vpp={vpp} and {batches} micro-batches. "
        f"It needs {CLOSED_FORMS[SCHEDULES[index]].needs}."
    )
