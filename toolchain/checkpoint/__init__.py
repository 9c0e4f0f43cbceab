"""Reading a Hugging Face checkpoint: its checks, weights and tokenizer, and its export to ONNX."""
