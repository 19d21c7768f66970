"""The outside world: each module implements one protocol of `govipd.runtime.ports` over one library."""

import os

# gRPC's core writes to standard error what it also returns as errors. It reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
