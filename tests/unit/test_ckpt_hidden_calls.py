"""Calls that hide in what harmless functions are given, in files inside a pickle and in names: all are warned of."""

import collections
import copyreg
import functools
import io
import os
import pickle
import re
import struct
import subprocess
import tarfile
import time
import zipfile
from collections import ChainMap, OrderedDict, defaultdict

import pytest
import torch

from gnomon.ckpt.callables import runs_something
from gnomon.ckpt.implied import implied_calls
from gnomon.ckpt.inert import Call, Global, Pairs
from gnomon.ckpt.known_names import is_known
from gnomon.ckpt.summarize import summarize
from gnomon.errors import CheckpointError

FROM_TYPE, FROM_TYPE_V2 = torch._tensor._rebuild_from_type, torch._tensor._rebuild_from_type_v2


class Calls:
    """Calls a function when it is unpickled, then sets a state."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


@pytest.fixture
def victim(tmp_path):
    """A file that the payload would make; it must not be there in the end."""
    path = tmp_path / "victim"
    yield path
    assert not path.exists()


def saved(value, **options) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def warnings(path, content: bytes) -> tuple[str, ...]:
    file = path.with_name("file.pt")
    file.write_bytes(content)
    return summarize(file).warnings


def touch(victim) -> Calls:
    return Calls(os.system, f"touch {victim}")


GIVEN = {
    "from type": lambda text: Calls(FROM_TYPE, os.system, torch.Tensor, (text,), {}),
    "from type 2": lambda text: Calls(FROM_TYPE_V2, os.system, torch.Tensor, (text,), {}),
    "list of arguments": lambda text: Calls(FROM_TYPE_V2, os.system, torch.Tensor, [text], {}),
    "arguments that are a dictionary": lambda text: Calls(FROM_TYPE_V2, os.system, torch.Tensor, {text: 1}, {}),
    "from type twice": lambda text: Calls(
        FROM_TYPE_V2, FROM_TYPE_V2, torch.Tensor, (os.system, torch.Tensor, (text,), {}), {}
    ),
    "from type through a dictionary": lambda text: Calls(
        FROM_TYPE_V2, FROM_TYPE_V2, torch.Tensor, {os.system: 1, torch.Tensor: 2, (text,): 3, 4: 5}, {}
    ),
    "reconstructor": lambda text: Calls(copyreg._reconstructor, subprocess.Popen, subprocess.Popen, ["touch", text]),
    "base of a reconstructor": lambda text: Calls(copyreg._reconstructor, dict, subprocess.Popen, ["touch", text]),
    "class of a reconstructor": lambda text: Calls(copyreg._reconstructor, subprocess.Popen, object, None),
    "newobj": lambda text: functools.partial(copyreg.__newobj__, subprocess.Popen, text),
    "newobj_ex": lambda text: functools.partial(copyreg.__newobj_ex__, subprocess.Popen, (text,), {}),
    "partial": lambda text: functools.partial(os.system, text),
    "state of a partial": lambda text: Calls(functools.partial, int, state=(os.system, (text,), {}, None)),
    "a partial of from type": lambda text: Calls(functools.partial, FROM_TYPE_V2, os.system, torch.Tensor, (text,), {}),
    "factory": lambda text: Calls(
        dict, Calls(ChainMap, defaultdict(functools.partial(os.system, text)), OrderedDict(k=1))
    ),
    "bare factory": lambda text: defaultdict(os.getpid),
    "state of a defaultdict": lambda text: Calls(defaultdict, state=(None, {"default_factory": os.getpid})),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", GIVEN)
def test_a_function_that_a_call_is_given(victim, name, protocol) -> None:
    value = {"w": torch.ones(2), "x": GIVEN[name](f"touch {victim}")}
    found = warnings(victim, saved(value, pickle_protocol=protocol))
    assert found
    assert all("would call" in text for text in found)


@pytest.mark.parametrize(
    "value",
    [
        torch.nn.Parameter(torch.ones(2)),
        defaultdict(list, a=[1]),
        defaultdict(functools.partial(defaultdict, list)),
        functools.partial(int, base=2),
        collections.Counter("aab"),
        torch.nn.Linear(2, 2).state_dict(),
        torch.ones(2).as_subclass(torch.nn.Buffer),
        Calls(copyreg._reconstructor, dict, dict, {"a": 1}),
        Calls(copyreg._reconstructor, collections.UserDict, object, None),
    ],
)
def test_what_is_given_harmless_functions_is_no_warning(tmp_path, value) -> None:
    assert warnings(tmp_path / "a", saved({"x": value})) == ()


def loads(content: object) -> Calls:
    return Calls(torch.storage._load_from_bytes, content)


def files_inside(victim) -> dict[str, object]:
    """Return files of the payload as `_load_from_bytes` takes them."""
    evil = touch(victim)
    legacy = saved(evil, _use_new_zipfile_serialization=False)
    return {
        "zip": loads(saved(evil)),
        "legacy": loads(legacy),
        "twice": loads(saved(loads(saved(evil)))),
        "legacy in zip": loads(saved(loads(legacy))),
        "zip in legacy": loads(saved(loads(saved(evil)), _use_new_zipfile_serialization=False)),
        "through partial": functools.partial(torch.storage._load_from_bytes, saved(evil)),
        "plain pickle": loads(pickle.dumps(evil)),
    }


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", files_inside("x"))
def test_a_file_inside_is_read(victim, name, plain) -> None:
    content = {"x": files_inside(victim)[name]}
    found = warnings(victim, pickle.dumps(content) if plain else saved(content))
    assert any("would call posix.system('touch" in text for text in found)


@pytest.mark.parametrize(
    "inside",
    [
        b"",
        b"PK\x03\x04",
        b"PK\x03\x04" + bytes(100),
        b"\x80\x02]",
        pickle.dumps(1),
        "text",
        bytearray(b"x"),
        Calls(bytes, [1, 2]),
        Calls(torch.serialization.io.BytesIO, b"x"),
    ],
)
def test_a_file_inside_that_cannot_be_read_is_a_warning(victim, inside) -> None:
    found = warnings(victim, saved({"x": loads(inside), "y": 1}))
    assert "would load a file inside it (which gnomon cannot read) if loaded with pickle" in found


def test_bytes_in_another_encoding_are_not_guessed(victim) -> None:
    safe = saved(torch.ones(1).untyped_storage(), _use_new_zipfile_serialization=False)
    for encoding, count in (("latin1", 0), ("utf-8", 1)):
        code = b"\x80\x02ctorch.storage\n_load_from_bytes\nc_codecs\nencode\n"
        text = safe.decode("latin1").encode()
        code += b"X" + struct.pack("<I", len(text)) + text + b"X" + struct.pack("<I", len(encoding)) + encoding.encode()
        assert len(warnings(victim, code + b"\x86R\x85R.")) == count


def test_storages_inside_are_still_read(tmp_path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({f"t{number}": torch.ones(number) for number in range(1, 5)}))
    found = summarize(path)
    assert found.warnings == ()
    assert [tensor.shape for tensor in found.tensors] == [(1,), (2,), (3,), (4,)]


def test_a_file_inside_that_is_loaded_again_and_again_costs_little(victim) -> None:
    inside, started = saved(touch(victim)), time.perf_counter()
    found = warnings(victim, pickle.dumps([loads(inside) for _ in range(3000)]))
    assert time.perf_counter() - started < 20
    assert re.match(r"would load \d{4} files inside it \(which gnomon cannot read\)", found[0])
    assert "would call posix.system" in found[1]


def tar_of(content: bytes, first: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in (first, "storages"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def test_a_tar_archive_that_starts_as_a_pickle(victim) -> None:
    content = bytearray(tar_of(pickle.dumps(touch(victim)), "\x7f]."))
    content[0] = 0x80  # "\x80\x5d." is no pickle yet, but the name could hold one
    content[257:263] = bytes(6)  # without the magic
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    with pytest.raises(CheckpointError, match="is a tar archive"):
        warnings(victim, bytes(content))
    assert "would load a file inside it" in warnings(victim, saved(loads(bytes(content))))[0]


def zip_of(content: bytes, name: str = "a/data.pkl", compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def test_a_zip_archive_with_two_directories(victim) -> None:
    harmless, evil = zip_of(pickle.dumps(1)), zip_of(pickle.dumps(touch(victim)))
    with pytest.raises(CheckpointError, match="directory is not where its end says"):
        warnings(victim, evil + harmless)


def test_a_zip_archive_with_two_tables(victim) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/DATA.PKL", pickle.dumps(touch(victim)))
        archive.writestr("b/data.pkl", pickle.dumps(1))
    with pytest.raises(CheckpointError, match=r"it has several data\.pkl"):
        warnings(victim, file.getvalue())


@pytest.mark.parametrize("inside", [False, True])
def test_a_table_that_is_compressed_too_far(victim, inside) -> None:
    content = zip_of(b"\x80\x02" + b"]" * 2**21 + b".", compression=zipfile.ZIP_DEFLATED)
    assert len(content) < 4000
    if inside:
        assert "cannot read" in warnings(victim, saved(loads(content)))[0]
    else:
        with pytest.raises(CheckpointError, match=r"expands to 2097155, more than 20 times as many\. PyTorch does not"):
            warnings(victim, content)


def test_a_table_that_is_compressed_somewhat_is_read(tmp_path) -> None:
    value = {f"layer.{number}.{number * 7919 % 10007}.weight": number for number in range(80_000)}
    content = zip_of(pickle.dumps(value), compression=zipfile.ZIP_DEFLATED)
    (tmp_path / "a.pt").write_bytes(content)
    assert len(summarize(tmp_path / "a.pt").values) == 80_000


@pytest.mark.parametrize(
    ("module", "name", "dotted"),
    [
        ("torch.distributed.checkpoint.metadata", "os.system", "os.system"),
        ("torch.serialization", "torch.hub.load", "torch.hub.load"),
        ("acme", "Outer.Inner", "acme.Outer.Inner"),
        ("numpy.random._pickle", "__randomstate_ctor", "numpy.random._pickle.__randomstate_ctor"),
    ],
)
def test_a_name_that_leads_to_another_package(module, name, dotted) -> None:
    assert Call(Global(module, name), ()).name == dotted


def test_a_function_behind_the_name_of_a_known_module(victim) -> None:
    text = f"touch {victim}".encode()
    name = b"\x8c%s\x8c%s\x93" % (b"\x25torch.distributed.checkpoint.metadata", b"\x09os.system")
    found = warnings(victim, b"\x80\x04" + name + b"\x8c" + bytes([len(text)]) + text + b"\x85R.")
    assert "would call os.system('touch" in found[0]


def test_what_is_known_below_the_names_of_torch() -> None:
    assert is_known("torch.distributed.tensor._dtensor_spec.DTensorSpec")
    assert is_known("torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING")
    assert is_known("torch._utils._rebuild_sparse_tensor")
    assert not is_known("torch.distributed.tensor.experimental.local_map")
    assert not is_known("torch._utils._rebuild_tensor.__globals__.get")
    assert runs_something("torch._utils._rebuild_tensor.__globals__.get")
    assert runs_something("numpy.lib.npyio.load")


def test_many_names_hide_none(victim) -> None:
    names = b"".join(b"ca\nn%d\n)R0" % number for number in range(10_100))
    text = f"touch {victim}".encode()
    call = b"cos\nsystem\nX" + struct.pack("<I", len(text)) + text + b"\x85R0"
    (found,) = warnings(victim, b"\x80\x02" + names + call + b"N.")
    assert re.match(r"would call a\.n10000\(\), and others like it 100 more times", found)


def test_keywords_of_a_call_that_takes_a_function() -> None:
    call = Call(Global("torch._tensor", "_rebuild_from_type_v2"), (Global("os", "system"),), Pairs([("args", ())]))
    assert [inner.name for inner in implied_calls(call)] == [""]
