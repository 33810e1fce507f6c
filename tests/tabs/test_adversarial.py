import base64
import csv
import gc
import io
import json
import logging
import re
import warnings
import zipfile
from dataclasses import asdict, replace

import gradio as gr
import pytest
import torch
from PIL import Image

from clipneurons.adversarial.attack import success_rate
from clipneurons.adversarial.cue_recorder import record_cues
from clipneurons.adversarial.cue_request import (
    NO_CUES,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SECOND_ORDER,
    SIMILAR_WORDS,
    CueFilter,
    CueRequest,
)
from clipneurons.adversarial.cues import find_cues
from clipneurons.bundle.bundle import save_bundle
from clipneurons.stats.intervals import wilson
from tabs.adversarial import handlers, view
from tabs.adversarial.attacks import (
    AUTOMATIC,
    CHAT_MODEL,
    IMAGE_MODEL,
    METHOD_CHOICES,
    PAIRS,
    Attack,
    AttackQuery,
    CueQuery,
    baseline_rates,
    composer_of,
    cues_of,
    describers,
    descriptions_of,
    draw,
    generators,
    pairs_of,
    similarity_of,
    split_texts,
    with_recordings,
)
from tabs.adversarial.layout import layout, pair_label, pair_of
from tabs.server.handlers import handler
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tests.helpers.packs import flat_composer
from tests.helpers.pipelines import chat_folder, painter_folder
from tests.helpers.tiny import tiny_bundle, tiny_clip

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # Gradio's own event loops, where components are built and nothing is served.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tab") / "bundle"
    clip = tiny_clip(folder)
    bundle = tiny_bundle(clip=clip)
    texts = ["bone", "leash", "palm tree", "poodle", *bundle.texts[4:]]
    embeddings = clip.encode_text(texts)
    bundle = replace(
        bundle, texts=texts, text_embeddings=embeddings, config=replace(bundle.config, model=".")
    )
    session = BundleSession("tiny", save_bundle(bundle, folder))
    session.cached("composer", lambda: flat_composer(32))
    return session


@pytest.fixture(scope="module")
def widgets(session):
    with gr.Blocks():
        yield layout(BundleRegistry([session]), gr.State(""))
    with warnings.catch_warnings(action="ignore"):  # Gradio closes no event loop of its own
        gc.collect()


def made(session, count=12):
    query = AttackQuery(images=count)
    descriptions = descriptions_of(session, query, ["bone", "leash"])
    batches = list(draw(session, query, descriptions))
    outcomes = tuple(outcome for batch in batches for outcome in batch)
    return Attack("tiny", "cat", "dog", RECORDED_EFFECTS, outcomes), batches


def values(widgets, **fields):
    """What the page sends, some fields of it changed."""
    given = {component: component.value for component in widgets.fields.values()}
    given |= {widgets.made: None, widgets.offered: widgets.offered.value}
    return given | {widgets.fields[name]: value for name, value in fields.items()}


def test_cues_can_be_drawn_and_lead_into_the_dictionary(session):
    # A random model says something drawable towards some names only.
    names = ("dog", "x", "boat", "tree", "car", "sun", "key", "a red hat", "seven", "music")
    queries = (CueQuery(target_class=name) for name in names)
    query, cues = next((q, c) for q in queries if (c := cues_of(session, q)).texts)
    assert set(cues.texts) <= {"bone", "leash", "palm tree", "poodle"}
    less = cues_of(session, replace(query, blocked=cues.texts[0]))
    assert less.texts == cues.texts[1:]
    page = view.cues_html(session, cues)
    unit = cues.positive[0].units[0]
    assert f"?tab=explore&amp;layer={unit.layer}&amp;unit={unit.unit}" in page
    assert f">{unit.layer} · {unit.unit}</a>" in page
    assert "similarity" in view.more_cues_html(cues, similarity_of(session).name)
    odd = replace(cues, positive=(replace(cues.positive[0], text="a jeans"),))
    assert ">jeans<" in view.cues_html(session, odd)
    assert "try another pair" in view.cues_html(session, replace(cues, positive=()))
    data = cues.to_dict()
    assert [row["text"] for row in data["toward"]] == cues.texts
    assert data["toward"][0]["units"][0]["unit"] == unit.unit


