"""The baselines by the names of their papers."""

from clipneurons.segmentation.baselines.chefer import chefer
from clipneurons.segmentation.baselines.clearclip import clearclip
from clipneurons.segmentation.baselines.gradcam import gradcam
from clipneurons.segmentation.baselines.legrad import legrad
from clipneurons.segmentation.baselines.lrp import lrp
from clipneurons.segmentation.baselines.maskclip import maskclip
from clipneurons.segmentation.baselines.naclip import naclip
from clipneurons.segmentation.baselines.partial_lrp import partial_lrp
from clipneurons.segmentation.baselines.raw_attention import raw_attention
from clipneurons.segmentation.baselines.resclip import resclip
from clipneurons.segmentation.baselines.rollout import rollout
from clipneurons.segmentation.baselines.sclip import sclip
from clipneurons.segmentation.baselines.textspan import textspan

BASELINES = {
    "raw attention": raw_attention,
    "rollout": rollout,
    "Partial-LRP": partial_lrp,
    "LRP": lrp,
    "GradCAM": gradcam,
    "Chefer 2021": chefer,
    "TextSpan": textspan,
    "MaskCLIP": maskclip,
    "SCLIP": sclip,
    "ClearCLIP": clearclip,
    "NACLIP": naclip,
    "ResCLIP": resclip,
    "LeGrad": legrad,
}
