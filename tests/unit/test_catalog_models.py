"""Parameter counts of the catalog's models against those that their makers publish."""

from __future__ import annotations

from pathlib import Path

import pytest

import gnomon.spec.catalog as catalog
from gnomon.plan.parameters import count_parameters
from gnomon.spec.catalog import list_models, load_model

# `safetensors` totals of the checkpoints that `source` names, as the model hub prints them; for MPT the counts of
# https://github.com/mosaicml/llm-foundry (scripts/train/benchmarking) at 2048 positions
PUBLISHED = {
    "bloom-176b": 176_247_271_424,
    "bloom-7b1": 7_069_016_064,
    "codellama-34b": 33_743_970_304,
    "deepseek-llm-7b": 6_910_365_696,
    "deepseek-moe-16b": 16_375_728_128,
    "falcon-180b": 179_522_565_120,
    "flan-t5-xl": 2_849_757_184,
    "flan-t5-xxl": 11_135_332_352,
    "llama-3.3-70b": 70_553_706_496,
    "llama-30b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "mistral-large-123b": 122_610_069_504,
    "mistral-nemo-12b": 12_247_782_400,
    "mistral-small-24b": 23_572_403_200,
    "mpt-125m": 125_311_488,
    "mpt-13b": 12_853_954_560,
    "mpt-1b": 1_315_950_592,
    "mpt-30b": 29_975_214_080,
    "mpt-350m": 355_985_408,
    "mpt-3b": 2_651_837_440,
    "mpt-70b": 64_862_437_376,
    "mpt-760m": 760_470_528,
    "mpt-7b": 6_658_859_008,
    "olmo-2-13b": 13_716_198_400,
    "olmo-2-32b": 32_234_279_936,
    "olmo-2-7b": 7_298_617_344,
    "olmoe-1b-7b": 6_919_161_856,
    "opt-1.3b": 1_315_758_080,
    "phi-3-medium": 13_960_238_080,
    "phi-3-mini": 3_821_079_552,
    "phi-4": 14_659_507_200,
    "pythia-1.4b": 1_414_647_808,
    "pythia-12b": 11_846_072_320,
    "pythia-160m": 162_322_944,
    "pythia-6.9b": 6_857_302_016,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "qwen2-57b-a14b": 57_408_658_944,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-3b": 3_085_938_688,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-14b": 14_768_307_200,
    "qwen3-4b": 4_022_468_096,
    "qwen3-coder-480b-a35b": 480_154_875_392,
    "smollm2-1.7b": 1_711_376_384,
    "smollm2-135m": 134_515_008,
    "smollm3-3b": 3_075_098_624,
    "starcoder2-15b": 15_957_889_024,
    "t5-11b": 11_307_321_344,
    "t5-3b": 2_851_598_336,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-small": 60_506_624,
    "tinyllama-1.1b": 1_100_048_384,
    "yi-34b": 34_388_917_248,
    "yi-6b": 6_061_035_520,
}

# what a description cannot say, as its `source` says instead: the norm after BLOOM's embedding, two rows of OPT's
# position table, norms of OLMo's queries and keys across all heads
NOT_DESCRIBED = {
    "bloom-176b": 2 * 14336,
    "bloom-7b1": 2 * 4096,
    "opt-1.3b": 2 * 2048,
    "olmo-2-7b": 32 * (2 * 4096 - 2 * 128),
    "olmo-2-13b": 40 * (2 * 5120 - 2 * 128),
    "olmo-2-32b": 64 * (5120 + 1024 - 2 * 128),
    "olmoe-1b-7b": 16 * (2 * 2048 - 2 * 128),
}

# billions, as papers and names of models round them
ROUNDED = {
    "command-r-35b": 35,
    "dbrx": 132,
    "deepseek-llm-67b": 67,
    "dit-b-2": 0.130,
    "dit-l-2": 0.458,
    "dit-s-2": 0.033,
    "dit-xl-2": 0.675,
    "falcon-40b": 40,
    "falcon-7b": 7,
    "gpt3-13b": 13.0,
    "gpt3-2.7b": 2.7,
    "gpt3-20b": 20.0,
    "gpt3-5b": 5.0,
    "gpt3-6.7b": 6.7,
    "grok-1": 314,
    "megatron-1.7b": 1.7,
    "megatron-145b": 145.6,
    "megatron-18b": 18.4,
    "megatron-1t": 1008.0,
    "megatron-3.6b": 3.6,
    "megatron-310b": 310.1,
    "megatron-39b": 39.1,
    "megatron-530b": 529.6,
    "megatron-7.5b": 7.5,
    "megatron-76b": 76.1,
    "mt-nlg-530b": 530,
    "nemotron-3-22b": 21.3,
    "nemotron-3-8b": 8.5,
    "nemotron-4-15b": 15.6,
    "nemotron-4-340b": 341.0,
    "opt-13b": 13,
    "opt-175b": 175,
    "opt-30b": 30,
    "opt-6.7b": 6.7,
    "opt-66b": 66,
    "palm-540b": 540.35,
    "palm-62b": 62.5,
    "palm-8b": 8.63,
    "starcoder2-3b": 3,
    "starcoder2-7b": 7,
}

VISION_TOWER_OF_GEMMA_3 = 416_866_032
GEMMA_3 = {"gemma-3-4b": 4_300_079_472, "gemma-3-12b": 12_187_325_040, "gemma-3-27b": 27_432_406_640}
LLAMA_4 = {"llama-4-scout": 108_641_793_536, "llama-4-maverick": 401_583_781_376}
GLM = {"glm-4.5": 358_337_791_296, "glm-4.5-air": 110_468_824_832}

