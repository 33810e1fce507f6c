"""The tab "Explore": numbers that do not exist, favourites, defaults of its endpoints."""

import inspect
from dataclasses import fields
from types import SimpleNamespace

import gradio as gr
import pytest

from clipneurons.dictionary.search import DIRECTION, MATCH
from tabs.explore import handlers
from tabs.explore.dashboard import neuron, start_of
from tabs.explore.handlers import Request, Tab
from tabs.explore.layout import Widgets
from tabs.explore.search import search
from tabs.explore.table import Order
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tests.helpers.tiny import tiny_bundle


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """The tab on a tiny bundle; in place of each component its name."""
    registry = BundleRegistry([BundleSession("b", tmp_path_factory.mktemp("b"), tiny_bundle())])
    return Tab(registry, Widgets(**{field.name: field.name for field in fields(Widgets)}))


def request(unit: int | None, favourites: str = "") -> Request:
    return Request("b", 1, unit, "", "", DIRECTION, MATCH, favourites, False, "")


@pytest.mark.parametrize(
    ("asked", "nearest"), [(9999, 15), (-4, 0), (16, 15), (None, 0), (15, 15), (3, 3)]
)
def test_a_number_that_is_none_becomes_the_nearest(tab, monkeypatch, asked, nearest):
    said, w = [], tab.widgets
    monkeypatch.setattr(gr, "Warning", said.append)
    drawn = handlers.draw(tab, request(asked))
    assert f"neuron {nearest}<" in drawn[w.card]
    assert f"unit={nearest}" in drawn[w.here]
    if asked == nearest:
        assert w.unit not in drawn, "a field that says what is shown is left alone"
    else:
        assert drawn[w.unit] == nearest
    assert [f"not {asked}" in text for text in said] == [True] * (asked not in (None, nearest))


def test_a_favourite_is_marked_and_in_the_address(tab):
    w = tab.widgets
    kept = handlers.keep(tab, request(3))[w.favourites]
    drawn = handlers.draw(tab, request(3, kept))
    assert "fav=1.3" in drawn[w.here]
    assert drawn[w.keep].startswith("★")
    assert "unit=3" in drawn[w.kept]
    assert handlers.draw(tab, request(4, kept))[w.keep].startswith("☆")
    assert handlers.keep(tab, request(3, kept))[w.favourites] == ""


def test_a_click_on_a_heading_sorts_the_table(tab):
    w, event = tab.widgets, SimpleNamespace(column="top_norm")
    drawn = handlers.sort(tab, request(0), Order(), event)
    assert drawn[w.rows_order] == Order("top_norm", descending=True)
    assert drawn[w.rows] != handlers.table(tab, request(0), Order())[w.rows]
    assert drawn[w.rows] == handlers.table(tab, request(0), drawn[w.rows_order])[w.rows]


@pytest.mark.parametrize("endpoint", [neuron, search])
def test_every_parameter_of_an_endpoint_has_a_default(endpoint):
    _, *parameters = inspect.signature(endpoint).parameters.values()
    assert parameters
    for parameter in parameters:
        assert parameter.default is not inspect.Parameter.empty


def test_without_arguments_the_opening_neuron_is_given(tab):
    registry = tab.registry
    layer, unit = start_of(registry.first)
    opening = neuron(registry)
    assert (opening["layer"], opening["unit"]) == (layer, unit)
    other = 3 - layer
    assert (neuron(registry, layer=other)["unit"], neuron(registry, unit=5)["unit"]) == (0, 5)
