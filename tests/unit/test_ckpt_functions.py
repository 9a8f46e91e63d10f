"""Functions of NumPy and PyTorch, functions that unknown calls are given, names that are only looked up."""

import argparse
import collections
import functools
import pickle
import random
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gnomon.ckpt import mentions
from gnomon.ckpt.callables import runs_on_import, runs_something
from gnomon.ckpt.summarize import summarize
from gnomon.errors import CheckpointError


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


class Net(nn.Module):
    """Keeps functions, as whole modules do."""

    def __init__(self):
        super().__init__()
        self.functions = [
            torch.tanh,
            F.relu,
            F.gelu,
            torch.special.expit,
            nn.init.ones_,
            torch.einsum,
            torch.Tensor.add,
        ]


@pytest.fixture
def foreign(monkeypatch):
    """A function of a package that is not installed; the package is there while it is pickled only."""
    module = types.ModuleType("acme")

    def apply(*arguments):
        raise AssertionError

    apply.__module__, apply.__qualname__ = "acme", "apply"
    module.apply = apply
    monkeypatch.setitem(sys.modules, "acme", module)
    return apply


@pytest.fixture
def read(tmp_path):
    """Pickle an object, or write what is a pickle already; return the summary."""

    def run(value, protocol=2):
        content = value if isinstance(value, bytes) else pickle.dumps(value, protocol)
        (tmp_path / "a.pkl").write_bytes(content)
        return summarize(tmp_path / "a.pkl")

    return run


@pytest.mark.parametrize(
    "name",
    [
        *("numpy.apply_along_axis", "numpy.savetxt", "numpy.save", "numpy.memmap", "numpy.piecewise"),
        *("numpy.fromfunction", "numpy.vectorize", "numpy._core._ufunc_reconstruct", "numpy.ndarray.tofile"),
        *("torch.save", "torch.serialization.save", "torch.vmap", "torch._functorch.apis.vmap", "torch.load"),
        "torch.distributed.checkpoint.format_utils.dcp_to_torch_save",
        *("torch._utils._import_dotted_name", "torch.return_types.pytree_register_structseq"),
        *("torch.nn.functional.boolean_dispatch", "torch.nn.functional.handle_torch_function"),
        "torch.nn.functional.triplet_margin_with_distance_loss",
        *("torch.nn.functional.torch.save", "torch.nn.functional.importlib.import_module"),
        *("torch.nn.functional.relu.__globals__", "torch.nn.init.torch.hub.load", "torch._C._nn.gelu.__self__"),
        *("torch._C._VariableFunctionsClass.from_file", "torch._C.PyTorchFileWriter"),
    ],
)
def test_functions_that_run_something(name) -> None:
    assert runs_something(name)


@pytest.mark.parametrize(
    "name",
    [
        *("torch.float32", "torch.bfloat16", "torch.float8_e4m3fn", "torch.quint4x2", "torch.per_channel_affine"),
        *("torch.Size", "torch.device", "torch.nn.functional.relu", "torch.nn.init.xavier_uniform_"),
        *("torch._C._nn.gelu", "torch._C._VariableFunctionsClass.tanh", "torch.return_types.max"),
        *("torch._utils._rebuild_sparse_tensor", "torch.distributed.remote_device._remote_device"),
        *("numpy.float32", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray._reconstruct"),
        *("numpy.random._pickle.__randomstate_ctor", "numpy.recarray", "numpy.bool"),
        *("torch.nn.modules.linear.Linear", "torch.optim.adam.Adam", "numpy.polynomial.polynomial.Polynomial"),
    ],
)
def test_names_that_make_data_or_are_classes(name) -> None:
    assert not runs_something(name)


@pytest.mark.parametrize("plain", [True, False])
def test_a_function_of_numpy_that_calls_another_one(tmp_path, plain) -> None:
    path, victim = tmp_path / "a.pt", tmp_path / "victim"
    value = {"w": Calls(np.apply_along_axis, subprocess.call, 0, ["touch", str(victim)])}
    path.write_bytes(pickle.dumps(value)) if plain else torch.save(value, path)
    (warning,) = summarize(path).warnings
    assert warning.startswith("would call numpy.apply_along_axis(subprocess.call, 0, ['touch', '")
    assert summarize(path).notes == ()
    assert not victim.exists()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "given",
    [
        subprocess.call,
        [subprocess.call, 0],
        {"a": (1, [subprocess.call])},
        {subprocess.call: 1},
        frozenset({subprocess.call}),
        collections.OrderedDict(a=[subprocess.call]),
        argparse.Namespace(function=subprocess.call),
        Calls(list, (subprocess.call,)),
    ],
)
def test_a_function_that_an_unknown_one_is_given(foreign, read, given, protocol) -> None:
    found = read({"x": Calls(foreign, given, 0)}, protocol)
    assert found.warnings == ("would let acme.apply call subprocess.call if loaded with pickle",)
    assert dict(found.calls) == {"acme.apply": 1}
    assert found.notes == ()


