"""Dynamic batching: queues, batches and the engines that run them."""
