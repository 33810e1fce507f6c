"""Rebuild the pictogram packs.

Fetches pinned npm packages of icons (npm must be on the path), draws the concepts of
`concepts.txt` at 64 px, and packs them: the training styles, the two held-out styles, and the
line icons that only training uses. Writes `artifacts/NOTICE`.
"""

import io
import json
import re
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

from clipneurons.synthetic.pictograms import SIZE, save_pictograms

EMOJI = {
    "noto": "1.2.9", "noto-v1": "1.2.5", "twemoji": "1.2.5", "fluent-emoji": "1.2.7",
    "fluent-emoji-flat": "1.2.6", "fluent-emoji-high-contrast": "1.2.6", "emojione": "1.2.3",
    "emojione-monotone": "1.2.1", "streamline-emojis": "1.2.4", "fxemoji": "1.2.2",
}  # fmt: skip
HELDOUT = {"openmoji": "1.2.29", "emojione-v1": "1.2.3"}
LINES = {
    "bx": "1.2.3", "bxs": "1.2.3", "carbon": "1.2.29", "fa6-solid": "1.2.4", "fa7-solid": "1.2.5",
    "flat-color-icons": "1.2.3", "fluent": "1.2.60", "fluent-color": "1.2.21",
    "game-icons": "1.2.4", "guidance": "1.2.2", "healthicons": "1.2.13", "hugeicons": "1.2.35",
    "icon-park": "1.2.4", "icon-park-outline": "1.2.4", "icon-park-solid": "1.2.4",
    "icon-park-twotone": "1.2.4", "iconoir": "1.2.11", "icons8": "1.2.1", "ion": "1.2.7",
    "la": "1.2.1", "lucide": "1.2.137", "lucide-lab": "1.2.3", "maki": "1.2.5",
    "material-symbols": "1.2.98", "mdi": "1.2.3", "medical-icon": "1.2.0", "meteocons": "1.2.4",
    "mingcute": "1.2.8", "ph": "1.2.2", "ri": "1.2.10", "solar": "1.2.13", "streamline": "1.2.5",
    "streamline-flex": "1.2.3", "streamline-freehand-color": "1.2.2", "streamline-pixel": "1.2.0",
    "streamline-plump": "1.2.0", "streamline-ultimate": "1.2.2",
    "streamline-ultimate-color": "1.2.2", "tabler": "1.2.41", "temaki": "1.2.6", "uil": "1.2.3",
}  # fmt: skip
LABELS = ("emojibase-data", "17.0.0")
FLUENT_3D = ("@lobehub/fluent-emoji-3d", "1.1.0")
ALLOWED = {"MIT", "ISC", "Apache-2.0", "CC-BY-4.0", "CC-BY-3.0", "CC0-1.0"}
MIN_STYLES = 7
# Words in an icon's name that say how it is drawn, not what it shows.
DRAWN_AS = {
    "outline", "outlined", "filled", "fill", "bold", "duotone", "linear", "broken", "thin",
    "light", "regular", "solid", "alt", "variant", "rounded", "sharp", "line", "twotone",
    "color", "colour", "icon", "logo", "emoji", "flat", "remix", "fine", "1", "2", "3", "4",
    "5", "16", "20", "24", "28", "32", "48", "stroke", "standard", "freehand",
}  # fmt: skip


