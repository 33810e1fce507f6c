import base64
import csv
import io
import json
import re
import zipfile
from dataclasses import replace

import pytest
import torch
from PIL import Image

from clipneurons.adversarial.attack import success_rate
from clipneurons.adversarial.cue_filter import CueFilter
from clipneurons.adversarial.cue_recorder import record_cues
from clipneurons.adversarial.cue_request import CueRequest
from clipneurons.adversarial.cues import find_cues
from clipneurons.adversarial.methods import (
    DENSE_EFFECTS,
    RANDOM_NEURONS,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SECOND_ORDER,
)
from clipneurons.bundle.bundle import save_bundle
from clipneurons.stats.intervals import wilson
from tabs.adversarial import handlers, results
from tabs.adversarial.cues import (
    AUTOMATIC,
    PAIRS,
    WAYS,
    cues_of,
    pairs_of,
    split_words,
    with_recordings,
)
from tabs.adversarial.layout import pair_label, pair_of
from tabs.adversarial.offers import (
    CHAT_MODEL,
    PAINTER_MODEL,
    PICTOGRAMS,
    TEMPLATES,
    composer,
    describers,
    painters,
    similarity_of,
)
from tabs.adversarial.pictures import (
    CONTROLS,
    Forged,
    controls,
    descriptions_of,
    forge,
    mistake_overlay,
    zip_file,
)
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tests.helpers.packs import flat_composer
from tests.helpers.pipelines import chat_folder, painter_folder
from tests.helpers.tiny import tiny_bundle, tiny_clip

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tab") / "bundle"
    clip = tiny_clip(folder)
    made = tiny_bundle(clip=clip)
    texts = ["bone", "leash", "palm tree", "poodle", *made.texts[4:]]
    embeddings = clip.encode_text(texts)
    made = replace(
        made, texts=texts, text_embeddings=embeddings, config=replace(made.config, model=".")
    )
    session = BundleSession("tiny", save_bundle(made, folder))
    session.cached("composer", lambda: flat_composer(32))
    return session


def forged(session, count=12, seed=0):
    descriptions = descriptions_of(session, "cat", "dog", ["bone", "leash"], count, seed)
    batches = list(forge(session, "cat", "dog", descriptions, seed))
    outcomes = tuple(outcome for batch in batches for outcome in batch)
    return Forged("tiny", "cat", "dog", "these cues", outcomes), batches


def test_cues_can_be_drawn_and_lead_into_the_dictionary(session):
    # A random model says something drawable towards some names only.
    names = ("dog", "x", "boat", "tree", "car", "sun", "key", "a red hat", "seven", "music")
    cues = next(c for c in (cues_of(session, "cat", x) for x in names) if c.words)
    assert set(cues.words) <= {"bone", "leash", "palm tree", "poodle"}
    less = cues_of(session, "cat", cues.target_class, blocked=cues.words[0])
    assert less.words == cues.words[1:]
    page = results.cues_html(session, cues, similarity_of(session).name)
    neuron = cues.positive[0].neurons[0]
    assert f"?tab=dictionary&amp;layer={neuron.layer}&amp;unit={neuron.unit}" in page
    assert f">{neuron.layer} · {neuron.unit}</a>" in page
    assert "similarity" in page
    odd = replace(cues, positive=(replace(cues.positive[0], text="a jeans"),))
    assert ">jeans<" in results.cues_html(session, odd, "x")
    data = results.cues_data(cues, "x")
    assert [row["phrase"] for row in data["toward"]] == cues.words
    assert data["toward"][0]["neurons"][0]["unit"] == neuron.unit


def test_no_number_of_neurons_is_all_that_they_write(session):
    cues = cues_of(session, "cat", "boat", neurons=0)
    assert cues.method == DENSE_EFFECTS
    assert cues_of(session, "cat", "boat", neurons=3).method == SECOND_ORDER
    assert cues_of(session, "cat", "boat", neurons=0, method=RANDOM_NEURONS).method == (
        RANDOM_NEURONS
    )


