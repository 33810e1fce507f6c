"""The dictionary's tab: numbers that do not exist, defaults of its endpoints."""

import inspect
from types import SimpleNamespace

import gradio as gr
import pytest

from tabs.dictionary.handlers import Handlers
from tabs.neuron_page import start_of
from tabs.neuron_table import Order
from tabs.search import DIRECTION
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tests.helpers.tiny import tiny_bundle


@pytest.fixture
def handlers(tmp_path):
    return Handlers(BundleRegistry([BundleSession("b", tmp_path, tiny_bundle())]))


@pytest.mark.parametrize(
    ("asked", "nearest"), [(9999, 15), (-4, 0), (16, 15), (None, 0), (15, 15), (3, 3)]
)
def test_a_number_that_is_none_becomes_the_nearest(handlers, monkeypatch, asked, nearest):
    said = []
    monkeypatch.setattr(gr, "Warning", said.append)
    unit, card, place, *_ = handlers.draw("b", 1, asked, "", "", DIRECTION, "")
    assert f"neuron {nearest}<" in card
    assert f"unit={nearest}" in place
    if asked == nearest:
        assert unit == gr.skip(), "a field that says what is shown is left alone"
    else:
        assert unit == nearest
    assert [f"not {asked}" in one for one in said] == [True] * (asked not in (None, nearest))


def test_a_favourite_is_marked_and_in_the_address(handlers):
    kept = handlers.keep(1, 3, "")
    _, _, place, label, row = handlers.draw("b", 1, 3, "", "", DIRECTION, kept)
    assert "fav=1.3" in place
    assert label.startswith("★")
    assert "unit=3" in row
    assert handlers.draw("b", 1, 4, "", "", DIRECTION, kept)[3].startswith("☆")
    assert handlers.keep(1, 3, kept) == ""


def test_a_click_on_a_heading_sorts_the_table(handlers):
    order, page = handlers.sort("b", 1, "", Order(), SimpleNamespace(column="top_norm"))
    assert order == Order("top_norm", descending=True)
    assert page == handlers.table("b", 1, "", order) != handlers.table("b", 1, "", Order())


@pytest.mark.parametrize("name", ["neuron", "search"])
def test_every_parameter_has_a_default(handlers, name):
    for parameter in inspect.signature(getattr(handlers, name)).parameters.values():
        assert parameter.default is not inspect.Parameter.empty


def test_without_arguments_the_opening_neuron_is_given(handlers):
    layer, unit = start_of(handlers.registry.first)
    found = handlers.neuron()
    assert (found["layer"], found["unit"]) == (layer, unit)
    other = 3 - layer
    assert (handlers.neuron(layer=other)["unit"], handlers.neuron(unit=5)["unit"]) == (0, 5)
