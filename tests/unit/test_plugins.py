"""Plugins that a configuration names: what counts as one, and what is said when one is not there."""

import sys

import pytest
from omegaconf import OmegaConf

from gnomon.cli import main
from gnomon.cli._install_plugins import install_plugins
from gnomon.config.plugins import check_plugins, list_plugins, missing_plugins, wanted_plugins
from gnomon.errors import ConfigError
from gnomon.pipeline.job import build


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Two distributions as pip leaves them: a plugin, and a package that is none."""
    for name, version, points in (
        ("My_Plugin", "1.2.0", "[gnomon.components]\nstep = my_plugin:Step\n[gnomon.plugins]\nmine = my_plugin\n"),
        ("bystander", "3.0", "[console_scripts]\nx = bystander:main\n"),
    ):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)


def test_the_list_has_plugins_only(installed):
    (plugin,) = (plugin for plugin in list_plugins() if plugin.distribution == "My_Plugin")
    assert plugin.version == "1.2.0"
    assert plugin.entry_points == {
        "gnomon.components": {"step": "my_plugin:Step"},
        "gnomon.plugins": {"mine": "my_plugin"},
    }
    assert {"gnomon", "bystander"}.isdisjoint(plugin.distribution for plugin in list_plugins())


@pytest.mark.parametrize(
    "text", ["my-plugin", "My_Plugin>=1", "my.plugin==1.2.0", "mine", "my-plugin>=9; python_version < '3'"]
)
def test_what_is_there(installed, text):
    check_plugins([text])
    assert missing_plugins([text]) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("my-plugin>=2", r"'my-plugin>=2' is asked for and version 1.2.0 is installed. .*pip install 'my-plugin>=2'"),
        ("my-plugn", r"'my-plugn' is not installed \(Did you mean 'my-plugin'\?\)"),
        ("not-anywhere[extra]>=1", r"pip install 'not-anywhere\[extra\]>=1', or add --install-plugins"),
    ],
)
def test_what_is_not_there(installed, text, words):
    assert missing_plugins([text]) == [text]
    with pytest.raises(ConfigError, match=words):
        check_plugins(["mine", text])
    with pytest.raises(ConfigError, match=words):
        build(OmegaConf.create({"plugins": [text], "pipeline": {}}))


def test_naming_a_package_does_not_make_it_trusted(installed):
    with pytest.raises(ConfigError, match=r"'bystander', which is installed but is no plugin of gnomon.*--trust"):
        check_plugins(["bystander"])


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ("my-plugin", "plugins is 'my-plugin'; give a list"),
        ({"a": 1}, "give a list"),
        ([1], r"plugins is \[1\]"),
        (["--index-url=http://x"], "'--index-url=http://x', which does not name a package"),
        (["a b"], "'a b', which does not name a package"),
        (["./folder"], "does not name a package"),
    ],
)
def test_wrong_lists(plugins, words):
    with pytest.raises(ConfigError, match=words):
        wanted_plugins(OmegaConf.create({"plugins": plugins}))
    assert wanted_plugins(OmegaConf.create({"a": 1})) == []


class Terminal:
    def isatty(self):
        return True


def test_nothing_is_installed_without_a_yes(monkeypatch, capsys):
    started = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: started.append(command))
    with pytest.raises(ConfigError, match="Nobody can be asked here"):
        install_plugins(["some-plugin>=1"], yes=False)
    assert "-m pip install 'some-plugin>=1'" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    with pytest.raises(ConfigError, match="were not installed"):
        install_plugins(["some-plugin"], yes=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="has no pip"):
        install_plugins(["some-plugin"], yes=True)
    assert started == []


def test_no_plugins_are_said_to_be_none(monkeypatch, capsys):
    monkeypatch.setattr("gnomon.config.plugins._plugin_points", lambda: iter(()))
    monkeypatch.setattr(sys, "argv", ["gnomon", "plugins", "list"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert not end.value.code
    assert capsys.readouterr().out.startswith("No plugins are installed.")
