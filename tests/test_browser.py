"""The page as a visitor meets it, in headless Chromium.

Where the variable SCREENSHOTS names a folder, pictures of the page are left in it.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app import TABS
from clipneurons.bundle.bundle import load_bundle, save_bundle
from tabs.adversarial.attacks import IMAGES
from tests.helpers.app_server import ROOT, running_app
from tests.helpers.hub_standin import Repository, serve
from tests.helpers.tiny import tiny_bundle_folder, tiny_webp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = os.environ.get("SCREENSHOTS")
BUNDLED = ROOT / "artifacts" / "mini-vit"
PATIENCE = 60_000  # ms; a busy machine with two cores
_NAMES = ("true", "target")  # of the adversarial tab

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The bundled model where it is there, a tiny one of random numbers elsewhere."""
    folder = BUNDLED
    if not (BUNDLED / "config.json").is_file():
        folder = tiny_bundle_folder(tmp_path_factory.mktemp("bundles") / "tiny")
    with running_app([folder], tmp_path_factory.mktemp("app") / "log.txt") as (address, _):
        yield address


@pytest.fixture(scope="module")
def two_bundles(tmp_path_factory):
    """The address of a page with two tiny bundles, "one" and "two", of which the second says what
    it opens with."""
    root = tmp_path_factory.mktemp("two")
    folders = [tiny_bundle_folder(root / name) for name in ("one", "two")]
    second = replace(load_bundle(folders[1]), opening={"pairs": [["ship", "rabbit"]]})
    save_bundle(second, folders[1])
    with running_app(folders, root / "log.txt") as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser():
    """One profile for all pages: what the page's scripts are compiled to is kept."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium.new_context(reduced_motion="reduce")
        chromium.close()


@pytest.fixture
def visit(browser, request):
    """Opens a page; afterwards no script may have failed, no outside host been asked, and no
    request of the page's own been one that the server does not understand."""
    pages, errors, outside, refused = [], [], [], []

    def opened(query: str = "", width: int = 1440, address: str = ""):
        address = address or request.getfixturevalue("address")
        page = browser.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda request: (
                outside.append(request.url)
                if request.url.startswith("http") and not request.url.startswith(address)
                else None
            ),
        )
        page.on(
            "response",
            lambda answer: (
                refused.append((answer.url, answer.request.post_data))
                if answer.status == 422
                else None
            ),
        )
        page.goto(address + "/" + query, wait_until="domcontentloaded")
        page.wait_for_selector("#explore-card .cn-card", state="attached")
        page.wait_for_function("window.cnCard")  # what the address asks for has been drawn
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert errors == []
    assert outside == []
    assert refused == []


def shoot(page, name: str) -> None:
    """Let the page come to rest, and take a picture where pictures are wanted."""
    page.wait_for_timeout(100)
    if SCREENSHOTS:
        page.wait_for_timeout(400)
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


