"""Record named tensors of a forward pass, and nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    modules, mine = dict(model.named_modules()), get_ident()
    try:
        for name in names:
            path, _, side = name.partition(":")
            if path not in modules or side not in ("", "input"):
                raise KeyError(
                    f"cannot record {name!r}: expected the path of a submodule, alone or with "
                    f"':input', such as {next(p for p in modules if p)!r}"
                )

            # Names are bound as defaults: a closure would see the loop's last one.
            def keep_output(_module, _args, output, name=name):
                if get_ident() == mine:
                    tensors[name] = output

            def keep_input(_module, args, name=name):
                if get_ident() == mine:
                    tensors[name] = args[0]

            module = modules[path]
            handles.append(
                module.register_forward_pre_hook(keep_input)
                if side
                else module.register_forward_hook(keep_output)
            )
        yield tensors
    finally:
        for handle in handles:
            handle.remove()
