"""The order of operations of each pipeline schedule, one family per file."""

from __future__ import annotations

from gnomon.errors import PlanError, did_you_mean
from gnomon.plan.schedules.case import ClosedForm
from gnomon.plan.schedules.gpipe import GPIPE, gpipe
from gnomon.plan.schedules.one_f_one_b import ONE_F_ONE_B, interleaved, one_f_one_b
from gnomon.plan.schedules.program import Exchange, Kind, Loop, Mirror, Operation, Place, Placement, Program, Vee
from gnomon.plan.schedules.zero_bubble import zero_bubble

__all__ = [
    "CLOSED_FORMS",
    "SCHEDULES",
    "Exchange",
    "Kind",
    "Loop",
    "Mirror",
    "Operation",
    "Place",
    "Placement",
    "Program",
    "Vee",
    "programs_of",
]

SCHEDULES = ("gpipe", "1f1b", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "dualpipe")
CLOSED_FORMS: dict[str, ClosedForm] = {"gpipe": GPIPE, "1f1b": ONE_F_ONE_B}


def programs_of(schedule: str, pp: int, vpp: int, num_microbatches: int) -> tuple[Placement, list[Program]]:
    """Return where the chunks lie and what each rank executes."""
    if schedule == "gpipe":
        return Loop(pp, 1), gpipe(pp, num_microbatches)
    if schedule == "1f1b":
        if pp > 1 and vpp > 1:
            return Loop(pp, vpp), interleaved(pp, vpp, num_microbatches)
        return Loop(pp, 1), one_f_one_b(pp, num_microbatches)
    if schedule in ("zb-h1", "zb-h2"):
        return Loop(pp, 1), zero_bubble(pp, num_microbatches, depth=int(schedule[-1]))
    raise PlanError(f"There is no pipeline schedule '{schedule}'. {did_you_mean(schedule, SCHEDULES)}")
