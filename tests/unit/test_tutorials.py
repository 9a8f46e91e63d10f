"""The tutorials are true: their files are written, their Python and commands run, and the output is the one shown.

A block with a title is a file. A `text` block shows what the commands before it print; durations may differ. A command
that ends in `# fails` must fail.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

PAGES = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.md"))
FENCE = re.compile(r'^```(\w+)(?: title="([\w./-]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
DURATION = re.compile(r'^(✓ \S+  )[\d.]+ \S+$|^(\s+"\w+": )\d\.[\de.-]+(?=,?$)')
TRACEBACK_FILE = re.compile(r"\S*gnomon-traceback-\w+\.txt")
PROGRAMS = {
    "gnomon": [sys.executable, "-c", "from gnomon.cli.main import main; main()"],
    "python": [sys.executable],
}


class Block(NamedTuple):
    language: str
    title: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(FENCE.findall(text)), f"{page.name} has a block that no test understands"
    return [Block(*found) for found in FENCE.findall(text)]


def run_commands(block: str) -> str:
    """Run the commands in the current folder, and return what they print on stderr, then on stdout, each in turn."""
    printed = ""
    for line in block.strip().splitlines():
        command, _, comment = line.partition("  # ")
        words = shlex.split(command)
        variables = dict(word.split("=", 1) for word in words[: next(i for i, w in enumerate(words) if "=" not in w)])
        words = words[len(variables) :]
        environment = {**os.environ, **variables, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(
            [*PROGRAMS.get(words[0], words[:1]), *words[1:]],
            env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert (done.returncode != 0) == (comment == "fails"), f"{line}\n{done.stderr}"
        printed += done.stderr + done.stdout
    return printed


def without_durations(text: str) -> list[str]:
    lines = (TRACEBACK_FILE.sub("gnomon-traceback-X", line.rstrip()) for line in text.strip().splitlines())
    return [DURATION.sub(r"\1\2TIME", line) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_everything_on_the_page_happens(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    before = set(sys.modules)
    namespace: dict[str, object] = {"__name__": f"tutorial_{page.stem}"}
    printed = None
    for index, block in enumerate(blocks_of(page)):
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, f"{page.name}, block {index}", "exec"), namespace)
        elif block.language == "bash":
            printed = run_commands(block.text)
        elif block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), dict)
        elif block.language == "text" and printed is not None:
            assert without_durations(printed) == without_durations(block.text), f"{page.name}, block {index}"
            printed = None
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def test_there_are_tutorials() -> None:
    assert {page.stem for page in PAGES} == {"pipelines", "configuration", "caching", "standalone", "plugins"}
