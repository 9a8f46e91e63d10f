"""Where the files of tracking are within a run directory."""

from __future__ import annotations

from pathlib import Path


class Places:
    """The folder `tracking` of a run: one folder per rank, in it one file of state, lock and log per tracker."""

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)
        self.root = self.run_dir / "tracking"

    def folder(self, rank: int) -> Path:
        """Return the folder of a rank."""
        return self.root / f"rank-{rank}"

    def metrics(self, rank: int) -> Path:
        """Return the file with the rows of a rank: those of rank 0 are the metrics.jsonl of the run."""
        return self.run_dir / "metrics.jsonl" if rank == 0 else self.folder(rank) / "metrics.jsonl"

    def items(self, rank: int) -> Path:
        """Return the file with the items of a rank."""
        return self.folder(rank) / "items.jsonl"

    def outcome(self, rank: int) -> Path:
        """Return the file that says how a rank ended."""
        return self.folder(rank) / "outcome.txt"

    def state(self, name: str, rank: int) -> Path:
        """Return the file that says how far a tracker has come with the rows and items of a rank."""
        return self.folder(rank) / f"{name}.json"

    def lock(self, name: str, rank: int) -> Path:
        """Return the file that is locked by who sends."""
        return self.folder(rank) / f"{name}.lock"

    def log(self, name: str, rank: int) -> Path:
        """Return the file with what the sending process printed."""
        return self.folder(rank) / f"{name}.log"

    def ranks(self) -> list[int]:
        """Return the ranks that wrote rows or items."""
        found = {int(path.name.removeprefix("rank-")) for path in self.root.glob("rank-*") if path.is_dir()}
        return sorted(found | ({0} if self.metrics(0).exists() else set()))