def fits(page) -> bool:
    """Whether nothing sticks out to the right."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def narrow(page) -> None:
    """The page as wide as a phone."""
    page.set_viewport_size({"width": 390, "height": 900})


def place(page) -> str:
    return page.inner_text("#explore-card .cn-place")


def shows(page, unit: int) -> None:
    page.wait_for_function(
        "text => document.querySelector('#explore-card .cn-place').innerText.endsWith(text)",
        arg=f"neuron {unit}",
    )


_PIXELS = """async image => {
  await image.decode();
  const canvas = Object.assign(document.createElement('canvas'), { width: 8, height: 8 });
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0, 8, 8);
  return [...context.getImageData(0, 0, 8, 8).data];
}"""
_IN_VIEW = """selector => {
  const box = document.querySelector(selector).getBoundingClientRect();
  return box.top >= 0 && box.bottom <= innerHeight;
}"""


def test_the_first_page_shows_a_neuron_that_says_something(visit, address):
    page = visit()
    assert page.locator("#explore-card .cn-bars li").count() >= 3
    assert page.locator("#explore-card img").count() >= 3
    assert all(page.locator("#explore-card img").evaluate_all("all => all.map(i => i.alt)"))
    assert "tab=explore&layer=" in page.url
    shoot(page, "explore-1440")
    assert fits(page)
    bundle = httpx.post(f"{address}/gradio_api/call/about", json={"data": [""]}, trust_env=False)
    answer = httpx.get(
        f"{address}/gradio_api/call/about/{bundle.json()['event_id']}", trust_env=False
    )
    config = json.loads(answer.text.split("data: ", 1)[1])[0]["config"]
    page.click("#bundle-about summary")
    line = page.inner_text("#bundle-about")
    assert config["data"]["name"] in line
    assert f"{config['data']['count']:,} images" in line
    dots = page.locator("footer .divider >> visible=true")
    for number in range(dots.count()):
        assert dots.nth(number).evaluate("dot => dot.matches(':has(+ a, + button)')")


def test_every_tab_opens_by_a_click_and_starts_on_the_first_screen_of_a_phone(visit):
    page = visit()
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("scrollTo(0, 0)")
        assert page.locator("#tab-explore-button").first.bounding_box()["y"] < 640
        for tab in TABS[1:]:
            # On a phone the last tabs are behind a button.
            page.locator(f"#tab-{tab}-button").first.evaluate("button => button.click()")
            page.wait_for_url(f"**tab={tab}**")
            shoot(page, f"{tab}-{width}")
            assert fits(page), (tab, width)


def test_next_back_button_and_permanent_link(visit):
    page = visit()
    first = place(page)
    unit = int(first.rsplit(" ", 1)[1])
    page.click("#explore-next")
    shows(page, unit + 1)
    link = page.url
    assert f"unit={unit + 1}" in link
    page.click("#explore-next")
    shows(page, unit + 2)
    page.go_back()
    shows(page, unit + 1)
    page.go_back()
    shows(page, unit)
    page.go_forward()
    shows(page, unit + 1)
    again = visit(link[link.index("?") :])
    shows(again, unit + 1)
    assert again.input_value("#explore-unit input") == str(unit + 1)


def test_search_leads_to_a_neuron_and_is_in_the_link(visit):
    page = visit()
    page.click("#explore-try a >> nth=-1")
    page.wait_for_selector("#explore-results .cn-block")
    query = page.input_value("#explore-query input, #explore-query textarea")
    assert ", -" in query
    shoot(page, "search-1440")
    hit = page.locator("#explore-results a >> nth=1")
    unit = int(re.match(r"\d+ · (\d+)", hit.inner_text())[1])
    hit.click()
    shows(page, unit)
    assert "q=" in page.url
    again = visit(page.url[page.url.index("?") :], width=390)
    again.wait_for_selector("#explore-results .cn-block")
    shoot(again, "search-390")
    assert fits(again)


def test_the_table_of_all_neurons_is_sorted_saved_and_leads_to_a_card(visit):
    page = visit()
    page.click("#explore-all button >> nth=0")
    strongest = "#explore-table th:last-child"
    page.wait_for_selector(strongest)
    shoot(page, "table-1440")
    cell = page.locator("#explore-table tbody td:nth-child(2)").first
    cell.scroll_into_view_if_needed()
    assert not page.evaluate(_IN_VIEW, "#explore-card .cn-place")
    cell.click()
    shows(page, 0)
    page.wait_for_function(_IN_VIEW, arg="#explore-card .cn-place")

    def sorted_as(order: str) -> list[float]:
        page.click(f"{strongest} button")
        page.wait_for_selector(f"{strongest}[aria-sort={order}]")
        cells = page.locator("#explore-table tbody td:last-child").all_inner_texts()
        return [float(cell) for cell in cells]

    down, up = sorted_as("descending"), sorted_as("ascending")
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)
    assert down[0] > up[0]
    with page.expect_download() as download:
        page.click("#explore-csv")
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("unit,label,simulation")


def holds(page, field: str, text: str) -> None:
    page.wait_for_function(
        "([field, text]) => document.querySelector(field).value === text", arg=[field, text]
    )


def test_a_number_field_comes_back_to_the_neuron_that_is_shown(visit):
    page, field = visit(), "#explore-unit input"
    for key, number, unit in (("Enter", "3.7", 4), ("Tab", "5.6", 6)):
        page.fill(field, number)
        page.keyboard.press(key)
        shows(page, unit)
        holds(page, field, str(unit))
        page.fill(field, "")
        page.keyboard.press(key)
        holds(page, field, str(unit))
    page.fill(field, "999999")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=not 999999")
    page.wait_for_function("document.querySelector('#explore-unit input').value !== '999999'")
    shows(page, int(page.input_value(field)))


def test_a_number_typed_while_an_earlier_one_is_looked_up_is_the_one_shown(visit):
    page, field = visit(), "#explore-unit input"
    for unit in (5, 7, 6, 3):
        page.fill(field, str(unit))
        page.keyboard.press("Enter")
    shows(page, 3)
    page.wait_for_timeout(1500)  # an earlier one may still be on its way
    shows(page, 3)
    holds(page, field, "3")


def test_number_fields_of_other_tabs_hold_what_counts(visit):
    page = visit("?tab=adversarial")
    page.click("#adversarial-advanced button >> nth=0")
    for name, typed, counts in (
        ("count", "3.7", "4"), ("count", "", "4"), ("images", "7.6", "8"), ("images", "", "8"),
        ("images", "900", "60"),
    ):  # fmt: skip
        field = f"#adversarial-{name} input[type=number]"
        page.fill(field, typed)
        page.keyboard.press("Tab")
        holds(page, field, counts)


def test_a_fold_stays_open_when_the_dashboard_is_drawn_again(visit):
    page, fold = visit(), "#explore-card details:has(> summary:text('Activation intervals'))"
    assert page.get_attribute(fold, "open") is None
    page.click(f"{fold} > summary")
    page.check("#explore-fires input")
    page.wait_for_selector("#explore-card .cn-lit .cn-map")
    assert page.locator(f"{fold} img").first.is_visible()
    unit = int(place(page).rsplit(" ", 1)[1])
    page.click("#explore-next")
    shows(page, unit + 1)
    page.wait_for_selector(f"{fold}[open]")


def test_ten_quick_clicks_move_ten_units_and_arrow_keys_one(visit):
    page = visit()
    unit = int(place(page).rsplit(" ", 1)[1])
    for _ in range(10):
        page.click("#explore-card [data-step=next]", no_wait_after=True)
    shows(page, unit + 10)
    page.locator("#explore-card h2").click()
    page.keyboard.press("ArrowLeft")
    shows(page, unit + 9)


def test_a_word_of_a_dashboard_is_searched_and_the_dashboard_stays(visit):
    page = visit()
    before = place(page)
    page.locator("#explore-card .cn-bars a").first.click()
    page.wait_for_selector("#explore-results .cn-block")
    page.wait_for_timeout(500)
    assert place(page) == before
    assert page.evaluate(_IN_VIEW, "#explore-results h3")


def test_what_is_typed_while_the_page_loads_stays(browser, address):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    held, typed = [], []
    page.route("**/queue/join**", lambda route: route.continue_() if typed else held.append(route))
    page.goto(address, wait_until="domcontentloaded")
    field = page.locator("#explore-query input, #explore-query textarea")
    field.press_sequentially("leopard")
    typed.append("leopard")
    for route in held:
        route.continue_()
    page.wait_for_function("window.cnCard")
    page.wait_for_timeout(500)
    assert field.input_value() == "leopard"
    page.close()


def test_units_on_the_map_are_found_by_pointer_keyboard_and_search(visit):
    page = visit()
    if page.locator(".cn-nomap").count():
        pytest.skip("the bundle has no map")
    page.wait_for_selector(".cn-atlas[data-ready]")
    canvas = page.locator(".cn-stage canvas")
    canvas.focus()
    before = place(page)
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".cn-tip img >> nth=3")
    assert page.inner_text(".cn-tip b")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "text => document.querySelector('#explore-card .cn-place').innerText !== text", arg=before
    )
    page.click("#explore-try a >> nth=0")
    page.wait_for_selector(".cn-atlas [role=status]:text('units found')")
    shoot(page, "map-1440")
    page.select_option(".cn-atlas select", index=1)
    page.check(".cn-atlas input")
    page.go_back()


def test_an_image_of_the_mosaic_lists_the_units_that_see_it(visit):
    page = visit()
    page.locator(".cn-tiles button").first.click()
    link = page.locator(".cn-seen a").first
    unit = int(link.inner_text().split(" · ")[1].split()[0])
    link.click()
    shows(page, unit)


def test_the_line_on_top_is_one_line_and_a_picture_is_on_the_first_screen_of_a_phone(visit):
    for width, height in ((1280, 900), (390, 844)):
        page = visit(width=width)
        page.set_viewport_size({"width": width, "height": height})
        assert page.locator("#top").bounding_box()["height"] <= 60
        image = page.locator("#explore-card .cn-gallery img").first.bounding_box()
        assert image["y"] + 40 < height
        assert fits(page)


def test_no_view_has_serious_faults_of_accessibility(visit):
    from axe_playwright_python.sync_playwright import Axe

    page, axe, lasting = visit(), Axe(), []
    for tab in TABS:
        page.click(f"#tab-{tab}-button")
        for _ in range(4):  # what Gradio shows while an example is read passes
            page.wait_for_timeout(2500)
            faults = [
                (tab, fault["id"], node["html"][:120])
                for fault in axe.run(page).response["violations"]
                if fault["impact"] in ("serious", "critical")
                for node in fault["nodes"]
            ]
            if not faults:
                break
        lasting += faults
    assert not lasting, lasting


@pytest.mark.parametrize("tab", ["Concepts", "Segmentation", "Edit"])
def test_a_picture_of_a_card_opens_in_another_tab(visit, tab):
    page = visit()
    sent = page.locator("#explore-card .cn-gallery img").first.evaluate(_PIXELS)
    page.locator("#explore-card .cn-gallery summary").first.click()
    page.locator(f"#explore-card .cn-open >> text={tab}").first.click()
    picture = f"#{tab.lower()}-image img"
    page.wait_for_selector(picture)
    page.wait_for_timeout(1500)  # in which an example would take its place
    if tab == "Concepts":
        read = page.locator("#concepts-result .cn-picture img").first
        read.wait_for()
        assert read.evaluate(_PIXELS) == pytest.approx(sent, abs=60), "the result is of this image"
    assert "picture=" in page.url
    came = page.locator(picture).first.evaluate(_PIXELS)
    assert came == pytest.approx(sent, abs=40), "the picture that was sent, not an example"


def test_an_image_goes_on_to_words_and_edits_with_its_classes(visit):
    page = visit("?tab=concepts")
    image = Image.radial_gradient("L").convert("RGB").resize((400, 100))
    upload(page, "#concepts-image", image)
    page.wait_for_selector("#concepts-result .cn-cropped >> text=25% of this image")
    page.wait_for_function("location.search.includes('picture=own')")
    page.click("#concepts-to-edit")
    page.wait_for_selector("#edit-result .cn-edit")
    names = page.input_value("#edit-names textarea, #edit-names input")
    nearest = page.locator("#concepts-result .cn-clip b").first.text_content()
    assert names.split(", ")[0] == nearest
    page.wait_for_function("location.search.includes('picture=own')")
    page.click("#tab-concepts-button")
    page.click("#concepts-to-words")
    page.wait_for_selector("#segmentation-presence li")
    assert page.input_value("#segmentation-words textarea, #segmentation-words input") in names
    again = visit("?tab=edit&picture=own&names=cat,dog")
    again.wait_for_selector("#edit-result >> text=no image of your own")


def test_a_folder_of_images_becomes_confusions_and_an_image_of_them_an_edit(visit, tmp_path):
    page = visit("?tab=confusions")
    for name in ("ship", "rabbit", "guitar"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for seed in range(3):
            (tmp_path / "set" / name / f"{seed}.webp").write_bytes(tiny_webp(seed + len(name)))
    page.set_input_files("#confusions-folder", tmp_path / "set")
    page.wait_for_selector("#confusions-files >> text=rabbit")
    page.click("#confusions-go")
    page.wait_for_selector("#confusions-matrix table")
    assert page.locator(".cn-matrix tbody tr").count() == 3
    page.click("#confusions-images .thumbnail-item >> nth=0")
    page.wait_for_selector("#edit-result .cn-edit")
    names = page.input_value("#edit-names textarea, #edit-names input")
    assert set(names.split(", ")) == {"ship", "rabbit", "guitar"}


@pytest.mark.parametrize("width", [1280, 390])
def test_the_example_of_confusions_is_measured_without_its_units(visit, width):
    page = visit("?tab=confusions", width=width)
    page.click("#confusions-example")
    page.wait_for_selector("#confusions-units li")
    page.click("#confusions-ablate")
    page.wait_for_selector("#confusions-ablation >> text=random neurons")
    assert fits(page)
    shoot(page, f"confusions-{width}")


def test_favourites_are_kept_in_the_address_and_stay_when_links_lead_on(visit):
    page = visit()
    unit = int(place(page).rsplit(" ", 1)[1])
    page.click("#explore-keep")
    page.wait_for_url("**fav=**")
    page.wait_for_selector(f"#explore-kept a >> text=· {unit} ")
    page.click("#explore-next")
    shows(page, unit + 1)
    page.click("#explore-card summary >> text=Similar units")
    page.locator("#explore-card .cn-wide a").first.click()
    page.wait_for_function("unit => !location.search.includes('unit=' + unit)", arg=unit + 1)
    assert "fav=" in page.url
    link = page.url[page.url.index("?") :]
    page.click("#tab-edit-button")
    page.wait_for_selector("#edit-result .cn-edit")
    page.wait_for_function(
        "['tab=edit', 'names=', 'fav='].every(part => location.search.includes(part))"
    )
    again = visit(link)
    again.locator("#explore-kept a").first.click()
    shows(again, unit)
    again.wait_for_selector("#explore-keep >> text=★")
    again.click("#explore-keep")
    again.wait_for_function("!location.search.includes('fav=')")


@pytest.mark.parametrize("tab", ["concepts", "segmentation"])
def test_a_link_brings_a_picture_of_another_bundle(visit, two_bundles, tab):
    page = visit(f"?tab={tab}&bundle=two&picture=5", address=two_bundles)
    page.wait_for_selector(f"#{tab}-image img")
    page.wait_for_timeout(1500)  # in which an example would take its place
    pixels = page.locator(f"#{tab}-image img").first.evaluate(_PIXELS)
    with Image.open(io.BytesIO(tiny_webp(5))) as sent:
        middle = pixels[4 * (4 * 8 + 4) :][:3]
        assert middle == pytest.approx(sent.convert("RGB").getpixel((8, 8)), abs=12)


def test_another_bundle_is_in_the_address_of_every_tab(visit, two_bundles):
    page = visit("?tab=about&picture=5", address=two_bundles)
    choose_bundle(page, "two")
    page.wait_for_function("location.search === '?tab=about&bundle=two'")


def choose_bundle(page, name: str) -> None:
    page.click("#bundle input")
    page.locator(f"[role=option] >> text={name}").first.click()


def test_the_link_of_any_tab_is_copied(visit):
    page = visit("?tab=about")
    page.evaluate("navigator.clipboard.writeText = async text => { window.copied = text }")
    page.locator("#top .cn-copy").click()
    page.wait_for_function("window.copied === location.href")
    page.wait_for_selector("#top .cn-copy >> text=Copied")
    page.wait_for_selector("#top .cn-copy [role=status]:empty", state="attached")


def test_the_vocabulary_is_offered_while_one_types(visit):
    page = visit()
    page.fill("#explore-query input, #explore-query textarea", " -, ")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Type what to look for")
    assert "Traceback" not in page.content()
    page.fill("#explore-query input, #explore-query textarea", "")
    page.focus("#explore-query input, #explore-query textarea")
    page.keyboard.type(page.inner_text("#explore-try a >> nth=0")[:3])
    page.wait_for_selector("#explore-try >> text=In the vocabulary")
    page.locator("#explore-try a").first.click()
    page.wait_for_selector("#explore-results .cn-block")


def test_where_a_neuron_fires_lies_over_its_pictures_and_its_card_can_be_saved(visit):
    page = visit()
    page.check("#explore-fires input")
    lit = page.locator("#explore-card .cn-lit .cn-map").first
    lit.wait_for()
    assert lit.evaluate("e => getComputedStyle(e).opacity") == "1"
    shoot(page, "fires-1440")
    page.locator("#explore-card .cn-lit").first.hover()
    page.wait_for_function(
        "getComputedStyle(document.querySelector('#explore-card .cn-map')).opacity === '0'"
    )
    with page.expect_download() as download:
        page.click("#explore-json")
    card = json.loads(Path(download.value.path()).read_text())
    assert f"neuron {card['unit']}" in place(page)
    with page.expect_download() as download:
        page.click("#explore-png")
    with Image.open(download.value.path()) as picture:
        assert picture.size == (1200, 675)
        if SCREENSHOTS:
            picture.save(Path(SCREENSHOTS) / "card.png")


_OPACITY = "getComputedStyle(document.querySelector('.cn-picture .cn-map-0')).opacity"


def test_concepts_of_an_example_light_up_and_lead_into_the_dictionary(visit):
    page = visit("?tab=concepts")
    if (BUNDLED / "examples" / "opening.json").is_file():
        page.wait_for_selector("#concepts-result .cn-look")
    # Its title, not its HTML: that changes already when the progress bar is drawn over it.
    title = "(document.querySelector('#concepts-result h2') || {}).innerText"
    before = page.evaluate(title)
    page.click("#concepts-examples .thumbnail-item >> nth=1")
    page.wait_for_function(
        f"before => ({title} && {title} !== before)"
        " || document.querySelector('#concepts-result .cn-empty')",
        arg=before,
    )
    if page.locator("#concepts-result .cn-look").count() == 0:
        shoot(page, "concepts-none-1440")
        return  # random weights may find nothing in a flat colour
    first = page.locator(".cn-choices input").first
    page.mouse.move(0, 0)  # what the pointer rests on lights up too
    first.focus()
    page.keyboard.press("Space")
    page.wait_for_function(f"{_OPACITY} > 0.9")
    shoot(page, "concepts-1440")
    page.keyboard.press("Space")  # chosen again, it is deselected
    page.wait_for_function(f"{_OPACITY} < 0.1")
    assert not first.is_checked()
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    assert not first.is_checked()
    assert fits(page)
    narrow(page)
    shoot(page, "concepts-390")
    assert fits(page)
    link = page.locator(".cn-activated a").first
    unit = int(link.inner_text().split(" · ")[1])
    link.click()
    shows(page, unit)
    assert page.locator("#explore-card").is_visible()
    page.go_back()
    page.wait_for_selector("#concepts-result .cn-look")
    assert page.locator("#concepts-result .cn-look").is_visible()


def upload(page, target: str, image: Image.Image | bytes) -> None:
    """Send a file as a visitor does."""
    data = image
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        data = buffer.getvalue()
    file = {"name": "image.png", "mimeType": "image/png", "buffer": data}
    page.set_input_files(f"{target} input[type=file]", file)


def test_an_uploaded_image_is_read_and_an_unreadable_one_explained(visit):
    page = visit("?tab=concepts")
    image = Image.radial_gradient("L").convert("RGB")
    upload(page, "#concepts-image", image.resize((400, 100)))
    page.wait_for_selector("#concepts-result .cn-cropped >> text=25% of this image")
    shoot(page, "panorama-1440")
    page.click("#concepts-image button[aria-label='Remove Image']")
    upload(page, "#concepts-image", b"this is no image")
    page.wait_for_selector("text=not an image that can be read")
    broken = "document.querySelector('#concepts-image img')"
    page.wait_for_function(f"getComputedStyle({broken}).visibility === 'hidden'")
    line = "getComputedStyle(document.querySelector('#concepts-image'), '::after').content"
    assert "not an image that can be read" in page.evaluate(line)
    shoot(page, "broken-1440")
    page.click("#concepts-image button[aria-label='Remove Image']")
    upload(page, "#concepts-image", image)
    page.wait_for_function(f"{broken} && getComputedStyle({broken}).visibility === 'visible'")
    assert "not an image" not in page.evaluate(line)


@pytest.mark.parametrize("size", [(200, 120), (1, 1)])
def test_nothing_is_recognised_in_a_white_image(visit, size):
    page = visit("?tab=concepts")
    upload(page, "#concepts-image", Image.new("RGB", size, "white"))
    page.wait_for_selector("#concepts-result >> text=Nothing recognised")
    assert page.locator("#concepts-result h2").count() == 0


FORMER = """id => document.querySelector(id).matches('[data-former]')
  && getComputedStyle(document.querySelector(id), '::before').content.includes('previous upload')
