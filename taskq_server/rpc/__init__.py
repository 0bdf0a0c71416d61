"""gRPC: the only room that knows grpc and the generated messages. A servicer converts, calls, converts."""
