"""YAML and JSON of strangers: what is malformed, bottomless or made to expand gives one message, soon."""

import json
import re
import time

import pytest
from typer.testing import CliRunner

from gnomon.cli._topology_source import TopologySource
from gnomon.cli.main import app
from gnomon.documents import MAX_DEPTH, load_json, load_yaml
from gnomon.errors import GnomonError, SpecError
from gnomon.spec import Layout
from gnomon.spec._noun import read_mapping
from gnomon.topology.graph import TopologyError
from gnomon.topology.sources import slurm
from gnomon.topology.yaml_source import read_topology

DEEP = "[" * 100_000


def bomb(levels: int = 9) -> str:
    """A value in flow style that a few hundred bytes of aliases make 9^levels values of."""
    text = "[x, x, x, x, x, x, x, x, x]"
    for level in range(1, levels):
        text = f"[&a{level} {text}{f', *a{level}' * 8}]"
    return text


def load(text: str, max_values: int = 2_000_000) -> object:
    return load_yaml(text, "x.yaml", SpecError, max_values)


def message(call, *arguments) -> str:
    started = time.perf_counter()
    with pytest.raises(SpecError) as caught:
        call(*arguments)
    assert time.perf_counter() - started < 5
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1000
    return text


def test_what_is_sound_is_read() -> None:
    assert load("a: &x [1, {b: 2}]\nc: *x\n") == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}
    assert load("a: &x {b: 1}\nc: {<<: *x, d: 2}\n")["c"] == {"b": 1, "d": 2}
    assert load("") is None
    assert load("a: [yes, 1_000, 1.5, 2024-01-02]")["a"][:3] == [True, 1000, 1.5]
    assert load_json("[1]", "x.json", SpecError) == [1]


@pytest.mark.parametrize("text", [DEEP, "{a: " * 50_000, "- " * 50_000, "a: " + DEEP, "? " * 50_000])
def test_a_bottomless_file(text) -> None:
    assert "'x.yaml' is nested too deeply: more than 100 levels" in message(load, text)


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_the_deepest_that_is_read(brackets) -> None:
    opened, closed = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    for depth, is_read in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False)):
        text = opened * (depth - 1) + brackets + closed * (depth - 1)
        for call in (load, lambda text: load_json(text, "x.json", SpecError)):
            if is_read:
                assert call(text)
            else:
                assert "nested too deeply" in message(call, text)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 100_000])
def test_a_bottomless_json_file(tmp_path, depth) -> None:
    (tmp_path / "deep.json").write_text('{"dp": ' + "[" * depth + "]" * depth + "}")
    assert "deep.json' is nested too deeply" in message(Layout.load, tmp_path / "deep.json")


@pytest.mark.parametrize("text", [f"a: {bomb()}", f"? {bomb()}\n: 1", f"a: [1, {{b: {bomb(12)}}}]"])
def test_aliases_that_multiply(text) -> None:
    assert len(text) < 1000
    assert "'x.yaml' expands to more than 2000000 values" in message(load, text)


def test_merged_keys_that_multiply() -> None:
    levels = ["a0: &a0 {a: 1, b: 2, c: 3}"]
    levels += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    assert "expands to more than" in message(load, "\n".join(levels))


