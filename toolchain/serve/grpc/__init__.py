"""gRPC: the server and its methods, the handling of calls, and the codec of messages."""