def test_cues_come_from_the_chosen_method(session):
    """Recorded effects as the library finds them, from images drawn once for all pairs."""
    for method in METHOD_CHOICES:
        expected = SECOND_ORDER if method == AUTOMATIC else method
        assert cues_of(session, CueQuery(method=method)).method == expected
    query = CueQuery(target_class="boat", method=RECORDED_EFFECTS, count=25)
    recorded = with_recordings(session, query)
    assert with_recordings(session, query) is recorded
    composer, bundle = composer_of(session), session.bundle
    known = record_cues(bundle, session.lens, composer, composer.concept, composer.concepts)
    assert recorded.cues.row.tolist() == known.row.tolist()
    rules = CueFilter(similarity_of(session), (), composer.drawable("boat"))
    request = CueRequest("cat", "boat", method=RECORDED_EFFECTS, rules=rules)
    expected = find_cues(replace(bundle, cues=known), session.clip, request)
    cues = cues_of(session, query)
    assert cues.texts == expected.texts != []
    assert cues_of(session, replace(query, layers=[2])) != cues
    assert [cue.score for cue in cues.positive] == pytest.approx(
        [cue.score for cue in expected.positive], rel=1e-4
    )
    assert all(cue.units for cue in cues.positive)


def test_each_method_is_compared_with_its_control_and_the_papers(session):
    registry = BundleRegistry([session])
    expected = {
        AUTOMATIC: {SIMILAR_WORDS, NO_CUES},  # second-order here
        SECOND_ORDER: {SIMILAR_WORDS, NO_CUES},
        RECORDED_EFFECTS: {RECORDED_EMBEDDINGS, SECOND_ORDER, SIMILAR_WORDS, NO_CUES},
    }
    for method, baselines in expected.items():
        query = AttackQuery(target_class="boat", method=method, images=2)
        data = handlers.attack(registry, *asdict(query).values())
        assert set(data["baselines"]) == baselines


def test_effects_are_not_recorded_in_images_that_take_seconds(session, monkeypatch):
    monkeypatch.setenv(IMAGE_MODEL, "a/model")
    with pytest.raises(ValueError, match="thousands of images"):
        cues_of(session, CueQuery(method=RECORDED_EFFECTS, generator="a/model"))


def test_images_come_in_batches_with_verdicts_and_are_checked(session):
    attack, batches = made(session)
    assert [len(batch) for batch in batches] == [10, 2]
    gallery = view.gallery_of(attack)
    assert len(gallery) == 12
    for (image, text), outcome in zip(gallery, attack.outcomes, strict=True):
        assert image.size == (160, 160)
        assert ("read as dog" in text) is outcome.fooled
        assert outcome.objects[0] == "cat"
    assert "known exactly" in view.rates_html(attack, {})
    again, _ = made(session)
    assert [o.margin for o in again.outcomes] == [o.margin for o in attack.outcomes]


def test_rates_are_drawn_with_their_intervals_and_the_control_is_named(session):
    attack, _ = made(session)
    rates = {RECORDED_EMBEDDINGS: wilson(3, 10), NO_CUES: wilson(0, 10)}
    page = view.rates_html(attack, rates)
    assert "same cue images, no neurons (control)" in page
    assert "about as often as their control" in page
    assert "about as often" not in view.rates_html(attack, {NO_CUES: wilson(0, 10)})
    own = success_rate(attack.outcomes)
    drawn = re.findall(r"--low:([\d.]+);--high:([\d.]+)", page)
    expected = [(rate.low, rate.high) for rate in (own, *rates.values())]
    assert [tuple(map(float, ends)) for ends in drawn] == [
        pytest.approx(ends, abs=1e-4) for ends in expected
    ]
    nothing = view.rates_html(attack, {NO_CUES: wilson(0, 0)})
    assert nothing.count("cn-whisker") == 1, "no images, no interval"


def test_the_map_of_an_image_read_correctly_is_no_mistake(session):
    attack, _ = made(session, count=1)
    wrong, right = (replace(attack.outcomes[0], fooled=fooled) for fooled in (True, False))
    shown = replace(attack, outcomes=(wrong, right))
    registry = BundleRegistry([session])
    labels = [handlers.explain(registry, shown, index).label for index in (0, 1)]
    assert labels == ["Where the mistake comes from", "What speaks for dog"]


