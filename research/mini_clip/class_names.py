"""Which name every photograph's class goes by, and what WordNet knows of it.

Data sets call one thing by many names ("automobile", "car", "car side"); here they meet, and meet
the pictograms' concepts. WordNet's nouns (Debian's `wordnet-base`) give synonyms, hypernyms and a
gloss, so that "crane" in Tiny-ImageNet is the machine and not the bird.
"""

from dataclasses import dataclass
from pathlib import Path

from export.common.errors import UserError

WORDNET = Path("/usr/share/wordnet/data.noun")

# Data set's name -> ours, where the data set's own is no plain noun or another's name for a thing.
RENAMED = {
    "faces": "face", "faces easy": "face", "leopards": "leopard", "motorbikes": "motorcycle",
    "motorbike": "motorcycle", "airplanes": "airplane", "car": "automobile",
    "car side": "automobile", "binocular": "binoculars", "cougar body": "cougar",
    "cougar face": "cougar", "crocodile head": "crocodile", "flamingo head": "flamingo",
    "headphone": "headphones", "water lilly": "water lily", "wild cat": "wildcat",
    "dollar bill": "banknote", "rhino": "rhinoceros", "beacon": "lighthouse",
    "brass": "memorial plaque", "lesser panda": "red panda", "beach wagon": "station wagon",
    "projectile": "missile", "organ": "pipe organ", "chest": "storage chest",
    "crane": "construction crane", "drumstick": "drum stick", "nail": "metal nail",
    "monarch": "monarch butterfly", "tabby": "tabby cat", "bighorn": "bighorn sheep",
    "teddy": "teddy bear", "ice lolly": "popsicle", "ice cream": "icecream",
    "spider web": "cobweb", "european fire salamander": "fire salamander",
    "american alligator": "alligator", "american lobster": "lobster",
    "computer keyboard": "keyboard", "pay-phone": "pay phone", "jinrikisha": "rickshaw",
    "hog": "pig", "cellphone": "mobile phone", "bass": "bass fish", "torch": "fire torch",
    "tick": "tick insect", "reel": "fishing reel", "buddha": "buddha statue",
    "plate": "dinner plate", "mantis": "praying mantis", "fly": "housefly",
    "walking stick": "stick insect", "gasmask": "gas mask", "magnetic compass": "compass",
}  # fmt: skip


@dataclass(frozen=True)
class Synset:
    """A WordNet noun: its lemmas, gloss, and the offsets of its hypernyms."""

    lemmas: tuple[str, ...]
    gloss: str
    hypernyms: tuple[int, ...]


def read_wordnet(path: Path = WORDNET) -> dict[int, Synset]:
    """Every noun synset by offset; `UserError` where WordNet is not installed."""
    if not path.is_file():
        raise UserError(f"{path} is missing: apt-get install wordnet-base")
    nouns = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("  "):
                continue
            head, _, gloss = line.partition(" | ")
            parts = head.split()
            count = int(parts[3], 16)
            lemmas = tuple(parts[4 + 2 * i].replace("_", " ") for i in range(count))
            at = 4 + 2 * count
            pointers = [parts[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(parts[at]))]
            up = tuple(int(p[1]) for p in pointers if p[0] in ("@", "@i"))
            nouns[int(parts[0])] = Synset(lemmas, gloss.strip(), up)
    return nouns


def hypernyms(nouns: dict[int, Synset], offset: int, levels: int = 4) -> list[str]:
    """First lemmas of what a noun is, from near to far."""
    found = []
    for _ in range(levels):
        if offset not in nouns or not nouns[offset].hypernyms:
            break
        offset = nouns[offset].hypernyms[0]
        found.append(nouns[offset].lemmas[0])
    return found


def plain(name: str) -> str:
    """Our name of a data set's class."""
    first = name.split(",")[0].strip().lower()
    return RENAMED.get(first, first)


def synset(entry: dict) -> int | None:
    """The WordNet offset of a class whose key is one (`n01443537`)."""
    key = entry["key"]
    return int(key[1:]) if key[:1] == "n" and key[1:].isdigit() else None


def describe(entry: dict, nouns: dict[int, Synset]) -> str:
    """What a class means, as a line for the sentence model."""
    offset = synset(entry)
    if offset not in nouns:
        return plain(entry["name"])
    noun = nouns[offset]
    return ", ".join([*noun.lemmas[:3], *hypernyms(nouns, offset), noun.gloss.split(";")[0]])
