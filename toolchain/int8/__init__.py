"""INT8: calibration ranges, quantization, and the choice of method and layers."""
