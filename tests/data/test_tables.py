"""Folders as other programs write them: the hub, Spark, backups, broken links."""

import gzip
import os
from pathlib import Path

import pandas
import pytest

from toolchain.data.tables import MissingSplitError, read_split, splits
from toolchain.errors import InputError

FRAME = pandas.DataFrame({"text": ["a", "b", "c"], "label": [0, 1, 1]})


def test_the_parts_of_an_older_hub_are_one_split(tmp_path: Path) -> None:
    for at in range(2):
        name = f"data/train-{at:05}-of-00002-{at:016x}.parquet"
        (tmp_path / "data").mkdir(exist_ok=True)
        FRAME.iloc[2 * at : 2 * at + 2].to_parquet(tmp_path / name)
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert read_split(tmp_path, "train").columns["text"] == ["a", "b", "c"]
    assert splits(tmp_path) == ["train"]


def test_the_source_of_several_files_names_them_all(tmp_path: Path) -> None:
    for at, text in enumerate(("a", None)):
        pandas.DataFrame({"text": [text], "label": [0]}).to_parquet(tmp_path / f"train-{at:05}-of-00002.parquet")
    assert read_split(tmp_path, "train").source.endswith("train-00000-of-00002.parquet to train-00001-of-00002.parquet")


def of_hub(folder: Path) -> None:
    (folder / "sst2").mkdir()
    FRAME.to_parquet(folder / "sst2/validation-00000-of-00001.parquet")


def of_spark(folder: Path) -> None:
    (folder / "validation.csv").mkdir()
    FRAME.to_csv(folder / "validation.csv/part-00000.csv")


def compressed(folder: Path) -> None:
    (folder / "validation.jsonl.gz").write_bytes(gzip.compress(b"{}"))


def of_pipes(folder: Path) -> None:
    os.mkfifo(folder / "validation.csv")


def of_broken_links(folder: Path) -> None:
    (folder / "validation.csv").symlink_to(folder / "gone.csv")


def of_another_kind(folder: Path) -> None:
    (folder / "validation.xlsx").write_bytes(b"PK")


UNREAD = {
    of_hub: r"Its subfolder sst2 has validation\. Name that folder with --data\.$",
    of_spark: r"validation\.csv is a folder\. Join its files into one",
    compressed: r"validation\.jsonl\.gz cannot be read\. Unpack it: gunzip validation\.jsonl\.gz$",
    of_pipes: r"validation\.csv cannot be read\. It is a broken link, a pipe or a device\. Save it as a file\.$",
    of_broken_links: r"validation\.csv cannot be read\. It is a broken link, a pipe or a device\. Save it as a file\.$",
    of_another_kind: r"validation\.xlsx cannot be read\. Give a file whose name ends with \.tsv",
}


@pytest.mark.parametrize("make", UNREAD)
def test_a_folder_without_a_split_says_what_is_there_instead(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path)
    with pytest.raises(MissingSplitError, match=UNREAD[make]):
        read_split(tmp_path, "validation")


def test_a_pipe_is_not_a_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"a pipe or a device, not a file or a folder\. Save it as a file\.$"):
        read_split(tmp_path / "pipe", "train")
