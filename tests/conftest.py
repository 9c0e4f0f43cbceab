"""What the tests share: tiny checkpoints, made once, and the real ones where they are."""

import functools
import gc
import importlib.util
import json
import operator
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import hypothesis
import numpy as np
import pytest
from filelock import FileLock

from tests.forked import start
from tests.forked.server import cache_operators
from tests.nvml.scripted import ScriptedNvml

ROOT = Path(__file__).parent.parent
DOUBLE = ROOT / "tests/double"

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test needs the network
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# Without its bytecode kept, each of the hundreds of processes of the tests would compile the toolchain.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# As the command line does it, which says why.
gc.set_threshold(100_000)

# No deadline: a busy machine does not fail a test. `make test-all` chooses the profile with hypothesis' full number.
hypothesis.settings.register_profile("all", deadline=None)
hypothesis.settings.register_profile("default", deadline=None, max_examples=25)
hypothesis.settings.load_profile("default")

# A shell starts what it runs in the background without SIGINT, and the tests send it to processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A name, and a function that fills the folder of that name; the folder is returned.
Once = Callable[[str, Callable[[Path], object]], Path]
# A precision, the folder of the copy, and an architecture (DistilBERT by default); the folder is returned.
Begun = Callable[..., Path]
SERVER = pytest.StashKey[start.Server]()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[SERVER] = start.Server()
    else:
        share_processors(config.workerinput["workerid"], config.workerinput["workercount"])


# Fixtures of a real Triton, its load generator, and a real browser: what uses one takes seconds to start.
SLOW_FIXTURES = {"triton_environment", "perf_analyzer", "browser"}

# Names of the files that take longest. They run first: a long file that starts last keeps one worker busy alone.
LONGEST = {"test_accept.py", "test_api.py", "test_benchmarks.py", "test_build.py", "test_cli.py"}
LONGEST |= {"test_contest.py", "test_crash.py", "test_crash_large.py", "test_demo.py", "test_engine_step.py"}
LONGEST |= {"test_export.py", "test_faults.py", "test_heal.py", "test_hostile.py", "test_kinds.py"}
LONGEST |= {"test_large.py", "test_load.py", "test_matrix.py", "test_mrpc.py", "test_notebook.py"}
LONGEST |= {"test_plugin_graph.py", "test_readme.py", "test_real.py", "test_real_time.py", "test_server.py"}
LONGEST |= {"test_serving.py", "test_sst2.py", "test_stsb.py", "test_sweep.py", "test_workflow.py"}


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_runtest_setup() -> None:
    cache_operators()


