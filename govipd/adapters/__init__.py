"""The outside world: each module implements one protocol of `govipd.runtime.ports` over one library."""

import os

# gRPC's core writes errors to standard error that it also returns. It reads this variable when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
