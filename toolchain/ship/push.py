"""Uploads a bundle to the Hugging Face hub: its listed files except plans, and a card made from manifest and results.

Plans are left out because they are executable code for one GPU and one version of TensorRT. Results, predictions and
texts of rows are never part of a bundle's listed files, and only figures of results reach the card. The digests of the
calibration rows are left out too: with them, anyone could find out whether a text is among the rows.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, cast

from toolchain.base.files import replacing, write_json, write_text
from toolchain.base.progress import still
from toolchain.bundle import MANIFEST, Bundle, digest_of, locked, open_bundle
from toolchain.bundle.resolved_recipe import resolve_bundle
from toolchain.errors import InputError, MachineError, ToolchainError, UsageError, first_line
from toolchain.evaluation.results import find_results
from toolchain.recipe import Recipe
from toolchain.records.bundle import Manifest
from toolchain.records.result import Result
from toolchain.records.ship import PushRecord

# user/name: letters, digits, "-", "_" and "." within a name (huggingface_hub's rules for names of repositories).
NAME = re.compile(r"[A-Za-z0-9]([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)

# Keys of a manifest whose texts are not paths, although they may begin with a slash.
VERBATIM = {"labels", "text_join"}

# The file that contains digests of rows, and its keys that hold them.
CALIBRATION, ROW_KEYS = "calibration.json", ("row_sha256", "chosen_sha256")

CARD = "README.md"
TEMPLATE = Path(__file__).parent / "card.md"


def push(
    place: Path,
    repository: str,
    *,
    public: bool = False,
    dry_run: bool = False,
    output: Path | None = None,
    trust: str | None = None,
) -> PushRecord:
    """Upload a bundle to the hub as `repository`, such as user/name. A new repository is private, unless `public`.

    With `output`, the files are written to that folder instead. With `dry_run`, nothing is written or uploaded.

    Raises:
        InputError: the bundle is incomplete, or `output` exists and was not written by push.
        UsageError: `repository` is not a valid name, or it is public and `public` is not given.
        MachineError: the hub cannot be reached, or it does not accept the token of this machine.
    """
    _check_name(repository)
    bundle = open_bundle(place, trust=trust)
    bundle.require_one_model("push")
    if output:
        _check_output(output)
    manifest, changed = _published(bundle)
    record: PushRecord = {
        "repository": repository,
        "private": not public,
        "files": sorted([*manifest["artefacts"], MANIFEST, CARD]),
        "left_out": sorted(set(bundle.manifest["artefacts"]) - set(manifest["artefacts"])),
        "bytes": sum(_size(bundle, name, changed) for name in manifest["artefacts"]),
        "sha256": manifest["sha256"],
        "where": None,
    }
    if dry_run:
        return record
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        with locked(output.resolve()), replacing(output.resolve()) as folder:
            _write(folder, bundle, manifest, changed, repository)
        return {**record, "where": str(output)}
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), bundle, manifest, changed, repository)
        return {**record, "where": _upload(Path(folder), repository, public=public, digest=manifest["sha256"])}


def _check_name(repository: str) -> None:
    if not NAME.fullmatch(repository) or ".." in repository or "--" in repository:
        raise UsageError(
            f"{repository}: this is not a valid name for the hub. Give one such as user/{Path(repository).name}."
        )


def _check_output(output: Path) -> None:
    """Refuse an output folder that exists and was not written by push."""
    if output.exists() and not ((output / MANIFEST).is_file() and (output / CARD).is_file()):
        raise InputError(f"-o {output}: it exists, but push did not write it. Choose a new folder.")


def _published(bundle: Bundle) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest without plans and absolute paths, and the new content of the files that change, by name."""
    manifest = bundle.manifest
    changed = {CALIBRATION: _without_rows(bundle.read(CALIBRATION))} if CALIBRATION in manifest["artefacts"] else {}
    plans = {name for name in manifest["artefacts"] if name.startswith("plans/")}
    steps = {
        name: {**step, "files": [file for file in step["files"] if file not in plans]}
        for name, step in manifest["steps"].items()
        if not (step["files"] and plans.issuperset(step["files"]))
    }
    artefacts = {name: digest for name, digest in manifest["artefacts"].items() if name not in plans}
    artefacts |= {name: hashlib.sha256(data).hexdigest() for name, data in changed.items()}
    found = cast(Manifest, _without_paths({**manifest, "steps": steps, "artefacts": artefacts}))
    found["sha256"] = digest_of(found)
    return found, changed


def _without_rows(calibration: bytes) -> bytes:
    """Return the content of a calibration.json without the digests of rows."""
    values = {key: value for key, value in json.loads(calibration).items() if key not in ROW_KEYS}
    return json.dumps(values, indent=2, ensure_ascii=False).encode()


