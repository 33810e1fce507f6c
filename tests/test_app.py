"""The page as programs meet it: endpoints, limits, crossed answers, files, the network."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import shutil
import socket
import struct
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.segmentation.masks import from_rle
from tabs.explore import dashboard
from tabs.explore.handlers import number
from tabs.server.gpu import on_gpu
from tabs.server.registry import BundleRegistry
from tabs.server.session import MODEL, BundleSession
from tabs.server.uploads import MAX_PIXELS, open_image
from tests.helpers.app_server import running_app
from tests.helpers.tiny import WORDS, tiny_bundle_folder

# Gradio's own: it reads a pandas option that pandas 4 will drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny bundle whose neurons react to everything, so that images have concepts."""
    folder = tiny_bundle_folder(tmp_path_factory.mktemp("bundles") / "tiny")
    bundle = load_bundle(folder)
    for arrays in bundle.layers.values():
        arrays.percentile.zero_()
    return save_bundle(bundle, folder)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """Where the server's temporary files are."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def server(folder, scratch, tmp_path_factory):
    """Address, process and log, in which every import is listed too."""
    log = tmp_path_factory.mktemp("app") / "log.txt"
    resnet = tiny_bundle_folder(tmp_path_factory.mktemp("bundles") / "tiny-rn", kind="resnet")
    more = {"TMPDIR": str(scratch), "PYTHONPROFILEIMPORTTIME": "1"}
    left = scratch / "clipneurons-page-killed"
    left.mkdir()
    os.utime(left, (1, 1))
    with running_app([folder, resnet], log, more=more) as (address, process):
        assert list(scratch.glob("clipneurons-page-*"))
        assert not left.exists(), "what a killed page left goes at the next start"
        yield address, process, log
    assert not list(scratch.glob("clipneurons-*")), "nothing temporary is left behind"


@pytest.fixture(scope="module")
def client(server):
    return Client(server[0], verbose=False)


def picture(path: Path, seed: int, size=(40, 30)) -> Path:
    noise = torch.randint(0, 255, (*size[::-1], 3), generator=torch.Generator().manual_seed(seed))
    Image.fromarray(noise.byte().numpy()).save(path)
    return path


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


# -- images


def test_images_are_upright_small_rgb_and_white_where_transparent():
    clear = io.BytesIO()
    Image.new("RGBA", (3000, 10), (255, 0, 0, 0)).save(clear, "PNG")
    image = open_image(clear)
    assert (image.mode, image.size[0], image.getpixel((5, 1))) == ("RGB", 1024, (255, 255, 255))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.new("RGB", (20, 10)).save(turned, "JPEG", exif=exif)
    assert open_image(turned).size == (10, 20)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"%PDF-1.4", "not an image"),
        (png_of_size(20_000, 20_000), "pixels"),
        (png_of_size(6_400, 6_400), "pixels"),
        (png_of_size(100, 100), "damaged"),
    ],
    ids=["empty", "svg", "pdf", "bomb", "large", "cut"],
)
def test_bad_images_are_refused_with_a_message(content, message):
    with pytest.raises(ValueError, match=message):
        open_image(io.BytesIO(content))


def test_the_pixel_limit_is_above_ordinary_cameras():
    assert MAX_PIXELS >= 6000 * 4000


# -- endpoints


def test_every_tab_has_a_described_endpoint(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    for name in (
        "/neuron", "/search", "/concepts", "/compare", "/segment",
        "/find_cues", "/attack", "/compare_sets", "/compare_example",
        "/about", "/open", "/edit", "/find_edit", "/confusions", "/confusions_example",
    ):  # fmt: skip
        assert name in endpoints
        assert endpoints[name]["description"], name
        for parameter in endpoints[name]["parameters"]:
            assert parameter["parameter_name"] != "bundle" or parameter["type"] == {
                "type": "string"
            }, "a bundle may be opened later, so no list of keys"
            assert parameter["python_type"]["type"] not in ("", "Any"), (name, parameter)


def test_neuron_endpoint_gives_the_bundles_numbers(client, folder):
    bundle = load_bundle(folder)
    card = client.predict("", 2, 7, api_name="/neuron")
    assert [(p["text"], p["coefficient"]) for p in card["decomposition"]] == [
        (text, pytest.approx(c)) for text, c in bundle.phrases(2, 7)
    ]
    assert card["explained_variance"] == pytest.approx(
        bundle.layers[2].explained_variance[7].item()
    )
    assert len(card["neighbours"]) == 8
    opening = dashboard.start_of(BundleSession("tiny", folder))
    first = client.predict(api_name="/neuron")
    assert (first["layer"], first["unit"]) == opening
    assert client.predict(layer=3 - opening[0], api_name="/neuron")["unit"] == 0
    assert client.predict(query="cat", api_name="/search")["toward"]


def test_search_endpoint_finds_the_nearest_direction(client, folder):
    bundle = load_bundle(folder)
    found = client.predict("", "cat, -dog", "direction", 3, api_name="/search")
    wanted = bundle.text_embeddings[0] - bundle.text_embeddings[1]
    cosines = {
        (layer, unit): float(row @ wanted / wanted.norm())
        for layer, arrays in bundle.layers.items()
        for unit, row in enumerate(arrays.directions)
    }
    best = max(cosines, key=cosines.get)
    assert (found["toward"][0]["layer"], found["toward"][0]["unit"]) == best
    assert found["toward"][0]["score"] == pytest.approx(cosines[best], abs=1e-5)
    assert found["never_trained"] == []


def test_concepts_are_those_of_the_library(client, folder, tmp_path):
    from clipneurons.concepts.concepts import ConceptReader, top_concepts
    from clipneurons.lens.lens import Lens
    from clipneurons.models.clip import load_clip

    path = picture(tmp_path / "noise.png", 1)
    found = client.predict("tiny", handle_file(path), api_name="/concepts")
    bundle, clip = load_bundle(folder), load_clip(folder, device="cpu")
    reader = ConceptReader(Lens(clip, bundle.config.layers), bundle)
    pixels = clip.preprocess(Image.open(path))[None]
    expected = top_concepts(reader.weights(reader.written(reader(pixels)[1]))[0], bundle.texts)
    assert [one["text"] for one in found["concepts"]] == [text for text, _ in expected]
    assert [one["weight"] for one in found["concepts"]] == pytest.approx(
        [weight for _, weight in expected], rel=1e-3
    )
    assert all(len(one["map"]) == 4 and len(one["map"][0]) == 4 for one in found["concepts"])


def test_an_edit_without_an_image_is_of_the_example_and_goes_back_in(client, tmp_path):
    plain = client.predict("", None, "", "", "", api_name="/edit")
    unit = {key: plain["neurons"][0][key] for key in ("layer", "unit")} | {"factor": 0.0}
    text = json.dumps(json.loads(plain["edit"]) | {"units": [unit]})
    names = ", ".join(row["name"] for row in plain["classes"])
    edited = client.predict("", None, names, "", text, api_name="/edit")
    assert [row["before"] for row in edited["classes"]] == [
        row["measured"] for row in plain["classes"]
    ]
    assert edited["classes"][0]["measured"] != plain["classes"][0]["measured"]
    again = client.predict("", None, names, "", edited["edit"], api_name="/edit")
    assert again == edited
    path = picture(tmp_path / "a.png", 1)
    own = client.predict("tiny-rn", handle_file(path), "cat, dog", "", "", api_name="/edit")
    assert [row["name"] for row in own["classes"]] == ["cat", "dog"]
    assert all(row["before"] == row["estimated"] for row in own["classes"])
    bare = client.predict("tiny-rn", handle_file(path), "", "", "", api_name="/edit")
    assert 2 <= len(bare["classes"]) <= 5, "the model's own first classes"
    with pytest.raises(AppError, match="expected an edit of this bundle's model") as error:
        client.predict("tiny-rn", None, "", "", edited["edit"], api_name="/edit")
    assert "Traceback" not in str(error.value)


def test_where_no_neurons_turn_an_image_the_endpoint_says_so(client):
    """Those of the tiny bundle are random numbers."""
    with pytest.raises(AppError, match="neurons turn this image to"):
        client.predict("", api_name="/find_edit")


def test_an_empty_bundle_is_the_one_the_page_opens_with(client, tmp_path):
    image = handle_file(picture(tmp_path / "noise.png", 1))
    named, empty = (client.predict(key, image, api_name="/concepts") for key in ("tiny", ""))
    assert empty == named
    files = [handle_file(picture(tmp_path / f"{i}.png", i)) for i in range(2)]
    assert client.predict("", files, api_name="/compare")["only"]
    assert client.predict("", api_name="/about")["config"]["kind"] == "vit"
    with pytest.raises(AppError, match="no bundle 'nowhere'"):
        client.predict("nowhere", image, api_name="/concepts")


def test_compare_takes_several_images(client, tmp_path):
    paths = [handle_file(picture(tmp_path / f"{i}.png", i)) for i in range(3)]
    found = client.predict("tiny", paths, api_name="/compare")
    assert len(found["only"]) == 3
    with pytest.raises(AppError, match="at least two"):
        client.predict("tiny", paths[:1], api_name="/compare")


@pytest.mark.parametrize("bundle", ["tiny", "tiny-rn"])
def test_words_are_found_in_an_image(client, tmp_path, bundle):
    image = handle_file(picture(tmp_path / "noise.png", 1))
    ask = dict(bundle=bundle, image=image, api_name="/segment")
    found = client.predict(**ask, words="cat, dog; cat.", anyway=True)
    assert (found["bundle"], found["threshold"]) == (bundle, 0.5)
    assert [one["name"] for one in found["classes"]] == ["cat", "dog"]
    for one in found["classes"]:
        mask = from_rle(one["mask"])
        assert mask.shape == (30, 40)
        assert one["share"] == pytest.approx(mask.float().mean().item())
        assert one["share"] > 0
        assert abs(one["cosine"]) <= 1
    for one in client.predict(**ask, words="cat, dog")["classes"]:
        assert (one["share"] > 0) == one["found"]
    with pytest.raises(AppError, match="At most 10,000 letters"):
        client.predict(**ask, words="a, " * 100_000)
    with pytest.raises(AppError, match="At most 100 names"):
        client.predict(**ask, words=", ".join(map(str, range(101))))


def test_layers_that_a_bundle_lacks_are_refused(client):
    for bundle, layers in (("tiny", [1, 2]), ("tiny-rn", [4])):
        everything = client.predict(bundle, api_name="/find_cues")
        for given in (layers, []):
            assert client.predict(bundle, layers=given, api_name="/find_cues") == everything
        client.predict(bundle, images=1, api_name="/attack")
        with pytest.raises(AppError, match=rf"expected layers among \[{layers[0]}"):
            client.predict(bundle, layers=[9], api_name="/find_cues")


def test_an_attack_is_data_and_needs_no_parameters(client):
    assert client.predict(api_name="/find_cues")["method"] == "second-order"
    for name in ("/find_cues", "/attack"):
        endpoint = client.view_api(return_format="dict", print_info=False)["named_endpoints"][name]
        assert all(parameter["parameter_has_default"] for parameter in endpoint["parameters"])
        assert len(endpoint["returns"]) == 1
    found = client.predict(cues="bone", images=2, api_name="/attack")
    assert (len(found["images"]), found["cues"]) == (2, ["bone"])
    assert found["success"]["images"] <= 2
    assert set(found["baselines"]) == {"second-order", "similar words", "no cues"}
    seen = client.predict(images=1, method="recorded effects", api_name="/attack")
    assert set(seen["baselines"]) == {*found["baselines"], "recorded embeddings"}
    for wrong, message in (
        ({"method": "by chance"}, "method must be one of"),
        ({"true_class": ["cat"]}, "class name must be a text, not list"),
        ({"count": 1e308}, "count must be a whole number from 1 to 50"),
        ({"target_class": "dog " * 500_000}, "1999999 characters"),
    ):
        with pytest.raises(AppError, match=message):
            client.predict(**wrong, api_name="/find_cues")
    image = found["images"][0]["image"].removeprefix("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
        assert opened.size == (32, 32)


@pytest.mark.parametrize("bundle", ["tiny", "tiny-rn"])
def test_compared_sets_are_data(client, tmp_path, bundle):
    reference = [handle_file(picture(tmp_path / f"{i}.png", i)) for i in range(20)]
    new = []
    for i in range(20):
        Image.new("RGB", (40, 30), (200 + i, i, i)).save(tmp_path / f"new{i}.png")
        new.append(handle_file(tmp_path / f"new{i}.png"))
    found = client.predict(bundle, reference, new, api_name="/compare_sets")
    assert found["p"] <= 0.05
    assert set(found["tests"]) == {"spread", "peak", "embeddings", "places", "objects", "pixels"}
    assert found["significant"]
    assert "saturation" in {change["measure"] for change in found["pixels"]}
    assert len(found["units"]) == 12
    for unit in found["units"]:
        assert client.predict(bundle, unit["layer"], unit["unit"], api_name="/neuron")
        assert 0 <= unit["q"] <= 1
    assert {one["text"] for one in found["more"] + found["less"]} <= set(WORDS)
    assert set(found["changed_images"]) <= set(range(20))
    assert found["localised"] is None or len(found["localised"]["box"]) == 4
    assert found["skipped"] == 0
    assert client.predict(bundle, api_name="/compare_example")["drawing"]


# -- mistakes


def test_an_upload_that_is_broken_off_leaves_no_trace_in_the_log(server):
    address, _, log = server
    host, port = address.removeprefix("http://").split(":")
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        'Content-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    )
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + b"0" * 5000)
            time.sleep(0.3)
    time.sleep(1)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "endpoint", "message"),
    [
        (("nowhere", 1, 1), "/neuron", "no bundle 'nowhere'"),
        (("", 9, 1), "/neuron", "layer 9: expected one of the bundle's layers 1, 2"),
        (("", 1, 99999), "/neuron", "units 0 to"),
        (("", "   ", "direction", 5), "/search", "Type what to look for"),
        (("", "cat", "sideways", 5), "/search", "expected 'direction' or 'decomposition'"),
        (("", "c" * 5000, "direction", 5), "/search", "at most 300"),
        (("", None, "", "", "{}"), "/edit", "expected an edit of schema version 1"),
        (("", None, "cat", "", ""), "/edit", "at least two class names"),
        (("", None, "cat, dog", "zebra", ""), "/find_edit", "expected one of cat, dog"),
    ],
)
def test_mistakes_get_messages_not_traces(client, arguments, endpoint, message):
    with pytest.raises(AppError, match=message) as error:
        client.predict(*arguments, api_name=endpoint)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an image", "not an image"),
        (png_of_size(30_000, 30_000), "pixels"),
        (png_of_size(50, 50), "damaged"),
    ],
    ids=["text", "bomb", "cut"],
)
def test_broken_uploads_get_messages_not_traces(client, server, tmp_path, content, message):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(AppError, match=message):
        client.predict("tiny", handle_file(path), api_name="/concepts")
    assert "Traceback" not in server[2].read_text()


def test_uploads_have_a_size_limit(server):
    data = b"\x89PNG" + bytes(11 * 2**20)
    answer = httpx.post(
        f"{server[0]}/gradio_api/upload", files={"files": ("big.png", data)}, trust_env=False
    )
    assert answer.status_code == 413


# -- files and the network


SECRETS = [
    "/etc/passwd", "app.py", "../app.py", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd",
    "tabs/ui/style.css",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_no_file_can_be_fetched(server, folder, name):
    for route in ("/gradio_api/file=", "/file=", "/static/", "/assets/", "/gradio_api/file/", "/"):
        answer = httpx.get(f"{server[0]}{route}{name}", trust_env=False)
        assert b"root:" not in answer.content
        assert b"import" not in answer.content[:2000] or b"<html" in answer.content[:200]
    weights = folder / "open_clip_model.safetensors"
    answer = httpx.get(f"{server[0]}/gradio_api/file={weights}", trust_env=False)
    assert answer.status_code in (403, 404)


@pytest.mark.parametrize("path", ["/etc/passwd", "artifacts/NOTICE", "../../etc/passwd"])
def test_a_path_that_a_client_names_is_not_opened(server, path):
    """What gradio_client would send for an upload, but with a path of the client's choice."""
    for url in (None, f"file://{path}"):
        data = {"path": path, "url": url, "meta": {"_type": "gradio.FileData"}}
        body = {"data": ["tiny", data]}
        post = httpx.post(f"{server[0]}/gradio_api/call/concepts", json=body, trust_env=False)
        assert post.status_code in (200, 400, 403, 422)
        if post.status_code != 200:
            continue
        event = post.json()["event_id"]
        answer = httpx.get(
            f"{server[0]}/gradio_api/call/concepts/{event}", trust_env=False, timeout=60
        )
        assert "event: error" in answer.text
        assert "not an image" not in answer.text  # it was refused before it was opened


