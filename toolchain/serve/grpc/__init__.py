"""gRPC: the servicer, its calls, and its messages."""
