"""What is served over HTTP, beside gRPC and in the same event loop."""
