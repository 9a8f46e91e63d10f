"""`gnomon ckpt summarize`: the tree, the collapsed names, JSON and refusals."""

import argparse
import itertools
import json
import sys
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.ckpt.collapse import Row, collapse, split_name
from gnomon.ckpt.contents import Checkpoint
from gnomon.cli import main


@pytest.fixture
def gnomon(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gnomon", "ckpt", "summarize", *map(str, arguments)])
        code = 0
        try:
            main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def saved(tmp_path):
    shared = torch.zeros(8, 4, dtype=torch.bfloat16)
    model = {"embed.weight": shared}
    for layer, name in itertools.product(range(3), ("q", "k")):
        model[f"layers.{layer}.{name}.weight"] = torch.zeros(4, 4, dtype=torch.bfloat16)
    model["head.weight"] = shared
    optimizer = {"state": {index: {"step": torch.ones(())} for index in range(7)}, "param_groups": [{"lr": 0.1}]}
    content = {"model": model, "optimizer": optimizer, "args": argparse.Namespace(lr=0.1, name="a\x1b[31mb")}
    torch.save({**content, "iteration": 5}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_the_tree(gnomon, saved):
    code, out, err = gnomon(saved)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{saved}  (PyTorch, 15 tensors, 135 elements, 284 B)",
        "├── iteration  5",
        "├── model  8 tensors, 128 elements, 256 B",
        "│   ├── embed.weight  (8, 4) bf16  64 B",
        "│   ├── layers.{0..2}.q.weight  (4, 4) bf16  32 B  x 3",
        "│   ├── layers.{0..2}.k.weight  (4, 4) bf16  32 B  x 3",
        "│   └── head.weight  (8, 4) bf16  64 B  same as model.embed.weight",
        "├── optimizer  7 tensors, 7 elements, 28 B",
        "│   ├── state",
        "│   │   └── {0..6}.step  () fp32  4 B  x 7",
        "│   └── param_groups",
        "│       └── 0.lr  0.1",
        "└── args  argparse.Namespace",
        "    ├── lr  0.1",
        "    └── name  'a\\x1b[31mb'",
        "",
        "bf16: 8 tensors, 128 elements, 256 B",
        "fp32: 7 tensors, 7 elements, 28 B",
        "total: 15 tensors, 135 elements, 284 B, shared storages once",
    ]


def test_full_lists_every_name(gnomon, saved):
    out = gnomon(saved, "--full")[1]
    for layer in range(3):
        assert f"layers.{layer}.q.weight  (4, 4) bf16" in out
    assert out.count("step  () fp32") == 7


def test_json_is_the_whole_list(gnomon, saved):
    code, out, _ = gnomon(saved, "--json")
    assert code == 0
    document = json.loads(out)
    assert len(document["tensors"]) == 15
    assert document["tensors"][0]["name"] == "model.embed.weight"
    assert document["tensors"][0]["shape"] == [8, 4]
    assert document["total"] == {"tensors": 15, "elements": 135, "bytes": 284}
    assert Checkpoint.from_mapping(document).to_mapping() == document


def test_long_lists_are_cut(gnomon, tmp_path):
    torch.save({f"setting {chr(97 + i // 26)}{chr(97 + i % 26)}": i for i in range(100)}, tmp_path / "a.pt")
    assert "... and 60 more lines; --full lists all" in gnomon(tmp_path / "a.pt")[1]
    assert "setting dv  99" in gnomon(tmp_path / "a.pt", "--full")[1]


def test_what_pickle_would_call_is_said(gnomon, tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cos\nsystem\nX\x05\x00\x00\x00touch\x85Rcacme\nThing\n)\x81\x86.")
    code, out, err = gnomon(tmp_path / "a.pkl")
    assert code == 1
    assert err == (
        f"error: '{tmp_path / 'a.pkl'}' runs more than it should when pickle loads it: it would call "
        "os.system('touch').\n"
    )
    assert "warning: would call os.system('touch') if loaded with pickle" in out
    assert "note: unknown to gnomon, so shown closed: acme.Thing." in out


@pytest.mark.parametrize(
    ("pickled", "code", "said"),
    [
        (b"cantigravity\nfly\n.", 1, "warning: would run antigravity by importing it if loaded with pickle"),
        (b"cos\nsystem\n.", 0, "note: It names os.system without calling it."),
        (b"cnumpy\nsavetxt\n)R.", 1, "warning: would call numpy.savetxt() if loaded with pickle"),
        (b"cacme\napply\ncos\nsystem\n\x85R.", 1, "warning: would let acme.apply call os.system if loaded with pickle"),
    ],
)
def test_what_pickle_would_import_and_give_away_is_said(gnomon, tmp_path, pickled, code, said):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + pickled)
    found, out, err = gnomon(tmp_path / "a.pkl")
    assert (found, said in out) == (code, True)
    assert err.startswith("error: ") is (code == 1)


