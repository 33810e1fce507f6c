"""Read what the units of a CLIP image encoder say, as text, and use it.

    import clipneurons as cn

Public names are listed in ``__init__.pyi`` and loaded when first used, so that importing the
package costs milliseconds.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
