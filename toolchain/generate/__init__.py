"""Text from a causal language model, and its measurement: `toolchain generate`.

`causal.py` loads the model, `prompts.py` pads batches, `decode.py` runs and times one, `measure.py` makes the record.
"""
