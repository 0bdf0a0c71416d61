"""What gRPC reads of the environment: it does so when it is imported, so this is imported first."""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Or whoever connects and hangs up writes lines into the log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
