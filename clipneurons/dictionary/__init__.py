"""The dictionary of units: search, dashboards, similar units."""
