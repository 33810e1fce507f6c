"""Labels of units in the files that other tools read and write."""
