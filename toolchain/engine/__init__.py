"""TensorRT engines: networks, the builder, plans, calibration caches, and the GPU through PyCUDA."""
