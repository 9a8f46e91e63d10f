"""A GPT, a text and settings so small that a run takes a second."""

import argparse
import json
from pathlib import Path
from typing import Any

from gnomon.launch.local import RankJob, run_ranks
from gnomon.train.config import GPTTrainingConfig

TINY_MODEL = {
    "name": "tiny", "vocab_size": 256, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "max_seq_len": 64,
}  # fmt: skip


def write_text(folder: Path) -> Path:
    """Make a folder of two text files, together about 100 kB; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(argparse.__file__).read_text(encoding="utf-8")
    (folder / "first.txt").write_text(source[: len(source) // 2], encoding="utf-8")
    (folder / "second.txt").write_text(source[len(source) // 2 :], encoding="utf-8")
    return folder


def tiny_config(run_dir: Path, **changes: Any) -> GPTTrainingConfig:
    """Return settings for 6 steps on one rank, with the text beside the run directory."""
    text = write_text(run_dir.parent / "text")
    settings = {
        "run_dir": str(run_dir),
        "num_steps": 6,
        "log_every": 1,
        "device": "cpu",
        "progress": False,
        "model": TINY_MODEL,
        "workload": {"seq_len": 32, "global_batch": 8, "micro_batch": 4},
        "data": {"root": str(text), "pattern": "*.txt"},
    }
    return GPTTrainingConfig.from_mapping({**settings, **changes})


def rank_job(config: GPTTrainingConfig) -> RankJob:
    """Write the settings beside the run directory and return the job that trains them, one thread per rank."""
    run_dir = Path(config.run_dir)
    path = config.save(run_dir.with_name(f"{run_dir.name}.json"))
    return RankJob(
        module="gnomon.train.worker",
        arguments=(str(path),),
        log_dir=run_dir.with_name(f"{run_dir.name}-logs"),
        ranks=config.layout.num_ranks,
        threads_per_rank=1,
    )


def train(config: GPTTrainingConfig) -> None:
    """Train in real ranks; raise what `run_ranks` raises."""
    run_ranks(rank_job(config))


def read_curve(run_dir: Path) -> list[tuple[int, float | None, float | None, float | None]]:
    """Return (step, loss, gradient norm, evaluation loss) of every row of metrics.jsonl."""
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [(row["step"], row.get("loss"), row.get("grad_norm"), row.get("eval_loss")) for row in rows]
