"""`--backend auto` takes the runtime with the highest throughput and says what it measured."""

import logging

import pytest

from toolchain.cli import main
from toolchain.errors import MachineError, UsageError
from toolchain.evaluation import runtime_choice
from toolchain.evaluation.runtime_choice import find_to_run

pytest.importorskip("openvino", reason="pip install 'encoder-toolchain[openvino]'")


@pytest.fixture(autouse=True)
def cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("fastest", ["ort", "openvino"])
def test_the_fastest_of_the_trial_is_used(typed_bundles, monkeypatch, caplog, fastest):
    trial = runtime_choice._trial

    def scripted(opened, tokens):
        assert all(rows > 0 and ms > 0 for rows, ms in trial(opened, tokens).values())
        return {name: (1000.0 if name == fastest else 999.0, 1.0) for name in opened}

    monkeypatch.setattr(runtime_choice, "_trial", scripted)
    with caplog.at_level(logging.INFO):
        assert find_to_run({"backend": "auto"}, typed_bundles["int8"]).backend == fastest
    assert f"{fastest} 1,000 rows/s, 1.00 ms for one row" in caplog.text
    assert f"{fastest} is used" in caplog.text


def test_a_runtime_that_is_missing_is_named_and_another_is_used(typed_bundles, monkeypatch, caplog):
    opener = runtime_choice.open_runtime

    def without(*missing):
        def opened(name, *given, **choices):
            if name in missing:
                raise MachineError(f"{name} is not installed.")
            return opener(name, *given, **choices)

        return opened

    monkeypatch.setattr(runtime_choice, "open_runtime", without("ort"))
    with caplog.at_level(logging.INFO):
        assert find_to_run({"backend": "auto"}, typed_bundles["fp32"]).backend == "openvino"
    assert "ort is not installed." in caplog.text
    monkeypatch.setattr(runtime_choice, "open_runtime", without("ort", "openvino"))
    with pytest.raises(MachineError, match="ort is not installed"):
        find_to_run({"backend": "auto"}, typed_bundles["fp32"])


def test_it_is_refused_on_a_gpu_and_by_other_commands(typed_bundles, tmp_path, capsys):
    bundle = typed_bundles["fp32"]
    with pytest.raises(UsageError, match="not on cuda"):
        find_to_run({"backend": "auto", "device": "cuda"}, bundle)
    for command in (["verify", str(bundle)], ["build", str(bundle), "-o", str(tmp_path / "b")]):
        assert main([*command, "--backend", "auto"]) == 2
        assert "--backend auto: only eval, predict and serve accept auto" in capsys.readouterr().err
