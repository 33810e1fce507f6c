"""Speed and memory, measured: ratios in one run, medians."""
