"""What a layer's effects are made of: statistics, directions and sparse codes."""
