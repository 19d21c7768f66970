"""The outside world: each module implements one protocol of `govipd.ports` over one library."""
