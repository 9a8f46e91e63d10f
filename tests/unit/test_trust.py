"""A configuration from elsewhere must not run anything: hostile files, and proof that nothing ran."""

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from gnomon.config import compose, instantiate
from gnomon.errors import ConfigError, UntrustedTargetError

PROJECT = """\
import os
import subprocess
from functools import partial
from pathlib import Path
import gnomon.launch.local as launcher
import torch
from torch import hub
from torch.nn import Linear

run_later = partial(os.system, "touch project-ran")
folder = Path(".")

class Model:
    def __init__(self, size=1):
        self.size = size

    @classmethod
    def make(cls, size):
        return cls(2 * size)

class _Hidden(Model):
    pass

def build(*parts, **named):
    return parts, named
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder that is the current one, with a module; everything imported here is forgotten after."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "my_project.py").write_text(PROJECT)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(Path.cwd()))])
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield folder
    for name in set(sys.modules) - before:
        if not name.startswith(("torch", "gnomon", "numpy")):
            del sys.modules[name]


@pytest.fixture
def traps(monkeypatch):
    """Count every way out that the hostile files try; none of them does anything."""
    calls = []

    def trap(name):
        return lambda *args, **kwargs: calls.append((name, args, kwargs))

    for owner, name in ((os, "system"), (os, "popen"), (subprocess, "run"), (subprocess, "Popen"), (torch.hub, "load")):
        monkeypatch.setattr(owner, name, functools.wraps(getattr(owner, name))(trap(name)))
    return calls


HOSTILE = {
    "os.system": "run: {_target_: os.system, command: touch ran}",
    "posix.system": "run: {_target_: posix.system, command: touch ran}",
    "subprocess": "run: {_target_: subprocess.run, args: [touch, ran]}",
    "eval": "run: {_target_: builtins.eval, _args_: ['1']}",
    "import": "run: {_target_: builtins.__import__, _args_: [os]}",
    "partial": "run: {_target_: functools.partial, _args_: [touch]}",
    "operator": "run: {_target_: operator.methodcaller, _args_: [system]}",
    "nested deep": "run: {_target_: torch.nn.Identity, a: [{b: {c: [{_target_: os.system, command: touch ran}]}}]}",
    "nested in a list": "run: [1, [{_target_: os.system, command: touch ran}]]",
    "beside a trusted one": "run: [{_target_: torch.nn.Identity}, {_target_: os.system, command: touch ran}]",
    "partial flag": "run: {_target_: os.system, _partial_: true, command: touch ran}",
    "not recursive": "run: {_target_: torch.nn.Identity, _recursive_: false, a: {_target_: os.system, command: x}}",
    "interpolated": "name: os.system\nrun: {_target_: '${name}', command: touch ran}",
    "interpolated in parts": "a: os\nb: system\nrun: {_target_: '${a}.${b}', command: touch ran}",
    "interpolated node": "x: {runs: {_target_: os.system, command: x}}\nrun: {_target_: torch.nn.Identity, a: '${x}'}",
    "made by a resolver": 'run: "${oc.create:{_target_: os.system, command: touch ran}}"',
    "from the environment": "run: {_target_: '${oc.env:HOSTILE_TARGET}', command: touch ran}",
    "through torch": "run: {_target_: torch.os.system, command: touch ran}",
    "through torch.nn": "run: {_target_: torch.nn.functional.importlib.import_module, name: antigravity}",
    "through torch.nn back to torch": "run: {_target_: torch.nn.functional.torch.hub.load, repo_or_dir: a, model: b}",
    "through gnomon": "run: {_target_: gnomon.launch.local.subprocess.run, args: [touch, ran]}",
    "through gnomon.config": "run: {_target_: gnomon.config._project.sys.exit}",
    "through gnomon.runtime": "run: {_target_: gnomon.runtime.versions.subprocess.run, args: [touch, ran]}",
    "launcher": "run: {_target_: gnomon.launch.local.run_ranks, job: null}",
    "launcher's job": "run: {_target_: gnomon.launch.local.RankJob, module: os, arguments: [], log_dir: x}",
    "function of gnomon": "run: {_target_: gnomon.spec._noun.write_atomically, path: ran, text: x}",
    "method of a noun": "run: {_target_: gnomon.spec.ModelSpec.save, path: ran}",
    "torch.hub": "run: {_target_: torch.hub.load, repo_or_dir: a, model: b}",
    "torch.load": "run: {_target_: torch.load, f: weights.pt}",
    "torch.save": "run: {_target_: torch.save, obj: 1, f: ran}",
    "torch.from_file": "run: {_target_: torch.nn.functional.torch.from_file, filename: ran, shared: true, size: 9}",
    "torch.serialization": "run: {_target_: torch.serialization.load, f: weights.pt}",
    "torch.jit": "run: {_target_: torch.jit.load, f: weights.pt}",
    "torch.package": "run: {_target_: torch.package.PackageImporter, file_or_buffer: x}",
    "torch extension": "run: {_target_: torch.utils.cpp_extension.load_inline, name: x, cpp_sources: ''}",
    "torch collect_env": "run: {_target_: torch.utils.collect_env.run, command: touch ran}",
    "torch timer": "run: {_target_: torch.utils.benchmark.Timer, stmt: x}",
    "torch multiprocessing": "run: {_target_: torch.multiprocessing.spawn, fn: x}",
    "torch.distributed": "run: {_target_: torch.distributed.run.main, args: [x]}",
    "torch rpc": "run: {_target_: torch.distributed.rpc.rpc_sync, to: x, func: y}",
    "torch ops": "run: {_target_: torch.ops.load_library, path: x}",
    "torch compile": "run: {_target_: torch.compile}",
    "torch inductor": "run: {_target_: torch._inductor.codecache.PyCodeCache.load, source_code: x}",
    "torch fx": "run: {_target_: torch.fx.graph_module.reduce_graph_module, body: {}, import_block: ''}",
    "torch decoder": "run: {_target_: torch.utils.data.datapipes.utils.decoder.basichandlers, extension: pkl, data: x}",
    "torch datapipe": "run: {_target_: torch.utils.data.IterDataPipe}",
    "torch private": "run: {_target_: torch.nn.attention._fa3._import_module, module_path: x}",
    "torch method": "run: {_target_: torch.nn.Module.load_state_dict, _args_: [1, 2]}",
    "dunder": "run: {_target_: torch.nn.Module.__init__.__globals__.get, key: x}",
    "class of a class": "run: {_target_: my_project.Model.__class__, _args_: [x]}",
    "through the project": "run: {_target_: my_project.os.system, command: touch ran}",
    "through the project, subprocess": "run: {_target_: my_project.subprocess.run, args: [touch, ran]}",
    "through the project, launcher": "run: {_target_: my_project.launcher.run_ranks, job: null}",
    "through the project, torch": "run: {_target_: my_project.torch.load, f: weights.pt}",
    "through the project, hub": "run: {_target_: my_project.hub.load, repo_or_dir: a, model: b}",
    "the project's partial": "run: {_target_: my_project.run_later}",
    "the project's object": "run: {_target_: my_project.folder.rmdir}",
    "not text": "run: {_target_: 3}",
    "a list": "run: {_target_: [os, system]}",
    "a path": "run: {_target_: '../evil.system'}",
    "one name": "run: {_target_: eval}",
    "empty": "run: {_target_: ''}",
    "space": "run: {_target_: 'os.system '}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_of_a_hostile_file_runs(project, traps, monkeypatch, text):
    monkeypatch.setenv("HOSTILE_TARGET", "os.system")
    (project / "hostile.yaml").write_text(text + "\n")
    with pytest.raises(UntrustedTargetError) as caught:
        instantiate(compose(project, "hostile"))
    assert "run" in str(caught.value).partition("_target_")[0]  # the key path
    assert "_target_" in str(caught.value)
    assert traps == []
    assert {path.name for path in project.iterdir()} <= {"my_project.py", "hostile.yaml", "__pycache__"}


def test_nothing_is_built_before_everything_was_checked(project):
    config = {"first": {"_target_": "my_project.build"}, "last": {"_target_": "my_project.os.system", "command": "x"}}
    instantiate(config["first"])
    build = lambda: pytest.fail("built too early")  # noqa: E731
    build.__module__ = "my_project"
    sys.modules["my_project"].build = build
    with pytest.raises(UntrustedTargetError):
        instantiate(config)


def test_text_is_resolved_once(project):
    text = "run: {_target_: my_project.build, a: '\\${oc.create:{_target_: os.system, command: touch ran}}'}\n"
    (project / "late.yaml").write_text(text)
    built = instantiate(compose(project, "late"))["run"]
    assert built == ((), {"a": "${oc.create:{_target_: os.system, command: touch ran}}"})


def test_untrusted_packages_are_not_even_imported(project, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    for folder in (elsewhere, project / "venv" / "site-packages"):
        folder.mkdir(parents=True)
        (folder / f"evil_{folder.name.replace('-', '_')}.py").write_text("open('imported', 'w')\ndef f(): pass\n")
        monkeypatch.syspath_prepend(folder)
    for name in ("evil_elsewhere", "evil_site_packages"):
        with pytest.raises(UntrustedTargetError, match=f"--trust {name}"):
            instantiate({"_target_": f"{name}.f"})
        assert name not in sys.modules
    assert not (project / "imported").exists()
    assert instantiate({"_target_": "evil_elsewhere.f"}, trusted=["evil_elsewhere"]) is None


def test_the_message_says_what_to_do(project):
    with pytest.raises(UntrustedTargetError) as caught:
        instantiate(OmegaConf.create({"a": [{"b": {"_target_": "os.system", "command": "x"}}]}))
    text = str(caught.value)
    assert "'a[0].b._target_' is 'os.system'" in text
    assert "--trust os" in text
    assert str(project) in text
    with pytest.raises(UntrustedTargetError, match=r"'my_project.os.system', which is 'posix.system'.*--trust posix"):
        instantiate({"_target_": "my_project.os.system"})
    with pytest.raises(UntrustedTargetError, match="Did you mean 'gnomon'"):
        instantiate({"_target_": "gnomn.pipeline.Pipeline"})
    with pytest.raises(UntrustedTargetError, match=r"torch.nn, torch.optim.*--trust torch.hub"):
        instantiate({"_target_": "torch.hub.load"})


@pytest.mark.parametrize("name", ["gnomon; rm", "", "a..b", "-x"])
def test_what_is_trusted_must_be_a_package(name):
    with pytest.raises(ConfigError, match="--trust"):
        instantiate({}, trusted=[name])


def test_trust_opens_one_package_only(project):
    target = {"_target_": "collections.OrderedDict", "a": 1}
    assert instantiate(target, trusted=["collections"]) == {"a": 1}
    with pytest.raises(UntrustedTargetError):
        instantiate(target, trusted=["collection"])
    with pytest.raises(UntrustedTargetError):  # torch.hub, and not what it imports
        instantiate({"_target_": "torch.hub.os.system", "command": "x"}, trusted=["torch.hub"])


def test_the_project_is_trusted(project):
    config = OmegaConf.create({"size": 4, "model": {"_target_": "my_project.Model", "size": "${size}"}})
    built = instantiate(config)
    my_project = sys.modules["my_project"]
    assert isinstance(built["model"], my_project.Model)
    assert built["model"].size == 4
    assert instantiate({"_target_": "my_project.Model.make", "size": 4}).size == 8
    assert isinstance(instantiate({"_target_": "my_project._Hidden"}), my_project.Model)
    assert instantiate({"_target_": "my_project.Linear", "in_features": 2, "out_features": 3}).out_features == 3


def test_a_package_without_init_is_trusted_in_the_project(project):
    (project / "plain").mkdir()
    (project / "plain" / "steps.py").write_text("def make(): return 'made'\n")
    assert instantiate({"_target_": "plain.steps.make"}) == "made"


@pytest.mark.parametrize(
    "target",
    ["torch.nn.Linear", "torch.nn.modules.linear.Linear"],
)
def test_networks_of_torch_are_trusted(target):
    layer = instantiate({"_target_": target, "in_features": 2, "out_features": 3})
    assert isinstance(layer, torch.nn.Linear)


def test_other_parts_of_torch_that_build_things_are_trusted():
    assert instantiate({"_target_": "torch.tensor", "data": [1.0, 2.0]}).tolist() == [1.0, 2.0]
    assert instantiate({"_target_": "torch.device", "_args_": ["cpu"]}) == torch.device("cpu")
    optimizer = instantiate({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.5})
    assert optimizer([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"] == 0.5
    for name in ("gelu", "relu", "conv2d", "cross_entropy"):
        part = instantiate({"_target_": f"torch.nn.functional.{name}", "_partial_": True})
        assert part.func is getattr(torch.nn.functional, name)
    schedule = {"_target_": "torch.optim.lr_scheduler.StepLR", "_partial_": True, "step_size": 3}
    assert instantiate(schedule).keywords == {"step_size": 3}


def test_nouns_modules_and_components_of_gnomon_are_trusted():
    from gnomon.pipeline import Pipeline
    from gnomon.spec import Layout, ModelSpec
    from gnomon.train.gpt import GPT

    assert instantiate({"_target_": "gnomon.spec.Layout", "dp": 2}) == Layout(dp=2)
    tiny = {"_target_": "gnomon.spec.ModelSpec", "num_layers": 1, "hidden_size": 8, "num_heads": 2, "vocab_size": 16}
    assert isinstance(instantiate(tiny), ModelSpec)
    assert isinstance(instantiate({"_target_": "gnomon.train.gpt.GPT", "spec": tiny}), GPT)
    report = {"_target_": "gnomon.pipeline.steps.Report", "run_dir": "x"}
    assert isinstance(instantiate({"_target_": "gnomon.pipeline.Pipeline", "steps": [report]}), Pipeline)


def test_installed_plugins_are_trusted(project, tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "plugin-1.0.dist-info").mkdir(parents=True)
    (site / "plugin-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (site / "plugin-1.0.dist-info" / "entry_points.txt").write_text(
        "[gnomon.components]\nmine = my_plugin.steps:Step\nevil = os:system\nworse = torch.hub:load\n"
    )
    (site / "my_plugin").mkdir()
    (site / "my_plugin" / "__init__.py").write_text("import os\ndef make(): return 'made'\n")
    monkeypatch.syspath_prepend(site)
    assert instantiate({"_target_": "my_plugin.make"}) == "made"
    for target in ("os.system", "torch.hub.load", "my_plugin.os.system"):
        with pytest.raises(UntrustedTargetError):
            instantiate({"_target_": target})
