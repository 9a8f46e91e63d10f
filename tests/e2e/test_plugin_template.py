"""The plugin template, installed with pip into a fresh environment by gnomon itself."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[2] / "examples" / "plugin"
MAIN = ["-c", "from gnomon.cli.main import main; main()"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a new environment, that sees what is installed here, and the wheel of the plugin."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(TEMPLATE, folder / "plugin", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    outer = sysconfig.get_paths()["purelib"]
    (packages / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    # --no-index and --no-build-isolation: nothing comes from the network
    options = ["--no-index", "--no-build-isolation", "--no-deps", "--quiet", "--wheel-dir", str(folder / "wheels")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder / "plugin")], check=True)
    return folder


@pytest.fixture
def python(place):
    """Run the environment's Python in the folder of the plugin."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        variables = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(place / "wheels"), "PIP_NO_DEPS": "1"}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")} | variables
        return subprocess.run(
            [str(place / "env/bin/python"), *arguments], cwd=place / "plugin", env=environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    return run


@pytest.mark.functional
def test_from_a_missing_plugin_to_one_that_runs(python, place):
    pipeline = ["exec-pipeline", "--config", "pipeline.yaml", "--json", "length=50"]
    missing = python(*MAIN, *pipeline)
    assert missing.returncode == 1
    assert "'gnomon-plugin-example>=0.1' is not installed" in missing.stderr
    assert "pip install 'gnomon-plugin-example>=0.1', or add --install-plugins" in missing.stderr
    asked = python(*MAIN, *pipeline, "--install-plugins")
    assert asked.returncode == 1
    assert "-m pip install gnomon-plugin-example>=0.1" in asked.stderr.replace("'", "")
    assert "Add --yes to install without asking" in asked.stderr
    assert "gnomon_plugin_example" not in {path.name for path in place.glob("env/lib/*/site-packages/*")}

    installed = python(*MAIN, *pipeline, "--install-plugins", "--yes")
    assert installed.returncode == 0, installed.stderr
    assert "They would be installed with" in installed.stderr
    document = json.loads(installed.stdout)
    assert list(document["seconds"]) == ["get", "split", "standardise"]
    assert [None if part is None else len(part) for part in document["result"]] == [40, None, 10]
    again = python(*MAIN, *pipeline, "--install-plugins")
    assert again.returncode == 0, again.stderr
    assert "installed with" not in again.stderr

    listed = python(*MAIN, "plugins", "list", "--json")
    assert json.loads(listed.stdout) == [
        {
            "distribution": "gnomon-plugin-example",
            "version": "0.1.0",
            "entry_points": {
                "gnomon.components": {
                    "waves": "gnomon_plugin_example.components:Waves",
                    "standardise": "gnomon_plugin_example.components:Standardise",
                },
                "gnomon.trackers": {"csv": "gnomon_plugin_example.tracker:CsvTracker"},
            },
        }
    ]
    table = python(*MAIN, "plugins", "list").stdout
    assert "gnomon-plugin-example" in table
    assert "CsvTracker" in table
    newer = python(*MAIN, *pipeline, "plugins=['gnomon-plugin-example>=2']")
    assert "'gnomon-plugin-example>=2' is asked for and version 0.1.0 is installed" in newer.stderr

    own_tests = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert own_tests.returncode == 0, own_tests.stdout
    passed = re.search(r"(\d+) passed in", own_tests.stdout)  # none skipped, and as many as the suite of trackers has
    assert passed is not None, own_tests.stdout
    assert int(passed[1]) >= 6


@pytest.mark.functional
def test_a_plugin_that_cannot_be_had_is_one_message(python):
    failed = python(
        *MAIN, "exec-pipeline", "-c", "pipeline.yaml", "plugins=[gnomon-plugin-nobody]", "--install-plugins", "--yes"
    )
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "error: pip could not install gnomon-plugin-nobody; its message is above."
    )
