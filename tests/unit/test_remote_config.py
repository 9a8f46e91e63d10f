"""Configurations from a real web server: fetched with limits, and overridden like a local file."""

import http.server
import json
import re
import socket
import sys
import threading
import time
from itertools import pairwise
from typing import ClassVar

import pytest

from gnomon.cli import main
from gnomon.config import compose, load_config
from gnomon.config import remote as remote_config
from gnomon.errors import ConfigError, GnomonError
from gnomon.pipeline.job import compose_jobs, run_job

PIPELINE = """\
factor: 2
pipeline:
  _target_: gnomon.pipeline.Pipeline
  steps:
    adapt: {_target_: gnomon.component.Adapter, policy: ["${factor}", text]}
"""
FILES = {
    "/work.yaml": PIPELINE,
    "/folder/my%20work": PIPELINE,
    "/large.yaml": "a: " + "x" * 2**20,
    "/bomb.yaml": "a: &a [1]\n" + "".join(f"{b}: &{b} [{f'*{a}, ' * 9}]\n" for a, b in pairwise("abcdefg")),
    "/broken.yaml": "a: [1,\nb: }",
    "/list.yaml": "[1, 2]",
    "/empty.yaml": "",
    "/latin.yaml": b"a: caf\xe9",
    "/relative.yaml": "defaults: [model: gpt, _self_]\na: 1\n",
    "/itself.yaml": "defaults: [_self_]\na: 1\n",
    "/hostile.yaml": "pipeline: {_target_: os.system, command: touch ran}\n",
    "/search.yaml": "hydra: {searchpath: ['pkg://antigravity']}\n",
}


class Handler(http.server.BaseHTTPRequestHandler):
    requests: ClassVar[list[str]] = []

    def do_GET(self):
        self.requests.append(self.path)
        if self.path == "/page":
            self._answer(b"<html>factor: 2</html>", "text/html; charset=utf-8")
        elif self.path == "/moved":
            self._redirect("/work.yaml")
        elif self.path == "/to-a-file":
            self._redirect("file:///etc/hostname")
        elif self.path == "/round":
            self._redirect("/round")
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(50):
                try:
                    self.wfile.write(b"#")
                    self.wfile.flush()
                except OSError:
                    return
                time.sleep(0.05)
        elif self.path in FILES:
            content = FILES[self.path]
            self._answer(content if isinstance(content, bytes) else content.encode(), "text/plain")
        else:
            self.send_error(404)

    def _answer(self, content, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content)

    def _redirect(self, place):
        self.send_response(302)
        self.send_header("Location", place)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.requests.clear()


def test_overrides_apply(server):
    assert load_config(f"{server}/work.yaml", ["factor=5", "+new=1"]).factor == 5
    config = compose(None, f"{server}/work.yaml", ["factor=6"])
    assert config.pipeline.steps.adapt.policy == [6, "text"]
    assert load_config(f"{server}/folder/my%20work?raw=true".partition("?")[0]).factor == 2
    assert load_config(f"{server}/moved").factor == 2
    assert load_config(f"{server}/itself.yaml").a == 1
    assert dict(load_config(f"{server}/empty.yaml", ["+a=1"])) == {"a": 1}
    with pytest.raises(ConfigError, match="Did you mean 'factor'"):
        load_config(f"{server}/work.yaml", ["factr=5"])


def test_a_sweep_fetches_once(server):
    jobs = compose_jobs(None, f"{server}/work.yaml", ["factor=1,2"], multirun=True)
    assert [run_job(job).output for job in jobs] == [(1, "text"), (2, "text")]
    assert Handler.requests == ["/work.yaml"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nowhere.yaml", "answers 404 Not Found"),
        ("/large.yaml", "more than 1048576 bytes"),
        ("/broken.yaml", "not valid YAML: line 2"),
        ("/list.yaml", "must hold a mapping of keys to values, found list"),
        ("/bomb.yaml", "expands to more than 100000 values"),
        ("/latin.yaml", "is not text in UTF-8"),
        ("/page", "is a web page, not a YAML file"),
        ("/relative.yaml", r"builds on other configurations \(defaults: \[{'model': 'gpt'}\]\)"),
        ("/search.yaml", "sets hydra.searchpath"),
        ("/to-a-file", "Redirection to url 'file:///etc/hostname' is not allowed"),
        ("/round", "answers 302"),
    ],
)
def test_what_is_refused(server, path, words):
    with pytest.raises(GnomonError, match=words) as caught:
        load_config(server + path)
    assert server in str(caught.value)


