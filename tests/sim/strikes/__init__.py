"""How each kind of fault begins, by what the fault hits."""