def read_concepts() -> tuple[dict, dict, dict]:
    """concepts.txt as (group, emoji hexcodes, synonyms), each by concept."""
    groups, emoji, synonyms, group = {}, {}, {}, ""
    for line in (Path(__file__).parent / "concepts.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            group = line.strip("[]")
            continue
        name, drawings, *words = line.split()
        groups[name] = group
        emoji[name] = [f"{ord(char):x}" for char in drawings if char != "\ufe0f"]
        synonyms[name] = [word.replace("_", " ") for word in words]
    return groups, emoji, synonyms


def fetch(work: Path) -> None:
    """Install the pinned packages below `work`; no package scripts are run."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "package.json").write_text('{"private": true}')
    sets = {**EMOJI, **HELDOUT, **LINES}
    wanted = [f"@iconify-json/{name}@{version}" for name, version in sets.items()]
    wanted += ["@".join(FLUENT_3D), "@".join(LABELS)]
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *wanted]
    subprocess.run(command, cwd=work, check=True)


def read_set(work: Path, name: str) -> tuple[dict, dict, dict]:
    """One icon set as (icons by name, icon name by hexcode, licence)."""
    folder = work / "node_modules" / "@iconify-json" / name
    icons = json.loads((folder / "icons.json").read_text())
    info = json.loads((folder / "info.json").read_text())
    licence, author = info["license"], info["author"]
    if licence["spdx"] not in ALLOWED and name not in HELDOUT:
        raise ValueError(f"{name} is under {licence['spdx']}, which training must not use")
    size = (icons.get("width", 16), icons.get("height", 16))
    drawings = {
        key: (icon["body"], icon.get("left", 0), icon.get("top", 0),
              icon.get("width", size[0]), icon.get("height", size[1]))
        for key, icon in icons["icons"].items()
    }  # fmt: skip
    for key, alias in icons.get("aliases", {}).items():
        if set(alias) == {"parent"} and alias["parent"] in drawings:
            drawings.setdefault(key, drawings[alias["parent"]])
    path = folder / "chars.json"
    chars = json.loads(path.read_text()) if path.is_file() else {}
    chars = {code.lower().replace("-fe0f", ""): icon for code, icon in chars.items()}
    credit = {"author": author["name"], "url": author.get("url", ""), "spdx": licence["spdx"],
              "package": f"@iconify-json/{name}"}  # fmt: skip
    return drawings, chars, credit


def pick_emoji(drawings: dict, chars: dict, emoji: dict, labels: dict) -> list[tuple[str, str]]:
    """(concept, icon name) by code point, or by the emoji's label in sets without code points."""
    if not chars:
        for code, label in labels.items():
            names = (f"{stem}{end}" for stem in label for end in ("", "-1", "-2", "-3"))
            chars |= {f"{code}.{i}": n for i, n in enumerate(names) if n in drawings}
        emoji = {c: [k for k in chars if k.split(".")[0] in codes] for c, codes in emoji.items()}
    chosen = []
    for concept, codes in emoji.items():
        icons = dict.fromkeys(chars[code] for code in codes if chars.get(code) in drawings)
        chosen += [(concept, icon) for icon in icons]
    return chosen


def read_labels(work: Path) -> dict[str, list[str]]:
    """Unicode's label of each emoji as icon names spell it: with hyphens, or run together."""
    path = work / "node_modules" / "emojibase-data" / "en" / "data.json"
    labels = {}
    for emoji in json.loads(path.read_text()):
        kebab = re.sub(r"[^a-z0-9]+", "-", emoji["label"].lower().replace("’", "")).strip("-")
        short = kebab.removesuffix("-face")
        names = [kebab, kebab.replace("-", ""), short, f"{short}-face"]
        labels[emoji["hexcode"].lower().replace("-fe0f", "")] = list(dict.fromkeys(names))
    return labels


def pick_lines(drawings: dict, concepts: dict, synonyms: dict, most: int = 4) -> list:
    """(concept, icon name) by the words of the icon's name, without those on how it is drawn."""
    words: dict[str, set[str]] = {}
    for concept in concepts:
        for word in (concept, *synonyms[concept]):
            words.setdefault(word.replace(" ", "-"), set()).add(concept)
    chosen, count = [], {}
    for icon in sorted(drawings):
        kept = "-".join(word for word in icon.split("-") if word not in DRAWN_AS)
        owners = {kept} & set(concepts) or words.get(kept, set())
        if len(owners) == 1:
            concept = next(iter(owners))
            count[concept] = count.get(concept, 0) + 1
            if count[concept] <= most:
                chosen.append((concept, icon))
    return chosen


def draw(job: tuple) -> tuple[str, str, bytes] | None:
    """Render one drawing, cropped to what is visible, as 64 px WebP."""
    import resvg_py

    concept, style, source = job
    if isinstance(source, str):
        image = Image.open(source).convert("RGBA")
    else:
        body, left, top, width, height = source
        body = re.sub(r"<(animate|set)\w*[^>]*?/>|<(animate\w*|set)[^>]*>.*?</\2>", "", body)
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}">{body}</svg>'
        ).replace("currentColor", "#000")
        try:
            png = resvg_py.svg_to_bytes(svg_string=svg, height=128, skip_system_fonts=True)
        except ValueError:
            return None
        image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    scale = (SIZE - 2) / max(image.size)
    small = image.resize([max(1, round(side * scale)) for side in image.size], Image.LANCZOS)
    square = Image.new("RGBA", (SIZE, SIZE))
    square.paste(small, ((SIZE - small.width) // 2, (SIZE - small.height) // 2))
    file = io.BytesIO()
    square.save(file, "WEBP", quality=85, method=4)
    return concept, style, file.getvalue()


def notice(licences: dict[str, dict]) -> str:
    """Attribution for every set, in the words their licences ask for."""
    rows = [
        f"- {style}: {c['author']} ({c['url']}), {c['spdx']}, from npm package {c['package']}"
        for style, c in sorted(licences.items())
    ]
    return "\n".join(
        [
            "The pictogram packs in this folder hold drawings from the sets below, rendered at",
            "64 pixels, cropped and recompressed (changes were made).",
            "pictograms-heldout.safetensors (openmoji, emojione-v1) is under CC BY-SA 4.0 and was",
            "used for evaluation only, never for training. Sets marked (training only) were seen",
            "in training and are not in the packs.",
            "fxemoji: art by Mozilla, CC BY 4.0. streamline sets: Streamline, CC BY 4.0.",
            "",
            *rows,
            "",
            *PHOTOGRAPHS,
            "",
        ]
    )


PHOTOGRAPHS = (
    "photographs.safetensors holds photographs of Caltech-101 (Fei-Fei Li, Marco Andreetto,",
    "Marc'Aurelio Ranzato, Pietro Perona; California Institute of Technology, 2004; CaltechDATA,",
    "doi 10.22002/D1.20086), CC BY 4.0, reduced to at most 64 px. No training saw them.",
    "",
    "photograph-names.json: names of what photographs in training show; kinds of things after",
    "WordNet 3.0 (Copyright 2006 by Princeton University, WordNet licence), corrected by hand.",
)


def build(work: Path, out: Path, extra: Path) -> None:
    """Write the shipped packs and NOTICE into `out`, the training-only one to `extra`; npm
    installs into `work`, what is there already is not fetched again."""
    if not (work / "node_modules").is_dir():
        fetch(work)
    groups, emoji, synonyms = read_concepts()
    labels = read_labels(work)
    packs, licences, jobs = {"emoji": set(EMOJI), "heldout": set(HELDOUT), "lines": set()}, {}, []
    for style in [*EMOJI, *HELDOUT, *LINES]:
        drawings, chars, licences[style] = read_set(work, style)
        if style in LINES:
            packs["lines"].add(style)
            chosen = pick_lines(drawings, groups, synonyms)
        else:
            chosen = pick_emoji(drawings, chars, emoji, labels)
        jobs += [(concept, style, drawings[icon]) for concept, icon in chosen]
    folder = work / "node_modules" / FLUENT_3D[0]
    files = {path.stem.replace("-fe0f", ""): str(path) for path in folder.glob("assets/*.webp")}
    jobs += [
        (c, "fluent-emoji-3d", files[code]) for c in emoji for code in emoji[c] if code in files
    ]
    packs["emoji"].add("fluent-emoji-3d")
    licences["fluent-emoji-3d"] = {
        "author": "Microsoft Corporation",
        "spdx": "MIT",
        "package": FLUENT_3D[0],
        "url": "https://github.com/microsoft/fluentui-emoji",
    }
    print(f"drawing {len(jobs)} pictograms", flush=True)
    with ProcessPoolExecutor(2) as pool:
        drawn = [result for result in pool.map(draw, jobs, chunksize=64) if result]
    print(f"drew {len(drawn)}", flush=True)
    styles_of: dict[str, set] = {}
    for concept, style, _ in drawn:
        if style in packs["emoji"]:
            styles_of.setdefault(concept, set()).add(style)
    tested = {concept for concept, style, _ in drawn if style == "openmoji"}
    kept = {c for c, styles in styles_of.items() if len(styles) >= MIN_STYLES and c in tested}
    groups = {concept: group for concept, group in groups.items() if concept in kept}
    synonyms = {concept: synonyms[concept] for concept in groups}
    targets = {"emoji": out / "pictograms.safetensors",
               "heldout": out / "pictograms-heldout.safetensors",
               "lines": extra}  # fmt: skip
    for name, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = [item for item in drawn if item[0] in kept and item[1] in packs[name]]
        save_pictograms(path, mine, groups, synonyms, licences)
        print(f"{path}: {len(groups)} concepts, {len(mine)} drawings, "
              f"{path.stat().st_size / 1e6:.1f} MB", flush=True)  # fmt: skip
    shown = {s if s not in LINES else f"{s} (training only)": c for s, c in licences.items()}
    (out / "NOTICE").write_text(notice(shown))