def test_a_hostile_configuration_is_not_run(server):
    with pytest.raises(ConfigError, match=r"'pipeline._target_' is 'os.system': a configuration may not run that"):
        run_job(compose_jobs(None, f"{server}/hostile.yaml", [])[0])


def test_other_schemes_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match="is not a web address that configurations can come from"):
        load_config(f"file://{tmp_path}/a.yaml")


def test_a_slow_server_is_given_up(server):
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"did not answer completely within 0.3 s"):
        remote_config.fetch_config(f"{server}/slow", timeout_s=0.3)
    assert time.monotonic() - started < 2


def test_a_server_that_is_not_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ConfigError, match=r"cannot be fetched: .*refused"):
        load_config(f"http://127.0.0.1:{port}/work.yaml")


# Flags of exec-pipeline


@pytest.fixture
def gnomon(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.yaml").write_text(
        "strategy: single\nrun_name: none\n"
        "first: {_target_: gnomon.pipeline.Pipeline, steps: {a: {_target_: gnomon.component.Adapter, policy: [1]},"
        " b: {_target_: gnomon.component.Adapter, policy: [2]}}}\n"
        "pipeline: {_target_: gnomon.component.Adapter, policy: ['${strategy}', '${run_name}']}\n"
    )

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gnomon", "exec-pipeline", *arguments])
        code = 0
        try:
            main.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capfd.readouterr()
        return (json.loads(out) if out.startswith(("{", "[")) else out) if code == 0 else err

    return run


def test_a_web_address_on_the_command_line(server, gnomon):
    for option in ("--config", "--config-name"):
        assert gnomon(option, f"{server}/work.yaml", "--json", "factor=7")["result"] == [7, "text"]
    assert "leave it out" in gnomon("--config-path", ".", "--config-name", f"{server}/work.yaml")
    assert "404" in gnomon("--config", f"{server}/none.yaml")


def test_shorthands_are_overrides(gnomon):
    result = gnomon("-c", "work.yaml", "--strategy", "ddp", "--run-name", "it's a run, no 1", "--json")
    assert result["result"] == ["ddp", "it's a run, no 1"]
    assert result["overrides"][0] == "strategy='ddp'"
    assert "names a key that the configuration does not have" in gnomon("-cn", "demo", "--strategy", "ddp")


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        (["+pipe_key=first"], ["a", "b"]),
        (["+pipe_key=first", "+pipe_steps=[b]"], ["b"]),
        (["+pipe_key=first", "+pipe_steps=[0]"], ["a"]),
        (["--pipe-key", "first", "+pipe_steps=b"], ["b"]),
        (["--pipe-key", "first", "+pipe_steps=[a]", "--steps", "b"], ["b"]),
    ],
)
def test_pipe_key_and_steps_as_overrides(gnomon, arguments, steps):
    assert list(gnomon("-c", "work.yaml", "--json", *arguments)["seconds"]) == steps


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["+pipe_key=frist"], "Did you mean 'first'"),
        (["+pipe_key=[a]"], r"pipe_key is \['a'\]"),
        (["+pipe_key=first", "+pipe_steps=[c]"], "no step 'c'"),
        (["+pipe_key=first", "+pipe_steps={a: 1}"], r"pipe_steps is \{'a': 1\}"),
        (["+pipe_key=first", "+pipe_steps=[1.5]"], r"pipe_steps is \[1.5\]"),
        (["pipe_steps=[a]"], "To add a new key"),
        (["+pipe_steps=[a]"], "needs a Pipeline"),
    ],
)
def test_wrong_pipe_keys_and_steps(gnomon, arguments, words):
    err = gnomon("-c", "work.yaml", *arguments)
    assert re.search(words, err)
    assert "Traceback" not in err
