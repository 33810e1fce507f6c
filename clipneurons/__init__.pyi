from .bundle.bundle import Bundle, load_bundle, save_bundle
from .bundle.config import BundleError
from .lens.lens import Lens, LensResult
from .models.anatomy import UnsupportedModel
from .models.clip import ClipModel, load_clip

__all__ = [
    "Bundle",
    "BundleError",
    "ClipModel",
    "Lens",
    "LensResult",
    "UnsupportedModel",
    "load_bundle",
    "load_clip",
    "save_bundle",
]

__version__: str