def test_damage_is_shown_and_fails(gnomon, tmp_path):
    torch.save({"w": torch.ones(3), "v": torch.ones(2)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as whole, zipfile.ZipFile(tmp_path / "b.pt", "w") as part:
        for name in whole.namelist():
            if not name.endswith("data/1"):
                part.writestr(name, whole.read(name))
    code, out, err = gnomon(tmp_path / "b.pt")
    assert code == 1
    assert "w  (3,) fp32" in out
    assert "warning: The data of 1 of the 2 storages" in out
    assert err.startswith(f"error: '{tmp_path / 'b.pt'}' is damaged: The data of 1 of the 2 storages")
    code, out, err = gnomon(tmp_path / "b.pt", "--json")
    assert (code, err.count("\n")) == (1, 1)
    assert len(json.loads(out)["damage"]) == 1


def test_too_little_memory_is_one_message(gnomon, saved, monkeypatch):
    def exhaust(path):
        raise MemoryError

    monkeypatch.setattr("gnomon.ckpt.summarize.summarize", exhaust)
    message = f"error: '{saved}' lists more names and values than the memory of this process holds. Allow it more.\n"
    assert gnomon(saved) == (1, "", message)


def test_failures_are_one_message(gnomon, tmp_path):
    for name in ("nope.pt", "."):
        code, out, err = gnomon(tmp_path / name)
        assert (code, out) == (1, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1


# Collapsing names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"l.{i}.w" for i in range(32)], ["l.{0..31}.w"]),
        (["a", "b"], ["a", "b"]),
        (["l.0.w"], ["l.0.w"]),
        ([f"l.{i}.e.{j}.w" for i in range(3) for j in range(4)], ["l.{0..2}.e.{0..3}.w"]),
        (["l.0.w", "l.2.w", "l.3.w"], ["l.{0,2..3}.w"]),
        (["l.0.e.0", "l.0.e.1", "l.1.e.0"], ["l.0.e.{0..1}", "l.1.e.0"]),
        (["l.01.w", "l.02.w"], ["l.01.w", "l.02.w"]),
        ([f"{i}" for i in range(0, 40, 2)], ["{0,2,4,6,8,...,38: 20}"]),
    ],
)
def test_collapsed_names(names, expected):
    assert [row.name for row in collapse(Row(split_name(name), "same") for name in names)] == expected


def test_only_equal_rows_are_joined():
    rows = [Row(split_name(f"l.{i}.w"), "small" if i < 2 else "large") for i in range(5)]
    assert [(row.name, row.text, row.count) for row in collapse(rows)] == [
        ("l.{0..1}.w", "small", 2),
        ("l.{2..4}.w", "large", 3),
    ]


NAMES = st.lists(st.lists(st.sampled_from(["a", "b", "0", "1", "2", "10"]), min_size=1, max_size=4).map(".".join))


@given(st.dictionaries(NAMES.map(".".join).filter(bool), st.sampled_from("xy"), max_size=40))
def test_collapsed_rows_stand_for_exactly_the_names(named):
    found = {}
    for row in collapse(Row(split_name(name), text) for name, text in named.items()):
        choices = [(part,) if isinstance(part, str) else sorted(map(str, part)) for part in row.parts]
        expanded = [".".join(parts) for parts in itertools.product(*choices)]
        assert len(expanded) == row.count
        assert not found.keys() & set(expanded)
        found |= dict.fromkeys(expanded, row.text)
    assert found == named


def test_many_rows_are_quick():
    rows = [Row(split_name(f"state.{i}.step"), "same") for i in range(100_000)]
    assert [row.count for row in collapse(rows)] == [100_000]
