"""docs/model.md lists every constant as the catalog has it."""

from gnomon.spec import StackSpec
from gnomon.spec.catalog import list_stacks, load_stack
from model_page import PAGE, render_page


def test_the_page_lists_every_constant_as_the_catalog_has_it():
    assert PAGE.read_text() == render_page(), "run python tests/model_page.py"


def test_every_family_says_where_its_constants_come_from():
    assert len(list_stacks()) >= 7
    for name in list_stacks():
        assert len(load_stack(name).sources) > 40


def test_no_constant_belongs_to_a_model_or_a_source():
    names = set(StackSpec.model_fields) - {"layers_of"}  # a family
    assert not {n for n in names if "model" in n or "layer" in n or "row" in n}