def _size(bundle: Bundle, name: str, changed: Mapping[str, bytes]) -> int:
    return len(changed[name]) if name in changed else (bundle.path / name).stat().st_size


def _without_paths(value: Any) -> Any:  # any JSON
    """Return JSON with every absolute path replaced by its last part. A label such as `/r/news` is not a path."""
    if isinstance(value, Mapping):
        return {key: one if key in VERBATIM else _without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_paths(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _write(folder: Path, bundle: Bundle, manifest: Manifest, changed: Mapping[str, bytes], repository: str) -> None:
    for name in manifest["artefacts"]:
        if name in changed:
            (folder / name).write_bytes(changed[name])
        else:
            bundle.copy(name, folder / name)
    write_json(folder / MANIFEST, manifest)
    write_text(folder / CARD, _card(bundle, manifest, repository))


def _card(bundle: Bundle, manifest: Manifest, repository: str) -> str:
    """Return the text of the model card: YAML metadata for the hub, and a page made from card.md."""
    from huggingface_hub import EvalResult, ModelCardData

    results, task, head = _results(bundle), manifest["task"], resolve_bundle(bundle, Recipe()).head
    name, base = repository.rpartition("/")[2], manifest["model"]["id"]
    metrics = [
        EvalResult(
            task_type=head.pipeline,
            dataset_type=str(task["hub"].get("path", task["name"])),
            dataset_name=task["name"],
            dataset_split=result["split"],
            metric_type=metric,
            metric_value=value,
            metric_name=f"{metric}, {result['backend']} {result['variant']}",
        )
        for result in results
        for metric, value in result["metrics"].items()
    ]
    data = ModelCardData(
        library_name="onnx",
        pipeline_tag=head.pipeline,
        tags=["onnx", "tensorrt", manifest["precision"]],
        base_model=base if base.count("/") == 1 else None,
        model_name=name,
        eval_results=metrics or None,
    )
    pairs = head.texts_per_row == 2
    words = {
        "name": name,
        "kind": f"{head.gives} for each {'pair of texts' if pairs else 'text'}",
        "example": '"a text" "its second text"' if pairs else '"a text"',
        "repository": repository,
        "base": base,
        "task": task["name"],
        "precision": manifest["precision"],
        "length": manifest["max_length"],
        "digest": manifest["sha256"],
        "files": "\n".join(f"- `{file}`" for file in sorted(manifest["artefacts"])),
        "results": "\n".join(_line(result) for result in results) or "No results were saved with the bundle.",
    }
    return f"---\n{data.to_yaml()}\n---\n\n{Template(TEMPLATE.read_text(encoding='utf-8')).substitute(words)}"


def _results(bundle: Bundle) -> list[Result]:
    """Return the saved results for the bundle's own task, which is the only task that the card names."""
    try:
        found = find_results([bundle.path])
    except InputError:  # the bundle has no results
        return []
    return [result for result in found if result["task"] == bundle.manifest["task"]["name"]]


def _line(result: Result) -> str:
    primary = result["primary"]
    low, high = result["metrics_ci95"][primary]
    return (
        f"- {result['backend']} {result['variant']} on {result['device']}: {primary} {result['metrics'][primary]:.4f} "
        f"(95 % interval {low:.4f} to {high:.4f}) on {result['n']:,} rows of {result['task']} {result['split']}"
    )


def _upload(folder: Path, repository: str, *, public: bool, digest: str) -> str:
    """Create the repository if it does not exist, upload the folder, and return the address of the commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi()
    try:
        address = api.create_repo(repository, private=not public, exist_ok=True)
        if not public and not api.model_info(repository).private:
            raise UsageError(f"{repository}: this repository is public. Give --public, or another name.")
        with still():  # huggingface_hub draws its own progress bars
            commit = api.upload_folder(folder_path=folder, repo_id=repository, commit_message=f"Bundle {digest[:12]}")
    except LocalTokenNotFoundError:
        raise MachineError("push: no token for the hub was found. Log in: hf auth login, or set HF_TOKEN.") from None
    except (OfflineModeIsEnabled, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, HfHubHTTPError) and status in (401, 403):
            raise MachineError(
                f"{repository}: the token of this machine may not write there ({status}). "
                "Log in with a token that may write: hf auth login."
            ) from None
        if isinstance(error, HfHubHTTPError) and status is not None:
            raise ToolchainError(
                f"{repository}: the hub refused the upload ({status}: {first_line(error)}). Fix what it names, or "
                "write the folder with -o and upload it in another way."
            ) from None
        raise MachineError(
            f"push: the hub cannot be reached ({type(error).__name__}). Connect this machine, or write the folder "
            "with -o and upload it from another machine."
        ) from None
    return str(commit.commit_url or address)
