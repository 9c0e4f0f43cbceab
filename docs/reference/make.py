"""Generate the pages of docs/reference/ from the code: `make reference`. tests/test_reference.py checks them.

There is one page for each module of toolchain/records/, made from its TypedDicts and the texts below their keys. Other
pages list the exit codes (toolchain/errors.py), the environment variables (ENVIRONMENT below) and the limits of the
service (toolchain/serve/limits.py). The code is parsed with `ast`, because Python discards the texts below keys.
"""

import ast
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolchain.cli.serve import LIMITS
from toolchain.recipe.options import flag

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RECORDS = ROOT / "toolchain/records"
JSON = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "Any": "any JSON",
    "None": "null",
}
# Variable -> what reads it, and its effect: each one that the code reads, and the main ones that its libraries read.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": (
        "toolchain.meters.nvml",
        "GPUs that this process may use, by index or UUID; energy is measured on these GPUs only.",
    ),
    "CUDA_DEVICE_ORDER": (
        "toolchain.meters.nvml",
        "`PCI_BUS_ID` makes CUDA number the GPUs in the same order as NVML. Without it, on a machine with unlike GPUs, "
        "it is not known which GPU `cuda:0` is, and its energy is not measured.",
    ),
    "PYTHONPATH": ("toolchain.evaluation.mlperf", "It is passed on to the process that runs MLPerf's load generator."),
    "RAY_USAGE_STATS_ENABLED": (
        "toolchain.sweep.spread",
        "`sweep --ray` sets it to `0` if it is not set, so that Ray does not report usage data to its developers.",
    ),
    "RAY_AUTH_MODE": (
        "ray",
        "`token`: the machines of a Ray cluster must authenticate with a shared token. If the cluster's address is not "
        "a loopback address, `sweep --ray` sets this value, and refuses to run with another one.",
    ),
    "XDG_CACHE_HOME": (
        "toolchain.runtimes.user_cache",
        "Folder for cache files of the user (default `~/.cache`). OpenVINO's compiled models are stored below it.",
    ),
    "ORT_DISABLE_TELEMETRY": (
        "toolchain",
        "`import toolchain` sets it to `1` if it is not set, so that ONNX Runtime reports no usage data to Microsoft.",
    ),
    "OPENAI_API_KEY": (
        "toolchain.generate.served.endpoint",
        "API key that `generate --backend openai` sends to the server of `--url`, unless `--token-file` is given.",
    ),
    "HF_TOKEN": ("huggingface_hub", "Access token for private or gated models and data sets on the Hugging Face Hub."),
    "HF_HOME": ("huggingface_hub", "Folder of the cache of files from the Hugging Face Hub."),
    "HF_HUB_OFFLINE": ("huggingface_hub", "`1`: use only cached files of the Hugging Face Hub, and never the network."),
    "NO_COLOR": (
        "toolchain.cli.show",
        "Any value but an empty one: no bold text in tables, no colours in progress bars.",
    ),
}
EXIT_CODES = {
    0: (
        "done",
        "The command succeeded. Without `--strict`, a gate may have the verdict `cannot tell`, which a warning says.",
    ),
    130: ("interrupted", "The user pressed Ctrl-C. A bundle or repository that was being replaced is left as it was."),
}


@dataclass(frozen=True)
class Key:
    """One key of a record: its name, its type, the text that describes it, and whether it may be missing."""

    name: str
    type: ast.expr
    text: str
    optional: bool


@dataclass(frozen=True)
class Record:
    """One TypedDict: its name, its docstring, the records that it extends, and its own keys."""

    name: str
    text: str
    bases: tuple[str, ...]
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Module:
    """One module of toolchain/records/: its docstring, its records and the type aliases that it defines."""

    name: str
    text: str
    records: tuple[Record, ...]
    aliases: dict[str, ast.expr]