"""


@pytest.mark.parametrize(
    ("tab", "image", "result", "go"),
    [
        ("concepts", "#concepts-image", "#concepts-result", None),
        ("edit", "#edit-image", "#edit-result", None),
        ("segmentation", "#segmentation-image", "#segmentation-found", "#segmentation-go"),
    ],
)
def test_what_is_left_of_the_previous_picture_says_so(visit, tab, image, result, go):
    page = on_tab(visit, tab) if tab == "segmentation" else visit(f"?tab={tab}")
    page.wait_for_selector(f"{result} img >> nth=0")
    assert not page.evaluate(FORMER, result)
    page.click(f"{image} button[aria-label='Remove Image']")
    broken = {"name": "b.png", "mimeType": "image/png", "buffer": b"this is no picture"}
    page.set_input_files(f"{image} input[type=file]", broken)
    page.wait_for_function(FORMER, arg=result)
    if go:
        page.click(go)
    page.wait_for_selector("text=not an image that can be read")
    page.wait_for_timeout(500)
    assert page.evaluate(FORMER, result)
    shoot(page, f"former-{tab}-1440")
    page.click(f"{image} button[aria-label='Remove Image']")
    buffer = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(buffer, "PNG")
    good = {"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    page.set_input_files(f"{image} input[type=file]", good)
    if go:
        page.click(go)
    page.wait_for_selector(f"{result}:not([data-former])")


def test_sets_that_are_not_compared_yet_are_not_those_of_the_result(visit):
    page = visit("?tab=shift")
    page.wait_for_selector("#shift-verdict >> visible=true")
    page.click("#shift-go")
    page.wait_for_selector("text=Choose images for both sides first")
    page.wait_for_timeout(500)
    assert page.locator("span.error >> visible=true").count() <= 1
    broken = {"name": "b.png", "mimeType": "image/png", "buffer": b"this is no picture"}
    for side in ("reference", "new"):
        page.set_input_files(f"#shift-{side} input[type=file]", [broken, broken])
    page.wait_for_selector("#shift-found[data-former]")
    page.click("#shift-go")
    page.wait_for_selector("text=at least two images that can be read")
    assert page.locator("#shift-found[data-former]").count() == 1
    page.click("#shift-example")
    page.wait_for_selector("#shift-found:not([data-former])")


def sets_of_images(count, grey=False):
    """Files of two sets of noise with a coloured square, the new one grey or as coloured."""
    files = {}
    for side in ("reference", "new"):
        files[side] = []
        for number in range(count):
            rng = np.random.default_rng([number, side == "new"])
            pixels = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
            pixels[16:48, 16:48] = rng.integers(0, 256, 3)
            image = Image.fromarray(pixels)
            if grey and side == "new":
                image = image.convert("L")
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            name = f"{side}{number}.png"
            files[side].append({"name": name, "mimeType": "image/png", "buffer": buffer.getvalue()})
    return files


def send_sets(page, count, grey=False):
    for side, files in sets_of_images(count, grey).items():
        page.set_input_files(f"#shift-{side} input[type=file]", files)
        page.wait_for_selector(f"#shift-{side} >> text={side}{count - 1}")


def test_grey_images_are_named_by_their_saturation_first(visit):
    page = visit("?tab=shift")
    send_sets(page, 16, grey=True)
    page.click("#shift-go")
    page.wait_for_selector("#shift-progress >> text=images")
    page.wait_for_selector("#shift-differences >> text=saturation lower")
    assert "The sets differ" in page.inner_text("#shift-verdict")
    headings = page.locator("#shift-differences h3").all_inner_texts()
    assert headings[0] == "Low-level changes"
    shoot(page, "shift-grey-1440")


def test_sets_without_a_significant_difference_have_no_list_of_differences(visit):
    page = visit("?tab=shift")
    send_sets(page, 12)
    page.click("#shift-go")
    page.wait_for_selector("#shift-verdict >> text=No significant difference")
    assert page.inner_text("#shift-differences").strip() == ""
    assert page.locator("#shift-units >> visible=true").count() == 0
    assert page.locator("#shift-after >> visible=true").count() == 0


def test_a_bundle_chosen_while_sets_are_compared_keeps_its_example_off_the_users_files(
    visit, two_bundles
):
    page = visit("?tab=shift", address=two_bundles)
    send_sets(page, 40)
    page.click("#shift-go")
    page.click("#bundle input")
    page.click("ul[role=listbox] li:not([aria-selected=true])")
    page.wait_for_selector("#shift-found[data-former] >> text=40 new images against 40")
    page.wait_for_timeout(500)
    assert page.get_attribute("#shift-found", "data-former").startswith("Results for the previous")
    assert "Example" not in page.inner_text("#shift-verdict")
    page.click("#shift-go")
    page.wait_for_selector("#shift-found:not([data-former])")


def test_a_broken_picture_to_test_a_neuron_on_does_not_stand_in_the_way_of_the_next(visit):
    page = visit()
    page.click("#explore-test button >> nth=0")
    buffer = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(buffer, "PNG")
    upload = "#explore-image input[type=file]"
    page.set_input_files(
        upload, {"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    page.wait_for_selector("#explore-tried .cn-tried")
    shoot(page, "tried-1440")
    assert fits(page)
    page.click("#explore-image button[aria-label='Remove Image']")
    page.wait_for_selector("#explore-tried .cn-tried", state="detached")
    page.set_input_files(
        upload, {"name": "b.png", "mimeType": "image/png", "buffer": b"this is no picture"}
    )
    page.wait_for_selector("text=not an image that can be read")
    page.wait_for_selector("#explore-image img", state="detached")
    page.check("#explore-fires input")
    page.wait_for_selector("#explore-card .cn-lit .cn-map")


def class_figures(page, kind: str) -> list[float]:
    """The numbers of one column of the edit tab's classes."""
    texts = page.locator(f".cn-classes [data-class] .cn-value.cn-{kind}").all_inner_texts()
    return [float(text) for text in texts]


