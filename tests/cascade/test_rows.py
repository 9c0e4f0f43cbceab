"""The rows of a cascade, against digests of rows that a stage learnt from."""

import pytest

from toolchain.base.files import sha256_file
from toolchain.bundle import Bundle
from toolchain.bundle.learnt import OF_HEAL, OF_SHRINK, write_learnt
from toolchain.cascade.rows import choose_rows
from toolchain.errors import InputError
from toolchain.evaluation.target import find_target


def test_rows_that_a_stage_was_shrunk_or_healed_with_are_left_out_and_many_are_refused(demo_bundle, tmp_path, caplog):
    resolved = find_target({}, demo_bundle).resolved
    digests = resolved.rows("validation").text_digests
    known = choose_rows(resolved, None)

    def stage(learnt):
        """Return a bundle whose model learnt from these rows."""
        for name, rows in learnt.items():
            write_learnt(tmp_path / name, rows)
        return Bundle(tmp_path, {"artefacts": {name: sha256_file(tmp_path / name) for name in learnt}})

    found = choose_rows(resolved, None, [stage({OF_HEAL: digests[:10], OF_SHRINK: digests[10:20]})])
    assert found.left_out == known.left_out + 20
    assert not {*digests[:20]} & {*found.rows.text_digests}
    assert "20 of 1000 rows are also train rows, and are left out" in caplog.text
    with pytest.raises(InputError, match="1,000 of these 1,000 rows are train rows, on which a stage is over"):
        choose_rows(resolved, None, [stage({OF_HEAL: digests})])