def read(path: Path) -> Module:
    """Parse the file of a module of toolchain/records/ and return its records.

    Raises:
        ValueError: a record has no docstring, or a key has no text below it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aliases = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    functional = {name: value for name, value in aliases.items() if _is_typed_dict_call(value)}
    texts = dict(_with_texts(tree.body))
    records = [_record(node) for node in tree.body if isinstance(node, ast.ClassDef)]
    records += [_functional(name, value, texts, path) for name, value in functional.items()]
    order = {_name(node): index for index, node in enumerate(tree.body)}
    records.sort(key=lambda record: order[record.name])
    for record in records:
        missing = [key.name for key in record.keys if not key.text]
        if missing or not record.text:
            raise ValueError(
                f"{path}: {record.name} lacks a text for {', '.join(missing) or 'itself'}. Add a string below it."
            )
    plain = {name: value for name, value in aliases.items() if name not in functional}
    return Module(path.stem, ast.get_docstring(tree) or "", tuple(records), plain)


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return ""


def _is_typed_dict_call(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "TypedDict"


def _with_texts(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each key, alias or class that has a text in the next statement."""
    for node, after in itertools.pairwise(body):
        if isinstance(after, ast.Assign) and ast.unparse(after.targets[0]) == f"{_name(node)}.__doc__":
            yield _name(node), ast.literal_eval(after.value)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            name = node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else ""
            yield name or _name(node), " ".join(after.value.value.split())


def _record(node: ast.ClassDef) -> Record:
    texts = dict(_with_texts(node.body))
    total = not any(word.arg == "total" and ast.unparse(word.value) == "False" for word in node.keywords)
    keys = [
        _key(one.target.id, one.annotation, texts.get(one.target.id, ""), total=total)
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    ]
    bases = tuple(base.id for base in node.bases if isinstance(base, ast.Name) and base.id != "TypedDict")
    return Record(node.name, " ".join((ast.get_docstring(node) or "").split()), bases, tuple(keys))


def _functional(name: str, value: ast.expr, texts: dict[str, str], path: Path) -> Record:
    """Return a record that is written as `TypedDict("Name", {...})`; comments at its keys are their texts."""
    assert isinstance(value, ast.Call)
    table, lines = value.args[1], path.read_text(encoding="utf-8").splitlines()
    assert isinstance(table, ast.Dict)
    keys = []
    for key, type_ in zip(table.keys, table.values, strict=True):
        assert isinstance(key, ast.Constant)
        keys.append(_key(str(key.value), type_, _comment(lines, key.lineno - 1), total=True))
    return Record(name, texts.get(name, ""), (), tuple(keys))


def _comment(lines: list[str], index: int) -> str:
    """Return the comment at the end of a line; if there is none, the comment lines directly above the line."""
    behind = lines[index].partition("  # ")[2]
    above: list[str] = []
    while not behind and lines[index - 1].strip().startswith("#"):
        index -= 1
        above.insert(0, lines[index].strip().removeprefix("#").strip())
    return behind or " ".join(above)


def _key(name: str, type_: ast.expr, text: str, *, total: bool) -> Key:
    optional = not total
    if isinstance(type_, ast.Subscript) and ast.unparse(type_.value) in ("NotRequired", "Required"):
        optional, type_ = ast.unparse(type_.value) == "NotRequired", type_.slice
    return Key(name, type_, text, optional)


