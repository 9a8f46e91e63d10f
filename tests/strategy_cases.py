"""The ways to distribute that the training conformance suite runs, and how it reads what their ranks wrote down."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnomon.launch.local import RankJob, run_ranks
from gnomon.launch.ray import run_ranks_on_ray
from training_fixtures import TINY_MODEL, write_text

WORKER = "training_conformance_worker"
COMPARED_STEP = 20  # parameters are compared with those of one process after so many steps
LAST_STEP = 26
TOLERANCE = 1e-5  # of (b): norm of the difference over norm, the largest over all parameters

Parts = dict[str, tuple[list[int], list[int], Tensor]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to distribute; `needs` is a module and what installs it, `reload` the ranks that take its checkpoint."""

    strategy: dict[str, Any]
    ranks: int
    layout: dict[str, int]
    reload: Case | None = None
    model: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, str] | None = None
    launcher: str = "local"
    resume_tolerance: float = 0.0

    @property
    def missing(self) -> str | None:
        """What must be done before this case can run, or None."""
        if self.needs is None or importlib.util.find_spec(self.needs[0]) is not None:
            return None
        return f"{self.needs[0]} is not installed: {self.needs[1]}"

    @property
    def is_alone(self) -> bool:
        """Whether it needs ranks of its own: others share theirs, in which torch.distributed can start anew."""
        return self.ranks == 1 or self.launcher == "ray" or self.strategy["name"] == "horovod"


def _data_parallel(strategy: str, ranks: int, **options: Any) -> Case:
    """Return a case that splits the batch only, whose checkpoint another number of ranks takes."""
    other = Case(strategy={"name": strategy, **options}, ranks=6 - ranks, layout={"dp": 6 - ranks})
    return Case(strategy={"name": strategy, **options}, ranks=ranks, layout={"dp": ranks}, reload=other)


def _deepspeed(stage: int) -> Case:
    """Return a case of a ZeRO stage, whose checkpoint four ranks take: under fsdp, or for stages 1 and 3 the same."""
    split_all = {"zero": {"stage3_param_persistence_threshold": 0}} if stage == 3 else {}  # small weights too
    case = replace(_data_parallel("deepspeed", 2, zero_stage=stage, **split_all), needs=_DEEPSPEED)
    return case if stage % 2 else replace(case, reload=_data_parallel("fsdp", 4))


def _mesh(layout: dict[str, int], **changes: Any) -> Case:
    """Return a case of strategy=mesh, whose checkpoint two or four ranks of fsdp take."""
    ranks = math.prod(degree for name, degree in layout.items() if name != "ep")
    reload = replace(_data_parallel("fsdp", 6 - ranks), **changes)
    return Case(strategy={"name": "mesh"}, ranks=ranks, layout=layout, reload=reload, **changes)


_MIXTURE = {"moe": {"num_experts": 4, "experts_per_token": 2, "expert_ffn_size": 24, "num_shared_experts": 1}}
_DEEPSPEED = ("deepspeed", "pip install 'gnomon[deepspeed]'")

CASES: dict[str, Case] = {
    "single": Case(strategy={"name": "single"}, ranks=1, layout={}),
    "ddp(2)": _data_parallel("ddp", 2),
    "ddp(4)": _data_parallel("ddp", 4),
    "fsdp(2)": _data_parallel("fsdp", 2),
    "fsdp(4), ZeRO-2, 2 replicas": _data_parallel("fsdp", 4, zero_stage=2, replicas=2),
    "TP(2)": _mesh({"tp": 2}),
    "PP(2)": _mesh({"pp": 2}),
    "CP(2)": _mesh({"cp": 2}),
    "EP(2)": _mesh({"dp": 2, "ep": 2}, model=_MIXTURE),
    "TPxPP(4)": _mesh({"tp": 2, "pp": 2}),
    "DPxTP(4)": _mesh({"dp": 2, "tp": 2}),
    **{f"deepspeed(2), ZeRO-{stage}": _deepspeed(stage) for stage in range(4)},
    "horovod(2)": replace(
        _data_parallel("horovod", 2), needs=("horovod", "make horovod"), reload=_data_parallel("ddp", 4)
    ),
    "ray-ddp(2)": replace(_data_parallel("ddp", 2), launcher="ray", needs=("ray", "pip install 'gnomon[ray]'")),
}


