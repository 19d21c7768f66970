"""govipctl, the operator's command line."""
