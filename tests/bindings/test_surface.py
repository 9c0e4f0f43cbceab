"""Every name of TensorRT that the code uses exists in the real bindings of the major versions that it states."""

from pathlib import Path

import pytest
import real
import surface

import toolchain

MODULES = sorted(Path(toolchain.__file__).parent.rglob("*.py"))


def missing(source: str, majors: tuple[int | str, ...]) -> list[str]:
    return surface.missing(source, majors, {major: real.surface(major) for major in real.VERSIONS})


def users() -> list[Path]:
    return [path for path in MODULES if surface.uses_tensorrt(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", users(), ids=lambda path: str(path.relative_to(MODULES[0].parent)))
def test_a_module_uses_only_existing_names(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert missing(source, surface.claimed(source)) == []


@pytest.mark.parametrize("major", real.VERSIONS)
def test_the_bindings_have_the_expected_version(major: int | str) -> None:
    done = real.run(major, "-c", "import tensorrt; print(tensorrt.__version__)")
    assert done.stdout.strip() == real.VERSIONS[major]


@pytest.mark.parametrize("major", [8, 10, 11])
def test_empty_libraries_cannot_build(major: int | str) -> None:
    done = real.run(major, "-c", "import tensorrt as trt; trt.Builder(trt.Logger())")
    assert "factory function returned nullptr" in done.stderr


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("trt.Bilder(logger)", "trt.Bilder"),
        ("trt.DataType.HALVE", "trt.DataType.HALVE"),
        ("self.trt.DataType.HALVE", "self.trt.DataType.HALVE"),
        ("self._trt.Bilder(logger)", "self._trt.Bilder"),
        ("config.set_flags(1)", "config.set_flags"),
        ("self._context.execute_v4(stream)", "self._context.execute_v4"),
        ("config.builder_optimisation_level = 5", "config.builder_optimisation_level"),
        ("layer.sort", "layer.sort"),
        ("hasattr(trt, 'IInt8EntropyCalibrater2')", "trt.IInt8EntropyCalibrater2"),
        ("'INT9' in trt.BuilderFlag.__members__ and trt.BuilderFlag.INT9", "trt.BuilderFlag.INT9"),
    ],
)
def test_a_made_up_name_is_found(code: str, fault: str) -> None:
    assert any(f"{fault} is not in TensorRT 8 and 10 and 11 and rtx" in line for line in missing(code, surface.MAJORS))


@pytest.mark.parametrize(
    "code", ["trt.BuilderFlag.INT8", "trt.IInt8EntropyCalibrator2", "config.int8_calibrator = this", "layer.precision"]
)
def test_a_name_that_11_lacks_is_found(code: str) -> None:
    assert missing(code, (10,)) == []
    assert [line.partition(" is ")[2] for line in missing(code, (10, 11))] == ["not in TensorRT 11 and rtx"]


@pytest.mark.parametrize(
    "code",
    [
        "if 'INT8' in trt.BuilderFlag.__members__: config.set_flag(trt.BuilderFlag.INT8)",
        "if hasattr(config, 'int8_calibrator'): config.int8_calibrator = this",
        "make(trt.IInt8EntropyCalibrator2) if hasattr(trt, 'IInt8EntropyCalibrator2') else None",
    ],
)
def test_a_name_behind_a_check_may_be_missing(code: str) -> None:
    assert missing(code, (10, 11)) == []


def test_existing_names_pass() -> None:
    code = """
builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
config = builder.create_builder_config()
config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1)
layer.axes, layer.name, creator.plugin_version, trt.float16, trt.__version__, trt.DataType.__members__
"""
    assert missing(code, (10, 11)) == []


def test_a_module_states_its_majors() -> None:
    assert surface.claimed("MAJORS = (10,)\ntrt.BuilderFlag.INT8") == (10,)
    assert surface.claimed("def build(trt): ...") == (8, 10, 11, "rtx")


def test_a_module_that_only_takes_tensorrt_as_an_argument_is_scanned() -> None:
    assert surface.uses_tensorrt("def version(trt): ...")
    assert not surface.uses_tensorrt("from toolchain.runtimes.trt import open_trt")


def test_a_variable_named_after_what_the_module_imports_is_not_tensorrts() -> None:
    code = "profile.batch"
    assert len(missing(code, (10, 11))) == 1
    assert missing(f"from toolchain.engine.shapes import Profile\n{code}", (10, 11)) == []
