"""INT8: calibration ranges, quantization, and the choice of range method and of the GEMMs to quantize."""
