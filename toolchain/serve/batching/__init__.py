"""Batching: the queue, the batcher, and the threads that own the engines."""