def test_cues_follow_the_names_unless_a_visitor_wrote_them(session, widgets):
    registry = BundleRegistry([session])

    def first(**fields):
        asked = values(widgets, images=3, cues_per_image=1, method=RECORDED_EFFECTS, **fields)
        return next(handlers.make(widgets, registry, asked))

    def drawn(updates):
        return {cue for o in updates[widgets.made].outcomes for cue in o.description.cues}

    updates = first(target_class="boat")
    found = cues_of(session, CueQuery(target_class="boat", method=RECORDED_EFFECTS))
    assert updates[widgets.made].target_class == "boat"
    assert "Cues toward boat" in updates[widgets.cues]
    assert set() != drawn(updates) <= set(found.texts)
    own = first(target_class="boat", cues="leash")
    assert drawn(own) == {"leash"}
    assert view.OWN_CUES in own[widgets.cues]
    assert own[widgets.made].method == ""
    gone = handlers.clear(widgets, registry)
    assert (gone[widgets.made], gone[widgets.cues], gone[widgets.box].visible) == (None, "", False)
    assert widgets.fields["cues"] not in gone


def test_baselines_and_the_zip_come_last(session, widgets):
    registry = BundleRegistry([session])
    first, last = handlers.make(widgets, registry, values(widgets, images=3))
    assert "no cues" not in first[widgets.rates]
    assert "no cues" in last[widgets.rates]
    assert not first[widgets.saved].interactive
    assert last[widgets.saved].interactive
    shown = values(widgets) | {widgets.made: first[widgets.made]}
    assert list(handlers.make_first(widgets, registry, shown)) == [{widgets.made: gr.skip()}], (
        "what was made is not made again"
    )


def test_names_that_the_page_offered_follow_the_bundle_and_a_visitors_own_stay(session, widgets):
    registry = BundleRegistry([session])
    true, target = widgets.fields["true_class"], widgets.fields["target_class"]
    offered = {widgets.offered: ("ant", "lime"), true: "ant", target: "lime"}
    changed = handlers.change_bundle(widgets, registry, values(widgets) | offered)
    assert (changed[true], changed[target]) == changed[widgets.offered] == pairs_of(session)[0]
    changed = handlers.change_bundle(
        widgets, registry, values(widgets) | offered | {target: "house"}
    )
    assert (changed[true], changed[target]) == ("ant", "house")


def test_layers_of_the_last_bundle_are_left_out_on_the_page(session, widgets):
    registry = BundleRegistry([session])
    found = [
        handlers.find(widgets, registry, values(widgets, layers=layers, cues=None))[widgets.cues]
        for layers in ([1, 2], ["1", 2, 9], [9], [], None)
    ]
    assert len(set(found)) == 1


