"""Placements as the launchers read them. Every function takes host names in the order of node ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from gnomon.topology.graph import TopologyError
from gnomon.topology.sources.hostlist import compress

PlacementFormat = Literal["hosts", "mpi", "rankfile", "slurm-hostfile", "slurm-nodelist", "torchrun"]


def hosts(names: Sequence[str]) -> str:
    """Return one host per line."""
    return _lines(names)


def mpi_hostfile(names: Sequence[str], slots: int) -> str:
    """Return a hostfile of Open MPI with `slots` processes per host.

    Ranks follow the order of the file when they are mapped by slot, which is Open MPI's default for it
    (`mpirun --hostfile FILE --map-by slot`).
    """
    return _lines(f"{name} slots={slots}" for name in names)


def openmpi_rankfile(names: Sequence[str], slots: int) -> str:
    """Return a rankfile of Open MPI that gives ranks `slots` i to `slots` i + `slots` - 1 to host i.

    `slot=` is also the core that the rank is bound to (`mpirun --map-by rankfile:FILE=...`), here the one with its
    number on the host: widen the lists (`slot=0-11`) for ranks with threads, or use `mpi_hostfile` without binding.
    """
    return _lines(
        f"rank {node * slots + local}={name} slot={local}" for node, name in enumerate(names) for local in range(slots)
    )


def slurm_hostfile(names: Sequence[str], tasks_per_node: int) -> str:
    """Return one line per task, for `SLURM_HOSTFILE=FILE srun --distribution=arbitrary`: task i runs on line i.

    This is the way to keep an order in SLURM, see `slurm_nodelist`.
    """
    return _lines(name for name in names for _ in range(tasks_per_node))


def slurm_nodelist(names: Sequence[str]) -> str:
    """Return the value of `--nodelist`, compressed: `node[001-004,007]`.

    SLURM takes these nodes but sorts them: node ranks follow the order of its own node list, not of this one. Use
    `slurm_hostfile` to keep the order. The names are therefore sorted here too, which makes the list shorter.
    """
    return compress(sorted(names, key=lambda name: (len(name), name)))


def torchrun_ranks(names: Sequence[str], processes_per_node: int) -> str:
    """Return for each host the options that torchrun needs there; the first host is the master.

    `--master-port` is left to the job. With `--rdzv-backend=c10d` torchrun numbers nodes in order of arrival, so a
    placement needs the static rendezvous that these options select.
    """
    return _lines(
        f"{name} --nnodes={len(names)} --node-rank={rank} --nproc-per-node={processes_per_node} "
        f"--master-addr={names[0]}"
        for rank, name in enumerate(names)
    )


def parse_hosts(text: str, where: str) -> list[str]:
    """Return the hosts of a file in their order, each once: the first word of each line, `#` starts a comment.

    A host that returns after another one has no node rank; raises TopologyError for that and for an empty file.
    """
    names: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words or (names and words[0] == names[-1]):
            continue
        if words[0] in names:
            raise TopologyError(f"{where}, line {number}: host '{words[0]}' comes a second time, after other hosts.")
        names.append(words[0])
    if not names:
        raise TopologyError(f"{where} names no host.")
    return names


def render(names: Sequence[str], form: PlacementFormat, processes_per_node: int) -> str:
    """Return the placement in one of the forms, ending with a line break."""
    forms: dict[PlacementFormat, Callable[[], str]] = {
        "hosts": lambda: hosts(names),
        "mpi": lambda: mpi_hostfile(names, processes_per_node),
        "rankfile": lambda: openmpi_rankfile(names, processes_per_node),
        "slurm-hostfile": lambda: slurm_hostfile(names, processes_per_node),
        "slurm-nodelist": lambda: slurm_nodelist(names) + "\n",
        "torchrun": lambda: torchrun_ranks(names, processes_per_node),
    }
    return forms[form]()


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
