"""The names of a module `tensorrt`, and the names that a source file uses and the module lacks.

As a script it describes the module that `import tensorrt` gives, real or a double, as JSON:

    {"names": {NAME: HOME}, "classes": {NAME: {"bases": [NAME], "attributes": [NAME]}}}

HOME is the package of a name's value, or of its type.
"""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import Any

# A major version of TensorRT, or `rtx`.
Major = int | str
MAJORS: tuple[Major, ...] = (8, 10, 11, "rtx")
MODULES = {"trt", "tensorrt"}

# By these variable names the code calls its objects, also as `self.NAME` and with an underscore before them. A
# module that imports a thing called like that, `Profile` for `profile`, means that thing.
CONVENTIONS = {
    "builder": ("Builder",),
    "network": ("INetworkDefinition",),
    "config": ("IBuilderConfig",),
    "runtime_config": ("IRuntimeConfig",),
    "runtime_cache": ("IRuntimeCache",),
    "parser": ("OnnxParser",),
    "profile": ("IOptimizationProfile",),
    "runtime": ("Runtime",),
    "engine": ("ICudaEngine",),
    "context": ("IExecutionContext",),
    "inspector": ("EngineInspector",),
    "registry": ("IPluginRegistry",),
    "creator": ("IPluginCreator", "IPluginCreatorV3One"),
    "layer": ("ILayer",),  # and its subclasses
    "tensor": ("ITensor",),
    "timing_cache": ("ITimingCache",),
}


def dump(module: ModuleType) -> dict[str, Any]:
    """Describe the public names of a module, and of its classes what they add to Python's own."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    classes = {name: value for name, value in public.items() if inspect.isclass(value)}
    return {
        "names": {name: _home(value) for name, value in public.items() if not inspect.ismodule(value)},
        "classes": {
            name: {"bases": [base.__name__ for base in value.__mro__[1:]], "attributes": sorted(_attributes(value))}
            for name, value in classes.items()
        },
    }


def _home(value: Any) -> str:
    home = getattr(value, "__module__", None)
    return str(home if isinstance(home, str) else type(value).__module__).split(".")[0]


def _attributes(cls: type) -> set[str]:
    """Return the public attributes of a class, and of one in Python those that its methods set on `self`."""
    own = [base for base in cls.__mro__ if base.__module__.split(".")[0] not in {"builtins", "enum", "abc", "typing"}]
    found = {name for base in own for name in (*vars(base), *_set_on_self(base))}
    return {name for name in found | set(getattr(cls, "__members__", ())) if not name.startswith("_")}


def _set_on_self(cls: type) -> set[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        return set()  # made in C++
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "self"}


def uses_tensorrt(source: str) -> bool:
    """Whether `trt` is a variable or an argument anywhere in this source."""
    if "trt" not in source:
        return False
    nodes = list(ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return "trt" in names | {node.arg for node in nodes if isinstance(node, ast.arg)}


def claimed(source: str) -> tuple[Major, ...]:
    """Return the majors that a module states at its top: `MAJORS = (10,)`; all without."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["MAJORS"]:
            return tuple(ast.literal_eval(node.value))
    return MAJORS


def missing(source: str, majors: Collection[Major], surfaces: dict[Major, dict[str, Any]]) -> list[str]:
    """Return what a source uses of TensorRT that one of `majors` lacks.

    Names in strings (`hasattr(trt, "X")`, `getattr(config, "X", None)`, `"X" in trt.Y.__members__`) ask whether
    something is there. They and the same names in the rest of the module must exist in one major at least: a
    misspelt question would be answered with no, always.
    """
    tree = ast.parse(source)
    asked = list(_questions(tree))
    optional = {name for _, _, name in asked}
    others = {alias.name.lower() for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    faults = []
    for node, owner, name in [*_uses(tree), *asked]:
        if _variable(owner) in others:
            continue
        lacking = [major for major in surfaces if not _has(surfaces[major], owner, name)]
        wrong = len(lacking) == len(surfaces) if name in optional else set(lacking) & set(majors)
        if wrong:
            where = " and ".join(map(str, lacking))
            faults.append(f"line {node.lineno}: {ast.unparse(owner)}.{name} is not in TensorRT {where}")
    return list(dict.fromkeys(faults))


def _uses(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not node.attr.startswith("__"):
            yield node, node.value, node.attr


def _questions(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="hasattr" | "getattr"), args=[owner, ast.Constant(value=str(name)), *_]):
                yield node, owner, name
            case ast.Compare(
                left=ast.Constant(value=str(name)),
                ops=[ast.In() | ast.NotIn()],
                comparators=[ast.Attribute(value=owner, attr="__members__")],
            ):
                yield node, owner, name


def _has(surface: dict[str, Any], owner: ast.expr, name: str) -> bool:
    """Whether the thing that an expression stands for has this attribute; True where that is not known."""
    known = surface["classes"]
    if _variable(owner) in MODULES:
        return name in surface["names"]
    if isinstance(owner, ast.Attribute) and _variable(owner.value) in MODULES:
        return owner.attr not in known or name in known[owner.attr]["attributes"]
    classes = CONVENTIONS.get(_variable(owner), ())
    if not classes:
        return True
    if "ILayer" in classes:
        classes = [cls for cls, facts in known.items() if "ILayer" in (cls, *facts["bases"])]
    return any(name in known[cls]["attributes"] for cls in classes if cls in known)


def _variable(owner: ast.expr) -> str:
    match owner:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name):
            return name.lstrip("_")
    return ""


def extra_names(double: dict[str, Any], real: dict[str, Any]) -> list[str]:
    """Return what a double of the module has and the real one has not; `double_...` is the double's own."""
    own = [name for name, home in double["names"].items() if home == "tensorrt" and not _exempt(name)]
    faults = [name for name in own if name not in real["names"]]
    for cls in own:
        if cls in double["classes"] and cls in real["classes"]:
            known = real["classes"][cls]["attributes"]
            found = double["classes"][cls]["attributes"]
            faults += [f"{cls}.{name}" for name in found if name not in known and not _exempt(name)]
    return sorted(faults)


def _exempt(name: str) -> bool:
    return name.startswith("double_")


if __name__ == "__main__":
    import tensorrt

    sys.stdout.write(json.dumps(dump(tensorrt)))
