"""Record named tensors of a forward pass, and nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import get_ident

from torch import Tensor, nn


@contextmanager
def record_activations(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record the outputs (``"path"``) or first inputs (``"path:input"``) of submodules.

    Yields a dictionary that each forward pass inside the context fills; a second pass
    overwrites the first. Passes that other threads make meanwhile leave it alone. The hooks are
    removed when the context ends, however it ends.

    Raises:
        KeyError: a path that the model does not have.
    """
    tensors: dict[str, Tensor] = {}
    handles = []
    modules = dict(model.named_modules())
    try:
        for name in names:
            path, _, side = name.partition(":")
            if path not in modules or side not in ("", "input"):
                raise KeyError(
                    f"cannot record {name!r}: expected the path of a submodule, alone or with "
                    f"':input', such as {next(p for p in modules if p)!r}"
                )
            module, keep = modules[path], partial(_keep, tensors, name, get_ident())
            register = module.register_forward_pre_hook if side else module.register_forward_hook
            handles.append(register(keep))
        yield tensors
    finally:
        for handle in handles:
            handle.remove()


def _keep(tensors: dict, name: str, thread: int, _module, args: tuple, output=None) -> None:
    """A hook: the output after a module, its first input before."""
    if get_ident() == thread:
        tensors[name] = args[0] if output is None else output
