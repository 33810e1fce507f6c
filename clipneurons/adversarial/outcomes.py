"""What was found about a picture's objects."""

PRESENT, MISSING, TARGET_SHOWN = "as wanted", "true object missing", "target object shown"
UNCHECKED = "unchecked"
