"""`gnomon topo` and the scripts of the older names: sources, outputs, and how they fail."""

import json
import os
import sys

import pytest

from gnomon.cli import main, scripts
from gnomon.topology.graph import NetworkNode, Topology
from gnomon.topology.sources import ec2, kubernetes, slurm
from gnomon.topology.yaml_source import write_topology
from topology_fixtures import binary_tree

DEGREES = ("-t", "8", "-p", "2", "-d", "8")
SLURM_CONF = """\
SwitchName=leaf1 Nodes=n[1-4]
SwitchName=leaf2 Nodes=n[5-8]
SwitchName=spine Switches=leaf[1-2]
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    write_topology(binary_tree(16, ranked=True), tmp_path / "job.yaml")
    write_topology(binary_tree(16), tmp_path / "free.yaml")
    (tmp_path / "topology.conf").write_text(SLURM_CONF)
    (tmp_path / "range.yaml").write_text("switches: [{name: s, nodes: ['n[3-1]']}]")
    (tmp_path / "noise").write_bytes(b"\xff\xfe\x00SwitchName")
    (tmp_path / "net.svg").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


@pytest.fixture
def program(monkeypatch, capfd):
    """Run `gnomon topo ...`, or a script of its own; return the exit code, stdout and stderr."""

    def run(name, *arguments):
        entry, argv = (
            (main.main, ["gnomon", "topo", name])
            if name in ("viz", "eval", "assign")
            else (getattr(scripts, name), [name])
        )
        monkeypatch.setattr(sys, "argv", [*argv, *arguments])
        code = 0
        try:
            entry()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capfd.readouterr()

    return run


def test_eval_prints_the_hops_of_a_job(program):
    code, out, _ = program("eval", "--file", "job.yaml", *DEGREES)
    assert code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert rows[0] == ["data parallel", "16", "640", "448", "5.00", "6", "16"]
    assert ["pp 1, tp 0", "8", "8", "40", "28", "5.00", "6"] in rows
    assert ["data parallel", "1", "mid0 - root", "16"] in rows


def test_topoeval_prints_the_same(program):
    _, expected, _ = program("eval", "--file", "job.yaml", *DEGREES)
    assert program("topoeval", "--file", "job.yaml", *DEGREES) == (0, expected, "")
    code, out, _ = program("topoeval", "--file", "job.yaml", "--json", *DEGREES)
    assert (code, json.loads(out)["kinds"][0]["groups"][0]["total_hops"]) == (0, 40)


def test_a_job_inside_one_node_crosses_nothing(program, here):
    write_topology(binary_tree(1, ranked=True), here / "one.yaml")
    assert "nothing crosses the network" in program("eval", "--file", "one.yaml", "-t", "8")[1]


def test_assign_prints_nodes_and_how_good_they_are(program):
    code, out, err = program("assign", "--file", "free.yaml", "-t", "8", "-p", "2", "-d", "4")
    assert (code, err) == (0, "")
    assert "│         4 │ node0001 │ root > mid0 > leaf1" in out
    assert "16 hops (rings on the same nodes counted once), the fewest possible on the free nodes." in out
    code, out, _ = program("topoassign", "--file", "free.yaml", "--json", "-t", "8", "-p", "2", "-d", "4")
    assert json.loads(out)["node_names"][:5] == ["node0000", "node0004", "node0008", "node0012", "node0001"]


def test_rings_that_stay_in_their_nodes_are_not_counted(program):
    arguments = ("assign", "--file", "free.yaml", "--tp", "8", "--pp", "4", "--dp", "1")
    assert "No data-parallel ring leaves its node; the nodes are those" in program(*arguments)[1]
    found = json.loads(program(*arguments, "--json")[1])
    assert (found["ring_hops"], found["lower_bound_hops"]) == (0, 0)


SOURCE = "Kubernetes (location labels; only region and zone are known, no switch; 4 nodes that lack them left out)"


@pytest.mark.parametrize("degrees", [DEGREES, ("-t", "8")])
def test_what_the_source_left_out_or_assumed_is_said(program, monkeypatch, degrees):
    def fake_cluster(prefix, *_, **__):
        nodes = binary_tree(1 if degrees == ("-t", "8") else 16, ranked=prefix is not None).nodes
        return Topology(nodes=nodes, source=SOURCE)

    monkeypatch.setattr(kubernetes, "read_topology", fake_cluster)
    for arguments in (("eval", "--kubernetes", "--search-prefix", "x", *degrees), ("assign", "--kubernetes", *degrees)):
        assert program(*arguments)[1].count(f"Network: {SOURCE}\n") == 1
        assert json.loads(program(*arguments, "--json")[1])["source"] == SOURCE
    code, _, err = program("assign", "--kubernetes", *degrees, "--format", "hosts")
    assert (code, err) == (0, f"Network: {SOURCE}\n")


def test_slurm_conf_says_that_it_states_no_accelerators(program):
    out = program("assign", "--slurm-conf", "topology.conf", "-t", "16", "-d", "4", "-n", "16")[1]
    assert "Network: topology.conf (accelerators per node unknown, as many as asked for are assumed)" in out


def test_eval_looks_at_the_accelerators_of_the_nodes(program, here):
    (here / "small.yaml").write_text("""nodes:
  - {name: a, path: [s], accelerators: 4, rank: 0}
  - {name: b, path: [s], accelerators: 4, rank: 1}
