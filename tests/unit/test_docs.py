"""The documentation is true: links lead somewhere, commands exist, configurations load, snippets run."""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
ANY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@ANY_PAGE
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in _anchors(target), f"{page.name} links to {link}"


def _command_lines(page: Path) -> Iterator[str]:
    for block in _blocks(page, "bash", "sh", "console", "text"):
        lines = block.replace("\\\n", " ").splitlines()
        yield from (line.removeprefix("$ ").strip() for line in lines if line.startswith(("gnomon ", "$ gnomon ")))
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from re.findall(r"`(gnomon [a-z][^`]*)`", prose)


def _check_command(line: str) -> None:
    from gnomon.cli.main import app

    command: Any = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        verb = words[0] if words[0] in command.commands else getattr(command, "default", words[0])
        assert verb in command.commands, f"'{line}': no verb '{words[0]}'"
        command = command.commands[verb]
        words = words[1:] if words[0] == verb else words
    command = command.commands[command.default] if hasattr(command, "default") else command
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in {*options, "--help"}]
    assert not unknown, f"'{line}': unknown options {unknown}"


@ANY_PAGE
def test_every_command_exists(page: Path) -> None:
    for line in _command_lines(page):
        _check_command(line)


@pytest.mark.parametrize("line", ["gnomon fly", "gnomon plan --fly config.yaml"])
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(AssertionError, match="fly"):
        _check_command(line)


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "_target_")
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


@ANY_PAGE
def test_yaml_loads_and_its_targets_exist(page: Path) -> None:
    for block in _blocks(page, "yaml"):
        for target in _targets(yaml.safe_load(block)):
            module, _, name = target.rpartition(".")
            assert hasattr(importlib.import_module(module), name), f"{page.name} names {target}"


@ANY_PAGE
def test_python_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for index, block in enumerate(_blocks(page, "python")):
        exec(compile(block, f"{page.name}, snippet {index}", "exec"), {"__name__": f"{page.stem}_{index}"})


def test_the_page_of_nouns_states_the_versions_that_are_read() -> None:
    from gnomon.plan import estimate
    from gnomon.spec import hardware_profile

    versions = f"the estimate's is {estimate.SCHEMA_VERSION}, the others' {hardware_profile.SCHEMA_VERSION}."
    assert versions in (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")


@pytest.mark.functional
def test_the_site_builds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.?https?://[^>]*>", page), "needs the network"