def test_what_a_partial_of_an_unknown_function_is_given(foreign, read) -> None:
    assert len(read(functools.partial(foreign, subprocess.call)).warnings) == 1
    assert len(read(functools.partial(foreign, function=subprocess.call)).warnings) == 1


def test_the_loader_of_files_inside_is_not_given_away(foreign, read) -> None:
    (warning,) = read(Calls(foreign, torch.storage._load_from_bytes, b"x")).warnings
    assert warning == "would let acme.apply call torch.storage._load_from_bytes if loaded with pickle"


@pytest.mark.parametrize("constructor", [np.random._pickle.__generator_ctor, np.random._pickle.__randomstate_ctor])
def test_a_function_that_makes_the_state_of_random_numbers(read, constructor) -> None:
    (warning,) = read(Calls(constructor, "touch x", subprocess.call)).warnings
    assert "would call subprocess.call()" in warning


def test_containers_that_hold_themselves_are_looked_through_once(foreign, read) -> None:
    given: list = [subprocess.call]
    given.append(given)
    assert len(read(Calls(foreign, given)).warnings) == 1


def test_calls_that_are_given_too_much_are_refused(foreign, read, monkeypatch) -> None:
    monkeypatch.setattr(mentions, "MAX_ARGUMENTS", 1000)
    given = list(range(100))
    assert read([Calls(foreign, given) for _ in range(5)]).warnings == ()
    with pytest.raises(CheckpointError, match="are given more than 1000 values"):
        read([Calls(foreign, given) for _ in range(50)])


WRITTEN = {
    "activation": lambda: nn.TransformerEncoderLayer(8, 2),
    "another activation": lambda: nn.TransformerEncoderLayer(8, 2, activation=F.gelu),
    "module": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.LSTM(3, 4), nn.LayerNorm(3)),
    "functions": lambda: Net(),
    "partials": lambda: [
        functools.partial(nn.LayerNorm, eps=1e-6),
        functools.partial(F.softmax, dim=-1),
        functools.partial(torch.softmax, dim=-1),
        functools.partial(nn.init.trunc_normal_, std=0.02),
    ],
    "optimizer": lambda: torch.optim.AdamW(nn.Linear(2, 2).parameters()),
    "scheduler": lambda: torch.optim.lr_scheduler.CyclicLR(torch.optim.SGD(nn.Linear(2, 2).parameters()), 0.1, 0.2),
    "scaler": lambda: torch.amp.GradScaler("cpu"),
    "random numbers": lambda: [
        *(torch.get_rng_state(), torch.Generator(), random.getstate(), random.Random(1), np.random.get_state()),
        *(np.random.RandomState(1), np.random.default_rng(1), np.random.Philox(1), np.random.SeedSequence(1)),
    ],
    "arguments": lambda: argparse.Namespace(
        dtype=torch.bfloat16,
        device=torch.device("cuda"),
        np=np.float32,
        act=F.gelu,
        kind=int,
        exit_signal=signal.SIGTERM,
    ),
    "arrays": lambda: [
        *(np.ones(2), np.asfortranarray(np.ones((2, 2))), np.ma.masked_array([1, 2], [0, 1]), np.ma.masked),
        *(np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]), np.matrix([[1]]), np.array(["a"]), np.float64(1)),
        *(np.array([1, "x"], object), np.datetime64("2020-01-01"), np.zeros(2, [("a", "i4")])[0], np.dtype("f4")),
    ],
    "tensors": lambda: [
        *(
            nn.Parameter(torch.ones(2)),
            nn.Buffer(torch.ones(2)),
            torch.eye(3).to_sparse(),
            torch.eye(3).to_sparse_csr(),
        ),
        *(torch.ones(2, device="meta"), torch.max(torch.ones(2, 2), 0), torch.Size([1]), torch.strided),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    ],
    "state of a module": lambda: nn.Linear(2, 2).state_dict(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WRITTEN)
