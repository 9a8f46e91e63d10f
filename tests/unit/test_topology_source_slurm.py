"""SLURM's files, and what scontrol of SLURM 22.05.8 printed for four running and thirteen absent nodes."""

import itertools
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.errors import SpecError
from gnomon.topology.graph import TopologyError, hops
from gnomon.topology.sources import slurm
from gnomon.topology.sources._errors import TopologySourceError
from gnomon.topology.sources._slurm_nodes import count_gpus, parse_scontrol_nodes
from gnomon.topology.sources.hostlist import compress

FIXTURES = Path(__file__).parents[1] / "fixtures" / "topology"


def fixture(name):
    return (FIXTURES / name).read_text()


def paths(topology):
    return {node.name: "/".join(node.path) for node in topology.nodes}


def test_topology_conf_and_what_scontrol_makes_of_it_are_one_tree():
    conf = paths(slurm.parse_topology_conf(fixture("slurm_topology.conf")))
    assert conf == paths(slurm.parse_scontrol_topology(fixture("slurm_22.05_show_topology.txt")))
    assert len(conf) == 17
    assert conf["n1"] == "top/s0"
    assert conf["c0"] == "top/s1"
    assert conf["gpu-007"] == "top/leaf3"


def test_comments_continued_lines_cases_and_spaces():
    text = """
    # three leaves
    switchname = s0 NODES="a[1-2]" linkspeed=100  # fast
    SwitchName=s1 \\
        Nodes=a3,\\
b[1-2]
    SwitchName=root Switches=s[0-1]
    """
    expected = {"a1": "root/s0", "a2": "root/s0", "a3": "root/s1", "b1": "root/s1", "b2": "root/s1"}
    assert paths(slurm.parse_topology_conf(text)) == expected


def test_four_levels_and_two_separate_networks():
    text = "SwitchName=c Switches=p\nSwitchName=p Switches=s\nSwitchName=s Switches=l\nSwitchName=l Nodes=x[1-2]\n"
    topology = slurm.parse_topology_conf(text + "SwitchName=other Nodes=y\n")
    assert paths(topology) == {"x1": "c/p/s/l", "x2": "c/p/s/l", "y": "other"}
    assert topology.spines == ("c", "other")
    assert hops(topology.by_name["x1"], topology.by_name["y"]) == 5 + 2


def test_a_switch_may_have_nodes_and_switches():
    text = "SwitchName=root Nodes=login Switches=leaf\nSwitchName=leaf Nodes=n[1-2]"
    assert paths(slurm.parse_topology_conf(text)) == {"login": "root", "n1": "root/leaf", "n2": "root/leaf"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("no switch and no block",)),
        ("# nothing\n\n", ("no switch and no block",)),
        ("SwitchName=s0", ("line 1", "'s0' has neither nodes nor switches")),
        ("Nodes=n1", ("line 1", "no SwitchName")),
        ("\nSwitchName=s0 Node=n1", ("line 2", "unknown key 'Node'", "Did you mean 'Nodes'?")),
        ('SwitchName="" Nodes=n1', ("line 1", "names no switch")),
        ("SwitchName=s0 Nodes=n1 \\\n fast \\", ("line 1", "'fast'")),
        ("SwitchName=s0 Nodes=n1 fast", ("line 1", "expected Key=Value", "'fast'")),
        ("SwitchName=s0 Nodes=", ("line 1", "'Nodes='")),
        ("SwitchName=s0 Nodes=n1 Nodes=n2", ("line 1", "'Nodes' is given twice")),
        ("SwitchName=s0 Nodes=n[1", ("line 1", "does not close")),
        ("SwitchName=s0 Nodes=n1\nSwitchName=s0 Nodes=n2", ("line 2", "described already in", "line 1")),
        ("SwitchName=s0 Nodes=n1\nSwitchName=s1 Nodes=n[1-2]", ("line 2", "node 'n1'", "line 1", "'s0'")),
        ("SwitchName=leaf0 Nodes=n1\nSwitchName=r Switches=leaf1", ("line 2", "unknown switch 'leaf1'", "'leaf0'?")),
        ("SwitchName=l Nodes=n1\nSwitchName=b Switches=a,l\nSwitchName=a Switches=b", ("line 2", "circle: b > a > b")),
        ("SwitchName=a Switches=a Nodes=n1", ("line 1", "circle: a > a")),
        (
            "SwitchName=l Nodes=n1\nSwitchName=a Switches=l\nSwitchName=b Switches=l",
            ("line 3", "switch 'l'", "line 2", "'a'"),
        ),
        ("SwitchName=a Nodes=n1\nBlockName=b Nodes=n2", ("line 2", "blocks and switches in one file")),
        ("RingName=r Nodes=n[1-4]", ("line 1", "topology/ring")),
        ("Include racks.conf", ("line 1", "racks.conf")),
        ("BlockName=b Nodes=n1\nBlockSizes=4,6", ("4, 6", "power of 2")),
        ("BlockName=b Nodes=n1\nBlockSizes=4,12", ("4, 12", "power of 2")),
        ("BlockName=b Nodes=n1\nBlockSizes=four", ("line 2", "'four'")),
        ("BlockName=b Nodes=n1\nBlockSizes=0", ("power of 2",)),
        ("BlockName=b Nodes=n1\nBlockName=c Nodes=n1", ("line 2", "node 'n1'")),
    ],
)
def test_a_wrong_file_is_explained_with_its_line(text, words):
    with pytest.raises(TopologyError) as error:
        slurm.parse_topology_conf(text)
    for word in words:
        assert word in str(error.value)