def call_in_double(
    function: Callable[..., Any], chosen: Mapping[str, str] = MappingProxyType({}), **given: Any
) -> None:
    """Call a function of a test module with the stand-ins for TensorRT and PyCUDA; `chosen` are TRT_DOUBLE_*."""
    names = {f"TRT_DOUBLE_{name.upper()}": value for name, value in chosen.items()}
    start.call(function, given, DOUBLE / "site", TRT_DOUBLE="", **names)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run what needs a process of its own in one: with the scripted NVML, or the doubles of TensorRT and PyCUDA."""
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    double = [marker.kwargs for marker in pyfuncitem.iter_markers("double")]
    if double:
        call_in_double(pyfuncitem.function, functools.reduce(operator.or_, reversed(double)), **arguments)
    elif any(isinstance(value, ScriptedNvml) for value in arguments.values()):
        start.call(pyfuncitem.function, arguments)
    else:
        return None
    return True


def share_processors(worker: str, count: int) -> None:
    """Bind a worker of xdist, and all that it starts, to its part of the processors.

    What it starts then has as few threads as it has processors; threads that wait for each other on a processor that
    another worker uses cost more time than they save.
    """
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, processors[int(worker.removeprefix("gw")) % len(processors) :: count])


def pytest_unconfigure(config: pytest.Config) -> None:
    if SERVER in config.stash:
        config.stash[SERVER].close()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return what makes a folder once for all workers: the first that asks fills it, and the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = shared / "once" / name, shared / "once" / f"{name}.done"
        done.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def python() -> list[str]:
    """Start of a command line that does what `python` does, in a process that has torch and the like imported."""
    return start.python()


@pytest.fixture(scope="session")
def commands(python: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH, in which `toolchain` and `python` start such processes."""
    folder = tmp_path_factory.mktemp("bin")
    for name, options in (("toolchain", " -m toolchain"), ("python", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(python)}{options} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def by_path() -> Callable[[str], ModuleType]:
    """Return a module of this folder by its name; pytest's importlib mode keeps them off the import path."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def tiny(by_path: Callable[[str], ModuleType]) -> ModuleType:
    """The module tests/tiny.py."""
    return by_path("tiny")


@pytest.fixture(scope="session")
def tiny_distilbert(tiny: ModuleType, once: Once) -> Path:
    return once("distilbert", lambda folder: tiny.make_checkpoint(folder, "distilbert"))


@pytest.fixture(scope="session")
def tiny_bert(tiny: ModuleType, once: Once) -> Path:
    return once("bert", lambda folder: tiny.make_checkpoint(folder, "bert"))


@pytest.fixture(scope="session")
def tiny_roberta(tiny: ModuleType, once: Once) -> Path:
    return once("roberta", lambda folder: tiny.make_checkpoint(folder, "roberta"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Return a path below ../shared by its name; a clone has none of it, so its tests are skipped there."""

    def find(name: str) -> Path:
        path = ROOT.parent / "shared" / name
        if not path.exists():
            pytest.skip(f"{path} is absent: real models and data do not come with the repository")
        return path

    return find


@pytest.fixture(scope="session")
def real_export(shared: Callable[[str], Path], once: Once) -> Callable[[str], Path]:
    """Return a function from a task to a bundle of its real checkpoint that has the export alone; read only."""
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe

    def find(task: str) -> Path:
        values = {"model": str(shared(f"models/distilbert-l6-h384-{task}")), "data": str(shared(f"glue/{task}"))}

        def fill(folder: Path) -> None:
            recipe = Recipe.make({**values, "task": task, "precision": "fp32", "output": str(folder)})
            build(recipe, steps=("export",), engine=False)

        return once(f"export-{task}", fill)

    return find


@pytest.fixture(scope="session")
def checkpoints(tiny_distilbert: Path, tiny_bert: Path, tiny_roberta: Path) -> dict[str, Path]:
    """Architecture -> checkpoint."""
    return {"distilbert": tiny_distilbert, "bert": tiny_bert, "roberta": tiny_roberta}


@pytest.fixture(scope="session")
def exported(checkpoints: dict[str, Path], begun: Begun, once: Once) -> dict[str, Path]:
    """Architecture -> its float32 graph."""

    def fill(folder: Path) -> None:
        for kind in checkpoints:
            shutil.copy(begun("fp32", folder / kind, kind) / "model.onnx", folder / f"{kind}.onnx")

    folder = once("onnx", fill)
    return {kind: folder / f"{kind}.onnx" for kind in checkpoints}


@pytest.fixture(scope="session")
def tokens_of(tiny: ModuleType, checkpoints: dict[str, Path]) -> Callable[[str, int], Any]:
    """Return a number of tokenised random sentences of mixed length, for an architecture."""
    from toolchain.checkpoint.model import find_model
    from toolchain.checkpoint.tokenize import TextEncoder

    @functools.cache
    def encoder(kind: str) -> TextEncoder:
        source = find_model(str(checkpoints[kind]))
        return TextEncoder(source.tokenizer, max_length=32, inputs=source.inputs)

    def make(kind: str, count: int) -> Any:
        generator = np.random.default_rng(count)
        texts = [(" ".join(generator.choice(tiny.WORDS, generator.integers(1, 40))),) for _ in range(count)]
        return encoder(kind)(texts)

    return make


@pytest.fixture(scope="session")
def probe(tokens_of: Callable[[str, int], Any]) -> Callable[[str], Any]:
    """Return one padded batch of eight rows for an architecture."""
    return lambda kind: tokens_of(kind, 8).batch(np.arange(8))


@pytest.fixture(scope="session")
def random_batch(tiny: ModuleType) -> Callable[[str, int, int], dict[str, Any]]:
    """Return a batch of random ids, right-padded to random lengths of at least one token."""

    def make(kind: str, size: int, length: int) -> dict[str, Any]:
        generator = np.random.default_rng(size * 1000 + length)
        lengths = generator.integers(1, length + 1, size)
        mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
        ids = generator.integers(5, len(tiny.vocabulary(kind)), (size, length)).astype(np.int32)
        batch = {"input_ids": np.where(mask, ids, int(kind == "roberta")).astype(np.int32), "attention_mask": mask}
        if kind == "bert":
            batch["token_type_ids"] = generator.integers(0, 2, (size, length)).astype(np.int32)
        return batch

    return make


@pytest.fixture(scope="session")
def reference(checkpoints: dict[str, Path]) -> Callable[[str, dict[str, Any]], Any]:
    """Return the logits that transformers itself gives, in float32."""
    import torch
    from transformers import AutoModelForSequenceClassification

    loaded: dict[str, Any] = {}

    def run(kind: str, batch: dict[str, Any]) -> Any:
        if kind not in loaded:
            model = AutoModelForSequenceClassification.from_pretrained(checkpoints[kind], dtype=torch.float32)
            loaded[kind] = model.eval()
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).long() for name, array in batch.items()}
            return loaded[kind](**tensors).logits.numpy()

    return run