def headline(page) -> tuple[str, str]:
    """The class in the edit tab's headline, and whether it is estimated or measured."""
    return page.inner_text(".cn-edit .cn-top"), page.inner_text(".cn-edit .cn-basis").capitalize()


def measured_class(page) -> str:
    """The class with the largest measured share."""
    figures = class_figures(page, "measured")
    names = page.locator(".cn-classes [data-class] .cn-name").all_inner_texts()
    return names[figures.index(max(figures))]


def test_sliders_give_an_estimate_and_then_what_is_measured(visit):
    page = visit("?tab=edit", width=1280)
    page.wait_for_selector("#edit-result .cn-edit")
    assert page.input_value("#edit-names textarea, #edit-names input").count(",") >= 1
    assert page.locator("#edit-image img").count() == 1, "the example is filled in"
    before = class_figures(page, "was")
    assert class_figures(page, "estimated") == class_figures(page, "measured") == before
    assert headline(page)[1] == "Measured"
    slider = page.locator(".cn-parts input[type=range]").first
    slider.evaluate(
        "slider => { slider.value = 0;"
        " slider.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    assert page.locator(".cn-parts output").first.inner_text() == "0.00"
    assert headline(page)[1] == "Estimated"
    estimated = class_figures(page, "estimated")
    assert estimated != before
    page.wait_for_selector(".cn-edit .cn-basis >> text=Measured")
    assert headline(page)[0] == measured_class(page)
    page.wait_for_function("location.search.includes('edit=')")
    shoot(page, "edit-1280")
    assert fits(page)
    again = visit(page.url[page.url.index("?") :], width=390)
    again.wait_for_selector("#edit-result .cn-edit")
    shoot(again, "edit-390")
    assert fits(again)
    assert class_figures(again, "estimated") == pytest.approx(estimated, abs=0.11)
    assert headline(again) == headline(page)
    again.click("#edit-reset")
    assert class_figures(again, "estimated") == before
    again.wait_for_function("!location.search.includes('edit=')")


def test_a_link_to_edit_is_read_once(browser, address):
    page, read = browser.new_page(), []
    page.set_default_timeout(PATIENCE)

    def asked(request) -> None:
        given = request.post_data_json["data"] if "/queue/join" in request.url else []
        if any(str(value).startswith("?tab=edit") for value in given[1:]):
            read.append(given)

    page.on("request", asked)
    page.goto(f"{address}/?tab=edit", wait_until="domcontentloaded")
    page.wait_for_selector("#edit-result .cn-edit")
    page.wait_for_timeout(1000)  # in which it would be asked for again
    page.close()
    assert len(read) == 1


def load_edit(page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#edit-load")
    chooser.value.set_files(path)


def test_edits_are_found_saved_and_loaded_and_a_new_image_starts_clean(visit, tmp_path):
    page = visit()
    page.click("#tab-edit-button")
    page.wait_for_selector("#edit-result .cn-edit")
    top, _ = headline(page)
    page.click("#edit-find")
    page.wait_for_selector(".cn-found >> text=random sets of as many neurons")
    turned = headline(page)
    assert turned == (measured_class(page), "Measured")
    assert turned[0] != top
    with page.expect_download() as download:
        page.click("#edit-save")
    path = tmp_path / "edit.json"
    download.value.save_as(path)
    edit = json.loads(path.read_text())
    assert edit["units"]
    assert all(unit["factor"] == 0 for unit in edit["units"])
    page.click("#edit-reset")
    assert headline(page)[0] == top
    load_edit(page, path)
    page.wait_for_function(
        "text => document.querySelector('#edit-result .cn-top').textContent === text", arg=turned[0]
    )
    names = page.input_value("#edit-names textarea, #edit-names input")
    image = tmp_path / "red.png"
    Image.effect_noise((120, 120), 90).convert("RGB").save(image)
    page.locator("#edit-image input[type=file]").set_input_files(image)
    field = "document.querySelector('#edit-names :is(textarea, input)').value"
    page.wait_for_function(f"names => ![names, ''].includes({field})", arg=names)
    assert "edit=" not in page.url
    assert class_figures(page, "measured") == class_figures(page, "was")
    path.write_text(json.dumps(edit | {"weights_sha256": "0" * 64}))
    load_edit(page, path)
    page.wait_for_selector("text=expected an edit of this bundle's model")


def on_tab(visit, tab: str, **options):
    """A page on a tab whose example is there."""
    page = visit(f"?tab={tab}", **options)
    shown = {"segmentation": "#segmentation-presence li", "adversarial": "#adversarial-rates li"}
    page.wait_for_selector(shown[tab])
    if tab == "adversarial":
        page.wait_for_selector("#adversarial-zip:not([disabled])")
    return page


def test_segmentation_opens_with_an_example_and_no_empty_frame(visit):
    page = on_tab(visit, "segmentation")
    assert page.input_value("#segmentation-words textarea")
    for part in ("image", "heat", "mask", "regions"):
        assert page.locator(f"#segmentation-{part} img").first.is_visible()
    assert page.locator("#segmentation-examples img").count() >= 2
    assert not page.locator("#segmentation-voters li").first.is_visible(), "long lists are folded"
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        shoot(page, f"segmentation-example-{width}")
        assert fits(page)


def test_an_example_chosen_while_an_earlier_one_is_read_is_the_one_read(visit):
    page = on_tab(visit, "segmentation")
    read = "document.querySelector('#segmentation-presence ol').innerText"
    first, second = (f"#segmentation-examples .thumbnail-item >> nth={i}" for i in (0, 1))
    answers = []
    for example in (first, second):
        before = page.evaluate(read)
        page.click(example)
        if example == second:  # the tab opened with the first
            page.wait_for_function(f"before => {read} !== before", arg=before)
        answers.append((page.input_value("#segmentation-words textarea"), page.evaluate(read)))
    assert answers[0] != answers[1]
    page.click(first)
    page.click(second)
    page.click(first)
    page.wait_for_function(f"wanted => {read} === wanted", arg=answers[0][1])
    page.wait_for_timeout(1500)  # an earlier one may still be on its way
    page.wait_for_function(f"wanted => {read} === wanted", arg=answers[0][1])
    assert page.input_value("#segmentation-words textarea") == answers[0][0]


def test_a_word_that_is_not_in_the_image_is_not_found_and_not_painted(visit):
    page = on_tab(visit, "segmentation")
    presence = "#segmentation-presence ol"
    page.fill("#segmentation-words textarea", "zebra; Katze.")
    page.click("#segmentation-go")
    page.wait_for_selector(f"{presence} >> text=zebra")
    listed = page.inner_text(presence)
    assert listed.count("not found") == 2
    assert "%" not in listed
    page.wait_for_selector("#segmentation-unknown >> text=never saw “Katze”")
    heat = page.locator("#segmentation-heat img").first
    plain = heat.evaluate(_PIXELS)
    page.check("#segmentation-anyway input")
    page.wait_for_function(
        "([read, plain]) => JSON.stringify(eval(read)(document.querySelector('#segmentation-heat"
        " img'))) !== JSON.stringify(plain)", arg=[_PIXELS, plain],
    )  # fmt: skip


def test_a_click_on_the_heat_map_is_answered_where_it_hits(visit):
    page, said = on_tab(visit, "segmentation"), ""
    for size in ((64, 64), (300, 60), (40, 160)):
        said = clicks_are_answered(page, size, said)


def clicks_are_answered(page, size: tuple[int, int], old: str) -> str:
    """Clicks on the heat map of a picture; `old` is what was said last."""
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert("RGB").save(buffer, "PNG")
    picture = {"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    if page.locator("#segmentation-image button[aria-label=Clear]").count():
        page.click("#segmentation-image button[aria-label=Clear]")
    page.set_input_files("#segmentation-image input[type=file]", picture)
    page.wait_for_selector("#segmentation-image img")
    page.fill("#segmentation-words textarea", "cat")
    page.click("#segmentation-go")
    ratio = size[0] / size[1]
    page.wait_for_function(
        "r => { const i = document.querySelector('#segmentation-heat img');"
        " const names = document.querySelector('#segmentation-presence ol').innerText;"
        " return /^cat/.test(names) && Math.abs(i.naturalWidth / i.naturalHeight / r - 1) < 0.05 }",
        arg=ratio,
    )
    page.locator("#segmentation-heat img").scroll_into_view_if_needed()
    for x, y in [(0.85, 0.15), (0.1, 0.9), (0.55, 0.4)]:
        shown = page.locator("#segmentation-heat img").bounding_box()
        width = min(shown["width"], shown["height"] * ratio)
        left = shown["x"] + (shown["width"] - width) / 2
        top = shown["y"] + (shown["height"] - width / ratio) / 2
        page.mouse.click(left + x * width, top + y * width / ratio)
        said = "document.querySelector('#segmentation-here').innerText"
        page.wait_for_function(f"old => (/row .* of/.exec({said})?.[0] ?? old) !== old", arg=old)
        place = r"row (\d+), column (\d+) of (\d+) × (\d+)"
        found = re.search(place, page.inner_text("#segmentation-here"))
        old = found[0].partition(" of")[0] + " of"
        row, column, rows, columns = map(int, found.groups())
        assert (row, column) == (int(y * rows) + 1, int(x * columns) + 1)
        assert page.evaluate("document.querySelector('#segmentation-heat img').naturalWidth") <= 512
    return old


def test_the_adversarial_tab_opens_with_an_example(visit):
    page = on_tab(visit, "adversarial")
    assert page.locator("#adversarial-gallery .thumbnail-item").count() == 12
    assert page.locator("#adversarial-rates .cn-whisker").count() == 5
    assert "same cue images, no neurons (control)" in page.inner_text("#adversarial-rates")
    assert page.locator("#adversarial-said a").first.is_visible(), "cues with the units behind them"
    assert not page.locator("#adversarial-cues").is_visible(), "all else is folded"
    parts = [page.locator(f"#adversarial-{part}").bounding_box()["y"]
             for part in ("draw", "said", "gallery", "rates", "advanced")]  # fmt: skip
    assert parts == sorted(parts)
    target = page.input_value("#adversarial-target textarea, #adversarial-target input")
    for tile in page.locator("#adversarial-gallery .thumbnail-item").all()[:3]:
        tile.click()
        wrong = "read as" in tile.inner_text()
        label = "Where the mistake comes from" if wrong else f"What speaks for {target}"
        page.wait_for_selector(f"#adversarial-map >> text={label}")
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        shoot(page, f"adversarial-example-{width}")
        assert fits(page)
        tile = page.locator("#adversarial-gallery .thumbnail-item").first
        tile.locator("img").scroll_into_view_if_needed()
        image, caption = (tile.locator(part).bounding_box() for part in ("img", ".caption-label"))
        assert image["width"] == pytest.approx(image["height"], abs=1)
        assert image["width"] >= 100
        assert caption["y"] >= image["y"] + image["height"] - 1, "the verdict is below the picture"
        assert caption["height"] <= image["height"] / 2


def test_cues_and_results_follow_the_names(visit):
    page = on_tab(visit, "adversarial")
    first = page.inner_text("#adversarial-said")
    other = page.locator("#adversarial-examples button").nth(1)
    true, target = other.inner_text().split(" → ")
    other.click()
    page.wait_for_selector("#adversarial-rates", state="hidden")
    assert page.inner_text("#adversarial-said") == ""
    page.click("#adversarial-draw")
    page.wait_for_selector(f"#adversarial-rates >> text=images of {true} read as {target}")
    assert page.inner_text("#adversarial-said") not in ("", first)
    page.wait_for_selector("#adversarial-zip:not([disabled])")
    # Gradio writes a fold's fields again a frame after it has drawn them: that frame comes late.
    page.evaluate(
        "() => { const ask = requestAnimationFrame;"
        " window.requestAnimationFrame = call => ask(() => setTimeout(call, 300)) }"
    )
    page.click("#adversarial-advanced button >> nth=0")
    page.fill("#adversarial-cues textarea", "bone, leash")
    page.fill("#adversarial-target textarea, #adversarial-target input", "house")
    page.wait_for_selector("#adversarial-rates", state="hidden")
    page.wait_for_timeout(1500)
    assert page.input_value("#adversarial-cues textarea") == "bone, leash"


def test_a_link_opens_the_pair_of_its_bundle_and_own_names_stay(visit, two_bundles):
    page = visit("?tab=adversarial&bundle=two", address=two_bundles)
    page.wait_for_selector("#adversarial-rates >> text=images of ship read as rabbit")
    page.wait_for_selector("#adversarial-zip:not([disabled])")
    fields = [f"#adversarial-{name} textarea, #adversarial-{name} input" for name in _NAMES]
    assert [page.input_value(field) for field in fields] == ["ship", "rabbit"]
    choose_bundle(page, "one")
    page.wait_for_selector("#adversarial-rates", state="hidden")
    assert [page.input_value(field) for field in fields] == ["cat", "dog"]
    page.fill(fields[1], "house")
    choose_bundle(page, "two")
    page.wait_for_selector("#adversarial-examples >> text=ship → rabbit")
    assert [page.input_value(field) for field in fields] == ["cat", "house"]


def test_what_is_called_off_before_the_server_has_named_it_is_called_off(visit):
    """Gradio's own request then names the event `null`, which is refused, and the event goes on."""
    page = on_tab(visit, "adversarial")
    assert page.locator("#adversarial-gallery .thumbnail-item").count() == 12

    def late(route) -> None:
        time.sleep(1.5)
        route.continue_()

    page.route("**/queue/join**", late)
    page.click("#adversarial-draw")
    with page.expect_response("**/gradio_api/cancel") as answer:
        page.evaluate("setTimeout(() => document.querySelector('#adversarial-stop').click(), 300)")
    assert answer.value.status == 200
    assert answer.value.request.post_data_json["event_id"]
    # Some may have been drawn before the name came; then no more of them come.
    drawn = page.locator("#adversarial-gallery .thumbnail-item")
    page.wait_for_timeout(2000)
    then = drawn.count()
    page.wait_for_timeout(2000)
    assert drawn.count() == then < IMAGES


def test_cues_come_from_the_method_that_is_chosen(visit):
    page = on_tab(visit, "adversarial")
    page.click("#adversarial-advanced button >> nth=0")
    neurons = page.locator("#adversarial-neurons")
    assert not neurons.is_visible()
    page.check("#adversarial-method input[value=second-order]")
    neurons.wait_for()
    page.click("#adversarial-draw")
    page.wait_for_function(
        "document.querySelectorAll('#adversarial-rates .cn-whisker').length == 3", timeout=60_000
    )  # the cues' own, similar words and no cues
    page.check("#adversarial-method input[value='recorded effects']")
    neurons.wait_for(state="hidden")
    page.click("#adversarial-draw")
    page.wait_for_selector("#adversarial-rates >> text=no neurons (control)", timeout=60_000)
    shoot(page, "adversarial-recorded-1440")


def test_a_link_into_the_dictionary_shows_the_card_from_the_top(visit):
    page = on_tab(visit, "segmentation", width=390)
    page.click("#segmentation-sample")
    page.wait_for_selector("#segmentation-image img")
    page.fill("#segmentation-words textarea", "cat")
    page.click("#segmentation-go")
    page.wait_for_selector("#segmentation-presence >> text=Is it in the image?")
    shoot(page, "segmentation-found-390")
    assert fits(page)
    page.click("#segmentation-behind button")
    page.locator("#segmentation-voters a").last.click()
    page.locator("#explore-card").wait_for()
    page.wait_for_function("scrollY === 0")


def test_a_shift_is_compared_localised_and_shown(visit):
    page = visit("?tab=shift")
    if (BUNDLED / "examples" / "opening.json").is_file():
        page.wait_for_selector("#shift-differences .cn-bars")
    page.click("#shift-example")
    page.wait_for_selector("#shift-differences >> text=Where the images differ: lower right")
    page.locator("#shift-after img").last.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('#shift-after img')].every(i => i.naturalWidth > 0)"
    )
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        shoot(page, f"shift-compared-{width}")
        box = page.locator("#shift-after img").first.bounding_box()
        assert box["width"] == pytest.approx(box["height"], rel=0.1), "whole, not cut"
        edge = page.locator("#shift-after img").last.bounding_box()
        assert edge["x"] + edge["width"] <= width
        assert fits(page)
    page.wait_for_selector("#shift-units label >> nth=3")
    page.click("#shift-units label >> nth=3")
    page.wait_for_selector("#shift-unit a.cn-link")
    chosen = page.inner_text("#shift-units label >> nth=3")
    assert page.inner_text("#shift-unit a.cn-link") in chosen


def test_a_link_opens_its_tab_before_the_server_has_answered(browser, address):
    page = browser.new_page()
    page.route("**/gradio_api/queue/**", lambda route: None)  # for ever
    page.goto(f"{address}/?tab=shift", wait_until="domcontentloaded")
    page.wait_for_selector("#tab-shift-button[aria-selected=true]", timeout=PATIENCE)
    page.close()


def test_dark_mode(visit):
    page = visit("?__theme=dark")
    shoot(page, "dark-1440")
    light = page.evaluate(
        "getComputedStyle(document.querySelector('#explore-card .cn-card')).backgroundColor"
    )
    assert max(int(n) for n in re.findall(r"\d+", light)[:3]) < 64


def test_the_keyboard_reaches_search_and_links(visit):
    page = visit()
    page.focus("#explore-query input, #explore-query textarea")
    page.keyboard.type(page.inner_text("#explore-try a >> nth=0"))
    page.keyboard.press("Enter")
    page.wait_for_selector("#explore-results .cn-block")
    page.locator("#explore-results a").first.focus()
    before = page.url
    page.keyboard.press("Enter")
    page.wait_for_function("before => location.href !== before", arg=before)


def test_a_bundle_from_the_hub_is_opened_by_its_name(visit, tmp_path):
    folder = tiny_bundle_folder(tmp_path / "tiny")
    with serve() as hub:
        repository = hub.repositories["user/neurons"] = Repository()
        repository.commit(
            {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*.*")}
            | {"SHA256SUMS": (folder / "SHA256SUMS").read_bytes()}
        )
        more = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path)}
        with running_app([folder], tmp_path / "log.txt", model=False, more=more) as (address, _):
            page = visit("?bundle=user/neurons&tab=explore", address=address)
            page.wait_for_selector("text=open it from the Hub first")
            assert hub.log == [], "a link fetches nothing"
            assert page.input_value("#hub-name input, #hub-name textarea") == "user/neurons"
            page.fill("#hub-name input, #hub-name textarea", "user/nothing")
            page.click("#hub-open")
            page.wait_for_selector("text=nor a repository user/nothing that you can see")
            shoot(page, "hub-refused-1440")
            page.fill("#hub-name input, #hub-name textarea", "user/neurons")
            page.click("#hub-open")
            page.wait_for_url("**bundle=user%2Fneurons**")
            page.wait_for_function(
                "document.querySelector('#bundle input')?.value.includes('user')"
            )
            unit = int(place(page).rsplit(" ", 1)[1])
            page.click("#explore-next")
            shows(page, unit + 1)
            page.wait_for_url(f"**unit={unit + 1}**bundle=user%2Fneurons**")
            shoot(page, "hub-1440")
            again = visit(page.url[page.url.index("?") :], 390, address)
            assert place(again) == place(page)
            assert "user/neurons" in again.input_value("#bundle input")
            shoot(again, "hub-390")
            assert fits(again)
