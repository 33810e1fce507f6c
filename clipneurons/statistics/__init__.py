"""Statistics of effects over images; sparse decomposition."""
