"""Published ways to localise a class with CLIP, one a file, all with one interface.

``method(tower, images [image, 3, height, width], texts [class, embed])`` returns maps
``[image, class, row, column]`` on the patch grid; larger means more of the class.
"""

from clipneurons.baselines.chefer import chefer
from clipneurons.baselines.clearclip import clearclip
from clipneurons.baselines.gradcam import gradcam
from clipneurons.baselines.legrad import legrad
from clipneurons.baselines.lrp import lrp
from clipneurons.baselines.maskclip import maskclip
from clipneurons.baselines.partial_lrp import partial_lrp
from clipneurons.baselines.raw_attention import raw_attention
from clipneurons.baselines.rollout import rollout
from clipneurons.baselines.sclip import sclip
from clipneurons.baselines.textspan import textspan

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
    "LeGrad": legrad,
}
