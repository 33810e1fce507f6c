"""The papers' experiments, one a file, and the page that shows them (`python -m research papers`)."""
