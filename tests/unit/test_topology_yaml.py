"""Topology files: both forms, and what is refused."""

import pytest

from gnomon.errors import SpecError
from gnomon.topology.graph import NetworkNode, Topology, TopologyError
from gnomon.topology.yaml_source import parse_topology, read_topology, to_nested_yaml, write_topology

NESTED = """\
source: cluster A
switches:
  - name: spine
    nodes: [login]
    switches:
      - name: leaf1
        nodes:
          - host1
          - {name: host2, rank: 0, accelerators: 4, labels: {zone: a}}
      - name: leaf2
        nodes: [{name: host3, busy: true}]
"""
FLAT = """\
nodes:
  - {name: login, path: [spine]}
  - {name: host1, path: [spine, leaf1]}
  - {name: host2, path: [spine, leaf1], rank: 0, accelerators: 4, labels: {zone: a}}
  - {name: host3, path: [spine, leaf2], busy: true}
"""
NODES = (
    NetworkNode(name="login", path=("spine",)),
    NetworkNode(name="host1", path=("spine", "leaf1")),
    NetworkNode(name="host2", path=("spine", "leaf1"), rank=0, accelerators=4, labels={"zone": "a"}),
    NetworkNode(name="host3", path=("spine", "leaf2"), busy=True),
)


def read(tmp_path, text):
    path = tmp_path / "topology.yaml"
    path.write_text(text)
    return read_topology(path)


def test_both_forms_describe_the_same_network(tmp_path):
    assert read(tmp_path, NESTED) == Topology(nodes=NODES, source="cluster A")
    assert read(tmp_path, FLAT) == Topology(nodes=NODES, source=str(tmp_path / "topology.yaml"))


def test_the_nested_form_is_written_and_read_back(tmp_path):
    topology = Topology(nodes=NODES, source="cluster A")
    assert read_topology(write_topology(topology, tmp_path / "t.yaml")) == topology
    assert "- host1\n" in to_nested_yaml(topology)  # a node without anything to say is its name


def test_the_form_that_save_writes_is_read(tmp_path):
    topology = Topology(nodes=NODES, source="cluster A")
    assert read_topology(topology.save(tmp_path / "t.json")) == topology


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: x\n", "either 'switches'.*or 'nodes'"),
        ("switches: []\nnodes: []\n", "either 'switches'.*or 'nodes'"),
        ("switches: []\n", "at least one node"),
        ("switch: []\n", "unknown key 'switch'. Did you mean 'switches'?"),
        ("switches: {a: 1}\n", "expected a list of switches, found dict"),
        ("switches: [a]\n", r"switches\[0\]: expected a mapping with 'name', found str"),
        ("switches: [{nodes: [a]}]\n", r"switches\[0\]: missing key 'name'"),
        ("switches: [{name: s, node: [a]}]\n", "unknown key 'node'. Did you mean 'nodes'?"),
        ("switches: [{name: s, nodes: a}]\n", r"switches\[0\].nodes: expected a list of nodes, found str"),
        (
            "switches: [{name: s, nodes: [{name: a, rnak: 1}]}]\n",
            r"nodes\[0\]: unknown key 'rnak'. Did you mean 'rank'",
        ),
        ("switches: [{name: s, nodes: [{name: a, path: [t]}]}]\n", "'path' is given by the switches above"),
        ("switches: [{name: s, nodes: [true, null]}]\n", r"nodes\[0\]: expected a name, found True \(bool\).*quotes"),
        ("switches: [{name: s, nodes: [a, null]}]\n", r"nodes\[1\]: expected a name, found nothing"),
        ("switches: [{name: s, nodes: [007]}]\n", r"nodes\[0\]: expected a name, found 7 \(int\)"),
        ("switches: [{name: null, nodes: [a]}]\n", r"switches\[0\].name: expected a name, found nothing"),
        (
            "switches: [{name: s, nodes: [7]}]\n",
            r"^[^:]*topology.yaml: switches\[0\].nodes\[0\]: expected a name, found 7",
        ),
        ("switches: [{name: s, nodes: [a, a]}]\n", "node name 'a' occurs twice"),
        (
            "switches: [{name: s, nodes: [a]}, {name: t}, {name: s, nodes: [b]}]\n",
            r"switches\[2\]: 's' is described already in \S*topology.yaml: switches\[0\]",
        ),
        (
            "switches: [{name: s, switches: [{name: t, nodes: [a]}, {name: ' t ', nodes: [b]}]}]\n",
            r"switches\[0\].switches\[1\]: 't' is described already",
        ),
        ("nodes: [{name: a, path: [s], rank: 0, busy: true}]\n", "'a' has rank=0.*busy=true.*leave one of them out"),
        ("switches: [{name: s, nodes: [{name: a, rank: 2, busy: true}]}]\n", r"nodes\[0\].*rank=2.*busy=true"),
        ("nodes: [{name: a, path: [s], accelerators: 0}]\n", "accelerators.*greater than 0"),
        ("nodes: [{name: a}]\n", "missing key 'nodes.0.path'"),
        ("switches: [\n", "not valid YAML"),
        ("!!python/object/apply:os.system [echo]\n", "not valid YAML"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, message):
    with pytest.raises(SpecError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SpecError, match="File not found"):
        read_topology(tmp_path / "none.yaml")


def test_aliases_that_multiply_are_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    with pytest.raises(SpecError, match="more than 2000000 values"):
        read(tmp_path, "\n".join([*lines, "nodes: *a8"]))


def test_a_bottomless_file_is_refused(tmp_path):
    with pytest.raises(SpecError, match="nested too deeply"):
        read(tmp_path, "nodes: " + "[" * 20_000 + "]" * 20_000)
    entry = {"name": "s39", "nodes": ["a"]}
    for level in range(38, -1, -1):
        entry = {"name": f"s{level}", "switches": [entry]}
    with pytest.raises(TopologyError, match="32 levels deep"):
        parse_topology({"switches": [entry]}, "here")


def test_names_may_be_host_lists(tmp_path):
    topology = read(tmp_path, 'switches: [{name: s, nodes: ["host[08-10]", other]}]')
    assert [node.name for node in topology.nodes] == ["host08", "host09", "host10", "other"]
    with pytest.raises(SpecError, match="opens a bracket"):
        read(tmp_path, 'switches: [{name: s, nodes: ["host[08"]}]')
