"""`3dtrn` on the command line: text, JSON, colours, verdicts and refusals."""

import json
import subprocess
import sys

import pytest
import yaml

from gnomon.cli import scripts
from gnomon.plan.training_3d.result import Training3D
from training_3d_fixtures import EXAMPLES, mapping


@pytest.fixture
def script(monkeypatch, capsys):
    """Run `3dtrn`; return its exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["3dtrn", *map(str, arguments)])
        code = 0
        try:
            scripts.three_d_training()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def written(tmp_path):
    """Write a changed example; return its path."""

    def write(name, changes):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(mapping(name, changes, fixed=False)), encoding="utf-8")
        return path

    return write


SECTIONS = [
    "CONFIGURATION",
    "MEMORY",
    "COMPUTE: GEMM OPERATIONS",
    "COMMUNICATION: TENSOR PARALLELISM",
    "COMMUNICATION: PIPELINE PARALLELISM",
    "PERFORMANCE: PIPELINE BUBBLE",
    "COMMUNICATION: DATA PARALLELISM",
    "PERFORMANCE: ITERATION TIME ANALYSIS",
]


def test_sections_in_order(script):
    code, out, err = script(EXAMPLES / "llama3_70b.yaml")
    assert (code, err) == (0, "")
    titles = [line.strip() for line in out.splitlines() if line.strip() in SECTIONS]
    assert titles == SECTIONS
    assert "▶ FINAL RESULTS" in out
    assert "█" in out
    assert "\x1b" not in out
    assert "✓ Total Memory Required" in out


def test_what_does_not_fit_is_a_verdict(script):
    code, out, _ = script(EXAMPLES / "gpt_oss_120b.yaml")
    assert code == 0
    assert "✗ OUT OF MEMORY on the last stage" in out
    assert "✓ Total Memory Required" not in out
    assert json.loads(script(EXAMPLES / "gpt_oss_120b.yaml", "--json")[1])["memory"]["fits"] is False


def test_a_degree_that_splits_nothing_is_said(script, written):
    assert "parallelism.ep=8 splits nothing" in script(written("llama3_70b", {"parallelism.ep": 8}))[1]


def test_json_is_the_report(script):
    code, out, err = script(EXAMPLES / "llama3_70b_cross_dc.yaml", "--json")
    assert (code, err) == (0, "")
    found = Training3D.from_mapping(json.loads(out))
    assert found.cross_dc is not None
    assert found.cross_dc.accelerators_per_datacentre == 2048
    assert found.config["cross_dc"]["n_dcs"] == 4


def test_colours_are_the_terminals_to_ask_for(script, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[36m" in script(EXAMPLES / "llama3_70b.yaml")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in script(EXAMPLES / "llama3_70b.yaml")[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.n_layers": None}, "missing key 'model.n_layers'"),
        ({"parallelism": None}, "missing key 'parallelism'"),
        ({"parallelism.vvp": 3}, "unknown key 'parallelism.vvp'. Did you mean 'vpp'?"),
        ({"model.moe": {"n_expert": 8}}, "unknown key 'model.moe.n_expert'. Did you mean 'n_experts'?"),
        ({"parallelism.tp": "8"}, "'parallelism.tp' is '8': input should be a valid integer"),
        ({"parallelism.tp": 0}, "'parallelism.tp' is 0"),
        ({"parallelism.tp": True}, "'parallelism.tp' is True"),
        ({"model.glu": "yes please"}, "'model.glu' is 'yes please'"),
        ({"parallelism.zero_level": 4}, "'parallelism.zero_level' is 4"),
        ({"performance.activation_checkpointing_type": "selectiv"}, "'none', 'selective', 'super-selective' or 'full'"),
        ({"data.gbs": 2000}, "Set gbs to 1984 or 2048"),
        ({"data.gbs": 8}, "Set gbs to 64"),
        ({"data.gbs": 64, "parallelism.vpp": 2}, "Set data.gbs >= 128, or vpp to 1"),
        ({"parallelism.tp": 6}, "tp=4 or tp=8"),
        ({"parallelism.pp": 81}, "Set pp x vpp <= 80"),
        ({"parallelism.cp": 3}, "cp=3 splits seqlen=2048"),
        ({"data.seqlen": 1}, "sp splits the 1 tokens of a sequence that one rank has over tp=8"),
        ({"data.seqlen": 1}, "Set seqlen to a multiple of 8, or sp=false."),
        ({"model.n_kv_heads": 7}, "n_q_heads=64 does not divide by n_kv_heads=7"),
        ({"model.hidden_sz": 8191}, "tp=8 does not divide hidden_sz=8191"),
        ({"model.inter_sz": 28673}, "tp=8 does not divide inter_sz=28673"),
        ({"hardware.node_type": "p4d.24xlarg"}, "Did you mean 'p4d.24xlarge'?"),
        ({"hardware.node_type": 8}, "'hardware.node_type' is 8"),
        ({"cross_dc.n_dcs": 2}, "missing key 'cross_dc.interconnect_bandwidth_gbps'"),
    ],
)
def test_refusals_of_llama(script, written, changes, words):
    _check_refusal(script(written("llama3_70b", changes)), words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parallelism.ep": None}, "missing key 'parallelism.ep'"),
        ({"parallelism.ep": 7}, "the nearest values that do: ep="),
        ({"model.moe.moe_frequency": 0.3}, "0.277778 (10 layers) or 0.305556 (11 layers)"),
        ({"model.moe.moe_frequency": 1.5}, "'model.moe.moe_frequency' is 1.5"),
        ({"model.moe.n_experts": 100}, "ep=8 does not divide the 100 experts"),
        ({"model.moe.experts_per_token": 129}, "experts_per_token=129 exceeds n_experts=128"),
        ({"model.moe.expert_tp_degree": 7}, "in parallelism and model.moe: ep=8 x expert_tp_degree=7 does not divide"),
        (
            {"model.moe.expert_tp_degree": 2, "model.moe.expert_inter_sz": 2881},
            "expert_tp_degree=2 does not divide moe.expert_inter_sz=2881",
        ),
    ],
)
def test_refusals_of_experts(script, written, changes, words):
    _check_refusal(script(written("gpt_oss_120b", changes)), words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cross_dc.n_dcs": 1024}, "n_dcs=1024 exceeds parallelism.dp=512"),
        ({"cross_dc.n_dcs": 3}, "Set n_dcs to 2 or 4"),
        ({"cross_dc.n_dcs": 7, "parallelism.dp": 10**9, "data.gbs": 10**9}, "Set n_dcs to 5 or 8"),
        ({"cross_dc.interconnect_latency_s": -1.0}, "'cross_dc.interconnect_latency_s' is -1.0"),
        ({"cross_dc.interconnect_bandwidth_gbps": 0}, "'cross_dc.interconnect_bandwidth_gbps' is 0"),
    ],
)
def test_refusals_of_datacentres(script, written, changes, words):
    _check_refusal(script(written("llama3_70b_cross_dc", changes)), words)


def test_tokens_stay_in_their_datacentre(script, written):
    cross = {"n_dcs": 64, "interconnect_bandwidth_gbps": 1e5, "interconnect_latency_s": 0.001}
    _check_refusal(script(written("gpt_oss_120b", {"cross_dc": cross})), "Choose smaller ep, or fewer n_dcs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty. Give a YAML or JSON file"),
        ("model: [1, 2\n", "is not valid YAML"),
        ("- a\n- b\n", "must hold a mapping of keys to values, found list"),
        ("model: 3\n", "'model' is 3"),
        ("!!python/object/apply:os.system ['true']\n", "is not valid YAML"),
    ],
)
def test_files_that_are_no_configuration(script, tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    _check_refusal(script(path), words)


def test_a_file_that_is_not_there(script, tmp_path):
    _check_refusal(script(tmp_path / "nothing.yaml"), "File not found")
    assert script()[0] == 2


def _check_refusal(result, words):
    code, out, err = result
    assert (code, out) == (1, "")
    assert words in err
    assert err.count("error: ") == 1
    assert "Traceback" not in err


@pytest.mark.functional
def test_nothing_heavy_is_imported():
    program = (
        "import sys; sys.argv = ['3dtrn', sys.argv[1], '--json']\n"
        "from gnomon.cli.scripts import three_d_training\n"
        "three_d_training.__globals__['run'] = lambda app: app(standalone_mode=False)\n"
        "three_d_training()\n"
        "print([m for m in ('torch', 'plotly', 'polars', 'networkx', 'hydra') if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(EXAMPLES / "llama3_70b.yaml")], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip().splitlines()[-1] == "[]"
