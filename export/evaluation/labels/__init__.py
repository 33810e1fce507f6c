"""How far the words of every unit can be trusted."""