@pytest.mark.parametrize(
    "link", ["http://example.com/image.png", "https://huggingface.co/x.png", "http://127.0.0.1/"]
)
@pytest.mark.parametrize("endpoint", ["concepts", "compare_sets"])
def test_a_link_that_a_client_names_is_not_followed(server, endpoint, link):
    """No request leaves the machine because a client sends an address instead of a file."""
    data = {"path": link, "url": link, "meta": {"_type": "gradio.FileData"}}
    body = {"data": ["tiny", data] if endpoint == "concepts" else ["", [data], [data]]}
    url = f"{server[0]}/gradio_api/call/{endpoint}"
    event = httpx.post(url, json=body, trust_env=False).json()["event_id"]
    answer = httpx.get(f"{url}/{event}", trust_env=False, timeout=60)
    assert "event: error" in answer.text
    assert "Addresses are not fetched here" in answer.text


def test_an_address_is_not_passed_through(server):
    """Gradio would fetch it for whoever asks; it is refused before its host is looked up."""
    import time

    start = time.perf_counter()
    for link in ("http://example.com/", "https://huggingface.co/", "http://127.0.0.1:9/"):
        answer = httpx.get(f"{server[0]}/gradio_api/file={link}", trust_env=False, timeout=60)
        assert answer.status_code == 403
    assert time.perf_counter() - start < 5


