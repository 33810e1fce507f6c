"""What was found about a picture's objects."""

PRESENT, MISSING, FOOLED_SHOWN = "as wanted", "true object missing", "fooled object shown"
UNCHECKED = "unchecked"
