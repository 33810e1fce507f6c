"""`python -m export describe-classes`: a pool of image descriptions, from a chat model, one a line.

As in the papers, the model is asked for short characteristics that hold for almost all images of
a class, without naming the class. Classes that are done are kept, so a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from clipneurons.adversarial.descriptions import CHAT_MODEL
from clipneurons.bundle.folders import write_atomic
from clipneurons.text.pools import DESCRIPTIONS, clean_texts
from export.common.errors import UserError
from export.common.flags import positive
from export.common.settings import read_text

PROMPT = (
    "Give {count} characteristics of images that are true for almost all images of {name}. Be as"
    " general as possible: short descriptions, one characteristic each, that could be captions of"
    " almost any image of this category. Do not mention the category itself. Write one a line,"
    " without numbers."
)
# Longer lines are explanations, not descriptions.
_LONGEST = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `describe`."""
    add = parser.add_argument
    add("--classes", default="imagenet",
        help="imagenet (open_clip's 1,000 names), or a file of one a line (default: %(default)s)",
    )  # fmt: skip
    add("--model", default=CHAT_MODEL,
        help="chat model, an id on the Hub or a folder (default: %(default)s)")  # fmt: skip
    add("--count", type=positive, default=40,
        help="descriptions a class asked for (default: %(default)s)")  # fmt: skip
    add("--device", help="default: cuda where there is one, else cpu")
    add("--out", type=Path, default=Path(f"{DESCRIPTIONS}.txt"),
        help="text file, which `--texts` takes (default: %(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Ask for every class, then write all distinct descriptions."""
    from export.common.models import check_device

    check_device(args.device)
    names = class_names(args.classes)
    generate = chat(args.model, args.device)
    part = args.out.with_name(f".{args.out.name}.part")
    texts = describe(names, args.count, generate, part)
    write_atomic(args.out, "".join(f"{text}\n" for text in texts).encode())
    part.unlink(missing_ok=True)
    print(f"{len(texts):,} descriptions of {len(names):,} classes in {args.out}")
    return 0


def describe(
    names: Sequence[str], count: int, generate: Callable[[str], str], part: Path
) -> tuple[str, ...]:
    """Distinct descriptions of all classes; `part` keeps the answers, a JSON line each."""
    answers = _answers(part)
    with open(part, "a", encoding="utf-8") as file:
        for name in tqdm(names, desc="classes", disable=None):
            if name not in answers:
                answers[name] = lines_of(generate(PROMPT.format(count=count, name=name)), name)
                file.write(json.dumps({"class": name, "texts": answers[name]}) + "\n")
                file.flush()
    texts = [text for name in names for text in answers[name]]
    if not texts:
        raise UserError("the chat model gave no usable description: try another --model")
    return clean_texts(texts)


def lines_of(answer: str, name: str) -> list[str]:
    """The usable lines of an answer: not long, and without the class's name."""
    from clipneurons.adversarial.chat import parse_lines

    return [
        line
        for line in parse_lines(answer)
        if len(line) <= _LONGEST and name.casefold() not in line.casefold()
    ]


def class_names(spec: str) -> list[str]:
    """ImageNet's names, or the lines of a file."""
    if spec == "imagenet":
        from open_clip import IMAGENET_CLASSNAMES

        return list(IMAGENET_CLASSNAMES)
    if not Path(spec).is_file():
        raise UserError(f"--classes {spec!r}: expected 'imagenet' or a file, one class a line")
    names = [line.strip() for line in read_text(Path(spec)).splitlines()]
    return list(dict.fromkeys(name for name in names if name))


def chat(model: str, device: str | None) -> Callable[[str], str]:
    """A chat model as a function from a message to its answer (sampled with a fixed seed)."""
    from transformers import pipeline, set_seed

    try:
        generator = pipeline("text-generation", model=model, device=device)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--model {model}: {reason}") from None
    set_seed(0)

    def generate(message: str) -> str:
        messages = [{"role": "user", "content": message}]
        return generator(messages, max_new_tokens=1500, return_full_text=False)[0]["generated_text"]

    return generate


def _answers(part: Path) -> dict[str, list[str]]:
    """What a stopped run has; a last line that was cut off is asked for again."""
    answers = {}
    if part.is_file():
        for line in part.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            answers[entry["class"]] = entry["texts"]
    return answers
