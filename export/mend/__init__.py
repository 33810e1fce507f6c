"""`python -m export mend`: ablate the units that mislead a classifier."""