class Pages:
    """Renders the pages of all modules; a page links to records on other pages."""

    def __init__(self, modules: list[Module]) -> None:
        self.modules = modules
        self.homes = {record.name: module.name for module in modules for record in module.records}
        self.aliases = {name: value for module in modules for name, value in module.aliases.items()}

    def page(self, module: Module) -> str:
        """Return the Markdown page of a module. Records that no other record of the module contains come first."""
        title = f"# {module.name.replace('_', ' ').capitalize()}"
        parts = [title, f"<!-- Made by `make reference` from toolchain/records/{module.name}.py. -->", module.text]
        return "\n\n".join([*parts, *(self._section(record, module) for record in _ordered(module))]) + "\n"

    def _section(self, record: Record, module: Module) -> str:
        lines = [f"## {record.name}", "", record.text, ""]
        if record.bases:
            lines += [f"It has all keys of {' and '.join(self._link(base, module) for base in record.bases)}", ""]
            lines[-2] += ", and:" if record.keys else "."
        if record.keys:
            lines += ["| key | type | meaning |", "| --- | --- | --- |"]
        for key in record.keys:
            kind = self.type(key.type, module) + ("; may be missing" if key.optional else "")
            lines.append(f"| `{key.name}` | {kind} | {_cell(key.text)} |")
        return "\n".join(lines).rstrip()

    def type(self, node: ast.expr, module: Module) -> str:
        """Return a Python type in JSON's terms (string, integer, list of ...), with links to records."""
        if isinstance(node, ast.BinOp):
            return f"{self.type(node.left, module)} or {self.type(node.right, module)}"
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                return self.type(ast.parse(node.value, mode="eval").body, module)
            return "null" if node.value is None else f"`{node.value}`"
        if isinstance(node, ast.Name):
            if node.id in self.aliases:
                return self.type(self.aliases[node.id], module)
            return self._link(node.id, module) if node.id in self.homes else JSON.get(node.id, f"`{node.id}`")
        if isinstance(node, ast.Subscript):
            return self._subscript(node, module)
        return f"`{ast.unparse(node)}`"

    def _subscript(self, node: ast.Subscript, module: Module) -> str:
        outer = ast.unparse(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal":
            return ", ".join(f"`{ast.literal_eval(one)!s}`" for one in inner)
        types = [self.type(one, module) for one in inner if ast.unparse(one) != "..."]
        if outer in ("list", "tuple"):
            return f"list of {' and '.join(_grouped(one) for one in types)}"
        if outer == "dict":
            return f"object: {types[0]} to {_grouped(types[1])}"
        return " ".join(types)

    def _link(self, name: str, module: Module) -> str:
        home = self.homes.get(name)
        place = "" if home == module.name else f"{home}.md"
        return f"[{name}]({place}#{name.lower()})" if home else f"`{name}`"


def _grouped(text: str) -> str:
    """Return the text of a type, in parentheses if it is a union such as `string or null`."""
    return f"({text})" if " or " in text and not text.startswith("list of (") and text != JSON["bool"] else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _ordered(module: Module) -> list[Record]:
    """Return the records of a module in the order of its page: a record after the first one that contains it."""
    known = {record.name: record for record in module.records}
    inside = {record.name: [name for name in _names(record) if name in known] for record in module.records}
    contained = {name for names in inside.values() for name in names}
    queue = [name for name in known if name not in contained] or list(known)
    found: list[str] = []
    while queue:
        name = queue.pop(0)
        if name not in found:
            found.append(name)
            queue += inside[name]
    return [known[name] for name in [*found, *(name for name in known if name not in found)]]


def _names(record: Record) -> list[str]:
    nodes = [node for key in record.keys for node in ast.walk(key.type)]
    return [*record.bases, *(node.id for node in nodes if isinstance(node, ast.Name))]


def exit_codes() -> str:
    """Return the Markdown page of the exit codes of the error classes, of success and of Ctrl-C."""
    rows = dict(EXIT_CODES)
    for node in ast.parse((ROOT / "toolchain/errors.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            text = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
            for one in node.body:
                if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "exit_code":
                    rows[ast.literal_eval(one.value)] = (f"`{node.name}`", text)
                    break
            else:
                if node.bases and ast.unparse(node.bases[0]) == "ToolchainError":
                    rows[1] = (f"`{node.name}`", text)
    lines = [
        "# Exit codes",
        "",
        "<!-- Made by `make reference` from toolchain/errors.py. -->",
        "",
        "Every command ends with one of these exit codes. For an error, it prints one message to stderr that also says",
        "what to do; `-v` adds a traceback. In Python, the error is an exception of the class in the column `name`.",
        "",
        "| code | name | when |",
        "| --- | --- | --- |",
        *(f"| {code} | {name} | {_cell(text)} |" for code, (name, text) in sorted(rows.items())),
        "",
        "`toolchain power -- COMMAND` ends with the exit code of COMMAND. Errors of the operating system, such as a",
        "full disk, have the exit code 1 too.",
    ]
    return "\n".join(lines) + "\n"


def environment() -> str:
    """Return the Markdown page of the environment variables, from ENVIRONMENT."""
    lines = [
        "# Environment variables",
        "",
        "<!-- Made by `make reference` from docs/reference/make.py. -->",
        "",
        "Options and recipes configure all commands; this project defines no environment variable of its own. It or",
        "its libraries read these:",
        "",
        "| variable | read by | effect |",
        "| --- | --- | --- |",
        *(f"| `{name}` | {reader} | {_cell(text)} |" for name, (reader, text) in ENVIRONMENT.items()),
    ]
    return "\n".join(lines) + "\n"


def variables_read() -> set[str]:
    """Return the names of the environment variables that the code of toolchain/ reads."""
    found: set[str] = set()
    for path in (ROOT / "toolchain").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.unparse(node) if isinstance(node, ast.Call | ast.Subscript | ast.Compare) else ""
            if "environ" in text or "getenv" in text:
                words = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
                found |= {word for word in words if isinstance(word, str) and word.isupper() and len(word) > 2}
    return found


def limits() -> str:
    """Return the Markdown page of the service's limits, from the constants and comments of serve/limits.py."""
    path = ROOT / "toolchain/serve/limits.py"
    text = path.read_text(encoding="utf-8")
    body = ast.parse(text).body
    options = next(node for node in body if isinstance(node, ast.ClassDef)).body
    lines = ["# Limits of the service", "", "<!-- Made by `make reference` from toolchain/serve/limits.py. -->", ""]
    lines += ["| limit | value | option |", "| --- | --- | --- |"]
    for node in (*options, *body):
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Constant | ast.BinOp):
            name = ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
            value = eval(compile(ast.Expression(node.value), path.name, "eval"), {})  # noqa: S307  # our own constants
            option = next((f"`{flag(option)}`" for option, (field, *_) in LIMITS.items() if field == name), "")
            comment = _cell(_comment(text.splitlines(), node.lineno - 1))
            lines.append(
                f"| {comment} | {value:,g} | {option} |" if value < 1e6 else f"| {comment} | {value:,} | {option} |"
            )
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Return all pages: file name -> Markdown."""
    modules = [read(path) for path in sorted(RECORDS.glob("*.py")) if path.stem != "__init__"]
    made = Pages([module for module in modules if module.records])
    found = {f"{module.name}.md": made.page(module) for module in made.modules}
    found |= {"exit-codes.md": exit_codes(), "environment.md": environment(), "limits.md": limits()}
    lines = ["# Reference", "", "<!-- Made by `make reference`. -->", "", "| page | contents |", "| --- | --- |"]
    for module in made.modules:
        summary = " ".join(module.text.split("\n\n")[0].split())
        lines.append(f"| [{module.name.replace('_', ' ')}]({module.name}.md) | {_cell(summary)} |")
    lines.append("| [exit codes](exit-codes.md) | The exit codes of every command. |")
    lines.append("| [environment](environment.md) | The environment variables that the toolchain reads. |")
    lines.append("| [limits](limits.md) | Limits on the requests to the service, and what happens above them. |")
    return {"README.md": "\n".join(lines) + "\n", **found}


def main() -> int:
    """Write all pages, and delete the pages of modules that no longer exist."""
    made = pages()
    for old in HERE.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (HERE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
