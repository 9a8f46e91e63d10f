"""The order of operations of each pipeline schedule, one family per file."""

from __future__ import annotations

from gnomon.errors import PlanError, did_you_mean
from gnomon.plan.schedules.case import ClosedForm
from gnomon.plan.schedules.dualpipe import DUALPIPE, dualpipe
from gnomon.plan.schedules.gpipe import GPIPE, gpipe
from gnomon.plan.schedules.one_f_one_b import ONE_F_ONE_B, interleaved, one_f_one_b
from gnomon.plan.schedules.program import Loop, Mirror, Placement, Program, Vee
from gnomon.plan.schedules.v_half import V_HALF, v_half
from gnomon.plan.schedules.v_min import V_MIN, v_min
from gnomon.plan.schedules.zb_v import ZB_V, zb_v
from gnomon.plan.schedules.zero_bubble import ZB_H1, ZB_H2, zero_bubble

__all__ = ["CLOSED_FORMS", "SCHEDULES", "programs_of"]

CLOSED_FORMS: dict[str, ClosedForm] = {
    "gpipe": GPIPE,
    "1f1b": ONE_F_ONE_B,
    "zb-h1": ZB_H1,
    "zb-h2": ZB_H2,
    "zb-v": ZB_V,
    "v-half": V_HALF,
    "v-min": V_MIN,
    "dualpipe": DUALPIPE,
}
SCHEDULES = tuple(CLOSED_FORMS)


def programs_of(schedule: str, pp: int, vpp: int, num_microbatches: int) -> tuple[Placement, list[Program]]:
    """Return where the chunks lie and what each rank executes."""
    folded = {"zb-v": zb_v, "v-half": v_half, "v-min": v_min}
    if schedule == "gpipe":
        return Loop(pp, 1), gpipe(pp, num_microbatches)
    if schedule == "1f1b":
        if pp > 1 and vpp > 1:
            return Loop(pp, vpp), interleaved(pp, vpp, num_microbatches)
        return Loop(pp, 1), one_f_one_b(pp, num_microbatches)
    if schedule in ("zb-h1", "zb-h2"):
        return Loop(pp, 1), zero_bubble(pp, num_microbatches, depth=int(schedule[-1]))
    if schedule in folded:
        return Vee(pp), folded[schedule](pp, num_microbatches)
    if schedule == "dualpipe":
        return Mirror(pp), dualpipe(pp, num_microbatches)
    raise PlanError(f"There is no pipeline schedule '{schedule}'. {did_you_mean(schedule, SCHEDULES)}")