def write_task(case: Case, folder: Path, run: str, record: str, **changes: Any) -> Path:
    """Write what a rank has to do; training goes to folder/run, the parts of the state to folder/record."""
    config = {
        "run_dir": str(folder / run),
        "num_steps": LAST_STEP,
        "log_every": 1,
        "checkpoint_every": COMPARED_STEP,
        "device": "cpu",
        "progress": False,
        "model": {**TINY_MODEL, **case.model},
        "layout": case.layout,
        "workload": {"seq_len": 32, "global_batch": 8, "micro_batch": 2},
        "data": {"root": str(write_text(folder / "text")), "pattern": "*.txt"},
        "strategy": case.strategy,
        "resume": changes.pop("resume", False),
    }
    task = {"config": config, "folder": str(folder / record), "record_at": [COMPARED_STEP, LAST_STEP], **changes}
    path = folder / f"{record}.json"
    path.write_text(json.dumps(task), encoding="utf-8")
    return path


def launch(case: Case, *tasks: Path) -> None:
    """Run the tasks in the ranks of the case; raise what its launcher raises."""
    run = run_ranks_on_ray if case.launcher == "ray" else run_ranks
    run(
        RankJob(
            module=WORKER,
            arguments=tuple(map(str, tasks)),
            log_dir=tasks[0].with_suffix(""),
            ranks=case.ranks,
            threads_per_rank=1,
        )
    )


def launch_all(tasks: Sequence[tuple[Case, Path]]) -> None:
    """Run every task in the ranks of its case, many in the same ones."""
    shared: dict[int, list[tuple[Case, Path]]] = {}
    for case, task in tasks:
        if case.is_alone:
            launch(case, task)
        else:
            shared.setdefault(case.ranks, []).append((case, task))
    for together in shared.values():
        launch(together[0][0], *(task for _, task in together))


def read_parts(folder: Path, step: int, ranks: int, kind: str = "") -> list[Parts]:
    """Return the parts of the state that each rank held after `step`; kind `weights-`: of what it computes with."""
    return [torch.load(folder / f"{kind}step-{step}-rank-{rank}.pt", weights_only=True) for rank in range(ranks)]


def assemble(ranks: list[Parts]) -> dict[str, Tensor]:
    """Return the whole state; raise AssertionError if a part is missing, or differs between two ranks that hold it."""
    whole: dict[str, Tensor] = {}
    filled: dict[str, Tensor] = {}
    for parts in ranks:
        for name, (shape, offset, part) in parts.items():
            full = whole.setdefault(name, torch.zeros(shape, dtype=part.dtype))
            done = filled.setdefault(name, torch.zeros(shape, dtype=torch.bool))
            place = tuple(slice(start, start + size) for start, size in zip(offset, part.shape, strict=True))
            same = torch.equal(full[place][done[place]], part[done[place]])
            assert same, f"{name} differs between ranks"
            full[place], done[place] = part, True
    for name, done in filled.items():
        assert done.all(), f"no rank holds all of {name}"
    return whole


def relative_difference(value: dict[str, Tensor], expected: dict[str, Tensor], prefix: str = "") -> float:
    """Return the largest norm of a difference over the norm, over all tensors whose name starts with `prefix`."""
    assert value.keys() == expected.keys()
    names = [name for name in expected if name.startswith(prefix)]
    return max(
        ((value[name] - expected[name]).double().norm() / expected[name].double().norm().clamp_min(1e-30)).item()
        for name in names
    )
