"""Draw the layers of toolchain/ as docs/img/tree.svg, from the table in tests/test_layers.py (`make pictures`)."""

import ast
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Package or module of toolchain/ -> a few words on what it has. Every one of the layers must be here.
WORDS = {
    "__main__": "python -m toolchain",
    "cli": "commands, and their output",
    "api": "the public Python functions",
    "accept": "all checks on a GPU machine",
    "sweep": "grids of builds; Pareto fronts",
    "distill": "smaller models, trained by a teacher",
    "diagnose": "verify, explain, tune, doctor, gate",
    "cascade": "a fast first stage before a model",
    "serve": "HTTP, gRPC, batching, metrics",
    "ship": "Triton repositories, images",
    "workflow": "evaluation and demo, step by step",
    "report": "HTML, Markdown, CSV",
    "profile": "time and energy of model parts; roofline",
    "generate": "text of language models, its speed",
    "energy": "load, measurement windows, comparison",
    "evaluation": "measurement, results, comparison, statistics",
    "bundle": "build steps, atomic writes, digests",
    "int8": "calibration ranges, Q/DQ, choice of methods",
    "runtimes": "PyTorch, ONNX Runtime, TensorRT, batching",
    "checkpoint": "model, export, tokens",
    "heads": "what outputs mean: labels, scores, answers",
    "engine": "TensorRT and CUDA",
    "data": "rows, labels, metrics, tasks",
    "recipe": "options and their values",
    "graph": "passes over ONNX graphs",
    "meters": "latency, memory, NVML, RAPL",
    "base": "files, arrays, progress bars",
    "errors": "exit codes",
    "records": "JSON records as types",
}
# Fill colour -> its packages. The five groups are: commands and whole tasks, packages that use a bundle, packages that
# make one, models with their data and runtimes, and the packages that all others use.
COLOURS = {
    "#e8eaf6": ("__main__", "cli", "api", "accept", "sweep", "distill", "diagnose", "cascade", "workflow"),
    "#e0f2f1": ("serve", "ship", "report", "profile", "generate", "energy", "evaluation"),
    "#fff3e0": ("bundle", "int8"),
    "#e3f2fd": ("runtimes", "checkpoint", "heads", "engine", "data", "graph", "meters"),
    "#f5f5f5": ("recipe", "base", "errors", "records"),
}
WIDTH, ROW, GAP = 960, 50, 8


def layers() -> list[tuple[str, ...]]:
    """Return the table LAYERS of tests/test_layers.py: the names of the packages in each layer, lowest layer first."""
    tree = ast.parse((ROOT / "tests/test_layers.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS":
            found: list[tuple[str, ...]] = list(ast.literal_eval(node.value))
            return found
    raise ValueError("tests/test_layers.py: it does not assign the table LAYERS, which the picture is drawn from.")


def drawn() -> str:
    """Return the picture as the text of an SVG file: one row of boxes for each layer, the highest layer at the top."""
    fills = {name: colour for colour, names in COLOURS.items() for name in names}
    rows = layers()[::-1]
    height = GAP + len(rows) * (ROW + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        "<title>The layers of toolchain/: each imports only from the rows below it</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for index, names in enumerate(rows):
        width = (WIDTH - GAP) / len(names) - GAP
        top = GAP + index * (ROW + GAP)
        for column, name in enumerate(names):
            left = GAP + column * (width + GAP)
            middle = left + width / 2
            lines += [
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW}" rx="5" fill="{fills[name]}" '
                'stroke="#90a4ae"/>',
                f'<text x="{middle:.1f}" y="{top + 21}" text-anchor="middle" font-size="16" font-weight="bold" '
                f'fill="#263238">{name}</text>',
                f'<text x="{middle:.1f}" y="{top + 40}" text-anchor="middle" font-size="13" '
                f'fill="#455a64">{escape(WORDS[name])}</text>',
            ]
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    (HERE / "tree.svg").write_text(drawn(), encoding="utf-8")