def test_blocks_are_switches_below_the_aggregated_blocks_of_their_sizes():
    text = "".join(f"BlockName=b{i} Nodes=n[{4 * i}-{4 * i + 3}]\n" for i in range(5)) + "BlockSizes=4,8,16\n"
    topology = slurm.parse_topology_conf(text)
    assert topology.by_name["n5"].path == ("b[0-3] (BlockSize 16)", "b[0-1] (BlockSize 8)", "b1")
    assert topology.by_name["n19"].path == ("b4 (BlockSize 16)", "b4 (BlockSize 8)", "b4")
    node = topology.by_name
    assert [hops(node["n0"], node[name]) for name in ("n3", "n4", "n8", "n16")] == [2, 4, 6, 8]


def test_blocks_without_sizes_share_no_switch():
    topology = slurm.parse_topology_conf("BlockName=b1 Nodes=n[1-2]\nBlockName=b2 Nodes=n[3-4]")
    assert topology.spines == ("b1", "b2")


def test_blocks_as_scontrol_prints_them_since_24_11():
    topology = slurm.parse_scontrol_topology(fixture("slurm_block_show_topology.txt"))
    assert topology.by_name["node06"].path == ("b[1-2] (BlockSize 8)", "b2")
    assert topology.by_name["node12"].path == ("b3 (BlockSize 8)", "b3")
    assert len(topology.nodes) == 12


@pytest.mark.parametrize("absent", ["", "(null)"])
def test_scontrol_may_print_what_a_switch_does_not_have(absent):
    text = f"SwitchName=s0 Level=0 LinkSpeed=1 Nodes=n[1-2] Switches={absent}\n"
    text += f"SwitchName=top Level=1 LinkSpeed=1 Nodes={absent} Switches=s0"
    assert paths(slurm.parse_text(text, "saved", is_yaml=False)) == {"n1": "top/s0", "n2": "top/s0"}
    with pytest.raises(TopologyError, match="line 1: 's0' has neither nodes nor switches"):
        slurm.parse_scontrol_topology(f"SwitchName=s0 Level=0 Nodes={absent} Switches={absent}")


def test_part_of_what_scontrol_prints_is_refused():
    last = fixture("slurm_22.05_show_topology.txt").splitlines()[-1]
    with pytest.raises(TopologyError, match="unknown switch 's0'"):
        slurm.parse_scontrol_topology(last)
    with pytest.raises(TopologyError, match="names no switch"):
        slurm.parse_scontrol_topology("Level=0 Nodes=n1")


def test_topology_yaml():
    text = fixture("slurm_topology.yaml")
    assert paths(slurm.parse_topology_yaml(text)) == {
        "node01": "spine/s1",
        "node02": "spine/s1",
        "node03": "spine/s2",
        "node04": "spine/s2",
    }
    assert paths(slurm.parse_topology_yaml(text, "nvl"))["node03"] == "b[1-2] (BlockSize 4)/b2"


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (fixture("slurm_topology.yaml"), "ethernet", "topology 'ethernet' is flat"),
        (fixture("slurm_topology.yaml"), "nlv", "Did you mean 'nvl'?"),
        (fixture("slurm_topology.yaml").replace("true", "false", 1), None, "Name one of: ib, nvl, ethernet"),
        (fixture("slurm_topology.yaml").replace("nodes: node[01-02]", "node: n1"), None, "Did you mean 'nodes'?"),
        (fixture("slurm_topology.yaml").replace("flat: true", "flat: false"), None, "exactly one of tree, block"),
        (fixture("slurm_topology.yaml").replace("children: s[1-2]", "children: s[1-3]"), None, "unknown switch 's3'"),
        ("tree: {}", None, "list of topologies, found dict"),
        ("- [", None, "not valid YAML"),
        ("[]", None, "list of topologies"),
        ("- 3", None, "found int"),
    ],
)
def test_a_wrong_topology_yaml_is_explained(text, name, words):
    with pytest.raises(SpecError) as error:
        slurm.parse_topology_yaml(text, name)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:h100:4", 4),
        ("gpu:4", 4),
        ("gpu", 1),
        ("gpu:a100", 1),
        ("gpu:h100:4(S:0-1),nvme:2", 4),
        ("nvme:2,gpu:h100:8(S:0-1),gpu:a100:2", 10),
        ("gpu:no_consume:4", 4),
        ("gpu:h100:0(IDX:N/A)", 0),
        ("gpu:h100:2(IDX:0,3)", 2),
        ("(null)", 0),
        ("craynetwork:4", 0),
        ("", 0),
    ],
)
def test_count_gpus(gres, gpus):
    assert count_gpus(gres) == gpus


