"""The fit: parameters decide what they say, known values are found again, and nothing else has influence."""

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from gnomon.cli import plan_fit
from gnomon.plan.arrays import stack
from gnomon.plan.cases import Cases
from gnomon.plan.evaluate import evaluate
from gnomon.plan.published.columns import is_outcome
from gnomon.plan.published.fit import fit
from gnomon.plan.published.held_out import Study
from gnomon.plan.published.observations import Observations, observe
from gnomon.plan.published.parameters import (
    MEMORY_CONSTANTS,
    TIME_CONSTANTS,
    Parameter,
    free_parameters,
    with_parameters,
)
from gnomon.plan.published.priors import PRIORS
from gnomon.plan.published.rows import Problem
from gnomon.plan.published.table import read_table

FILE = Path(__file__).parents[1] / "fixtures" / "published_small.csv"


@pytest.fixture(scope="module")
def found() -> Observations:
    return observe(read_table(FILE).rows())


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two sources with two rows each: every source is one more fit."""
    rows = [row for row in read_table(FILE).rows() if row["id"] in ("gpt-a", "gpt-c", "llama-a", "llama-fp8")]
    return written(rows, tmp_path_factory.mktemp("small") / "results.csv")


@pytest.fixture(scope="module")
def parameters(found: Observations) -> list[Parameter]:
    return free_parameters(found.problems)


def written(rows: list[dict[str, Any]], path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def values_of(parameters: list[Parameter]) -> np.ndarray:
    return np.asarray([p.value for p in parameters])


def on_ampere(parameters: list[Parameter]) -> list[Parameter]:
    """Return the parameters of one generation and its family, which take a part of the time of all to fit."""
    return [p for p in parameters if p.owner in ("nvidia-ampere", "megatron")]


def moved(parameter: Parameter, share: float = 0.8) -> float:
    return float(np.clip(parameter.value * share, parameter.constant.low, parameter.constant.high))


def rebuilt(problem: Problem, parameter: Parameter, value: float) -> Problem:
    """Change the noun that the parameter names, as an edit of the catalog would."""
    constant = parameter.constant
    noun = problem.stack if constant.owner == "family" else problem.cluster.rates
    if noun.name != parameter.owner:
        return problem
    before = getattr(noun, constant.field)
    after = {**before, **dict.fromkeys(constant.dtypes, value)} if constant.dtypes else value
    noun = noun.model_copy(update={constant.field: after})
    if constant.owner == "family":
        return problem._replace(stack=noun)
    return problem._replace(cluster=problem.cluster.model_copy(update={"rates": noun}))


def outcome(cases: Cases) -> np.ndarray:
    result = evaluate(cases)
    return np.stack(np.broadcast_arrays(result.step_time_s, result.peak_memory_bytes))


def test_a_parameter_does_what_an_edit_of_the_catalog_does(found: Observations) -> None:
    problems = [p for p in found.problems if p.layout.vpp == 1]  # those with whole rounds of micro-batches
    cases = stack([Cases.of(*problem) for problem in problems])
    parameters = free_parameters(problems, (*TIME_CONSTANTS, *MEMORY_CONSTANTS))
    assert len(parameters) > 40
    unchanged = outcome(cases)
    np.testing.assert_allclose(
        outcome(with_parameters(cases, parameters, values_of(parameters))), unchanged, rtol=1e-12
    )
    for parameter in parameters:
        value = moved(parameter)
        edited = stack([Cases.of(*rebuilt(problem, parameter, value)) for problem in problems])
        result = outcome(with_parameters(cases, [parameter], [value]))
        np.testing.assert_allclose(result, outcome(edited), rtol=1e-9, err_msg=parameter.name)
        others = ~parameter.any_rows
        np.testing.assert_array_equal(result[:, others], unchanged[:, others])


def test_every_constant_has_a_prior_within_its_bounds() -> None:
    for constant in (*TIME_CONSTANTS, *MEMORY_CONSTANTS):
        assert constant.spread > 0
        for prior in PRIORS[constant.name].values():
            assert constant.low < prior < constant.high, constant.name
    assert set(PRIORS) == {constant.name for constant in (*TIME_CONSTANTS, *MEMORY_CONSTANTS)}


def test_a_mechanism_that_the_catalog_says_is_absent_is_not_fitted(parameters: list[Parameter]) -> None:
    names = {p.name for p in parameters}
    assert "google-tpu.kernel_s" not in names  # compiled programs have no launches
    assert "xla.dispatch_s" not in names
    assert "megatron.overlap_tensor" not in names
    assert {"nvidia-ampere.matmul.bf16", "nvidia-hopper.matmul.fp8", "megatron-core.overlap_tensor"} <= names


def test_attention_of_older_kernels_is_not_fitted_as_the_generations_own(found: Observations) -> None:
    problem = next(p for p in found.problems if p.cluster.accelerator.name == "h100-sxm" and p.stack.own_attention)
    older = problem._replace(stack=problem.stack.model_copy(update={"own_attention": False}))
    assert "nvidia-hopper.attention.bf16" in [p.name for p in free_parameters([problem])]
    assert "nvidia-hopper.attention.bf16" not in [p.name for p in free_parameters([older])]


def test_a_network_that_was_measured_is_not_fitted(found: Observations) -> None:
    problem = next(p for p in found.problems if p.cluster.accelerator.name == "a100-80gb" and len(p.cluster.tiers) > 1)
    inner, outer = problem.cluster.tiers[:2]
    measured = problem.cluster.model_copy(update={"tiers": (inner, outer.model_copy(update={"achieved": 0.4}))})
    names = [p.name for p in free_parameters([problem._replace(cluster=measured)])]
    assert "nvidia-ampere.link" in names
    assert "nvidia-ampere.network" not in names
    assert "nvidia-ampere.network" in [p.name for p in free_parameters([problem])]


def with_truth(found: Observations, parameters: list[Parameter]) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    priors = np.asarray([p.prior for p in parameters])
    spreads = np.asarray([p.constant.spread for p in parameters])
    low = np.asarray([p.constant.low for p in parameters])
    high = np.asarray([p.constant.high for p in parameters])
    truth = np.clip(priors + 0.5 * spreads * generator.standard_normal(priors.size), low, high)
    return truth, np.log(evaluate(with_parameters(found.cases, parameters, truth)).step_time_s)


def test_times_made_with_known_constants_are_found_again(found: Observations, parameters: list[Parameter]) -> None:
    _, targets = with_truth(found, parameters)
    result = fit(found.cases, targets, np.full(targets.size, 1000.0), parameters, max_iterations=60)
    priors = np.asarray([p.prior for p in parameters])
    before = np.abs(np.log(evaluate(with_parameters(found.cases, parameters, priors)).step_time_s) - targets)
    assert before.max() > 0.03
    assert np.abs(result.log_errors).max() < 0.003
    assert np.all(result.uncertainties <= [p.constant.spread * (1 + 1e-9) for p in parameters])


def test_a_constant_that_decides_everything_is_found_again(found: Observations, parameters: list[Parameter]) -> None:
    only = [p for p in parameters if p.name == "nvidia-hopper.matmul.bf16"]
    targets = np.log(evaluate(with_parameters(found.cases, only, [0.5])).step_time_s)
    result = fit(found.cases, targets, np.full(targets.size, 1000.0), only)
    assert result.values[0] == pytest.approx(0.5, rel=2e-3)
    assert result.uncertainties[0] < 0.01


def test_without_data_the_priors_stay(found: Observations, parameters: list[Parameter]) -> None:
    nothing = np.full(len(found.rows), np.nan)
    result = fit(found.cases, nothing, np.ones(len(found.rows)), parameters)
    np.testing.assert_allclose(result.values, [p.prior for p in parameters])
    np.testing.assert_allclose(result.uncertainties, [p.constant.spread for p in parameters])


def test_rows_of_weight_zero_have_no_influence(found: Observations, parameters: list[Parameter]) -> None:
    parameters = on_ampere(parameters)
    _, targets = with_truth(found, parameters)
    weights = np.ones(targets.size)
    weights[0] = 0.0
    spoiled = targets.copy()
    spoiled[0] += 3.0
    first, second = (fit(found.cases, t, weights, parameters) for t in (targets, spoiled))
    np.testing.assert_array_equal(first.values, second.values)
    assert second.log_errors[0] == pytest.approx(first.log_errors[0] - 3.0)


def test_one_wrong_row_does_not_spoil_the_others(found: Observations, parameters: list[Parameter]) -> None:
    only = [p for p in parameters if p.name == "nvidia-hopper.matmul.bf16"]
    targets = np.log(evaluate(with_parameters(found.cases, only, [0.7])).step_time_s)
    rows = np.flatnonzero(only[0].any_rows)
    targets[rows[0]] += np.log(20.0)
    weights = np.full(targets.size, 100.0)
    weights[rows[0]] = 25.0
    result = fit(found.cases, targets, weights, only)
    assert result.values[0] == pytest.approx(0.7, abs=0.03)


def test_a_fit_goes_on_from_where_it_stopped(found: Observations, parameters: list[Parameter]) -> None:
    parameters = on_ampere(parameters)
    _, targets = with_truth(found, parameters)
    weights = np.full(targets.size, 100.0)
    seen = []
    whole = fit(found.cases, targets, weights, parameters, progress=seen.append)
    assert [result.iterations for result in seen] == list(range(1, whole.iterations + 1))
    assert all(a.cost >= b.cost for a, b in itertools.pairwise(seen))
    part = fit(found.cases, targets, weights, parameters, max_iterations=2)
    assert not part.finished
    resumed = fit(found.cases, targets, weights, parameters, start=part.values)
    assert resumed.cost <= part.cost
    np.testing.assert_allclose(resumed.log_errors, whole.log_errors, atol=5e-3)


def test_a_source_weighs_the_root_of_its_configurations(found: Observations) -> None:
    weights = found.weights(found.log_step_time)
    sources = np.asarray(found.sources)
    megatron = sources == "Megatron-LM on one node"
    # gpt-a and gpt-b are one group; gpt-c, gpt-tflops and gpt-launches are three more
    assert weights[megatron].sum() == pytest.approx(2.0)
    ids = [row["id"] for row in found.rows]
    assert weights[ids.index("gpt-a")] == weights[ids.index("gpt-b")] == pytest.approx(0.25)
    assert weights[ids.index("unknown-flops")] == 0.0  # grade C, and nothing to compare
    without = found.weights(found.log_step_time, "Megatron-LM on one node")
    assert without[megatron].sum() == 0.0
    np.testing.assert_array_equal(without[~megatron], weights[~megatron])


def test_a_source_left_out_is_predicted_from_the_others(found: Observations, small_file: Path) -> None:
    study = Study.of_time(observe(read_table(small_file).rows()))
    source = "Megatron-LM on one node"
    inside, outside = study.fit(), study.fit(without=source)
    values = study.values(outside)
    # no other row ran on Ampere
    assert values["nvidia-ampere.matmul.bf16"] == PRIORS["matmul.bf16"]["nvidia-ampere"]
    assert study.errors(inside, source)["mean"] < study.errors(outside, source)["mean"]
    memory = Study.of_memory(found)
    assert {p.owner for p in memory.parameters} == {"megatron", "megatron-core"}


def run(*arguments: str) -> typer.testing.Result:
    app = typer.Typer()
    app.command()(plan_fit.command)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})


def test_command(small_file: Path, tmp_path: Path) -> None:
    output, state = tmp_path / "fitted.yaml", tmp_path / "state.json"
    arguments = [str(small_file), "--output", str(output), "--state", str(state)]
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    assert "nvidia-ampere.matmul.bf16" in first.output
    written = yaml.safe_load(output.read_text(encoding="utf-8"))
    assert written["nvidia-ampere"]["matmul"]["bf16"] == written["nvidia-ampere"]["matmul"]["fp16"]
    assert 0.05 <= written["nvidia-ampere"]["matmul"]["bf16"] <= 1.0
    assert {"dispatch_s", "framework_bytes"} <= set(written["megatron"])
    kept = json.loads(state.read_text(encoding="utf-8"))["fits"]
    assert set(kept) == {"step_time, all sources", "memory, all sources"}
    # the second run goes on from the first, and leaves its file
    second = run(*arguments)
    assert second.exit_code == 0, second.output
    assert (tmp_path / "fitted-2.yaml").exists()


def test_command_with_sources_left_out(small_file: Path) -> None:
    result = run(str(small_file), "--leave-one-source-out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document["left_out"]) == {"Megatron-LM on one node", "NeMo on H100"}
    assert set(document["left_out"]) == set(document["errors"]["step_time"]["by_source"])
    parameter = document["parameters"][0]
    assert set(parameter) == {"name", "unit", "meaning", "prior", "catalog", "fitted", "uncertainty", "rows"}


def test_a_state_of_another_table_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text('{"table_sha256": "0", "catalog": {}, "fits": {}}', encoding="utf-8")
    result = run(str(FILE), "--state", str(state))
    assert result.exit_code != 0
    assert "belongs to another table" in str(result.exception)


def test_a_table_without_outcomes_is_refused(tmp_path: Path) -> None:
    rows = [{k: None if is_outcome(k) else v for k, v in row.items()} for row in read_table(FILE).rows()]
    path = written(rows, tmp_path / "results.csv")
    result = run(str(path))
    assert result.exit_code != 0
    assert "has an outcome to fit to; give one of the columns step_time_s, tokens_per_s" in str(result.exception)