@pytest.fixture(scope="session")
def sentences(tiny: ModuleType, once: Once) -> Path:
    """A folder of labelled random sentences: train.csv with 60 rows and validation.csv with 40."""

    def fill(folder: Path) -> None:
        generator = np.random.default_rng(5)
        for split, count in (("train", 60), ("validation", 40)):
            texts = [" ".join(generator.choice(tiny.WORDS, generator.integers(3, 30))) for _ in range(count)]
            lines = [f"{text},{generator.integers(2)}" for text in texts]
            (folder / f"{split}.csv").write_text("sentence,label\n" + "\n".join(lines) + "\n")

    return once("sentences", fill)


def run_double(*arguments: object, cwd: Path | None = None, double: bool = True, **chosen: str) -> Any:
    """Run Python in a process of its own, which alone sees the stand-ins for TensorRT and PyCUDA."""
    site = [str(ROOT / "tests/double/site")] if double else []
    names = {f"TRT_DOUBLE_{name.upper()}": value for name, value in chosen.items()}
    environment = os.environ | names | {"PYTHONPATH": os.pathsep.join([str(ROOT), *site])}
    command = [*start.python(), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def toolchain() -> Callable[..., Any]:
    """Return what runs the command line with the stand-ins; keywords are TRT_DOUBLE_*."""
    return lambda *arguments, **chosen: run_double("-m", "toolchain", *arguments, **chosen)


@pytest.fixture(scope="session")
def in_double() -> Callable[..., None]:
    """Return what calls a function of a test module in a process that sees the stand-ins, and fails where it fails."""
    return call_in_double


@pytest.fixture(scope="session")
def typed_bundles(tiny_distilbert: Path, sentences: Path, begun: Begun, once: Once) -> dict[str, Path]:
    """Precision -> a bundle of graphs alone, whose heads are as large as the attention plugin wants, and its logits.

    Each has been evaluated by ONNX Runtime on the graph that TensorRT takes; read only.
    """
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe
    from toolchain.workflow import evaluate

    def fill(home: Path) -> None:
        checkpoint = shutil.copytree(tiny_distilbert, home / "model")
        begun("fp32", home / "fp32")
        values = {"model": str(checkpoint), "data": str(sentences), "calib_samples": 24}
        for precision, file in files.items():
            target = home / precision
            if precision != "fp32":
                shutil.copytree(home / "fp32", target)  # so that it is exported once
            build(Recipe.make(values | {"precision": precision, "output": str(target)}), engine=False)
            evaluate({"backend": "ort", "device": "cpu", "file": file}, bundle=target, tell=lambda line: None)
        checkpoint.rename(home / "away")  # an engine needs it no more

    files = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
    home = once("typed", fill)
    return {precision: home / precision for precision in files}


@pytest.fixture
def bundle_of(typed_bundles: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies the bundle of a precision to where a test may change it."""
    return lambda precision: shutil.copytree(typed_bundles[precision], tmp_path / precision)


@pytest.fixture(scope="session")
def begun(checkpoints: dict[str, Path], sentences: Path, once: Once) -> Begun:
    """Return what copies a tiny checkpoint's bundle of a precision to where a build goes on from it.

    A step is skipped where its inputs are the same: the export in every build of that checkpoint, and the calibration
    with 20 rows of `sentences` by the default method.
    """
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe

    def copy(precision: str, target: Path, kind: str = "distilbert") -> Path:
        values = {"model": str(checkpoints[kind]), "data": str(sentences), "calib_samples": 20}

        def fill(folder: Path) -> None:
            if precision != "fp32":
                copy("fp32", folder, kind)
            build(Recipe.make(values | {"precision": precision, "output": str(folder)}), engine=False)

        return shutil.copytree(once(f"{kind}-{precision}", fill), target, dirs_exist_ok=True)

    return copy


@pytest.fixture(scope="session")
def begun_regression(tiny: ModuleType, sentences: Path, once: Once) -> Callable[[Path], dict[str, str]]:
    """Return what copies the bundle of a tiny DistilBERT for regression to a folder; it returns the recipe of it."""
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe

    columns = {"task": "custom", "text_column": "sentence", "label_column": "label", "data": str(sentences)}

    def fill(folder: Path) -> None:
        model = tiny.make_checkpoint(folder / "model", "distilbert", labels=1, problem_type="regression")
        build(Recipe.make(columns | {"model": str(model), "precision": "fp32", "output": str(folder / "bundle")}))

    def copy(target: Path) -> dict[str, str]:
        home = once("regression", fill)
        shutil.copytree(home / "bundle", target)
        return columns | {"model": str(home / "model"), "precision": "fp32", "output": str(target)}

    return copy


@pytest.fixture(scope="session")
def pair_bundle(tiny: ModuleType, once: Once) -> Path:
    """The FP32 bundle of a tiny BERT that returns one number for two texts; read only."""
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe

    def fill(home: Path) -> None:
        model = tiny.make_checkpoint(home / "model", "bert", labels=1)
        values = {"model": str(model), "task": "stsb", "precision": "fp32", "max_length": 32}
        build(Recipe.make(values | {"output": str(home / "bundle")}), engine=False)

    return once("pairs", fill) / "bundle"


# Head -> the architecture of its tiny checkpoint, the other arguments for it, and the columns of its texts.
HEADS: dict[str, tuple[str, dict[str, Any], str]] = {
    "tokens": ("bert", {"labels": ("O", "B-joy", "I-joy", "B-fear", "I-fear"), "kind": "Token"}, "one"),
    "embedding": ("distilbert", {"pooling": "mean"}, "one,two"),
    "pairs": ("bert", {"labels": ("contradiction", "neutral", "entailment"), "num_hidden_layers": 1}, "one,two"),
}


@pytest.fixture(scope="session")
def exported_head(tiny: ModuleType, once: Once) -> Callable[[str, Path], Path]:
    """Return what copies a bundle that has the export of a head alone to a folder; it returns the head's checkpoint."""
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe

    def copy(head: str, target: Path) -> Path:
        architecture, arguments, columns = HEADS[head]

        def fill(folder: Path) -> None:
            model = tiny.make_checkpoint(folder / "model", architecture, **arguments)
            values = {"model": str(model), "task": "custom", "text_column": columns, "label_column": "label"}
            recipe = Recipe.make(values | {"precision": "fp32", "output": str(folder / "bundle")})
            build(recipe, steps=("export",), engine=False)

        home = once(f"head-{head}", fill)
        shutil.copytree(home / "bundle", target)
        return home / "model"

    return copy


@pytest.fixture(scope="session")
def build_tiny(tiny_distilbert: Path, sentences: Path, begun: Begun) -> Callable[..., Any]:
    """Return what builds an INT8 bundle of the tiny DistilBERT and returns the record of the build.

    It takes the bundle's folder and changes to the recipe; the bundle goes on from `begun`.
    """
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe

    values = {"model": str(tiny_distilbert), "data": str(sentences), "precision": "int8", "calib_samples": 20}

    def make(target: Path, **changes: object) -> Any:
        begun("int8", target)
        return build(Recipe.make({**values, "output": str(target), **changes}))

    return make


@pytest.fixture(scope="session")
def demo_bundle(once: Once) -> Path:
    """The demo's bundle in FP32, which takes one text and names two classes; read only."""
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe

    values = {"model": "demo", "task": "demo", "precision": "fp32"}
    return once("demo", lambda folder: build(Recipe.make(values | {"output": str(folder)}), engine=False))


@pytest.fixture(scope="session")
def cascade_bundle(demo_bundle: Path, once: Once) -> Path:
    """A cascade of a lexical stage and the demo's bundle; read only. Its times are scripted."""
    from toolchain.cascade import cost, make

    def fill(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cost, "measure", lambda *_, **__: cost.Cost(0.05, 0.6, (0.55, 0.65)))
            make({"max_drop": 3.0, "device": "cpu"}, folder, big=demo_bundle, small=None)

    return once("cascade", fill)


@pytest.fixture(scope="session")
def cascade_of_bundles(demo_bundle: Path, once: Once) -> Path:
    """A cascade whose first stage is the demo's bundle too; read only. Its times are scripted."""
    from toolchain.cascade import cost, make

    def fill(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cost, "measure", lambda *_, **__: cost.Cost(0.05, 0.6, (0.55, 0.65)))
            make({"max_drop": 3.0, "device": "cpu", "limit": 400}, folder, big=demo_bundle, small=demo_bundle)

    return once("cascade-of-bundles", fill)


@pytest.fixture(scope="session")
def served(demo_bundle: Path, python: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What `toolchain serve` of that bundle says of itself, with a token that is in `token_file`."""
    token = tmp_path_factory.mktemp("served") / "token"
    token.write_text("a-token-that-nobody-guesses-" + 32 * "0")
    command = [
        *python,
        "-m",
        "toolchain",
        "serve",
        str(demo_bundle),
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        "--name",
        "demo",
        "--token-file",
        str(token),
        "--drain",
        "0",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield {**json.loads(process.stdout.readline()), "token_file": str(token)}
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def compile_nvml(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return what builds the scripted library, with options for the compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        assert "CI" not in os.environ
        pytest.skip("no C compiler to build the scripted libnvidia-ml with")

    def build(*options: str) -> Path:
        made = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
        command = [compiler, "-O2", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", *options, "-o", str(made)]
        subprocess.run([*command, str(root / "tests/nvml/fakenvml.c")], check=True)
        return made

    return build


@pytest.fixture(scope="session")
def library(compile_nvml: Callable[..., Path]) -> Path:
    return compile_nvml()


@pytest.fixture(scope="session")
def old_library(compile_nvml: Callable[..., Path]) -> Path:
    """The library of a driver that lacks the newer functions."""
    return compile_nvml("-DOLD_DRIVER")


@pytest.fixture
def nvml(library: Path, tmp_path: Path) -> ScriptedNvml:
    """The scripted libnvidia-ml; the test that takes it runs in a process of its own."""
    return ScriptedNvml(library, tmp_path / "scenario")


@pytest.fixture
def old_nvml(old_library: Path, tmp_path: Path) -> ScriptedNvml:
    return ScriptedNvml(old_library, tmp_path / "scenario")


@pytest.fixture(scope="module")
def browser(by_path: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A tab of a real Chromium."""
    chromium = by_path("chromium")
    path = chromium.find()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(chromium.NAMES)} is installed")
    with chromium.browser(path, tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture(scope="session")
def triton(by_path: Callable[[str], ModuleType]) -> ModuleType:
    """The module tests/triton/server.py."""
    return by_path("triton/server")


@pytest.fixture(scope="session")
def triton_environment(triton: ModuleType) -> Any:
    """The virtual environment of a real Triton and its client."""
    try:
        return triton.find_environment(ROOT)
    except triton.NoTritonError as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def perf_analyzer(
    by_path: Callable[[str], ModuleType], triton_environment: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """Return what runs Triton's load generator."""
    module = by_path("triton/perf")
    try:
        found: Callable[..., Any] = module.find_analyzer(
            ROOT, triton_environment.libraries, tmp_path_factory.mktemp("perf")
        )
    except module.NoAnalyzerError as why:
        pytest.skip(str(why))
    return found
