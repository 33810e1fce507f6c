"""The baselines by name. To add one, write its file and register it here."""

from research.segmentation.baselines import (
    chefer,
    clearclip,
    gradcam,
    legrad,
    lrp,
    maskclip,
    naclip,
    partial_lrp,
    pooling_attention,
    raw_attention,
    resclip,
    rollout,
    sclip,
    textspan,
)

_MODULES = (
    raw_attention, rollout, partial_lrp, lrp, gradcam, chefer, textspan, maskclip, sclip, clearclip,
    naclip, resclip, legrad, pooling_attention,
)  # fmt: skip
BASELINES = {module.BASELINE.name: module.BASELINE for module in _MODULES}
