"""The `${gnomon...}` resolvers."""

import os
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from gnomon.config import compose, register_resolvers, to_plain
from gnomon.config.resolvers import multiply, number_range
from gnomon.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 3), [0, 1, 2]),
        ((3,), [0, 1, 2]),
        ((3, 0, -1), [3, 2, 1]),
        ((1, 10, 4), [1, 5, 9]),
        ((3, 3), []),
        ((5, 1), []),
        ((0, 0.4, 0.1), [0.0, 0.1, 0.2, 0.3]),
        ((0.5, 3), [0.5, 1.5, 2.5]),
    ],
)
def test_range(arguments, expected):
    assert number_range(*arguments) == expected


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-9, 9).filter(bool))
def test_range_of_integers_is_pythons(start, stop, step):
    assert number_range(start, stop, step) == list(range(start, stop, step))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((0, 1, 0), "never ends"), (("a", 1), "needs numbers"), ((0, 1e9), "above 100000")],
)
def test_range_refuses(arguments, words):
    with pytest.raises(ConfigError, match=words):
        number_range(*arguments)


def test_multiply():
    assert multiply(3, 4) == 12
    assert multiply(0.5, 4) == 2.0
    with pytest.raises(ConfigError, match="two numbers"):
        multiply(2, "ab")


def test_resolvers_work_in_a_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "a: ${gnomon.multiply:${b},2}\nb: 21\nc: ${gnomon.range:1,4}\nd: ${gnomon.cwd:}/x\ne: ${gnomon.cores:}\n"
    Path("c.yaml").write_text(text)
    plain = to_plain(compose(tmp_path, "c"))
    expected = {"a": 42, "b": 21, "c": [1, 2, 3], "d": f"{tmp_path}/x", "e": len(os.sched_getaffinity(0))}
    assert plain == expected


def test_now_is_one_moment_per_composition(tmp_path):
    (tmp_path / "c.yaml").write_text("a: ${gnomon.now:%Y-%m-%d %H:%M:%S.%f}\nb: {c: '${gnomon.now:%f}'}\n")
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901).astimezone()
    plain = to_plain(compose(tmp_path, "c", moment=moment))
    assert plain == {"a": "2026-01-02 03:04:05.678901", "b": {"c": "678901"}}
    config = compose(tmp_path, "c")
    assert config.a.endswith(config.b.c)
    assert config.a == config.a


def test_now_works_outside_a_composition():
    register_resolvers()
    register_resolvers()
    config = OmegaConf.create({"a": "${gnomon.now:%f}", "b": "${gnomon.now:%f}"})
    assert config.a == config.b
