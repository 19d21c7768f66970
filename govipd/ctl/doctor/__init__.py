"""The checks of `govipctl doctor`: one module for each part of a machine's surroundings."""
