"""The completion script, asked by a real bash."""

import shutil
import subprocess

import pytest

from toolchain.cli import main

BASH = shutil.which("bash")

# What Bash does when Tab is pressed at the end of the words.
ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
$(complete -p toolchain | sed 's/.*-F \\([^ ]*\\).*/\\1/') toolchain "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    if not BASH:
        pytest.skip("there is no bash")
    file = tmp_path_factory.mktemp("completion") / "toolchain"
    with pytest.MonkeyPatch.context() as patch, file.open("w") as stream:
        patch.setattr("sys.stdout", stream)
        assert main(["completion", "bash"]) == 0
    return file


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["toolchain", "bu"], ["build"]),
        (["toolchain", "build", "--prec"], ["--precision"]),
        (["toolchain", "build", "--precision", ""], ["fp32", "fp16", "bf16", "int8", "fp8", "int4"]),
        (["toolchain", "ship", "tri"], ["triton"]),
        (["toolchain", "ship", "triton", "--max-b"], ["--max-batch"]),
        (["toolchain", "report", "--format", "opt"], ["optimum-benchmark"]),
    ],
)
def test_bash_completes_commands_options_and_choices(script, words, found):
    done = subprocess.run([BASH, "--norc", "-c", ASK, "bash", script, *words], capture_output=True, text=True)
    assert done.stdout.split() == found, done.stderr


def test_bash_completes_a_bundle(script, tmp_path):
    (tmp_path / "checked").mkdir()
    words = ["toolchain", "eval", "che"]
    done = subprocess.run(
        [BASH, "--norc", "-c", ASK, "bash", script, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert "checked" in done.stdout.split(), done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_the_scripts_of_other_shells_name_every_level(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("build", "precision", "int8", "triton"))


def test_a_script_is_not_json(capsys):
    assert main(["completion", "bash", "--json"]) == 2
    assert "--json: the script cannot be printed as JSON" in capsys.readouterr().err
