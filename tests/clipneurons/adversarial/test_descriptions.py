import pytest

from clipneurons.adversarial.descriptions import (
    DescriberError,
    TemplateDescriber,
    check_count,
    check_description,
    collect,
)
from clipneurons.text.class_names import names

CUES = ("leash", "a bone", "red ball", "old tree")


def test_templates_say_what_is_in_the_picture_and_nothing_else():
    describe = TemplateDescriber(cues_each=2)
    found = describe("cat", "dog", CUES, 60, seed=0)
    assert len(found) == 60
    for description in found:
        assert check_description(description.text, "cat", "dog", CUES) is None
        named = tuple(cue for cue in CUES if names(description.text, cue))
        assert sorted(named) == sorted(description.cues)
        assert len(description.cues) == 2
    assert {cue for d in found for cue in d.cues} == set(CUES)
    assert len({d.text for d in found}) > 20
    assert any("an old tree" in d.text for d in found)
    assert not any("a a " in d.text for d in found)


def test_the_same_seed_gives_the_same_templates():
    describe = TemplateDescriber()
    once, twice, other = (describe("cat", "dog", CUES, 9, seed=s) for s in (3, 3, 4))
    assert once == twice != other


def test_without_cues_the_true_class_stands_alone():
    for describe in (TemplateDescriber(cues_each=0), TemplateDescriber()):
        words = CUES if describe.cues_each == 0 else ()
        assert {d.text for d in describe("cat", "dog", words, 3, 0)} == {"a picture of a cat"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a cat with a bone", None),
        ("cats and bones", None),
        ("a kitten with a bone", "does not name cat"),
        ("a cat with a bone and dogs", "names dog"),
        ("a cat on a bulldog's bone", "names dog"),
        ("a cat on a sofa", "names no cue"),
        ("", "is empty"),
        ("a cat with a bone " + "very " * 100, "more than 300"),
        ("a cat\nwith a bone", "not one line"),
        ("a cat with a bone and a puppy", "synonym puppy"),
    ],
)
def test_descriptions_are_checked(text, reason):
    class Told:
        name = "told"

        def synonyms(self, phrases, name):
            return [phrase == "puppy" for phrase in phrases]

    found = check_description(text, "cat", "dog", CUES, Told())
    assert found is None if reason is None else reason in found


def test_counts_are_bounded():
    for count in (0, -1, 10_001):
        with pytest.raises(ValueError, match="1 to 10000 images"):
            check_count(count)
    with pytest.raises(ValueError, match="0 to 6 cues"):
        TemplateDescriber(7)


def test_asking_goes_on_until_enough_lines_pass_and_then_stops():
    asked = []

    def ask(number):
        asked.append(number)
        return [f"line {number}", "same", "bad"]

    lines, attempts = collect(ask, lambda line: "is bad" if line == "bad" else None, 3, rounds=9)
    assert lines == ["line 0", "same", "line 1"]
    assert asked == [0, 1]
    assert attempts.refused == (("bad", "is bad"), ("same", "repeats another"), ("bad", "is bad"))
    with pytest.raises(DescriberError, match=r"gave 3 of 4 usable .* in 2 rounds.*'bad' is bad"):
        collect(ask, lambda line: "is bad" if line == "bad" else None, 4, rounds=2)
