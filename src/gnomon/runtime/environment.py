"""Which rank this process is, from the variables that torchrun sets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gnomon.errors import LaunchError

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True, kw_only=True)
class RankEnvironment:
    """The place of this process among the ranks of a run; by default it is alone."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    source: Literal["torchrun", "single"] = "single"

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.world_size and 0 <= self.local_rank < self.local_world_size <= self.world_size):
            raise LaunchError(
                f"RANK={self.rank}, WORLD_SIZE={self.world_size}, LOCAL_RANK={self.local_rank}, "
                f"LOCAL_WORLD_SIZE={self.local_world_size} cannot all be true: ranks count from 0 and stay below "
                "their world size. Start the ranks with torchrun, which sets these variables."
            )

    @property
    def is_main(self) -> bool:
        """True on rank 0, which alone writes the run directory."""
        return self.rank == 0

    @classmethod
    def detect(cls, variables: Mapping[str, str] | None = None) -> RankEnvironment:
        """Return the environment in `variables` (default: os.environ); raise LaunchError if it is contradictory."""
        variables = os.environ if variables is None else variables
        found = {name: variables[name] for name in RANK_VARIABLES if name in variables}
        if not found:
            return cls()
        missing = [name for name in RANK_VARIABLES if name not in found]
        if missing:
            raise LaunchError(
                f"{', '.join(found)} set in the environment, but not {', '.join(missing)}. "
                "Start the ranks with torchrun, or unset these variables to run one process."
            )
        rank, local_rank, world_size, local_world_size = (_integer(name, found[name]) for name in RANK_VARIABLES)
        return cls(
            rank=rank,
            local_rank=local_rank,
            world_size=world_size,
            local_world_size=local_world_size,
            source="torchrun",
        )


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise LaunchError(
            f"{name}='{text}' in the environment is not an integer. Start the ranks with torchrun, "
            "or unset RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE to run one process."
        ) from None
