"""How each kind of fault begins, by what it hits."""
