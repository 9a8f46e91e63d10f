"""Layouts on real ranks: replicas alike bit for bit, one process's numbers, checkpoints of other layouts.

Resume after kill -9 is in tests/conformance/test_training_conformance.py.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from gnomon.launch.local import RankJob, run_ranks
from gnomon.spec import Layout
from gnomon.train.config import GPTTrainingConfig
from mesh_worker import record
from training_fixtures import TINY_MODEL, read_curve, tiny_config

pytestmark = [pytest.mark.torch_dist, pytest.mark.timeout(900)]  # real ranks beside other tests take their time

TOLERANCE = 1e-5  # relative, in fp32, after the steps of AdamW
STEPS = 10
GPT2 = {**TINY_MODEL, "num_layers": 4, "num_heads": 4}
LLAMA = {
    **GPT2, "num_kv_heads": 2, "ffn_hidden_size": 48, "activation": "silu", "gated_mlp": True,
    "norm": "rmsnorm", "position": "rope", "tied_embeddings": False,
}  # fmt: skip
MOE = {
    **LLAMA, "num_layers": 2,
    "moe": {
        "num_experts": 4, "experts_per_token": 2, "expert_ffn_size": 24, "num_shared_experts": 1, "num_dense_layers": 1,
    },
}  # fmt: skip
NEOX = {**GPT2, "norm_bias": True, "position": "rope", "parallel_block": True}
GEMMA = {**LLAMA, "num_norms_per_layer": 4, "sliding_window": 8, "num_sliding_window_layers": 2}
DEEPSEEK = {
    **MOE,
    "mla": {
        "q_lora_rank": 20, "kv_lora_rank": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 8,
    },
}  # fmt: skip
MODELS = {"gpt2": GPT2, "llama": LLAMA, "moe": MOE, "neox": NEOX, "gemma": GEMMA, "deepseek": DEEPSEEK}


class Case(NamedTuple):
    """A model by name and its layout."""

    model: str
    layout: dict[str, Any]

    @property
    def name(self) -> str:
        return "-".join([self.model, *(f"{key}{value}" for key, value in self.layout.items())])

    @property
    def ranks(self) -> int:
        return Layout(**self.layout).num_ranks


SAVED = [
    Case("gpt2", {"tp": 2}),
    Case("gpt2", {"pp": 2}),
    Case("llama", {"cp": 2}),
    Case("moe", {"dp": 2, "ep": 2}),
    Case("llama", {"tp": 2, "pp": 2}),
    Case("gpt2", {"dp": 2, "tp": 2}),
]
EXCHANGED = {4: 2, 5: 1}  # TP x PP continues as CP, DP x TP as PP
WHOLE = [
    Case("moe", {"tp": 2, "sequence_parallel": False}),
    Case("llama", {"cp": 2, "context_parallel": "all_to_all"}),
    Case("llama", {"pp": 2, "first_stage_layers": 1}),
    Case("gpt2", {"pp": 2, "vpp": 2}),
    Case("gpt2", {"pp": 2, "schedule": "gpipe"}),
    Case("gpt2", {"pp": 2, "schedule": "zb-h1"}),
    Case("gpt2", {"pp": 2, "schedule": "zb-v"}),
    Case("gpt2", {"dp": 2, "zero_stage": 3}),
    Case("moe", {"dp": 2, "ep": 2, "tp": 2}),
    Case("moe", {"dp": 4, "ep": 2, "zero_stage": 3}),
    Case("llama", {"dp": 2, "tp": 2, "zero_stage": 3}),
    Case("llama", {"dp": 4, "zero_stage": 2, "shard_ranks": 2}),
    Case("llama", {"dp": 2, "pp": 2, "zero_stage": 2}),
    Case("neox", {"tp": 2}),
    Case("gemma", {"tp": 2, "recompute": "full"}),
    Case("gemma", {"cp": 2, "context_parallel": "all_to_all", "recompute": "selective"}),
    Case("gemma", {"pp": 2, "schedule": "zb-h1", "recompute": "full", "recompute_share": 0.5}),
    Case("deepseek", {"tp": 2}),
    Case("deepseek", {"tp": 2, "sequence_parallel": False}),
    Case("deepseek", {"cp": 2}),
    Case("deepseek", {"dp": 2, "ep": 2, "zero_stage": 3, "recompute": "full"}),
    Case("llama", {"cp": 2, "tp": 2, "recompute": "full"}),
]


class Runs:
    """Trains cases in a folder, several in the same ranks, and reads what they found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def config(self, case: Case, run: str, micro_batch: int = 4, **changes: Any) -> GPTTrainingConfig:
        workload = {"seq_len": 32, "global_batch": 8, "micro_batch": micro_batch}
        settings = {
            "model": MODELS[case.model], "layout": case.layout, "workload": workload, "num_steps": STEPS,
            "eval_every": STEPS, "eval_batches": 8 // micro_batch // case.layout.get("dp", 1),
            "checkpoint_every": STEPS,
            **changes,
        }  # fmt: skip
        return tiny_config(self.run_dir(case, run), **settings)

    def run_dir(self, case: Case, run: str) -> Path:
        return self.folder / f"{case.name}-{run}"

    def task(self, case: Case, run: str, copy_from: Path | None = None, **changes: Any) -> dict[str, Any]:
        path = self.config(case, run, **changes).save(self.folder / f"{case.name}-{run}.json")
        start = None if copy_from is None else str(copy_from)
        return {"config": str(path), "out": str(self._out(case, run)), "copy_from": start}

    def train(self, tasks: list[dict[str, Any]], ranks: int) -> None:
        path = self.folder / f"tasks-{ranks}.json"
        path.write_text(json.dumps(tasks), encoding="utf-8")
        logs = path.with_suffix(".logs")
        run_ranks(RankJob(module="mesh_worker", arguments=(str(path),), log_dir=logs, ranks=ranks, threads_per_rank=1))

    def train_alone(self, case: Case, run: str, **changes: Any) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as each of the ranks
        try:
            record(self.config(case, run, **changes), self._out(case, run))
        finally:
            torch.set_num_threads(threads)

    def found(self, case: Case, run: str) -> dict[str, Any]:
        found: dict[str, Any] = torch.load(self._out(case, run))
        return found

    def _out(self, case: Case, run: str) -> Path:
        return self.folder / f"{case.name}-{run}.pt"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, uncovered_children: None) -> Runs:
    """Everything trained: whole, continued from one process and from another layout."""
    runs = Runs(tmp_path_factory.mktemp("mesh"))
    for model in MODELS:
        runs.train_alone(Case(model, {}), "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        for ranks in (4, 2):  # layouts of two ranks continue those of four
            tasks = [runs.task(case, "whole") for case in SAVED if case.ranks == ranks]
            for case in SAVED:
                if case.ranks == ranks:
                    alone = runs.run_dir(Case(case.model, {}), "whole")
                    tasks.append(runs.task(case, "from-alone", copy_from=alone, resume=True))
            for source, target in EXCHANGED.items():
                if ranks == 2:
                    before = runs.run_dir(SAVED[source], "whole")
                    tasks.append(runs.task(SAVED[target], "from-other", copy_from=before, resume=True))
            runs.train(tasks, ranks)
    return runs


@pytest.fixture(scope="module")
def short_runs(tmp_path_factory: pytest.TempPathFactory, uncovered_children: None) -> Runs:
    """The other layouts for a few steps."""
    runs = Runs(tmp_path_factory.mktemp("short"))
    changes = {"num_steps": 5, "eval_every": 5, "checkpoint_every": 0, "micro_batch": 2}
    for model in MODELS:
        runs.train_alone(Case(model, {}), "whole", **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        for ranks in (4, 2):
            runs.train([runs.task(case, "whole", **changes) for case in WHOLE if case.ranks == ranks], ranks)
    return runs


@pytest.mark.parametrize("case", SAVED, ids=lambda case: case.name)
def test_a_layout_computes_what_one_process_computes(runs, case):
    check_against_one_process(runs, case)


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_other_layouts_compute_what_one_process_computes(short_runs, case):
    check_against_one_process(short_runs, case)


def check_against_one_process(runs: Runs, case: Case) -> None:
    found, alone = runs.found(case, "whole"), runs.found(Case(case.model, {}), "whole")
    assert found["differing"] == []
    assert set(found["state"]) == set(alone["state"])
    for name, expected in alone["state"].items():
        if name.startswith("model."):
            assert (found["state"][name] - expected).norm() <= TOLERANCE * expected.norm(), name
    curves = [read_curve(runs.run_dir(each, "whole")) for each in (case, Case(case.model, {}))]
    for (step, loss, norm, evaluation), expected in zip(*curves, strict=True):
        assert step == expected[0]
        for value, wanted in zip((loss, norm, evaluation), expected[1:], strict=True):
            assert value == (None if wanted is None else pytest.approx(wanted, rel=TOLERANCE))


def test_ranks_hold_their_part_alone_and_read_what_their_replica_reads(runs):
    whole = sum(runs.found(Case("llama", {}), "whole")["counts"])
    embedding, norm = 256 * 32, 32
    both = runs.found(SAVED[4], "whole")
    inner = (whole - 2 * embedding - 9 * norm) // 4  # matrices of two layers, cut in two
    assert both["counts"] == [inner + embedding // 2 + 4 * norm] * 2 + [inner + embedding // 2 + 5 * norm] * 2
    assert both["shares"] == [(0, 1)] * 4
    assert runs.found(SAVED[5], "whole")["shares"] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    assert runs.found(Case("moe", {"dp": 2, "ep": 2}), "whole")["counts"][0] < sum(
        runs.found(Case("moe", {}), "whole")["counts"]
    )


@pytest.mark.parametrize("case", SAVED, ids=lambda case: case.name)
def test_a_checkpoint_of_one_process_loads_under_a_layout_and_back(runs, case):
    alone = runs.found(Case(case.model, {}), "whole")["state"]
    loaded = runs.found(case, "from-alone")["state"]
    assert set(loaded) == set(alone)
    for name, expected in alone.items():
        assert torch.equal(loaded[name], expected), name
    back, run = Case(case.model, {}), f"from-{case.name}"
    shutil.copytree(runs.run_dir(case, "whole"), runs.run_dir(back, run))
    runs.train_alone(back, run, resume=True)
    returned = runs.found(back, run)["state"]
    for name, expected in runs.found(case, "whole")["state"].items():
        assert torch.equal(returned[name], expected), name


@pytest.mark.parametrize(("source", "target"), EXCHANGED.items())
def test_a_checkpoint_of_one_layout_loads_under_another(runs, source, target):
    loaded = runs.found(SAVED[target], "from-other")["state"]
    for name, expected in runs.found(SAVED[source], "whole")["state"].items():
        assert torch.equal(loaded[name], expected), name
