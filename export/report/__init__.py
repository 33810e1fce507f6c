"""The page of the papers' experiments: context, parts, charts and tables."""
