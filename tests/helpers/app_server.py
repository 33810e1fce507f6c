"""The page in a process of its own, as a visitor meets it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
# Nothing may leave the machine: a proxy that refuses stands for every outside host.
REFUSED = "http://127.0.0.1:9"


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_app(
    folders: list[Path], log: Path, *options: str, model: bool = True, wait: int = 600,
    more: dict[str, str] | None = None,
):  # fmt: skip
    """`python app.py` on some bundles: its address, once the page (and the model) is there.

    `more` is added to the environment.
    """
    port = free_port()
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), *options]
    for folder in folders:
        command += ["--bundle", str(folder)]
    environment = os.environ | {
        "HTTP_PROXY": REFUSED, "HTTPS_PROXY": REFUSED, "ALL_PROXY": REFUSED,
        "NO_PROXY": "127.0.0.1,localhost", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
        "GRADIO_TEMP_DIR": str(log.parent / "gradio"),
    } | (more or {})  # fmt: skip
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + wait
        while not (_up(address) and (not model or " model" in log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the app did not start:\n{log.read_text()}")
            time.sleep(0.3)
        yield address, process
    finally:
        process.terminate()
        process.wait(timeout=30)


def _up(address: str) -> bool:
    try:
        return httpx.get(address, timeout=10, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
