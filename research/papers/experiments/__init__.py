"""The papers' experiments, one a file (`python -m research papers`)."""
