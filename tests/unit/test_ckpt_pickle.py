"""Hostile pickles: nothing runs, nothing is imported, memory and time stay bounded."""

import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnomon.ckpt import pickle_machine, walk
from gnomon.ckpt.bounded_file import BoundedFile
from gnomon.ckpt.callables import describe, runs_something
from gnomon.ckpt.inert import Call, Global, Pairs
from gnomon.ckpt.pickle_machine import PickleMachine
from gnomon.ckpt.summarize import summarize
from gnomon.errors import CheckpointError


class Evil:
    """Runs a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def read(content: bytes):
    return PickleMachine().read(io.BytesIO(content))


@pytest.fixture
def hostile(tmp_path):
    """Write a pickle into a zip of PyTorch's layout; return the path."""

    def write(content: bytes, compression: int = zipfile.ZIP_STORED):
        path = tmp_path / "hostile.pt"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("hostile/data.pkl", content)
        return path

    return write


@pytest.mark.parametrize("protocol", range(1, 6))
@pytest.mark.parametrize("how", ["zip", "stream", "plain"])
def test_os_system_is_named_and_not_run(tmp_path, monkeypatch, protocol, how):
    monkeypatch.chdir(tmp_path)  # a long path would be shortened in the message
    victim, path = Path("victim"), tmp_path / "evil.pt"
    content = {"w": torch.ones(2), "e": Evil(os.system, f"touch {victim}")}
    if how == "plain":
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=how == "zip")
    if how != "zip" and protocol < 2:
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            summarize(path)
    else:
        found = summarize(path)
        assert found.warnings == (f"would call posix.system('touch {victim}') if loaded with pickle",)
        assert found.tensors[0].shape == (2,)
    assert not victim.exists()
    torch.load(path, weights_only=False) if how != "plain" else pickle.loads(path.read_bytes())
    assert victim.exists()  # it would have worked


OPCODES = {
    "reduce": b"cos\nsystem\n(X%sR.",
    "newobj": b"\x80\x02cos\nsystem\nX%s\x85\x81.",
    "newobj_ex": b"\x80\x04cos\nsystem\nX%s\x85}\x92.",
    "inst": b"(X%sios\nsystem\n.",
    "obj": b"(cos\nsystem\nX%so.",
    "stack_global": b"\x80\x04\x8c\x02os\x8c\x06systemX%s\x85R.",
    "popped": b"cos\nsystem\nX%s\x85R0N.",
    "through getattr": b"c__builtin__\ngetattr\n(cos\nsystem\nX\x08\x00\x00\x00__call__tRX%s\x85R.",
    "through partial": b"cfunctools\npartial\n(cos\nsystem\nX%stR)R.",
    "nested in arguments": b"c__builtin__\nlist\n(cos\nsystem\nX%s\x85RtR.",
}


@pytest.mark.parametrize("opcode", OPCODES)
def test_every_way_to_call(hostile, tmp_path, opcode):
    command = f"touch {tmp_path / 'victim'}".encode()
    text = struct.pack("<I", len(command)) + command
    pattern = OPCODES["reduce"].replace(b"(X%s", b"X%s\x85") if opcode == "reduce" else OPCODES[opcode]
    found = summarize(hostile(pattern.replace(b"%s", text)))
    assert len(found.warnings) == (2 if opcode == "through partial" else 1)
    assert "would call" in found.warnings[0]
    assert "touch" in found.warnings[0]
    assert not (tmp_path / "victim").exists()


def test_names_are_not_imported(hostile):
    found = summarize(hostile(b"cantigravity\nfly\n."))
    assert "antigravity" not in sys.modules
    assert found.values[0].value == "antigravity.fly"
    assert found.warnings == ("would run antigravity by importing it if loaded with pickle",)


def test_unknown_objects_stay_closed(hostile):
    found = summarize(hostile(b"\x80\x02cacme.model\nConfig\n)\x81}X\x01\x00\x00\x00aK\x01sb."))
    assert dict(found.calls) == {"acme.model.Config": 1}
    assert [(value.path, value.type, value.value) for value in found.values] == [
        ((), "acme.model.Config", None),
        (("a",), "int", 1),
    ]
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("os.system", True),
        ("posix.system", True),
        ("nt.system", True),
        ("builtins.eval", True),
        ("builtins.getattr", True),
        ("subprocess.Popen", True),
        ("runpy.run_path", True),
        ("torch.load", True),
        ("torch.hub.load", True),
        ("torch.serialization.load", True),
        ("torch.distributed.checkpoint.format_utils.dcp_to_torch_save", True),
        ("", True),
        ("builtins.set", False),
        ("builtins.ValueError", False),
        ("collections.OrderedDict", False),
        ("argparse.Namespace", False),
        ("torch._utils._rebuild_tensor_v2", False),
        ("megatron.core.enums.ModelType", False),
    ],
)
def test_what_runs_something(name, runs):
    assert runs_something(name) is runs