def test_gradio_asks_outside_hosts_only_through_what_is_refused():
    """Every request that Gradio makes for a client goes through the two functions replaced."""
    import inspect

    from gradio import processing_utils, route_utils

    fetching = inspect.getsource(processing_utils.async_ssrf_protected_get)
    assert fetching.count("sh.get(") == 2
    assert processing_utils.sh.__name__ == "safehttpx"
    streaming = inspect.getsource(route_utils.secure_url_stream_response)
    assert "safehttpx.async_validate_url(" in streaming


def test_the_page_names_no_outside_host(server):
    """Everything the page loads by itself comes from the server."""
    text = httpx.get(server[0], trust_env=False).text
    loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"'](https?://[^\"']+)", text)
    assert [url for url in loaded if "127.0.0.1" not in url and "localhost" not in url] == []
    assert "fonts.googleapis.com/css" not in text


# -- load


def test_12_clients_at_once_get_their_own_answers(server, folder, tmp_path):
    bundle = load_bundle(folder)
    paths = [picture(tmp_path / f"{i}.png", i) for i in range(4)]
    with ThreadPoolExecutor(12) as pool:
        clients = list(
            pool.map(
                lambda _: Client(server[0], verbose=False, httpx_kwargs={"timeout": 180}), range(12)
            )
        )
        ask = dict(api_name="/concepts")
        expected = [
            clients[0].predict("tiny", handle_file(path), **ask)["concepts"] for path in paths
        ]
        assert len({str(one) for one in expected}) == len(paths)
        memory = resident(server[1].pid)

        def check(number: int) -> None:
            which = number % len(paths)
            found = clients[number].predict("tiny", handle_file(paths[which]), **ask)
            assert found["concepts"] == expected[which]
            card = clients[number].predict("", 1, number, api_name="/neuron")
            assert card["unit"] == number
            assert card["decomposition"][0]["text"] == bundle.phrases(1, number)[0][0]

        list(pool.map(check, range(12)))
        first = resident(server[1].pid)
        list(pool.map(check, range(8)))
    assert resident(server[1].pid) < first + 80  # MiB
    assert first < memory + 400


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("memory of another process is read from /proc, which is not here")
    return int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1]) / 1024