""")
    code, out, err = program("eval", "--file", "small.yaml", "--tp", "8", "--dp", "2")
    assert (code, out) == (1, "")
    assert "8 ranks on each, but 2 nodes of the job have fewer accelerators: 'a' has 4" in err
    assert program("viz", "--file", "small.yaml", "--tp", "8", "--dp", "2") == (1, "", err)
    assert program("eval", "--file", "small.yaml", "--tp", "4", "--dp", "2", "-n", "4")[0] == 0


def test_names_cannot_steer_the_terminal(program, here):
    (here / "red.yaml").write_text(r"""source: "here\x1b[31m"
switches: [{name: "leaf\x01\x1b[31mRED", nodes: [{name: a, rank: 0}, {name: b, rank: 1}, c, d]}]
""")
    for verb in ("eval", "assign"):
        code, out, err = program(verb, "--file", "red.yaml", "-t", "8", "-d", "2")
        assert (code, err) == (0, "")
        assert r"leaf\x01\x1b[31mRED" in out
        assert r"Network: here\x1b[31m" in out
        assert "\x1b" not in out
    (here / "host.yaml").write_text(r"""switches: [{name: s, nodes: ["a\x1bb"]}]""")
    code, out, err = program("assign", "--file", "host.yaml", "-t", "8", "--format", "hosts")
    assert (code, out) == (1, "")
    assert "no control characters" in err
    assert "\x1b" not in err
    (here / "hosts").write_text("a\x1b[31m\n")
    err = program("eval", "--file", "red.yaml", "--hostfile", "hosts")[2]
    assert r"Host 'a\x1b[31m' is not in the topology" in err


def test_assign_prints_what_a_launcher_reads_and_nothing_else(program):
    arguments = ("assign", "--file", "free.yaml", "-t", "8", "-d", "2")
    assert program(*arguments, "--format", "mpi") == (
        0,
        "node0000 slots=8\nnode0004 slots=8\n",
        "Network: free.yaml\n",
    )
    code, out, _ = program(*arguments, "--format", "rankfile", "--output", "ranks")
    assert (code, out) == (0, "Nodes written to ranks\n")
    assert program(*arguments, "--format", "hosts", "--output", "ranks")[1].startswith(
        "Nodes written to ranks-2 (ranks exists"
    )


def test_an_assignment_written_as_a_hostfile_is_the_job_of_eval(program):
    program(
        "assign", "--file", "free.yaml", "-t", "8", "-p", "2", "-d", "4", "--format", "slurm-hostfile", "-o", "hosts"
    )
    code, out, _ = program(
        "eval", "--file", "free.yaml", "--hostfile", "hosts", "-t", "8", "-p", "2", "-d", "4", "--json"
    )
    assert code == 0
    assert [ring["total_hops"] for ring in json.loads(out)["kinds"][0]["groups"]] == [8, 8]


def test_viz_writes_a_page_or_an_image_and_overwrites_neither(program, here):
    assert program("viz", "--file", "job.yaml")[1] == "Picture written to topology.html\n"
    assert "topology-2.html (topology.html exists and was kept" in program("viz", "--file", "job.yaml")[1]
    assert (
        program("viz", "--file", "job.yaml", *DEGREES, "-o", "a.svg", "--kind", "pp")[1] == "Picture written to a.svg\n"
    )
    assert (here / "a.svg").read_text().startswith("<svg")
    assert program("topoviz", "--file", "job.yaml")[1] == "Picture written to graph.html\n"
    assert "Plotly.react" in (here / "graph.html").read_text()
    code, out, _ = program("viz", "--file", "job.yaml", "--json")
    assert (code, Topology.from_mapping(json.loads(out)).job[3].name) == (0, "node0003")


def test_assign_draws_what_it_chose(program, here):
    program("assign", "--file", "free.yaml", "-t", "8", "-d", "4", "--picture", "p.html", "--format", "hosts")
    assert "data parallel" in (here / "p.html").read_text()


def test_slurm_conf_is_read(program):
    code, out, _ = program("assign", "--slurm-conf", "topology.conf", "-t", "8", "-d", "4", "--json")
    assert (code, json.loads(out)["node_names"]) == (0, ["n1", "n2", "n3", "n4"])


def test_what_scontrol_printed_is_read_from_a_file(program, here):
    text = "SwitchName=leaf1 Level=0 LinkSpeed=1 Nodes=n[1-2]\nSwitchName=top Level=1 LinkSpeed=1 Nodes=n[1-2] "
    (here / "shown.txt").write_text(text + "Switches=leaf1\n")
    code, out, _ = program("viz", "--slurm-conf", "shown.txt", "--json")
    assert (code, [node["path"] for node in json.loads(out)["nodes"]]) == (0, [["top", "leaf1"]] * 2)


def test_many_nodes_are_listed_by_switch(program, here):
    write_topology(binary_tree(400), here / "many.yaml")
    code, out, _ = program("assign", "--file", "many.yaml", "-t", "8", "-d", "300")
    assert code == 0
    rows = [line.split("│") for line in out.splitlines() if "root > " in line]
    assert [cells[1].strip() for cells in rows] == ["0-99", "100-199", "200-299"]
    assert rows[0][2].strip().startswith("node[0000,0004,0008,")


def test_tables_in_a_pipe_are_not_folded(program, here):
    nodes = tuple(NetworkNode(name=f"i-{i}", path=("a" * 90, "b" * 90, f"c{i}")) for i in range(2))
    write_topology(Topology(nodes=nodes), here / "wide.yaml")
    out = program("assign", "--file", "wide.yaml", "-t", "8", "-d", "2")[1]
    assert f"{'a' * 90} > {'b' * 90} > c1" in out


def test_sources_are_asked_with_their_options(program, monkeypatch):
    asked = []

    def fake_source(name):
        def read(*arguments, **options):
            asked.append((name, arguments, options))
            return binary_tree(4)

        return read

    monkeypatch.setattr(kubernetes, "read_topology", fake_source("kubernetes"))
    monkeypatch.setattr(ec2, "read_topology", fake_source("ec2"))
    monkeypatch.setattr(slurm, "read_scontrol", fake_source("slurm"))
    program("viz", "--kubernetes", "--namespace", "train", "--context", "c", "--search-prefix", "llm", "--json")
    program("viz", "--ec2", "-i", "p5.48xlarge", "-r", "us-east-1", "-a", "us-east-1a", "--json")
    program("viz", "--slurm", "--slurm-job", "7", "--json")
    program("viz", "--kubernetes", "--levels", "a/block, a/rack", "--json")
    program("topoviz", "llm", "--json")
    assert asked == [
        ("kubernetes", ("llm", "train", None, "c"), {"ec2": False, "levels": None}),
        ("ec2", ("p5.48xlarge", "us-east-1", "us-east-1a"), {}),
        ("slurm", ("7",), {}),
        ("kubernetes", (None, None, None, None), {"ec2": False, "levels": ["a/block", "a/rack"]}),
        ("kubernetes", ("llm", None, None, None), {"ec2": True, "levels": None}),
    ]


def test_ec2_says_that_it_does_not_know_what_is_free(program, monkeypatch):
    monkeypatch.setattr(ec2, "read_topology", lambda *_: binary_tree(4))
    code, out, err = program("assign", "--ec2", "-t", "8", "--format", "hosts")
    assert (code, out) == (0, "node0000\n")
    assert "EC2 does not say which instances are in use" in err


def test_topoassign_takes_free_nodes_of_the_type_and_place(program, monkeypatch):
    def fake_cluster(*_, **__):
        kinds = [("p4d", False), ("p5", True), ("p5", False), ("p5", False)]
        return Topology(
            nodes=tuple(
                NetworkNode(name=f"n{i}", path=("s",), busy=busy, labels={"instance_type": kind, "zone": "a"})
                for i, (kind, busy) in enumerate(kinds)
            ),
            source="a fake cluster",
        )

    monkeypatch.setattr(kubernetes, "read_topology", fake_cluster)
    arguments = ("topoassign", "-t", "8", "-p", "1", "-d", "2", "-i", "p5", "--format", "hosts")
    assert program(*arguments, "-a", "a") == (0, "n2\nn3\n", "Network: a fake cluster\n")
    code, _, err = program(*arguments, "-a", "b")
    assert (code, err) == (1, "error: None of the 4 nodes of a fake cluster has instance_type p5, zone b.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("viz",), "Give one source, found none."),
        (("viz", "--file", "job.yaml", "--slurm"), "Give one source, found --file and --slurm."),
        (("viz", "--file", "job.yaml", "--region", "x"), "--region is for --ec2 without --kubernetes."),
        (("viz", "--slurm", "--search-prefix", "x"), "--search-prefix is for --kubernetes."),
        (("viz", "--file", "none.yaml"), "File not found: 'none.yaml'"),
        (("viz", "--file", "job.yaml", "-o", "a.png"), "'a.png' must end in .html"),
        (("eval", "--file", "job.yaml", "-t", "8"), "needs 1 node, but 16 nodes of the topology have a rank"),
        (("eval", "--file", "free.yaml", "-t", "8"), "No node of free.yaml has a rank, so there is no job to evaluate"),
        (("eval", "--file", "job.yaml", "-t", "3", "-d", "5"), "Choose degrees whose product is 8 or 16"),
        (("assign", "--file", "free.yaml", "-t", "6", "-d", "4"), "Choose degrees for which cp x tp is 4 or 8"),
        (("assign", "--file", "free.yaml", "-t", "12", "-d", "2"), "Choose degrees for which cp x tp is 8 or 16"),
        (("assign", "--file", "free.yaml", "-t", "8", "-d", "17"), "the 16 nodes are free. Ask for fewer ranks.\n"),
        (("assign", "--file", "free.yaml", "-t", "8", "--format", "mpi", "-o", "."), "'.' is a folder. Give the name"),
        (("viz", "--file", "free.yaml", "-o", "net.svg"), "'net.svg' is a folder. Give the name of a file in it"),
        (("eval", "--file", "free.yaml", "--hostfile", "noise"), "'noise' is not a text file."),
        (("viz", "--slurm-conf", "noise"), "'noise' is not a text file."),
        (("viz", "--slurm-conf", "."), "'.' is not a file."),
        (("viz", "--file", "job.yaml", "--levels", "x"), "--levels is for --kubernetes."),
        (("viz", "--file", "range.yaml"), "switches[0].nodes[0]: Host list 'n[3-1]' has the range 3-1"),
        (("eval", "--file", "job.yaml", "-t", "0"), "'tp' is 0: input should be greater than 0"),
        (("eval", "--slurm-conf", "none.conf"), "File not found: 'none.conf'"),
        (("assign", "--file", "job.yaml", "-t", "8"), "needs 1 node, but only 0 of the 16 nodes are free."),
        (("assign", "--file", "free.yaml", "-o", "x"), "--output needs --format"),
        (("assign", "--file", "free.yaml", "--json", "--format", "mpi"), "both want to print"),
        (("topoviz",), "Give either the prefix of the job's pod names, or --file"),
        (("topoeval", "x", "--file", "job.yaml", *DEGREES), "Give either the prefix"),
    ],
)
def test_mistakes_get_one_message(program, arguments, message):
    code, out, err = program(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err


def test_hosts_may_come_from_a_pipe(program):
    reading, writing = os.pipe()
    os.write(writing, b"node0001\nnode0005\n")
    os.close(writing)
    code, out, _ = program("eval", "--file", "free.yaml", "--hostfile", f"/dev/fd/{reading}", "-t", "8", "-d", "2")
    assert (code, "data parallel" in out) == (0, True)


def test_names_of_a_hostfile_must_be_in_the_network(program, here):
    (here / "hosts").write_text("# the job\nnode0001 slots=8\nnode0001\nmode0002\n")
    code, _, err = program("eval", "--file", "free.yaml", "--hostfile", "hosts")
    assert code == 1
    assert "Host 'mode0002' is not in the topology of 16 nodes. Did you mean 'node0002'?" in err
    (here / "hosts").write_text("node0001\nnode0002\nnode0001\n")
    assert (
        "hosts, line 3: host 'node0001' comes a second time"
        in program("eval", "--file", "free.yaml", "--hostfile", "hosts")[2]
    )
    (here / "hosts").write_text("\n")
    assert "hosts names no host" in program("eval", "--file", "free.yaml", "--hostfile", "hosts")[2]
