"""`gnomon topo`: the network as a picture, a placement judged, a better one; also `topoviz`, `topoeval`, `topoassign`.

The scripts keep the arguments of the tools of the same names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gnomon.cli import _topology_source as source_options
from gnomon.cli._output import free_path, print_json
from gnomon.cli._topology_source import TopologySource, make_layout

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gnomon.spec import Layout
    from gnomon.topology.assign import Assignment
    from gnomon.topology.evaluate import PlacementEvaluation
    from gnomon.topology.graph import Topology

Kind = Literal["tp", "cp", "ep", "dp", "pp"]
Format = Literal["hosts", "mpi", "rankfile", "slurm-hostfile", "slurm-nodelist", "torchrun"]

Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write.", show_default=False)]
Picture = Annotated[
    Path | None, typer.Option("--picture", help="Also draw the placement: .html or .svg.", show_default=False)
]
Form = Annotated[
    Format | None, typer.Option("--format", help="Print the nodes as a launcher reads them.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]

app = typer.Typer(help="Draw networks, judge and choose the nodes of a job.", no_args_is_help=True)


@app.command("viz")
def viz(
    file: source_options.File = None,
    kubernetes: source_options.Kubernetes = False,
    ec2: source_options.Ec2 = False,
    slurm: source_options.Slurm = False,
    slurm_conf: source_options.SlurmConf = None,
    kubeconfig: source_options.Kubeconfig = None,
    context: source_options.Context = None,
    namespace: source_options.Namespace = None,
    levels: source_options.Levels = None,
    instance_type: source_options.InstanceType = None,
    region: source_options.Region = None,
    zone: source_options.Zone = None,
    search_prefix: source_options.SearchPrefix = None,
    slurm_job: source_options.SlurmJob = None,
    hostfile: source_options.Hostfile = None,
    tp: source_options.Tensor = 1,
    pp: source_options.Pipeline = 1,
    dp: source_options.Data = 1,
    cp: source_options.ContextParallel = 1,
    ep: source_options.Expert = 1,
    per_node: source_options.PerNode = 8,
    kind: Annotated[Kind, typer.Option("--kind", help="Process groups that are shown first.")] = "dp",
    output: Output = None,
    force: Force = False,
    as_json: source_options.AsJson = False,
) -> None:
    """Draw the network as a page (.html) or an image (.svg); with degrees, the process groups of the job too."""
    topology = TopologySource(
        file=file,
        kubernetes=kubernetes,
        ec2=ec2,
        slurm=slurm,
        slurm_conf=slurm_conf,
        kubeconfig=kubeconfig,
        context=context,
        namespace=namespace,
        levels=levels,
        instance_type=instance_type,
        region=region,
        zone=zone,
        search_prefix=search_prefix,
        slurm_job=slurm_job,
        hostfile=hostfile,
    ).read()
    layout = make_layout(tp, pp, dp, cp, ep)
    wanted = output or (None if as_json else Path("topology.html"))
    _visualize(topology, layout if layout.num_ranks > 1 else None, per_node, kind, wanted, force, as_json)


@app.command("eval")
def evaluate(
    file: source_options.File = None,
    kubernetes: source_options.Kubernetes = False,
    ec2: source_options.Ec2 = False,
    slurm: source_options.Slurm = False,
    slurm_conf: source_options.SlurmConf = None,
    kubeconfig: source_options.Kubeconfig = None,
    context: source_options.Context = None,
    namespace: source_options.Namespace = None,
    levels: source_options.Levels = None,
    instance_type: source_options.InstanceType = None,
    region: source_options.Region = None,
    zone: source_options.Zone = None,
    search_prefix: source_options.SearchPrefix = None,
    slurm_job: source_options.SlurmJob = None,
    hostfile: source_options.Hostfile = None,
    tp: source_options.Tensor = 1,
    pp: source_options.Pipeline = 1,
    dp: source_options.Data = 1,
    cp: source_options.ContextParallel = 1,
    ep: source_options.Expert = 1,
    per_node: source_options.PerNode = 8,
    as_json: source_options.AsJson = False,
) -> None:
    """Count the hops of the process groups of a running job, against the fewest that its nodes allow."""
    topology = TopologySource(
        file=file,
        kubernetes=kubernetes,
        ec2=ec2,
        slurm=slurm,
        slurm_conf=slurm_conf,
        kubeconfig=kubeconfig,
        context=context,
        namespace=namespace,
        levels=levels,
        instance_type=instance_type,
        region=region,
        zone=zone,
        search_prefix=search_prefix,
        slurm_job=slurm_job,
        hostfile=hostfile,
    ).read()
    _evaluate(topology, make_layout(tp, pp, dp, cp, ep), per_node, as_json)


@app.command("assign")
def assign(
    file: source_options.File = None,
    kubernetes: source_options.Kubernetes = False,
    ec2: source_options.Ec2 = False,
    slurm: source_options.Slurm = False,
    slurm_conf: source_options.SlurmConf = None,
    kubeconfig: source_options.Kubeconfig = None,
    context: source_options.Context = None,
    namespace: source_options.Namespace = None,
    levels: source_options.Levels = None,
    instance_type: source_options.InstanceType = None,
    region: source_options.Region = None,
    zone: source_options.Zone = None,
    tp: source_options.Tensor = 1,
    pp: source_options.Pipeline = 1,
    dp: source_options.Data = 1,
    cp: source_options.ContextParallel = 1,
    ep: source_options.Expert = 1,
    per_node: source_options.PerNode = 8,
    form: Form = None,
    output: Output = None,
    picture: Picture = None,
    force: Force = False,
    as_json: source_options.AsJson = False,
) -> None:
    """Choose free nodes and their ranks so that the data-parallel rings are as short as possible."""
    topology = TopologySource(
        file=file,
        kubernetes=kubernetes,
        ec2=ec2,
        slurm=slurm,
        slurm_conf=slurm_conf,
        kubeconfig=kubeconfig,
        context=context,
        namespace=namespace,
        levels=levels,
        instance_type=instance_type,
        region=region,
        zone=zone,
    ).read()
    if ec2 and not kubernetes:
        typer.echo(
            "EC2 does not say which instances are in use, so all count as free; --kubernetes --ec2 knows.", err=True
        )
    layout = make_layout(tp, pp, dp, cp, ep)
    _assign(topology, layout, per_node, form, output, picture, force, as_json)


def topoviz(
    search_prefix: Annotated[
        str | None, typer.Argument(help="How the names of the job's pods start.", show_default=False)
    ] = None,
    file: source_options.File = None,
    output: Output = None,
    force: Force = False,
    as_json: source_options.AsJson = False,
) -> None:
    """Draw the network of a Kubernetes cluster and the nodes of a job in it, as graph.html."""
    wanted = output or (None if as_json else Path("graph.html"))
    _visualize(_job_source(search_prefix, file), None, 8, "dp", wanted, force, as_json)


def topoeval(
    tp: source_options.Tensor,
    pp: source_options.Pipeline,
    dp: source_options.Data,
    job_search_prefix: Annotated[
        str | None, typer.Argument(help="How the names of the job's pods start.", show_default=False)
    ] = None,
    per_node: source_options.PerNode = 8,
    file: source_options.File = None,
    as_json: source_options.AsJson = False,
) -> None:
    """Count the hops of the process groups of a job on Kubernetes."""
    _evaluate(_job_source(job_search_prefix, file), make_layout(tp, pp, dp), per_node, as_json)


def topoassign(
    tp: source_options.Tensor,
    pp: source_options.Pipeline,
    dp: source_options.Data,
    per_node: source_options.PerNode = 8,
    instance_type: Annotated[str | None, typer.Option("--instance-type", "-i", help="Only this type.")] = None,
    region: Annotated[str | None, typer.Option("--region", "-r", help="Only this region.")] = None,
    zone: Annotated[str | None, typer.Option("--az", "-a", help="Only this availability zone.")] = None,
    file: source_options.File = None,
    form: Form = None,
    as_json: source_options.AsJson = False,
) -> None:
    """Choose free nodes of a Kubernetes cluster and their ranks."""
    topology = TopologySource(file=file, kubernetes=file is None, ec2=file is None).read()
    wanted = {"instance_type": instance_type, "region": region, "zone": zone}
    _assign(_only(topology, wanted), make_layout(tp, pp, dp), per_node, form, None, None, False, as_json)


def _single(command: object) -> typer.Typer:
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command()(command)  # type: ignore[type-var]
    return single


topoviz_app = _single(topoviz)
topoeval_app = _single(topoeval)
topoassign_app = _single(topoassign)


def _job_source(search_prefix: str | None, file: Path | None) -> Topology:
    from gnomon.errors import ConfigError

    if (search_prefix is None) == (file is None):
        raise ConfigError("Give either the prefix of the job's pod names, or --file with a topology.")
    if file is not None:
        return TopologySource(file=file).read()
    return TopologySource(kubernetes=True, ec2=True, search_prefix=search_prefix).read()


def _only(topology: Topology, wanted: dict[str, str | None]) -> Topology:
    """Return the nodes with these labels; raise TopologyError when there are none."""
    from gnomon.topology.graph import TopologyError

    labels = {key: value for key, value in wanted.items() if value is not None}
    nodes = tuple(node for node in topology.nodes if all(node.labels.get(k) == v for k, v in labels.items()))
    if not nodes:
        asked = ", ".join(f"{key} {value}" for key, value in labels.items())
        raise TopologyError(f"None of the {len(topology.nodes)} nodes of {topology.source} has {asked}.")
    return type(topology)(nodes=nodes, source=topology.source)


def _visualize(
    topology: Topology,
    layout: Layout | None,
    per_node: int,
    kind: Kind,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    from gnomon.topology.evaluate import evaluate

    evaluation = None if layout is None else evaluate(topology, layout, per_node)
    if as_json:
        print_json(topology)
    if output is not None:
        _draw(topology, evaluation, kind, output, force, err=as_json)


def _draw(
    topology: Topology, evaluation: PlacementEvaluation | None, kind: Kind, output: Path, force: bool, err: bool
) -> None:
    from gnomon.errors import ConfigError
    from gnomon.topology.draw import render_html, render_svg

    renderers = {".html": render_html, ".svg": render_svg}
    if output.suffix not in renderers:
        raise ConfigError(f"'{output}' must end in .html (a page) or .svg (an image).")
    _write(output, renderers[output.suffix](topology, evaluation, kind), "Picture", force, err)


def _write(wanted: Path, text: str, what: str, force: bool, err: bool) -> None:
    from gnomon.errors import ConfigError
    from gnomon.spec._noun import write_atomically

    if wanted.is_dir():
        raise ConfigError(f"'{wanted}' is a folder. Give the name of a file in it.")
    written = write_atomically(free_path(wanted, force), text)
    kept = "" if written == wanted else f" ({wanted} exists and was kept; --force overwrites it)"
    typer.echo(f"{what} written to {written}{kept}", err=err)


def _evaluate(topology: Topology, layout: Layout, per_node: int, as_json: bool) -> None:
    from gnomon.topology.evaluate import evaluate

    evaluation = evaluate(topology, layout, per_node)
    if as_json:
        print_json(evaluation)
        return
    from gnomon.topology.render import render_evaluation

    _print(render_evaluation(evaluation))


def _assign(
    topology: Topology,
    layout: Layout,
    per_node: int,
    form: Format | None,
    output: Path | None,
    picture: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    from gnomon.errors import ConfigError
    from gnomon.topology.assign import assign, place_job
    from gnomon.topology.groups import ranks_per_node
    from gnomon.topology.hostfile import render
    from gnomon.topology.render import describe_source

    if output is not None and form is None:
        raise ConfigError("--output needs --format, which says how a launcher reads the nodes: mpi, torchrun, ...")
    if as_json and form is not None and output is None:
        raise ConfigError("--json and --format both want to print. Give --output FILE for the nodes.")
    assignment = assign(topology, layout, per_node)
    if as_json:
        print_json(assignment)
    elif form is None:
        _print_assignment(assignment, topology)
    if form is not None:
        text = render(assignment.node_names, form, ranks_per_node(layout, per_node))
        if output is None:
            typer.echo(text, nl=False)
        else:
            _write(output, text, "Nodes", force, err=as_json)
        if assignment.source and not as_json:
            typer.echo(describe_source(assignment.source), err=True)
    if picture is not None:
        placed = place_job(topology, assignment.node_names)
        _draw(placed, assignment.evaluation, "dp", picture, force, err=as_json or form is not None)


def _print_assignment(assignment: Assignment, topology: Topology) -> None:
    from gnomon.topology.render import render_assignment

    _print(render_assignment(assignment, topology))


def _print(tables: RenderableType) -> None:
    from gnomon.console import make_console

    make_console().print(tables)