def test_neurons_are_asked_in_the_chosen_way(session):
    """By effects recorded in pictures of each thing, as the library asks them: once for all."""
    for way in WAYS:
        expected = DENSE_EFFECTS if way == AUTOMATIC else way
        assert cues_of(session, "cat", "dog", neurons=0, way=way).method == expected
    recorded = with_recordings(session)
    assert with_recordings(session) is recorded
    paint, bundle = composer(session), session.bundle
    known = record_cues(bundle, session.lens, paint, paint.concept, paint.concepts)
    assert recorded.cues.row.tolist() == known.row.tolist()
    rules = CueFilter(similarity_of(session), (), paint.drawable("boat"))
    request = CueRequest("cat", "boat", method=RECORDED_EFFECTS, rules=rules)
    expected = find_cues(replace(bundle, cues=known), session.clip, request)
    found = cues_of(session, "cat", "boat", way=RECORDED_EFFECTS)
    assert found.words == expected.words != []
    assert [cue.score for cue in found.positive] == pytest.approx(
        [cue.score for cue in expected.positive], rel=1e-4
    )
    assert all(cue.neurons for cue in found.positive)


def test_recorded_effects_are_compared_with_the_same_pictures_without_neurons(session):
    registry, ask = BundleRegistry([session]), dict(true="cat", fooled="boat", count=2)
    by_way = {way: handlers.attack(registry, **ask, way=way)["baselines"] for way in WAYS}
    for way, baselines in by_way.items():
        assert (RECORDED_EMBEDDINGS in baselines) is (way == RECORDED_EFFECTS)
        assert set(baselines) >= set(CONTROLS)


def test_effects_are_not_recorded_in_pictures_that_take_seconds(session, monkeypatch):
    monkeypatch.setenv(PAINTER_MODEL, "a/painter")
    with pytest.raises(ValueError, match="thousands of pictures"):
        cues_of(session, "cat", "dog", painter="a/painter", way=RECORDED_EFFECTS)


def test_pictures_come_in_batches_with_verdicts_and_are_checked(session):
    result, batches = forged(session)
    assert [len(batch) for batch in batches] == [10, 2]
    gallery = results.gallery_of(result.outcomes, "dog")
    assert len(gallery) == 12
    for (image, text), outcome in zip(gallery, result.outcomes, strict=True):
        assert image.size == (160, 160)
        assert ("read as dog" in text) is outcome.fooled
        assert outcome.objects[0] == "cat"
    page = results.rates_html(result, {})
    assert "known exactly" in page
    again, _ = forged(session)
    assert [o.margin for o in again.outcomes] == [o.margin for o in result.outcomes]


def test_rates_are_drawn_with_their_intervals(session):
    result, _ = forged(session)
    rates = {RECORDED_EMBEDDINGS: wilson(3, 10), "no cues": wilson(0, 10)}
    page = results.rates_html(result, rates)
    assert "without neurons" in page
    assert RECORDED_EMBEDDINGS not in page
    own = success_rate(result.outcomes)
    drawn = re.findall(r"--low:([\d.]+);--high:([\d.]+)", page)
    expected = [(rate.low, rate.high) for rate in (own, *rates.values())]
    assert [tuple(map(float, ends)) for ends in drawn] == [
        pytest.approx(ends, abs=1e-4) for ends in expected
    ]
    nothing = results.rates_html(result, {"no cues": wilson(0, 0)})
    assert nothing.count("cn-whisker") == 1, "no pictures, no interval"


def test_the_map_of_a_picture_read_rightly_is_no_mistake(session):
    result, _ = forged(session, count=1)
    wrong, right = (replace(result.outcomes[0], fooled=fooled) for fooled in (True, False))
    assert results.map_label(wrong, "dog") == "Where the mistake comes from"
    assert results.map_label(right, "dog") == "What speaks for dog"
    shown = replace(result, outcomes=(wrong, right))
    registry = BundleRegistry([session])
    labels = [handlers.explain(registry, shown, index).label for index in (0, 1)]
    assert labels == ["Where the mistake comes from", "What speaks for dog"]


