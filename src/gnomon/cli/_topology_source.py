"""The options that say where a network is read from, and where its job runs; shared by the verbs of topologies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gnomon.spec import Layout
    from gnomon.topology.graph import Topology

_SOURCE = "Source"
_JOB = "Job"

File = Annotated[
    Path | None, typer.Option("--file", "-f", help="Topology file (YAML or JSON).", rich_help_panel=_SOURCE)
]
Kubernetes = Annotated[bool, typer.Option("--kubernetes", help="Ask a Kubernetes cluster.", rich_help_panel=_SOURCE)]
Ec2 = Annotated[
    bool,
    typer.Option("--ec2", help="Ask EC2; with --kubernetes for its network nodes alone.", rich_help_panel=_SOURCE),
]
Slurm = Annotated[bool, typer.Option("--slurm", help="Ask SLURM (scontrol).", rich_help_panel=_SOURCE)]
SlurmConf = Annotated[
    Path | None,
    typer.Option(
        "--slurm-conf",
        help="topology.conf or topology.yaml of SLURM, or what scontrol show topology printed.",
        rich_help_panel=_SOURCE,
    ),
]
Kubeconfig = Annotated[
    Path | None, typer.Option("--kubeconfig", help="For --kubernetes: its configuration.", rich_help_panel=_SOURCE)
]
Context = Annotated[
    str | None, typer.Option("--context", help="For --kubernetes: context of it.", rich_help_panel=_SOURCE)
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", help="For --kubernetes: of the pods.", rich_help_panel=_SOURCE)
]
Levels = Annotated[
    str | None,
    typer.Option(
        "--levels",
        help="For --kubernetes: label keys of the network levels, the farthest first, with commas between them.",
        rich_help_panel=_SOURCE,
    ),
]
InstanceType = Annotated[
    str | None, typer.Option("--instance-type", "-i", help="For --ec2: only this type.", rich_help_panel=_SOURCE)
]
Region = Annotated[str | None, typer.Option("--region", "-r", help="For --ec2.", rich_help_panel=_SOURCE)]
Zone = Annotated[str | None, typer.Option("--az", "-a", help="For --ec2: availability zone.", rich_help_panel=_SOURCE)]
SearchPrefix = Annotated[
    str | None,
    typer.Option("--search-prefix", help="For --kubernetes: how the names of its pods start.", rich_help_panel=_JOB),
]
SlurmJob = Annotated[str | None, typer.Option("--slurm-job", help="For --slurm: its id.", rich_help_panel=_JOB)]
Hostfile = Annotated[
    Path | None,
    typer.Option("--hostfile", help="Its hosts, one a line in the order of ranks.", rich_help_panel=_JOB),
]

Tensor = Annotated[int, typer.Option("--tp", "--tp-degree", "-t", help="Tensor-parallel degree.")]
Pipeline = Annotated[int, typer.Option("--pp", "--pp-degree", "-p", help="Pipeline-parallel degree.")]
Data = Annotated[int, typer.Option("--dp", "--dp-degree", "-d", help="Data-parallel degree.")]
ContextParallel = Annotated[int, typer.Option("--cp", "--cp-degree", "-c", help="Context-parallel degree.")]
Expert = Annotated[int, typer.Option("--ep", "--ep-degree", "-e", help="Expert-parallel degree.")]
PerNode = Annotated[int, typer.Option("--accelerators-per-node", "-n", min=1, max=4096, help="Accelerators of a node.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dataclass(frozen=True, kw_only=True)
class TopologySource:
    """Where a network is read from."""

    file: Path | None = None
    kubernetes: bool = False
    ec2: bool = False
    slurm: bool = False
    slurm_conf: Path | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    levels: str | None = None
    instance_type: str | None = None
    region: str | None = None
    zone: str | None = None
    search_prefix: str | None = None
    slurm_job: str | None = None
    hostfile: Path | None = None

    def read(self) -> Topology:
        """Return the network with the ranks of its job; raise ConfigError unless the options name one source."""
        self._check()
        topology = self._read()
        return topology if self.hostfile is None else _with_hosts(topology, self.hostfile)

    def _read(self) -> Topology:
        if self.file is not None:
            from gnomon.topology.yaml_source import read_topology

            return read_topology(self.file)
        if self.kubernetes:
            from gnomon.topology.sources import kubernetes

            levels = [key.strip() for key in self.levels.split(",")] if self.levels else None
            return kubernetes.read_topology(
                self.search_prefix, self.namespace, self.kubeconfig, self.context, levels=levels, ec2=self.ec2
            )
        if self.ec2:
            from gnomon.topology.sources import ec2

            return ec2.read_topology(self.instance_type, self.region, self.zone)
        from gnomon.topology.sources import slurm

        return slurm.read_scontrol(self.slurm_job) if self.slurm else _read_slurm_conf(self.slurm_conf)

    def _check(self) -> None:
        from gnomon.errors import ConfigError

        given = {
            "--file": self.file is not None,
            "--kubernetes": self.kubernetes,
            "--ec2": self.ec2,
            "--slurm": self.slurm,
            "--slurm-conf": self.slurm_conf is not None,
        }
        chosen = [name for name, is_given in given.items() if is_given]
        if len(chosen) != 1 and chosen != ["--kubernetes", "--ec2"]:
            found = " and ".join(chosen) or "none"
            raise ConfigError(f"Give one source, found {found}. Sources: {', '.join(given)} (or --kubernetes --ec2).")
        for source, options in {
            "--kubernetes": ("kubeconfig", "context", "namespace", "levels", "search_prefix"),
            "--slurm": ("slurm_job",),
        }.items():
            self._check_belongs(source, options, source in chosen)
        self._check_belongs("--ec2 without --kubernetes", ("instance_type", "region", "zone"), chosen == ["--ec2"])

    def _check_belongs(self, source: str, options: tuple[str, ...], is_chosen: bool) -> None:
        from gnomon.errors import ConfigError

        for option in options:
            if getattr(self, option) is not None and not is_chosen:
                flag = "--az" if option == "zone" else f"--{option.replace('_', '-')}"
                raise ConfigError(f"{flag} is for {source}. Remove it, or choose that source.")


def make_layout(tp: int, pp: int, dp: int, cp: int = 1, ep: int = 1) -> Layout:
    """Return the layout of these degrees; raise SpecError for one that cannot be."""
    from gnomon.spec import Layout

    return Layout.from_mapping({"tp": tp, "pp": pp, "dp": dp, "cp": cp, "ep": ep})


def _read_slurm_conf(path: Path | None) -> Topology:
    from gnomon.topology.sources import slurm

    what = "SLURM's topology.conf or topology.yaml, or what scontrol show topology printed"
    return slurm.parse_text(_read_text(path, what), str(path), str(path).endswith((".yaml", ".yml")))


def _with_hosts(topology: Topology, path: Path) -> Topology:
    from gnomon.topology.assign import place_job
    from gnomon.topology.hostfile import parse_hosts

    text = _read_text(path, "a file with one host a line, in the order of ranks")
    return place_job(topology, parse_hosts(text, str(path)))


def _read_text(path: Path | None, what: str) -> str:
    """Return the text of a file; raise ConfigError for one that is missing, large or no text. `what` is asked for."""
    from gnomon.errors import ConfigError
    from gnomon.spec._noun import MAX_FILE_BYTES

    if path is None or not path.exists():
        raise ConfigError(f"File not found: '{path}'. Give {what}.")
    if path.is_dir():
        raise ConfigError(f"'{path}' is not a file. Give {what}.")
    with path.open("rb") as file:  # also a pipe, as the shell's <(...) is
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"'{path}' has more than {MAX_FILE_BYTES} bytes, which no description needs.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"'{path}' is not a text file. Give {what}.") from None
