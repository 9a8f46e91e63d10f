"""Composition, and the message of every way in which it fails."""

import re
import time
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from gnomon.config import compose, expand_sweep, load_config, require_values, to_plain, to_yaml
from gnomon.errors import ConfigError, UntrustedTargetError

MAIN = """\
defaults:
  - database: mysql
  - _self_
training: {num_steps: 10, learning_rate: 0.1, seed: '???'}
sizes: [1, 2]
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "mysql.yaml").write_text("port: 3306\n")
    (tmp_path / "database" / "postgres.yaml").write_text("port: 5432\n")
    (tmp_path / "main.yaml").write_text(MAIN)
    return tmp_path


def message(function, *arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert "Traceback" not in text
    assert "hydra.cc" not in text
    return text


def test_overrides_of_keys_and_groups(folder):
    config = compose(folder, "main", ["training.num_steps=3", "database=postgres", "+new=x", "~sizes"])
    assert config.training.num_steps == 3
    assert config.database.port == 5432
    assert config.new == "x"
    assert "sizes" not in config
    assert "hydra" not in config
    assert not GlobalHydra.instance().is_initialized()


def test_it_works_inside_a_users_own_hydra_program(folder):
    with initialize_config_dir(str(folder), version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        assert compose(folder, "main").sizes == [1, 2]
        assert GlobalHydra.instance().hydra is outer
    assert not GlobalHydra.instance().is_initialized()


def test_a_file_anywhere(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert load_config(folder / "main.yaml", ["sizes=[3]"]).sizes == [3]
    assert load_config(f"{folder.name}/main.yaml").database.port == 3306


def test_the_packaged_configuration_is_the_default():
    assert compose().pipeline._target_ == "gnomon.pipeline.Pipeline"


def test_the_users_folder_comes_before_the_packaged_one(tmp_path):
    assert compose(tmp_path, "demo").num_steps > 1
    (tmp_path / "demo.yaml").write_text("num_steps: 1\n")
    assert to_plain(compose(tmp_path, "demo")) == {"num_steps": 1}


def test_an_empty_file_is_an_empty_configuration(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    assert to_plain(compose(tmp_path, "empty")) == {}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.num_stps=3", "Did you mean 'training.num_steps'?"),
        ("trainng.num_steps=3", "Did you mean 'training.num_steps'?"),
        ("num_steps=3", "Did you mean 'training.num_steps'?"),
        ("training.zzz=3", "training.learning_rate, training.num_steps, training.seed"),
        ("qqq=3", "Valid names: database, sizes, training. To add a new key, write '+qqq=3'."),
        ("~qqq", "Valid names: database, sizes, training."),
        ("sizes.7=1", "names a key that the configuration does not have"),
        ("hydra.run.di=1", "names a key that the configuration does not have"),
        ("database=mysq", "The config group 'database' has no option 'mysq'. Did you mean 'mysql'?"),
        ("databse=mysql", "Did you mean 'database'?"),
        ("+training.num_steps=4", "write 'training.num_steps=4'"),
        ("training.num_steps", "cannot be read"),
        ("training.num_steps=[1", "cannot be read"),
        ("=3", "no key before the '='"),
        ("training.num_steps=1,2", "add --multirun"),
    ],
)
def test_a_wrong_override(folder, override, words):
    text = message(compose, folder, "main", ["database=postgres", override])
    assert words in text
    assert "database=postgres" not in text


def test_nothing_is_added_by_removing(folder):
    assert "To add" not in message(compose, folder, "main", ["~qqq"])


def test_a_value_of_the_wrong_kind(folder):
    assert "sizes.a=1" in message(compose, folder, "main", ["+sizes.a=1"])


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("a:\n  b: 1\n c: 2\n", 3, 2), ("a: [1, 2\nb: 3\n", 2, 2), ("a: '1\n", 2, 1), ("a: 1\n\tb: 2\n", 2, 1)],
)
def test_malformed_yaml_has_a_line_and_a_column(tmp_path, text, line, column):
    (tmp_path / "bad.yaml").write_text(text)
    assert f"bad.yaml' is not valid YAML: line {line}, column {column}" in message(compose, tmp_path, "bad")


def test_malformed_yaml_in_a_group(folder):
    (folder / "database" / "mysql.yaml").write_text("a: [\n")
    assert "mysql.yaml' is not valid YAML: line 2, column 1" in message(compose, folder, "main")


def test_a_key_twice(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: 1\nb: 2\na: 3\n")
    assert re.search(r"line 3, column 1: key 'a' is given twice", message(compose, tmp_path, "bad"))


@pytest.mark.parametrize("text", ["- 1\n", "just text\n", "3\n"])
def test_not_a_mapping(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    assert "must hold a mapping" in message(compose, tmp_path, "bad")


def test_too_large(tmp_path):
    (tmp_path / "big.yaml").write_text("a: " + "x" * 2**20)
    assert "limited to 1048576" in message(compose, tmp_path, "big")


def test_not_text(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"a: \xff\xfe")
    assert "UTF-8" in message(compose, tmp_path, "bad")


def test_a_configuration_that_contains_itself(tmp_path):
    (tmp_path / "loop.yaml").write_text("a: &a\n  b: *a\n")
    assert "refers to itself" in message(compose, tmp_path, "loop")


@pytest.mark.parametrize("repeat", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_make_a_small_file_large(tmp_path, repeat):
    levels = ["a0: &a0 {a: 1, b: 2, c: 3}"]
    levels += [f"a{n}: &a{n} {repeat.format(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, 7)]
    (tmp_path / "bomb.yaml").write_text("\n".join(levels))
    started = time.perf_counter()
    assert "expands to more than 100000 values" in message(compose, tmp_path, "bomb")
    assert time.perf_counter() - started < 5
    (tmp_path / "small.yaml").write_text("\n".join(levels[:4]))
    assert compose(tmp_path, "small").a1


def test_a_configuration_that_is_nested_too_deeply(tmp_path):
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 5000 + "]" * 5000)
    assert "nested too deeply" in message(compose, tmp_path, "deep")


def test_defaults_that_are_not_there(tmp_path):
    (tmp_path / "bad.yaml").write_text("defaults: [nothing]\n")
    assert "'nothing'" in message(compose, tmp_path, "bad")
    (tmp_path / "bad.yaml").write_text("defaults: {a: b}\n")
    assert "defaults must be a list" in message(compose, tmp_path, "bad")


def test_missing_files(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = message(load_config, "mian.yaml")
    assert f"looked for '{folder}/mian.yaml'" in text
    assert "Did you mean 'main.yaml'?" in text
    assert "must end in .yaml" in message(load_config, _write(folder / "x.yml"))
    assert "must end in .yaml" in message(load_config, _write(folder / "a@b.yaml"))
    text = message(compose, folder, "mian")
    assert f"not found in '{folder}' and the packaged configurations. Did you mean 'main'?" in text
    assert "Did you mean 'demo'?" in message(compose, None, "dem")
    assert "folder 'nowhere' not found" in message(compose, "nowhere", "main")


def _write(path: Path) -> Path:
    path.write_text("a: 1\n")
    return path


@pytest.mark.parametrize("entry", ["pkg://os", "pkg://antigravity.x", "${oc.env:HOME}"])
def test_a_file_may_not_import_packages_through_the_search_path(tmp_path, entry):
    (tmp_path / "bad.yaml").write_text(f"hydra:\n  searchpath: ['{entry}']\na: 1\n")
    with pytest.raises(UntrustedTargetError, match=re.escape(entry)):
        compose(tmp_path, "bad")


def test_the_whole_search_path_may_not_be_an_interpolation(tmp_path):
    (tmp_path / "bad.yaml").write_text("x: {searchpath: ['pkg://os']}\nhydra: ${x}\n")
    with pytest.raises(UntrustedTargetError):
        compose(tmp_path, "bad")


def test_a_file_may_add_folders_to_the_search_path(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "main.yaml").write_text(
        f"hydra:\n  searchpath: ['file://{folder}']\ndefaults: [_self_, {{database: mysql}}]\n"
    )
    assert compose(other, "main").database.port == 3306


def test_missing_values_are_named(folder):
    config = compose(folder, "main")
    assert "'training.seed'" in message(require_values, config)
    assert "training.seed=VALUE" in message(require_values, config.training)
    require_values(compose(folder, "main", ["training.seed=1"]))
    assert to_plain(config)["training"]["seed"] == "???"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("${nothing.here}", "'sizes' refers to '${nothing.here}', which does not exist"),
        ("${training.num_step}", "Did you mean 'training.num_steps'?"),
        ("${training.seed}", "'training.seed', which has no value yet"),
        ("${gnomon.rnage:1,2}", "Did you mean 'gnomon.range'?"),
        ("${gnomon.range:0,1,0}", "never ends"),
        ("${sizes}", "sizes"),
    ],
)
def test_an_interpolation_that_fails(folder, value, words):
    assert words in message(to_plain, compose(folder, "main", [f"sizes={value}"]))


def test_the_saved_yaml_composes_to_the_same_values(folder):
    overrides = ["training.seed=1", "sizes=[1e-3,'1e-3','on',null]", "+text='\\${not.a.key}'", "+n=${training.seed}"]
    config = compose(folder, "main", overrides)
    (folder / "saved.yaml").write_text(to_yaml(config))
    again = compose(folder, "saved")
    assert to_plain(again) == to_plain(config)
    assert again.text == "${not.a.key}"
    assert again.n == 1


def test_sweeps_are_expanded():
    assert expand_sweep(["a=1,2", "b=x", "+c=range(0,4,2)"]) == [
        ["a=1", "b=x", "+c=0"],
        ["a=1", "b=x", "+c=2"],
        ["a=2", "b=x", "+c=0"],
        ["a=2", "b=x", "+c=2"],
    ]
    assert expand_sweep(["a=[1,2]", "b='x,y'"]) == [["a=[1,2]", "b='x,y'"]]
    assert expand_sweep([]) == [[]]
    assert "no finite set" in message(expand_sweep, ["a=interval(0,1)"])