def test_an_attack_is_data(session):
    registry = BundleRegistry([session])
    query = AttackQuery(cues="bone, leash", images=4, cues_per_image=2)
    data = handlers.attack(registry, *asdict(query).values())
    assert (data["bundle"], data["true_class"], data["target_class"]) == ("tiny", "cat", "dog")
    assert data["cues"] == ["bone", "leash"]
    assert data["method"] == "own cues"
    assert set(data["baselines"]) == {SECOND_ORDER, SIMILAR_WORDS, NO_CUES}
    assert data["success"]["images"] == sum(image["counts"] for image in data["images"])
    low, high = data["success"]["interval"]
    assert 0 <= low <= data["success"]["rate"] <= high <= 1
    descriptions = descriptions_of(session, query, ["bone", "leash"])
    outcomes = [o for batch in draw(session, query, descriptions) for o in batch]
    for row, outcome in zip(data["images"], outcomes, strict=True):
        assert (row["margin"], row["fooled"]) == (outcome.margin, outcome.fooled)
        encoded = row["image"].removeprefix("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            assert image.tobytes() == outcome.image.tobytes()
    json.dumps(data)


def test_words_that_the_model_never_saw_are_told(session, widgets):
    with torch.no_grad():
        table = session.clip.model.token_embedding.weight
        kept = table.clone()
        table[session.clip.tokenizer(["zebra"])[0, 1]] = 0
    registry = BundleRegistry([session])

    def shown(target):
        asked = values(widgets, target_class=target, cues="bone", images=1)
        return next(handlers.make(widgets, registry, asked))[widgets.unknown]

    try:
        assert handlers.find_cues(registry, "", "cat", "zebra")["never_trained"] == ["zebra"]
        assert "never saw “zebra” in training" in shown("zebra")
        assert shown("dog") == ""
    finally:
        with torch.no_grad():
            table.copy_(kept)


def test_baselines_have_the_same_number_of_images(session):
    shares = []
    query = AttackQuery(images=5)
    rates = baseline_rates(session, query, RECORDED_EFFECTS, shares.append)
    assert list(rates) == [RECORDED_EMBEDDINGS, SECOND_ORDER, SIMILAR_WORDS, NO_CUES]
    assert rates[RECORDED_EMBEDDINGS].count == 5
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_the_map_and_the_zip(session):
    attack, _ = made(session, count=3)
    assert view.mistake_overlay(session, attack, 2).size == (256, 256)
    with zipfile.ZipFile(view.zip_file(attack)) as archive:
        assert archive.namelist() == ["000.png", "001.png", "002.png", "images.csv", "README.txt"]
        rows = list(csv.DictReader(io.StringIO(archive.read("images.csv").decode())))
        assert [r["description"] for r in rows] == [o.description.text for o in attack.outcomes]
        assert "not for deceiving" in archive.read("README.txt").decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"true_class": ""}, "the class name is empty"),
        ({"true_class": ["cat"]}, "the class name must be a text, not list"),
        ({"target_class": None}, "the class name must be a text, not NoneType"),
        ({"target_class": "x" * 100}, "100 characters: expected at most 60"),
        ({"target_class": "word " * 500_000}, "2499999 characters: expected at most 60"),
        ({"target_class": "cats"}, "two different classes"),
        ({"generator": "/etc/passwd"}, "image generator must be one of pictograms, not"),
        ({"describer": "x"}, "describer must be one of templates, not 'x'"),
        ({"method": "by chance"}, "method must be one of automatic, second-order"),
        ({"method": ["x"] * 1000}, "method must be one of"),
        ({"count": 1000}, "count must be a whole number from 1 to 50, not 1000"),
        ({"count": float("nan")}, "count must be a whole number from 1 to 50, not nan"),
        ({"images": float("inf")}, "images must be a whole number from 1 to 60, not inf"),
        ({"images": 61}, "images must be a whole number from 1 to 60, not 61"),
        ({"images": "7"}, "images must be a whole number"),
        ({"images": None}, "images must be a whole number"),
        ({"images": True}, "images must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": 10**400}, "seed must be a whole number"),
        ({"neurons": []}, "neurons must be a whole number"),
        ({"cues_per_image": -1}, "cues per image must be a whole number from 0 to 6"),
        ({"layers": "all"}, "layers must be a list of whole numbers"),
        ({"layers": [[1]]}, "layers must be a list of whole numbers"),
        ({"layers": [1] * 300_000}, "layers must be a list of whole numbers"),
        ({"layers": [7]}, r"expected layers among \[1, 2\]"),
        ({"cues": ["bone"]}, "the cues must be a text with commas, not list"),
        ({"cues": "x," * 100_000}, "the cues have 200000 characters: expected at most 4000"),
        ({"cues": ",".join(map(str, range(51)))}, "expected at most 50 cues, not 51"),
        ({"cues": "x" * 99}, "the cue 'x.*99 characters"),
        ({"blocked": 7}, "the blocked words must be a text with commas, not int"),
        ({"blocked": "x" * 2000}, "the blocked words have 2000 characters"),
        ({"true_class": "sofa"}, "no pictogram of 'sofa'"),
        ({"bundle": ["x"]}, "bundle must be a text"),
    ],
)  # fmt: skip
def test_wrong_requests_are_one_line_and_leave_no_trace(session, caplog, capsys, change, message):
    asked = {name: field.default for name, field in AttackQuery.__dataclass_fields__.items()}
    endpoint = handler(BundleRegistry([session]), handlers.attack)
    with caplog.at_level(logging.DEBUG), pytest.raises(gr.Error, match=message) as told:
        endpoint(*(asked | change).values())
    assert not told.value.print_exception
    assert len(told.value.message.splitlines()) == 1
    assert len(told.value.message) < 300
    assert "Traceback" not in caplog.text + "".join(capsys.readouterr())


def test_texts_are_split():
    assert split_texts("a, b\nc,,a ; d; ") == ["a", "b", "c", "d"]
    assert split_texts("") == []


def test_models_are_the_owners_choice(session, tmp_path, monkeypatch):
    line = "a cat with a bone and a leash"
    chat = str(chat_folder(tmp_path / "chat", [line]))
    model = str(painter_folder(tmp_path / "model"))
    assert (describers(), generators()) == (["templates"], ["pictograms"])
    monkeypatch.setenv(CHAT_MODEL, chat)
    monkeypatch.setenv(IMAGE_MODEL, model)
    assert describers() == ["templates", chat]
    assert generators() == ["pictograms", model]
    query = AttackQuery(images=1, describer=chat, generator=model)
    descriptions = descriptions_of(session, query, ["bone"])
    assert [d.text for d in descriptions] == [line]
    ((outcome,),) = draw(session, query, descriptions)
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
