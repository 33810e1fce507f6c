"""Two processes train one model: each sees its own images, all take the mean step."""

import os
import random
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from export.pipeline import distributed
from research.mini_clip import processes
from research.mini_clip.recipe import Recipe
from research.mini_clip.trainer import Trainer

ROOT = Path(__file__).parents[3]


class Toy(Trainer):
    """A function of random points; keeps what every step saw and what followed."""

    def build(self):
        self.seen, self.steps = [], []
        return nn.Sequential(OrderedDict(layer1=nn.Linear(3, 3), out=nn.Linear(3, 1)))

    def loss(self):
        x = torch.from_numpy(self.rng.normal(size=(4, 3)).astype("float32"))
        self.seen.append((x, *(p.detach().clone() for p in self.model.parameters())))
        return (self.model(x) - torch.randn(4, 1)).square().mean()

    def gradients(self):
        super().gradients()
        self.steps.append([p.grad.clone() for p in self.model.parameters()])

    def figures(self):
        return ""


def train(run: Path) -> None:
    """Three steps; what this process saw, its own gradients and the mean ones."""
    distributed.start()
    toy = Toy(Recipe("toy", steps=4), run)
    kept, mean = [], processes.mean_gradients

    def remember(model, loss):
        found = mean(model, loss)
        kept.append(([p.grad.clone() for p in model.parameters()], loss, found))
        return found

    processes.mean_gradients = remember
    for _ in range(3):
        toy.train_step()
    if not processes.index():
        toy.save()
    everything = [toy.seen, toy.steps, kept, toy.seconds, list(toy.model.state_dict().values())]
    torch.save(everything, run / f"{processes.index()}.seen")
    torch.distributed.barrier()
    again = Toy(Recipe("toy", steps=4), run)
    again.train_step()
    torch.save(again.seen, run / f"{processes.index()}.again")
    distributed.stop()


def test_processes_see_other_images_and_take_the_mean_step(tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--master_port", str(random.Random(os.getpid()).randint(20000, 40000)),
        "-m", "tests.research.mini_clip.test_processes", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / f"{i}.seen", weights_only=True) for i in range(2))
    for a, b in zip(one[0], two[0], strict=True):
        assert not torch.equal(a[0], b[0]), "each draws its own points"
        assert all(map(torch.equal, a[1:], b[1:])), "of the same model"
    for mine, other, (mean, loss, found), (same, its, _) in zip(
        one[1], two[1], one[2], two[2], strict=True
    ):
        assert found == pytest.approx((loss + its) / 2)
        for x, y, z, again in zip(mine, other, mean, same, strict=True):
            torch.testing.assert_close(z, ((x.double() + y.double()) / 2).float())
            assert torch.equal(z, again)
    assert one[3] == two[3], "the first's clock counts"
    assert all(map(torch.equal, one[4], two[4]))
    resumed = [torch.load(tmp_path / f"{i}.again", weights_only=True)[0] for i in range(2)]
    assert not torch.equal(resumed[0][0], resumed[1][0])
    assert not any(torch.equal(resumed[1][0], x) for x, *_ in two[0]), "no draw comes again"
    assert all(map(torch.equal, resumed[1][1:], two[4])), "from where the first's was saved"


if __name__ == "__main__":
    train(Path(sys.argv[1]))
