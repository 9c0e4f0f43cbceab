"""A Hugging Face checkpoint: its weights, its tokenizer, and its export to ONNX."""
