"""A GPU for the length of one request, on ZeroGPU Spaces; elsewhere nothing changes."""

from __future__ import annotations

from collections.abc import Callable


def on_gpu(seconds: int = 60) -> Callable[[Callable], Callable]:
    """Decorator for a handler that runs the model: `@spaces.GPU` where that package is.

    It goes outside `@user_errors`: ZeroGPU runs the handler in another process, from which page
    messages come back, but not other errors.
    """

    def decorate(handler: Callable) -> Callable:
        try:
            import spaces
        except ImportError:  # not in a Space
            return handler
        return spaces.GPU(duration=seconds)(handler)

    return decorate
