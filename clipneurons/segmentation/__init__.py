"""Zero-shot segmentation: from an image and words to masks."""
