"""A checkpoint: its weights, its tokenizer, its export to ONNX."""
