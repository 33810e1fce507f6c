import pytest

from clipneurons.text.class_names import names, stem


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dogs", "dog"), ("boxes", "box"), ("horses", "horse"), ("houses", "house"),
        ("wolves", "wolf"), ("berries", "berry"), ("mice", "mouse"), ("running", "run"),
        ("buses", "bus"), ("glasses", "glass"), ("knives", "knife"), ("baked", "bake"),
        ("dishes", "dish"), ("watches", "watch"), ("children", "child"),
    ],
)  # fmt: skip
def test_endings_fall_away(one, other):
    assert stem(one) == stem(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("bus", "bu"), ("string", "str"), ("red", "r"), ("king", "k"), ("class", "clasp")],
)
def test_endings_that_are_none_stay(one, other):
    assert stem(one) != stem(other)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("two Dogs in a park", "dog", True),
        ("two Dogs in a park", "a dog", True),
        ("dog", "the dogs", True),
        ("a hot-dog stand", "dog", True),
        ("bulldogs", "dog", True),
        ("a doghouse", "dog", True),
        ("a woollen scarf", "car", False),
        ("a carpet", "car", True),
        ("fire trucks", "fire truck", True),
        ("a firetruck", "fire truck", True),
        ("a truck on fire", "fire truck", False),
        ("an ox", "ox", True),
        ("a box", "ox", False),  # too short for the rule of compounds
        ("Café tables", "cafe table", True),
        ("犬", "犬", True),
        ("anything", "!?", False),
    ],
)
def test_a_class_is_found_in_its_forms(text, name, expected):
    assert names(text, name) is expected