def making(session, true, target, edited, filled_in, count=3):
    """What each round of `handlers.make` gives, by the components that the tab gives it to."""
    names = ("forged", "gallery", "rates", "box", "unknown", "described", "saved", "place",
             "cues", "filled_in", "behind", "said")  # fmt: skip
    settings = ([1, 2], 0, 25, "", TEMPLATES, PICTOGRAMS, "")
    asked = (true, target, edited, filled_in, count, 1, 0, *settings)
    rounds = handlers.make(BundleRegistry([session]), "", *asked)
    return [dict(zip(names, values, strict=True)) for values in rounds]


def test_cues_follow_the_names_unless_a_visitor_wrote_them(session):
    pairs = [("cat", "x"), ("cat", "boat"), ("dog", "seven"), ("cat", "music"), ("cat", "sun")]
    found = {pair: ", ".join(cues_of(session, *pair, neurons=0).words) for pair in pairs}
    old, new = next(
        (a, b) for a in pairs for b in pairs if found[a] and found[b] and found[a] != found[b]
    )
    first = making(session, *new, found[old], found[old])[0]
    assert first["cues"] == first["filled_in"] == found[new]
    assert (first["forged"].true_class, first["forged"].target_class) == new
    assert f"What pushes {new[0]} toward {new[1]}" in first["said"]
    drawn = {cue for outcome in first["forged"].outcomes for cue in outcome.description.cues}
    assert drawn <= set(found[new].split(", "))
    own = making(session, *new, "leash", found[old])[0]
    assert (own["cues"], own["filled_in"]) == ("leash", "")
    assert {c for o in own["forged"].outcomes for c in o.description.cues} == {"leash"}
    registry = BundleRegistry([session])
    gone = handlers.change_names(registry, "bone", "bone")
    assert gone[:3] == (None, "", "")
    assert [part.visible for part in gone[3:]] == [False, False]
    kept = handlers.change_names(registry, "leash", "bone")
    assert kept[1]["__type__"] == "update"
    assert "value" not in kept[1]


def test_baselines_and_the_zip_come_last(session):
    first, last = making(session, "cat", "dog", "bone", "")
    assert "no cues" not in first["rates"]
    assert "no cues" in last["rates"]
    assert (first["saved"].interactive, last["saved"].interactive) == (False, True)
    again = handlers.make_first(
        BundleRegistry([session]), "", first["forged"], ("cat", "dog"), "cat", "dog", "", "", 30
    )
    assert [len(update) for update in again] == [1], "what was made is not made again"


def test_names_that_the_page_offered_follow_the_bundle_and_a_visitors_own_stay(session):
    opening = pairs_of(session)[0]
    offered = ("ant", "lime")
    assert handlers.names_of(session, *offered, offered) == (*opening, opening)
    assert handlers.names_of(session, "ant", "house", offered) == ("ant", "house", offered)