# test_parameters.py holds these to their checkpoints
IN_TEST_PARAMETERS = {
    "deepseek-v2",
    "deepseek-v2-lite",
    "deepseek-v3",
    "gemma-2-27b",
    "gemma-2-2b",
    "gemma-2-9b",
    "gemma-2b",
    "gemma-3-1b",
    "gemma-7b",
    "gpt-neox-20b",
    "gpt-oss-120b",
    "gpt-oss-20b",
    "gpt2",
    "gpt2-large",
    "gpt2-medium",
    "gpt2-xl",
    "gpt3-175b",
    "llama-2-13b",
    "llama-2-70b",
    "llama-2-7b",
    "llama-3-70b",
    "llama-3-8b",
    "llama-3.1-405b",
    "llama-3.1-70b",
    "llama-3.1-8b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "mistral-7b",
    "mixtral-8x22b",
    "mixtral-8x7b",
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "qwen2.5-72b",
    "qwen2.5-7b",
    "qwen3-0.6b",
    "qwen3-235b-a22b",
    "qwen3-30b-a3b",
    "qwen3-32b",
    "qwen3-8b",
}


@pytest.mark.parametrize(("name", "total"), PUBLISHED.items())
def test_total_equals_the_published_checkpoint(name, total):
    assert count_parameters(load_model(name)).total + NOT_DESCRIBED.get(name, 0) == total


@pytest.mark.parametrize(("name", "billions"), ROUNDED.items())
def test_total_rounds_to_what_the_paper_or_the_name_says(name, billions):
    # names round as it suits: 1.7 for 1.65, 13 for 12.85, 40 for 41.3
    assert count_parameters(load_model(name)).total / 1e9 == pytest.approx(billions, rel=0.035)


@pytest.mark.parametrize(("name", "total"), GEMMA_3.items())
def test_gemma_3_without_its_vision_tower_and_projector(name, total):
    spec = load_model(name)
    projector = 1152 * spec.hidden_size + 1152
    assert count_parameters(spec).total + VISION_TOWER_OF_GEMMA_3 + projector == total


def test_what_the_llama_4_checkpoints_hold_beside_the_language_model_is_the_same_vision_part():
    beside = {total - count_parameters(load_model(name)).total for name, total in LLAMA_4.items()}
    assert beside == {871_932_416}


@pytest.mark.parametrize(("name", "total"), GLM.items())
def test_glm_checkpoints_hold_the_mtp_module_with_its_own_embedding_head_and_routing_bias(name, total):
    spec = load_model(name)
    count = count_parameters(spec)
    module = count.mtp + 2 * count.embedding + spec.moe.num_experts
    assert count.total + count.buffers + module == total


def test_kimi_k2_holds_its_routing_biases_beside_its_parameters():
    count = count_parameters(load_model("kimi-k2"))
    assert count.total + count.buffers == 1_026_408_232_448


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("deepseek-moe-16b", 2.828650496),
        ("qwen3-coder-480b-a35b", 35.5),
        ("llama-4-maverick", 17.2),
        ("kimi-k2", 32.9),
        ("dbrx", 36.5),
        ("qwen2-57b-a14b", 14.2),
        ("olmoe-1b-7b", 1.28),
    ],
)
def test_active_parameters(name, billions):
    assert count_parameters(load_model(name)).active / 1e9 == pytest.approx(billions, abs=0.05)


def test_palm_embedding_and_parallel_block_by_hand():
    spec = load_model("palm-540b")
    layer = 2 * 18432 * 48 * 256 + 2 * 18432 * 256 + 3 * 18432 * 73728 + 18432
    assert count_parameters(spec).total == 118 * layer + 256000 * 18432 + 18432


def test_nemotron_4_340b_embedding_and_the_rest():
    # section 2.1 of arXiv 2406.11704: 9.4 B of embeddings, 331.6 B of the rest
    count = count_parameters(load_model("nemotron-4-340b"))
    assert (count.embedding + count.head) / 1e9 == pytest.approx(9.4, abs=0.05)
    assert (count.total - count.embedding - count.head) / 1e9 == pytest.approx(331.6, abs=0.05)


@pytest.mark.parametrize("name", [name for name in list_models() if name.startswith("megatron-")])
def test_megatron_counts_equal_the_formula_of_the_paper(name):
    # equation 2 of arXiv 2104.04473, which leaves out the last norm
    spec = load_model(name)
    layers, width = spec.num_layers, spec.hidden_size
    formula = 12 * layers * width**2 + 13 * layers * width + (51200 + 2048) * width
    assert count_parameters(spec).total == formula + 2 * width


def test_every_model_is_checked():
    here = {*PUBLISHED, *ROUNDED, *GEMMA_3, *LLAMA_4, *GLM, "kimi-k2"}
    assert not here & IN_TEST_PARAMETERS
    assert set(list_models()) == here | IN_TEST_PARAMETERS


@pytest.mark.parametrize("name", list_models())
def test_the_count_in_the_first_line_of_the_file_is_the_count(name):
    first = (Path(catalog.__file__).parent / "models" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    count = count_parameters(load_model(name))
    active = f", {count.active:,} active per token" if load_model(name).moe else ""
    assert first == f"# {count.total:,} parameters{active}"
