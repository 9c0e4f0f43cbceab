"""Generates text with a causal language model, measures its speed and energy, and builds a bundle of such a model.

The commands are `toolchain generate` and `toolchain build --task lm`.

`opened.py` opens a checkpoint (`causal.py`, `decode_torch.py`) or the graph of a bundle (`decode_ort.py`) as a
`Generator`; `prompts.py` pads batches, `measure.py` makes the record. `build.py` makes a bundle with `export.py`,
`parity.py` and `weight_only.py`.
"""
