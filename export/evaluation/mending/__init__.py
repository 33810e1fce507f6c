"""Whether ablating few neurons mends a misled classifier."""