# Bombs


def bomb(levels):
    return b"]" + b"".join(b"2\x86" for _ in range(levels)) + b"."


BOMBS = {
    "bytes of 2^60": (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.", "damaged or cut off"),
    "bytes of 2^64 - 1": (b"\x80\x04\x8e" + struct.pack("<Q", 2**64 - 1) + b"x.", "damaged or cut off"),
    "text of 4 GiB": (b"X\xff\xff\xff\xff.", "damaged or cut off"),
    "bytearray of 2^60": (b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"x.", "damaged or cut off"),
    "frame of 2^60": (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b".", "damaged or cut off"),
    "negative length": (b"\x8b\xff\xff\xff\xff.", "damaged or cut off"),
    "billion laughs": (bomb(40), "expands to more than"),
    "digits": (b"I" + b"9" * 10000 + b"\n.", "damaged or cut off"),
    "empty": (b"", "damaged or cut off"),
    "no stop": (b"]", "damaged or cut off"),
    "stop at once": (b".", "takes more from its stack"),
    "unknown opcode": (b"\xff.", "damaged or cut off"),
    "memo": (b"h\x05.", "refers to object 5"),
    "mark": (b"(.", "takes more from its stack"),
    "pop": (b"0.", "a mark is missing"),
    "tuple without mark": (b"t.", "a mark is missing"),
    "odd items": (b"(K\x01K\x02K\x03d.", "a key has no value"),
    "append to a number": (b"K\x01K\x02a.", "appends to a int"),
    "items of a number": (b"K\x01K\x02K\x03s.", "sets items of a int"),
    "state of a number": (b"K\x01}b.", "sets the state of a int"),
    "arguments": (b"cos\nsystem\nK\x01R.", "not a tuple"),
    "name": (b"\x80\x04K\x01K\x02\x93.", "a name is not text"),
    "out of band": (b"\x80\x05\x97.", "outside the file"),
    "obj": (b"(o.", "damaged or cut off"),
    "dup": (b"2.", "empty stack"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(hostile, name, monkeypatch):
    monkeypatch.setattr(walk, "MAX_VISITS", 20_000)
    content, words = BOMBS[name]
    with pytest.raises(CheckpointError, match=words) as caught:
        summarize(hostile(content))
    assert len(str(caught.value)) < 500


def test_a_large_memo_index_allocates_nothing(hostile):
    found = summarize(hostile(b"K\x07r\xff\xff\xff\xff0j\xff\xff\xff\xff."))
    assert found.values[0].value == 7


@pytest.mark.parametrize("opening", [b"]", b")", b"}", b"("])
def test_deep_nesting_is_shown_to_a_limit(hostile, opening):
    depth = 100_000
    content = {
        b"]": b"]" * depth + b"a" * (depth - 1),
        b")": b")" + b"\x85" * depth,
        b"}": b"}" + b"K\x01}" * depth + b"s" * depth,
        b"(": b"(" * depth + b"t" * depth,
    }[opening]
    found = summarize(hostile(content + b"."))
    assert "nested more than 50 levels deep" in str(found.values[0].value)


def test_a_deep_tuple_as_a_key_is_not_hashed(hostile):
    found = summarize(hostile(b"})" + b"\x85" * 1_000_000 + b"K\x01s."))
    assert found.values[0].value == 1


def test_deep_calls_are_described_to_a_limit(hostile):
    content = b"ca\nb\n" + b")R" * 50_000 + b"."
    assert describe(read(content)) == "<call>()()()"
    assert summarize(hostile(content)).warnings == (
        "would call a.b()(), and others like it 49998 more times if loaded with pickle",
    )


def test_a_zip_bomb_is_refused(hostile, monkeypatch):
    path = hostile(b"]" * 2_000_000 + b".", zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr("gnomon.ckpt.torch_files.MAX_PICKLE_BYTES", 1_000_000)
    with pytest.raises(CheckpointError, match="has 2000001 bytes, which no table of contents needs"):
        summarize(path)


def test_a_lying_size_in_the_directory_is_refused(hostile):
    path = hostile(pickle.dumps({"a": 1}))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = struct.pack("<II", 200_000_000, 200_000_000)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        summarize(path)


def test_too_many_instructions_are_refused(monkeypatch):
    monkeypatch.setattr(pickle_machine, "MAX_OPCODES", 1000)
    assert read(b"N0" * 400 + b"N.") is None
    with pytest.raises(CheckpointError, match="more than 1000 instructions"):
        read(b"N0" * 600 + b"N.")


def test_too_many_entries_are_refused(monkeypatch):
    monkeypatch.setattr(walk, "MAX_VISITS", 100)
    with pytest.raises(CheckpointError, match="expands to more than 100 entries"):
        walk.Walker("a").walk([[] for _ in range(200)])


def test_few_objects_that_expand_to_many_are_refused_at_once():
    value = ["lol"] * 10
    for _ in range(12):
        value = [value] * 10
    walker = walk.Walker("a")
    with pytest.raises(CheckpointError, match="out of 13 that it repeats"):
        walker.walk(value)
    assert len(walker.values) < 2 * walk.FREE_REPEATS


def test_many_objects_may_share_parts():
    shared = [0.9, 0.999]
    walker = walk.Walker("a")
    walker.walk([{"betas": shared, "lr": index} for index in range(30_000)])
    assert len(walker.values) == 60_000


def test_a_huge_sparse_file_reads_its_table_only(tmp_path):
    path = tmp_path / "huge.pt"
    torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    small = path.read_bytes()
    numel = (100 * 2**30) // 4
    content = small.replace(b"K\x03Nt", b"\x8a\x05" + struct.pack("<Q", numel)[:5] + b"Nt", 1)
    content = content.replace(b"K\x03\x85q", b"\x8a\x05" + struct.pack("<Q", numel)[:5] + b"\x85q", 1)
    assert len(content) == len(small) + 10
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(len(content) + 100 * 2**30)
    script = (
        "import re, sys\n"
        "from gnomon.ckpt.summarize import summarize\n"
        "found = summarize(sys.argv[1])\n"
        # ru_maxrss would count the process that started this one
        "print(found.total.bytes, re.search(r'VmHWM:\\s+([0-9]+)', open('/proc/self/status').read())[1])\n"
    )
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (2**31, 2**31))
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, preexec_fn=limit
    )
    size, peak_kib = map(int, done.stdout.split())
    assert size == 100 * 2**30
    assert peak_kib < 300 * 1024


def test_a_zip_whose_directory_is_huge_is_refused(tmp_path):
    path = tmp_path / "huge.pt"
    torch.save({"w": torch.ones(3)}, path)
    end = path.read_bytes()[-22:]
    assert end[:4] == b"PK\x05\x06"
    size = 3 * 2**30
    with path.open("r+b") as file:
        file.seek(size)
        file.write(end[:12] + struct.pack("<II", size - 100, 100) + b"\0\0")
    with pytest.raises(CheckpointError, match="Its directory is larger than any checkpoint needs"):
        summarize(path)


def test_a_bounded_file_is_a_window():
    window = BoundedFile(io.BytesIO(b"0123456789\nabc"), 100, "It", start=2, size_bytes=10)
    assert (window.size_bytes, window.read(3), window.tell()) == (10, b"234", 3)
    assert window.read() == b"56789\na"
    assert window.read(5) == b""
    window.seek(-2, os.SEEK_END)
    assert window.readline() == b"\n"
    window.seek(-1, os.SEEK_CUR)
    assert window.read() == b"\na"
    with pytest.raises(ValueError, match="before the start"):
        window.seek(-11, os.SEEK_END)
    small = BoundedFile(io.BytesIO(b"x" * 100), 10, "It")
    assert small.read(10) == b"x" * 10
    with pytest.raises(CheckpointError, match="It is larger than any checkpoint needs"):
        small.read(1)


# The machine agrees with pickle


def plain(value):
    """Turn records back into what pickle would have made."""
    if isinstance(value, Pairs):
        return {plain(key): plain(item) for key, item in value.items}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    if isinstance(value, Call):
        if value.name == "_codecs.encode":
            return value.arguments[0].encode(value.arguments[1])
        return {"builtins.set": set, "builtins.bytes": bytes}[value.name](*map(plain, value.arguments))
    return {plain(item) for item in value.items} if hasattr(value, "items") and not isinstance(value, dict) else value


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
OBJECTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(OBJECTS, st.integers(1, 5))
def test_the_machine_reads_what_pickle_reads(value, protocol):
    assert plain(read(pickle.dumps(value, protocol))) == value


@given(st.sets(st.integers()), st.integers(1, 5))
def test_sets(value, protocol):
    assert plain(read(pickle.dumps(value, protocol))) == value


@settings(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([bytes((code,)) for code in range(256)]), max_size=60))
def test_random_instructions_are_read_or_refused(pieces):
    try:
        value = read(b"\x80\x04" + b"".join(pieces) + b".")
    except CheckpointError:
        return
    walker = walk.Walker("random")
    walker.walk(value)
    describe(value)


@given(st.text())
def test_whatever_a_file_says_is_printed_on_one_line(text):
    walker = walk.Walker("a")
    walker.walk({text: Call(Global(text, text), ())})
    for value in walker.values:
        assert value.name.isprintable()
        assert value.type.isprintable()
