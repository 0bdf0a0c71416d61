"""Some of these tests start processes while calls are under way: gRPC's preparations for a fork would crash them."""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
