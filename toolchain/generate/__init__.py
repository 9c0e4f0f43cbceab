"""Text from a causal language model, and its measurement: `toolchain generate`.

`opened.py` opens a checkpoint (`causal.py`, `decode_torch.py`) or the graph of a bundle (`decode_ort.py`) as a
`Generator`; `prompts.py` pads batches, `measure.py` makes the record. `build.py` makes a bundle by `export.py`,
`parity.py` and `weight_only.py`.
"""