# -- the command


def test_phases_are_printed_and_the_page_comes_before_the_model(server):
    lines = server[2].read_text().splitlines()
    phases = [line.split(" s  ")[1].split(" ")[0] for line in lines if " s  " in line]
    assert phases == ["imports", "bundle", "page", "model"]


def test_the_page_is_built_before_what_runs_the_model_is_imported(server):
    """open_clip and torchvision take as long as all else that the first page needs."""
    before, after = re.split(r"s  page", server[2].read_text(), maxsplit=1)
    for module in ("open_clip", "torchvision", "scipy"):
        imported = re.compile(rf"^import time:.*\| +{module}$", re.MULTILINE)
        assert not imported.search(before), module
        assert imported.search(after), module


def test_a_folder_that_is_no_bundle_is_one_line(tmp_path, capsys):
    assert app.main(["--bundle", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("port", ["99999999", "0", "-1", "http"])
def test_a_port_that_is_none_is_one_line(port, capsys):
    with pytest.raises(SystemExit, match="2"):
        app.main(["--port", port])
    assert "expected a port from 1 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "environment", "alone"),
    [
        (None, {}, True),
        ("localhost", {}, True),
        ("0.0.0.0", {}, False),
        (None, {"GRADIO_SERVER_NAME": "0.0.0.0"}, False),
        (None, {"SPACE_ID": "user/space"}, False),
    ],
)
def test_a_page_served_to_others_opens_nothing_from_the_hub(monkeypatch, host, environment, alone):
    for name in ("GRADIO_SERVER_NAME", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert app.for_this_machine(host) is alone


def test_an_address_that_cannot_be_had_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for address, reason in [
            (["--port", port], f"127.0.0.1, port {port} (Address already in use)"),
            (["--host", "192.0.2.1"], "192.0.2.1 (Cannot assign requested address)"),
            (["--host", "a..b"], "a..b (no host name)"),
        ]:
            assert app.main(address) == 2
            error = capsys.readouterr().err
            assert error == f"error: cannot listen on {reason}: choose other --host or --port\n"


def test_folders_of_one_name_are_all_shown(folder, tmp_path, monkeypatch):
    other = shutil.copytree(folder, tmp_path / folder.name)
    monkeypatch.chdir(other)
    registry = app.open_library([".", str(folder), str(other)])
    assert {key: session.folder.resolve() for key, session in registry.sessions.items()} == {
        "tiny": other,
        "tiny (2)": folder,
    }
    assert registry["tiny"] is registry.first
    assert len({title for title, _ in registry.choices}) == 2


def test_bundles_of_one_model_and_data_have_titles_of_their_own(folder):
    registry = app.open_library([str(folder)])
    config = replace(registry.first.bundle.config, model="ViT-B-32", pretrained="openai")
    bundle = replace(registry.first.bundle, config=config)
    registry = BundleRegistry(
        [BundleSession("a", Path("a"), bundle), BundleSession("b", Path("b"), bundle)]
    )
    assert [title.rpartition(" · ")[2] for title, _ in registry.choices] == ["a", "b"]


@pytest.mark.parametrize("text", ["-1", "1e9", "²", "9" * 30, "", "abc", None])
def test_numbers_in_an_address_are_believed_only_if_they_are_some(text):
    assert number(text, 5) == 5


def build_page(folder):
    # Gradio makes several event loops for a page and leaves them open: it gets this one.
    loop = asyncio.new_event_loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", lambda: loop)
        try:
            return app.build(BundleRegistry([BundleSession("tiny", folder)]))
        finally:
            asyncio.set_event_loop(None)
            loop.close()


@pytest.fixture(scope="module")
def page(folder):
    return build_page(folder)


def test_a_number_below_zero_is_explained_as_one_above_the_last(folder, page):
    unit = next(block for block in page.blocks.values() if block.elem_id == "explore-unit")
    assert unit.preprocess(-4) == -4
    with pytest.raises(ValueError, match="unit -4: layer 1 has units 0 to 127"):
        dashboard.show(BundleSession("tiny", folder), 1, -4, "", model=False)


def test_one_lane_for_the_model(page):
    public = [fn for fn in page.fns.values() if fn.api_visibility == "public" and fn.api_name]
    assert all(fn.fn.__name__ == fn.api_name for fn in public), "MCP tools have the same names"
    lanes = {fn.api_name: fn.concurrency_id for fn in page.fns.values() if fn.api_name}
    for name in (
        "search",
        "concepts",
        "compare",
        "edit",
        "find_edit",
        "confusions",
        "segment",
        "find_cues",
        "attack",
        "compare_sets",
    ):
        assert lanes[name] == MODEL
    assert "open" not in lanes, "without a shelf nothing can be opened from the Hub"


def test_a_failure_shows_on_one_output(page):
    for fn in page.fns.values():
        seen = [out for out in fn.outputs if app.is_seen(out)]
        assert len(fn.show_progress_on or seen) <= 1, fn.api_name
        assert not any(isinstance(out, gr.State) for out in fn.show_progress_on or ())


def test_what_runs_the_model_asks_for_a_gpu_where_one_is_lent(folder, monkeypatch):
    """ZeroGPU's package stands for itself: it gets every public handler of the model's lane."""
    asked = []

    def gpu(duration: int):
        assert 0 < duration <= 120
        return lambda handler: asked.append(handler) or handler

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    page = build_page(folder)
    handlers = {fn.fn for fn in page.fns.values() if fn.concurrency_id == MODEL}
    assert handlers <= set(asked)
    assert {"listen", "explain"} <= {handler.__name__ for handler in asked}
    monkeypatch.delitem(sys.modules, "spaces")
    assert on_gpu()(build_page) is build_page