def test_gpus_come_from_slurm_conf():
    text = """NodeName=DEFAULT Gres=gpu:h100:8 CPUs=96
# NodeName=old Gres=gpu:2
NodeName=gpu-[001-012] \\
  State=UNKNOWN
NodeName=n[0-3] Gres=gpu:h100:4
NodeName=c0 Gres=(null)
"""
    gres = slurm.parse_node_gres(text)
    topology = slurm.parse_topology_conf(fixture("slurm_topology.conf"), gres)
    assert "old" not in gres
    assert (topology.by_name["gpu-012"].accelerators, topology.by_name["n3"].accelerators) == (8, 4)
    assert "c0" not in topology.by_name  # has no GPU
    assert topology.source == "topology.conf"
    with pytest.raises(TopologyError, match="GPUs of node 'c0' is not given"):
        slurm.parse_topology_conf(fixture("slurm_topology.conf"), {k: v for k, v in gres.items() if k != "c0"})
    with pytest.raises(TopologyError, match="none of its 17 nodes has a GPU"):
        slurm.parse_topology_conf(fixture("slurm_topology.conf"), dict.fromkeys(gres, 0))
    with pytest.raises(TopologyError, match="NodeName="):
        slurm.parse_node_gres("SwitchName=s0 Nodes=n1")


def test_an_unknown_number_of_accelerators_is_said():
    topology = slurm.parse_topology_conf("SwitchName=s Nodes=n1")
    assert topology.nodes[0].accelerators is None
    assert "accelerators per node unknown, as many as asked for are assumed" in topology.source


def test_a_node_is_free_only_when_slurm_would_start_a_job_there():
    nodes = parse_scontrol_nodes(fixture("slurm_22.05_show_node.txt"))
    assert {name: node.gpus for name, node in nodes.items() if name in ("n0", "c0", "gpu-012")} == {
        "n0": 4,
        "c0": 0,
        "gpu-012": 4,
    }
    # n0 to n2 run jobs on GPUs, n3 is drained, the others do not answer
    assert not any(node.is_free for node in nodes.values())
    states = {
        "IDLE": True,
        "IDLE*": False,
        "IDLE+CLOUD+POWERED_DOWN": True,
        "IDLE+DRAIN": False,
        "MIXED": True,  # CPUs are taken, no GPU
        "ALLOCATED": False,
        "DOWN*": False,
        "IDLE+PLANNED": False,
        "IDLE+RESERVED": False,
    }
    lines = "\n".join(f"NodeName=n{i} Gres=gpu:8 State={state}" for i, state in enumerate(states))
    assert [node.is_free for node in parse_scontrol_nodes(lines).values()] == list(states.values())


@pytest.fixture
def fake_scontrol(tmp_path, monkeypatch):
    """Put a fake scontrol on the path that prints the recorded answers."""

    def install(body):
        program = tmp_path / "scontrol"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


def recorded(text_of_nodes="slurm_22.05_show_node.txt", text_of_job="slurm_22.05_show_job.txt"):
    return f"""[ -z "$SLURM_TOPO_LEN" ] || exit 9
case "$*" in
  "show topology") cat '{FIXTURES}/slurm_22.05_show_topology.txt' ;;
  "show node --details --oneliner") cat '{FIXTURES}/{text_of_nodes}' ;;
  "show job "*" --oneliner") cat '{FIXTURES}/{text_of_job}' ;;
  *) echo "unexpected: $*" >&2; exit 1 ;;
esac"""