def test_what_pytorch_writes_is_no_warning(tmp_path, name) -> None:
    torch.save(WRITTEN[name](), tmp_path / "a.pt")
    found = summarize(tmp_path / "a.pt")
    assert (found.warnings, found.notes) == ((), ())


@pytest.mark.filterwarnings("ignore")
def test_lists_in_torchscript_are_no_warning(tmp_path) -> None:
    module = nn.Linear(1, 1)
    module.sizes, module.scales, module.flags, module.names = [1, 2], [0.5], [True], {"a": 1}
    torch.jit.script(module).save(tmp_path / "a.pt")
    found = summarize(tmp_path / "a.pt")
    assert found.warnings == ()
    assert any(value.name == "sizes.(arguments).0" for value in found.values)


# Names that are only looked up


@pytest.mark.parametrize(
    ("module", "runs"),
    [
        *(("antigravity", True), ("this", True), ("idlelib.idle", True), ("unittest.__main__", True)),
        *(("acme.__main__", True), ("test.autotest", True), ("test.crashers.infinite_loop_re", True)),
        *(("__main__", False), ("test.models", False), ("os", False), ("thistle", False), ("acme.this", False)),
    ],
)
def test_modules_that_do_something_when_they_are_imported(read, module, runs) -> None:
    assert runs_on_import(module) is runs
    warning = f"would run {module} by importing it if loaded with pickle"
    assert read(f"\x80\x02c{module}\nThing\n.".encode("latin-1")).warnings == ((warning,) if runs else ())
    assert module == "os" or module not in sys.modules or not runs


def test_names_that_are_not_called_are_told(read) -> None:
    found = read(b"\x80\x02cos\nsystem\n.")
    assert (found.warnings, found.notes) == ((), ("It names os.system without calling it.",))
    found = read(b"\x80\x02cos\nsystem\ncsubprocess\nPopen\n\x86.")
    assert found.notes == ("It names os.system, subprocess.Popen without calling them.",)


@pytest.mark.parametrize(
    "name",
    ["acme\nThing", "acme\nfunction", "__main__\nNet", "builtins\nint", "collections\nOrderedDict", "torch\nint8"],
)
def test_names_of_data_and_of_other_packages_are_not_told(read, name) -> None:
    found = read(f"\x80\x03c{name}\n.".encode("latin-1"))
    assert (found.warnings, found.notes) == ((), ())


def test_names_that_are_called_are_told_once(read) -> None:
    found = read(b"\x80\x02cos\nsystem\nq\x00X\x01\x00\x00\x00a\x85Rh\x00\x86.")
    assert (len(found.warnings), found.notes) == (1, ())


def test_many_names_hide_no_import(read) -> None:
    names = b"".join(b"cos\nn%d\n0" % number for number in range(10_100))
    found = read(b"\x80\x02" + names + b"cantigravity\nfly\n.")
    assert found.warnings == ("would run antigravity by importing it if loaded with pickle",)
    assert found.notes[0].endswith(" and 9990 more without calling them.")
