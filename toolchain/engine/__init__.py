"""TensorRT: networks, builder, plans, calibration caches, and the GPU through PyCUDA."""