def test_read_scontrol(fake_scontrol, monkeypatch):
    fake_scontrol(recorded())
    monkeypatch.setenv("SLURM_TOPO_LEN", "20")
    topology = slurm.read_scontrol(job_id="1")
    assert [node.name for node in topology.job] == ["n1", "n2"]
    assert not topology.job[0].busy
    assert topology.by_name["n0"].busy
    assert topology.by_name["n0"].accelerators == 4
    assert "c0" not in topology.by_name
    assert topology.free == ()
    assert slurm.read_scontrol().job == ()


def test_read_scontrol_where_no_node_has_a_gpu(fake_scontrol):
    fake_scontrol(recorded().replace("cat '" + f"{FIXTURES}/slurm_22.05_show_node.txt'", "echo NodeName=n0 State=IDLE"))
    topology = slurm.read_scontrol()
    assert len(topology.nodes) == 17
    assert {node.accelerators for node in topology.nodes} == {None}
    assert [node.name for node in topology.free] == ["n0"]
    assert "no node lists a GPU; accelerators per node unknown" in topology.source


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'scontrol: error: No topology information available' >&2", "TopologyPlugin=topology/tree"),
        ("echo 'slurm_load_topo error: Unable to contact slurm controller' >&2", "Unable to contact"),
        ("echo 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1", "configuration source"),
        ("exit 3", "nothing was printed"),
        ("exec sleep 5", "gave no answer in 0.2 s"),
    ],
)
def test_a_controller_that_does_not_help_is_explained(fake_scontrol, body, words):
    fake_scontrol(body)
    with pytest.raises(TopologySourceError) as error:
        slurm.read_scontrol(timeout_s=0.2 if "sleep" in body else 30)
    assert words in str(error.value)


def test_without_slurm_the_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TopologySourceError, match=r"not installed here.*topology\.conf"):
        slurm.read_scontrol()


@pytest.mark.parametrize(
    ("job", "line", "words"),
    [
        ("7", "JobId=7 JobState=PENDING ReqNodeList=n[1-2] NodeList=(null)", "waiting or over"),
        ("7", "JobId=7 NodeList= NumNodes=2-2", "waiting or over"),
        ("7", "JobId=7 NodeList=n1\\nJobId=8 NodeList=n2", "such as 7_0"),
        ("7", "JobId=7 NodeList=n[1-2],far", "'far' of job 7 is below no switch"),
        ("--help", "", "no SLURM job id"),
    ],
)
def test_a_job_without_a_place_is_explained(fake_scontrol, job, line, words):
    fake_scontrol(recorded().replace(f"cat '{FIXTURES}/slurm_22.05_show_job.txt'", f"printf '{line}\\n'"))
    with pytest.raises(TopologyError) as error:
        slurm.read_scontrol(job_id=job)
    assert words in str(error.value)


@pytest.mark.slurm
def test_the_real_scontrol_is_understood():
    """Any SLURM cluster will do; it only has to have a topology."""
    answer = subprocess.run(
        ["sh", "-c", "timeout 2 scontrol show topology | grep Name="], capture_output=True, check=False
    )
    if answer.returncode:
        pytest.skip("no SLURM controller with a topology answers here")
    topology = slurm.read_scontrol()
    assert len(topology.nodes) >= 1
    assert all(node.path for node in topology.nodes)


@st.composite
def trees(draw):
    """Nodes below leaves below a few upper levels, and the path that each node was given."""
    leaves = draw(st.integers(1, 6))
    depth = draw(st.integers(0, 3))
    chains = [
        tuple(f"u{level}-{draw(st.integers(0, 1)) if level else 0}" for level in range(depth)) for _ in range(leaves)
    ]
    chains = [tuple("_".join(chain[: level + 1]) for level in range(depth)) for chain in chains]
    sizes = draw(st.lists(st.integers(1, 4), min_size=leaves, max_size=leaves))
    return {
        f"n{leaf}-{node}": (*chain, f"leaf{leaf}")
        for leaf, (chain, size) in enumerate(zip(chains, sizes, strict=True))
        for node in range(size)
    }


@given(trees())
def test_a_tree_written_as_topology_conf_is_read_back(tree):
    below = {}
    for node, path in tree.items():
        for upper, lower in itertools.pairwise(path):
            below.setdefault(upper, ({}, {}))[0][lower] = None
        below.setdefault(path[-1], ({}, {}))[1][node] = None
    lines = [
        f"SwitchName={name}"
        + (f" Switches={compress(switches)}" if switches else "")
        + (f" Nodes={compress(nodes)}" if nodes else "")
        for name, (switches, nodes) in below.items()
    ]
    topology = slurm.parse_topology_conf("\n".join(reversed(lines)))
    assert {node.name: node.path for node in topology.nodes} == tree
