"""Favourites in the address."""

import pytest

from tabs.explore.favourites import MOST, html_of, parse, toggled
from tabs.server.session import BundleSession
from tests.helpers.tiny import tiny_bundle


def test_a_favourite_is_added_and_taken_out_again():
    once = toggled("", 4, 12)
    twice = toggled(once, 3, 7)
    assert parse(twice) == [(4, 12), (3, 7)]
    assert toggled(twice, 4, 12) == "3.7"
    assert toggled("3.7", 3, 7) == ""


@pytest.mark.parametrize("text", ["", "x", "4", "4.-1", "4.5.6", "٤.٥", "4.99999999999"])
def test_what_is_none_is_left_out(text):
    assert parse(text) in ([], [(4, 5)])
    assert parse(f"{text}_1.2")[-1] == (1, 2)


def test_there_is_a_limit():
    full = "_".join(f"1.{unit}" for unit in range(MOST))
    with pytest.raises(ValueError, match=f"at most {MOST}"):
        toggled(full, 2, 0)
    assert len(parse(full + "_2.0")) == MOST


def test_only_units_of_the_bundle_are_shown(tmp_path):
    session = BundleSession("b", tmp_path, tiny_bundle())
    shown = html_of(session, [(1, 3), (9, 0), (2, 99)])
    assert shown.count("<a ") == 1
    assert "layer=1&amp;unit=3" in shown
    assert html_of(session, []) == ""
