"""One file a tab; `app.py` puts them together."""
