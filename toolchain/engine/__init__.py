"""TensorRT networks filled through its network API, and what belongs to building them."""
