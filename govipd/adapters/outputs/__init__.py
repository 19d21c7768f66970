"""What other programs read or run: metrics and hooks."""