def test_values_are_counted_as_written_out() -> None:
    text = "[&a [1, 2], *a, *a]"  # the outer list, and three lists of two
    assert load(text, 10) == [[1, 2]] * 3
    assert "more than 9 values" in message(load, text, 9)


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: 1\nb:\n  c: &a {d: [*a]}"])
def test_a_value_that_holds_itself(text) -> None:
    line = text.count("\n") + 1
    assert f"'x.yaml' refers to itself: line {line} begins" in message(load, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [2\n", "line 3, column 1"),
        ("a: {b: 1, c: 2,\n  b: 3}", "line 2, column 3: key 'b' is given twice"),
        ("a: *b", "undefined alias"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: 2024-13-45", "line 1, column 4: '2024-13-45' is no timestamp"),
        ("a: !!timestamp x", "is no timestamp"),
        ("a: !!bool x", "is no bool"),
        ("a: !!float x", "is no float"),
        ("a: !!int ''", "is no int"),
        ("a: " + "1" * 5000, "is no int"),
        ("a: !!int [1]", "expected a scalar"),
        ("a: !!map x", "expected a mapping"),
        ("a: \x07", "is not valid YAML: "),
    ],
)
def test_malformed_yaml_is_explained(text, words) -> None:
    found = message(load, text)
    assert found.startswith("'x.yaml' is not valid YAML: ")
    assert words in found


@pytest.mark.parametrize("text", ["{", "[1,]", "1" * 5000])
def test_malformed_json_is_explained(text) -> None:
    assert message(load_json, text, "x.json", SpecError).startswith("'x.json' is not valid JSON: ")


def test_many_keys_are_compared_quickly() -> None:
    message(load, "\n".join([*(f"k{number}: 1" for number in range(50_000)), "k7: 2"]))


@pytest.mark.parametrize("text", [DEEP, f"- topology: {bomb()}\n  flat: true"])
def test_topology_yaml_of_slurm(text) -> None:
    with pytest.raises(TopologyError, match=r"nested too deeply|expands to more than"):
        slurm.parse_topology_yaml(text)


@pytest.mark.parametrize("text", ["nodes: " + DEEP, f"nodes: {bomb()}", f"source: {bomb()}\nnodes: []"])
def test_topology_files(tmp_path, text) -> None:
    (tmp_path / "net.yaml").write_text(text)
    message(read_topology, tmp_path / "net.yaml")


@pytest.mark.parametrize("text", [DEEP, f"model: {{n_layers: {bomb()}}}"])
@pytest.mark.parametrize("command", [("plan",), ("plan", "search"), ("topo", "assign", "--tp", "8", "--file")])
def test_commands_refuse_such_files(tmp_path, command, text) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = CliRunner().invoke(app, [*command, str(tmp_path / "bad.yaml")])
    assert isinstance(done.exception, GnomonError)
    assert re.search("nested too deeply|expands to more than", str(done.exception))


def test_a_search_whose_model_is_such_a_file(tmp_path) -> None:
    (tmp_path / "deep.yaml").write_text(DEEP)
    (tmp_path / "search.yaml").write_text(
        f"model: {tmp_path / 'deep.yaml'}\ncluster: {{name: dgx-h100, num_nodes: 1}}\n"
        "workload: {seq_len: 8, global_batch: 8, micro_batch: 1}\n"
    )
    done = CliRunner().invoke(app, ["plan", "search", str(tmp_path / "search.yaml")])
    assert isinstance(done.exception, GnomonError)
    assert "deep.yaml' is nested too deeply" in str(done.exception)


@pytest.mark.parametrize("value", ["x" * 100_000, ["x"] * 100_000, [["x" * 1000] * 1000] * 1000, {"a": ["x"] * 9999}])
def test_an_error_repeats_little_of_a_value(value) -> None:
    assert message(Layout.from_mapping, {"tp": value}).startswith("Layout: 'tp' is ")
    message(Layout.from_mapping, {"x" * 100_000: 1})


def test_an_error_names_only_some_of_many_keys() -> None:
    with pytest.raises(SpecError, match=r"and 990 more$") as caught:
        Layout.from_mapping({f"k{number}": 1 for number in range(1000)})
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path, suffix) -> None:
    path = tmp_path / f"layout{suffix}"
    path.write_text(json.dumps({"dp": 2}), encoding="utf-8-sig")
    assert read_mapping(path) == {"dp": 2}


def test_a_byte_order_mark_before_what_slurm_wrote(tmp_path) -> None:
    conf, hosts = tmp_path / "topology.conf", tmp_path / "hosts"
    conf.write_text("SwitchName=s0 Nodes=n[1-2]\n", encoding="utf-8-sig")
    hosts.write_text("n2\nn1\n", encoding="utf-8-sig")
    topology = TopologySource(slurm_conf=conf, hostfile=hosts).read()
    assert {node.name: node.rank for node in topology.nodes} == {"n1": 1, "n2": 0}
