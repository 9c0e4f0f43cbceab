"""Write 64 rows and their logits, computed with FP32, FP16 and INT8 graphs in ONNX Runtime. `pack.py` calls it.

Stage `rtx` compares its own logits with these.

    python reference.py TABLE.tsv FP16_BUNDLE INT8_BUNDLE OUT.npz
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

ROWS, LENGTH = 64, 64


def main(table: Path, fp16: Path, int8: Path, out: Path) -> None:
    """Write the token ids and masks of ROWS rows of `table`, padded to LENGTH, and each graph's logits to `out`.

    The keys of the file are input_ids, attention_mask, fp32, fp16 and int8.
    """
    import pandas as pd
    from transformers import AutoTokenizer

    rows = pd.read_csv(table, sep="\t", quoting=3, keep_default_na=False).iloc[:ROWS]
    tokenizer = AutoTokenizer.from_pretrained(int8)
    texts = list(rows["sentence"])
    found = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np")
    batch = {key: found[key].astype(np.int32) for key in ("input_ids", "attention_mask")}
    kept = dict(batch)
    graphs = {"fp32": fp16 / "model.onnx", "fp16": fp16 / "model.fp16.onnx", "int8": int8 / "model.int8.onnx"}
    for label, file in graphs.items():
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # The extended level would fuse Q/DQ nodes into integer operators.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        feed = {one.name: batch[one.name] for one in session.get_inputs()}
        kept[label] = session.run(None, feed)[0].astype(np.float32)
    np.savez_compressed(out, **kept)
    changed = {key: int((kept[key].argmax(1) != kept["fp32"].argmax(1)).sum()) for key in ("fp16", "int8")}
    print(f"{table}: {len(rows)} rows; number of labels that differ from FP32's: {changed}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
