"""The papers' figures and tables, on one page."""