def test_an_attack_is_data(session):
    registry = BundleRegistry([session])
    data = handlers.attack(registry, edited="bone, leash", count=4, each=2)
    assert (data["bundle"], data["true"], data["target"]) == ("tiny", "cat", "dog")
    assert data["cues"] == ["bone", "leash"]
    assert set(data["baselines"]) == set(CONTROLS)
    assert data["success"]["pictures"] == sum(one["counts"] for one in data["pictures"])
    low, high = data["success"]["interval"]
    assert 0 <= low <= data["success"]["rate"] <= high <= 1
    descriptions = descriptions_of(session, "cat", "dog", ["bone", "leash"], 4, 0, "templates", 2)
    outcomes = [o for batch in forge(session, "cat", "dog", descriptions, 0) for o in batch]
    for one, outcome in zip(data["pictures"], outcomes, strict=True):
        assert (one["margin"], one["fooled"]) == (outcome.margin, outcome.fooled)
        encoded = one["image"].removeprefix("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            assert image.tobytes() == outcome.image.tobytes()
    json.dumps(data)


def test_words_that_the_model_never_saw_are_told(session):
    with torch.no_grad():
        table = session.clip.model.token_embedding.weight
        kept = table.clone()
        table[session.clip.tokenizer(["zebra"])[0, 1]] = 0
    try:
        registry = BundleRegistry([session])
        assert handlers.find_cues(registry, fooled="zebra")["never_trained"] == ["zebra"]
        shown = making(session, "cat", "zebra", "bone", "", count=1)[0]
        assert "never saw “zebra” in training" in shown["unknown"]
        assert making(session, "cat", "dog", "bone", "", count=1)[0]["unknown"] == ""
    finally:
        with torch.no_grad():
            table.copy_(kept)


def test_controls_have_the_same_number_of_pictures(session):
    shares = []
    rates = controls(session, "cat", "dog", 5, 0, progress=shares.append)
    assert set(rates) == set(CONTROLS)
    assert all(rate.count == 5 for name, rate in rates.items() if name != "no cues")
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_the_map_and_the_zip(session):
    result, _ = forged(session, count=3)
    assert mistake_overlay(session, result, 2).size == (256, 256)
    with zipfile.ZipFile(zip_file(result)) as archive:
        assert archive.namelist() == ["000.png", "001.png", "002.png", "pictures.csv", "README.txt"]
        rows = list(csv.DictReader(io.StringIO(archive.read("pictures.csv").decode())))
        assert [r["description"] for r in rows] == [o.description.text for o in result.outcomes]
        assert "not for deceiving" in archive.read("README.txt").decode()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: cues_of(r, "", "dog"), "class name is empty"),
        (lambda r: cues_of(r, "cat", "x" * 100), "100 characters"),
        (
            lambda r: cues_of(r, "cat", "dog", painter="/etc/passwd"),
            "offers the painters",
        ),
        (lambda r: cues_of(r, "cat", "dog", words=1000), "1 to 200 words"),
        (
            lambda r: descriptions_of(r, "cat", "dog", [], 61, 0),
            "Between 1 and 60",
        ),
        (
            lambda r: descriptions_of(r, "cat", "dog", ["x"] * 51, 1, 0),
            "At most 50 cues",
        ),
        (
            lambda r: descriptions_of(r, "cat", "dog", ["x" * 99], 1, 0),
            "99 characters",
        ),
        (
            lambda r: descriptions_of(r, "cat", "dog", [], 1, 0, "x"),
            "offers the describ",
        ),
        (
            lambda r: list(forge(r, "sofa", "dog", [], 0)),
            "no pictogram of 'sofa'",
        ),
    ],
)
def test_mistakes_are_told(session, call, message):
    with pytest.raises(ValueError, match=message):
        call(session)


def test_words_are_split():
    assert split_words("a, b\nc,,a , ") == ["a", "b", "c"]
    assert split_words(None) == []  # what Gradio gives for an empty field


def test_models_are_the_owners_choice(session, tmp_path, monkeypatch):
    line = "a cat with a bone and a leash"
    chat = str(chat_folder(tmp_path / "chat", [line]))
    painter = str(painter_folder(tmp_path / "painter"))
    assert (describers(), painters()) == (
        ["templates"],
        ["pictograms"],
    )
    monkeypatch.setenv(CHAT_MODEL, chat)
    monkeypatch.setenv(PAINTER_MODEL, painter)
    assert describers() == ["templates", chat]
    assert painters() == ["pictograms", painter]
    found = descriptions_of(session, "cat", "dog", ["bone"], 1, 0, chat)
    assert [d.text for d in found] == [line]
    ((outcome,),) = forge(session, "cat", "dog", found, 0, painter)
    assert outcome.presence == "unchecked"


def test_the_bundles_own_pairs_are_offered_and_a_strangers_checked(tmp_path):
    def offered(shipped):
        bundle = replace(tiny_bundle(), opening={"pairs": shipped})
        return pairs_of(BundleSession("tiny", tmp_path, bundle))

    assert offered([["apple", "flower"]])[:2] == [("apple", "flower"), PAIRS[0]]
    assert len(offered([["apple", "flower"]])) == len(PAIRS)
    rows = (["cat"], ["cat", ""], ["a", "b", "c"], [1, 2], ["cat", "x" * 99], ["cat", "cat"], "ab")
    for wrong in (None, 1, "cat", *([row] for row in rows)):
        assert offered(wrong) == list(PAIRS)
    for pair in PAIRS:
        assert tuple(pair_of(pair_label(pair))) == pair
