"""How peers find, reach and ask each other."""
