"""Label baselines, controls and comparisons."""
