"""Words of earlier versions still name a choice, each one that there is."""

import pytest

from clipneurons.adversarial.methods import METHODS
from clipneurons.concepts.concepts import WAYS
from clipneurons.former_names import FORMER, current
from clipneurons.segmentation.methods import OWN

NOW = {*METHODS, *WAYS, *OWN, "clip"}


@pytest.mark.parametrize("former", FORMER)
def test_a_former_name_stands_for_a_choice_of_today(former):
    assert former not in NOW
    assert current(former) in NOW


def test_names_of_today_stay():
    assert [current(name) for name in sorted(NOW)] == sorted(NOW)
