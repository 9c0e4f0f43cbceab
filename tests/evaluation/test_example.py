"""Rows that show how a bundle is used are real ones where its data lie on this machine."""

import csv

from toolchain.bundle import open_bundle
from toolchain.bundle.resolved_recipe import resolve_bundle
from toolchain.data.demo import FOLDER
from toolchain.data.probes import probe_texts
from toolchain.evaluation.example import SHORT, example_rows
from toolchain.evaluation.target import recorded


def resolved(bundle, **changes):
    opened = open_bundle(bundle)
    return resolve_bundle(opened, recorded(opened, changes))


def test_the_rows_are_the_first_short_ones_of_the_data(demo_bundle):
    found = example_rows(resolved(demo_bundle), 2)
    with (FOLDER / "validation.tsv").open() as lines:
        texts = [row["sentence"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]
    assert found == [(text,) for text in texts if len(text) <= SHORT][:2]


def test_rows_without_text_and_repeated_ones_are_left_out(typed_bundles, tmp_path):
    (tmp_path / "validation.csv").write_text('sentence,label\na,0\n" ",0\nb,0\na,1\n')
    assert example_rows(resolved(typed_bundles["fp32"], data=str(tmp_path)), 4) == [("a",), ("b",)]


def test_built_in_sentences_stand_in_for_data_that_are_gone(typed_bundles, tmp_path):
    assert example_rows(resolved(typed_bundles["fp32"], data=str(tmp_path)), 2) == probe_texts(1)[:2]
    (tmp_path / "validation.csv").write_text("other\na\n")
    assert example_rows(resolved(typed_bundles["fp32"], data=str(tmp_path)), 2) == probe_texts(1)[:2]
