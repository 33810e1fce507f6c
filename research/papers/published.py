"""Values printed in the papers, to stand beside ours; every number here is theirs.

ViT-B/32 by OpenAI on ImageNet, layer 9, unless it says otherwise (2406.04341); the ResNets are
those of 2509.19943.
"""

MODEL = "ViT-B/32 (OpenAI), ImageNet"

# Table 1: accuracy after mean-ablation of a layer, variance that the first component explains.
INDIRECT = {"accuracy": 52.3, "variance": 11.0}
SECOND_ORDER = {"accuracy": 29.6, "variance": 48.2}

# Table 3: success in per cent, by pair and method.
ADVERSARIAL_METHODS = ("second-order", "random neurons", "indirect effect", "similar words")
ADVERSARIAL = {
    ("horse", "automobile"): (5.3, 1.0, 2.8, 1.0),
    ("dog", "deer"): (22.7, 0.3, 6.3, 3.3),
    ("bird", "frog"): (8.0, 0.3, 1.0, 5.0),
    ("ship", "truck"): (5.7, 0.0, 0.0, 0.0),
    ("ship", "automobile"): (7.0, 1.3, 0.0, 1.3),
}

# Table 4, ImageNet-Segmentation: pixel accuracy, mIoU, mAP.
SEGMENTATION = {
    "Partial-LRP": (55.0, 35.5, 66.9),
    "rollout": (61.8, 42.6, 74.0),
    "LRP": (62.9, 35.8, 68.5),
    "GradCAM": (67.3, 39.3, 61.9),
    "Chefer 2021": (68.9, 49.1, 79.7),
    "raw attention": (69.6, 49.8, 80.0),
    "TextSpan": (76.5, 58.1, 84.1),
    "second-order votes": (78.1, 59.0, 84.9),
}

# PASCAL Context (60 classes), mIoU of RN50x16 (2509.19943).
RESNET_SEGMENTATION = {"MaskCLIP": 22.8, "neuron-head pairs": 26.2}

# Neurons that an image activates, in the examples of concept discovery.
ACTIVATED = (29, 59)
# Each neuron's effect is significant for less than this share of the images (abstract).
SELECTIVITY = 0.02
# One accuracy figure for ViT-L/14 with the published code.
SECONDS = "5 days on an A100 (ViT-L/14, one accuracy)"
