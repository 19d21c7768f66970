"""govipctl, the operator's command."""
