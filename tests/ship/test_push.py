"""A bundle on a hub: what is listed, the folder that is uploaded, the card, and how the hub's client is called."""

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import LocalTokenNotFoundError

from toolchain.base.files import sha256_file
from toolchain.bundle import digest_of, open_bundle
from toolchain.cli import main
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.ship.push import _without_paths, push
from toolchain.workflow import evaluate

NAME = "someone/tiny"


@pytest.fixture(scope="module")
def bundle(begun, tmp_path_factory):
    """A bundle with a result, a file that is not listed, and a plan."""
    folder = begun("int8", tmp_path_factory.mktemp("push") / "bundle")
    evaluate({"limit": 10}, bundle=folder, tell=lambda line: None)
    (folder / "secret.txt").write_text("a secret")
    manifest = json.loads((folder / "bundle.json").read_text())
    plan = "plans/sm75-trt10.16.1.11/model.plan"
    (folder / plan).parent.mkdir(parents=True)
    (folder / plan).write_bytes(b"plan")
    manifest["steps"]["engine"] = {"inputs_sha256": "", "files": [plan], "record": {}}
    manifest["artefacts"][plan] = sha256_file(folder / plan)
    (folder / "bundle.json").write_text(json.dumps({**manifest, "sha256": digest_of(manifest)}))
    return folder


def test_the_folder_is_a_bundle_without_plans_results_and_paths(bundle, tmp_path, sentences):
    done = push(bundle, NAME, output=tmp_path / "out")
    written = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert written == set(done["files"])
    assert done["left_out"] == ["plans/sm75-trt10.16.1.11/model.plan"]
    assert not [name for name in written if "results" in name or "secret" in name or "plans" in name]
    opened = open_bundle(tmp_path / "out", trust=done["sha256"])
    assert "engine" not in opened.manifest["steps"]
    text = "".join((tmp_path / "out" / name).read_text() for name in ("bundle.json", "README.md", "calibration.json"))
    assert str(sentences.parent) not in text
    rows = (sentences / "validation.csv").read_text().splitlines()[1:]
    assert not [row for row in rows if row.split(",")[0] in text]
    push(bundle, NAME, output=tmp_path / "out")  # its own folder is replaced


def test_no_digest_of_a_row_is_published(bundle, tmp_path):
    """With the digests, anyone could test whether a text is among the private rows."""
    local = json.loads((bundle / "calibration.json").read_text())
    push(bundle, NAME, output=tmp_path / "out")
    everything = b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir())
    assert len(local["row_sha256"]) == 20
    assert not [digest for digest in local["row_sha256"] if digest.encode() in everything]
    published = json.loads((tmp_path / "out/calibration.json").read_text())
    assert published["ranges"] == local["ranges"]


def test_the_card_is_of_its_own_task_alone(bundle, tmp_path):
    columns = {"task": "custom", "text_column": "sentence", "label_column": "label"}
    other = evaluate({**columns, "limit": 12}, bundle=bundle, tell=lambda line: None)
    push(bundle, NAME, output=tmp_path / "out")
    assert "custom" not in (card := (tmp_path / "out/README.md").read_text())
    assert "It gives one of negative, positive for each text." in card
    Path(other["file"]).unlink()


def test_the_card_of_pairs_and_of_a_number_says_so(pair_bundle, tmp_path):
    push(pair_bundle, NAME, output=tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "It gives a number for each pair of texts." in card
    assert 'toolchain predict tiny "a text" "its second text"' in card


def test_a_label_with_a_slash_is_no_path():
    found = _without_paths({"model": {"id": "/home/me/model", "labels": ["/r/news", "/r/art"]}, "text_join": "/"})
    assert found == {"model": {"id": "model", "labels": ["/r/news", "/r/art"]}, "text_join": "/"}


def test_the_card_has_the_figures_that_the_hub_reads(bundle, tmp_path):
    push(bundle, NAME, output=tmp_path / "out")
    card = ModelCard.load(tmp_path / "out/README.md")
    (result,) = (json.loads(file.read_text()) for file in (bundle / "results").glob("*.json"))
    (found,) = card.data.eval_results
    assert (found.metric_type, found.metric_value) == ("accuracy", result["metrics"]["accuracy"])
    assert card.data.pipeline_tag == "text-classification"
    assert "on 10 rows of sst2 validation" in card.text


def test_a_dry_run_lists_the_files_and_writes_nothing(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["push", str(bundle), NAME, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "model.int8.cpu.onnx" in said
    assert "nothing was written or uploaded" in said
    assert list(tmp_path.iterdir()) == []


class Hub:
    """A client of the hub that keeps what it is asked."""

    def __init__(self, private=True, error=None):
        self.private, self.error, self.asked = private, error, []

    def create_repo(self, name, **options):
        if self.error:
            raise self.error
        self.asked.append(("create", name, options["private"]))
        return f"https://hub/{name}"

    def model_info(self, name):
        return SimpleNamespace(private=self.private)

    def upload_folder(self, *, folder_path, repo_id, commit_message):
        open_bundle(folder_path)
        self.asked.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))
        return SimpleNamespace(commit_url="https://hub/commit")


@pytest.mark.parametrize("public", [False, True])
def test_the_repository_is_private_unless_asked(bundle, monkeypatch, public):
    hub = Hub(private=not public)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    assert push(bundle, NAME, public=public)["where"] == "https://hub/commit"
    assert hub.asked[0] == ("create", NAME, not public)
    assert "bundle.json" in hub.asked[1][2]


@pytest.mark.parametrize(
    ("hub", "kind", "said"),
    [
        (Hub(private=False), UsageError, "is public"),
        (Hub(error=LocalTokenNotFoundError("none")), MachineError, "hf auth login"),
        (Hub(error=ConnectionError("no route")), MachineError, "cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_one_message(bundle, monkeypatch, hub, kind, said):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    with pytest.raises(kind, match=said):
        push(bundle, NAME)
    assert not [one for one in hub.asked if one[0] == "upload"]


def test_names_and_folders_are_checked_first(bundle, tmp_path):
    with pytest.raises(UsageError, match="not a valid name for the hub"):
        push(bundle, "a/b/c")
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="it exists, but push did not write it"):
        push(bundle, NAME, output=tmp_path / "mine")
