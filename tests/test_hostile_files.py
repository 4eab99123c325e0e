"""Files from strangers: one exception that names the file, in little time and memory."""

import os
import time
import tracemalloc

import pytest
from hostile import READERS, damaged, fault_of

FULL = "FASTBACKPROP_FULL" in os.environ
N_DAMAGED = 20_000 if FULL else 250


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(tmp_path, name):
    reader = READERS[name]
    for companion, content in reader.companions().items():
        (tmp_path / companion).write_bytes(content)
    path = tmp_path / reader.file_name
    forms = reader.forms()
    for content, wrap in forms:
        path.write_bytes(wrap(content))
        assert fault_of(reader, path) is None
    n_refused = 0
    tracemalloc.start()
    try:
        for seed in range(N_DAMAGED):
            content = damaged(forms, seed)
            path.write_bytes(content)
            tracemalloc.reset_peak()
            before, began = tracemalloc.get_traced_memory()[0], time.process_time()
            try:
                n_refused += fault_of(reader, path) is not None
            except BaseException as error:
                error.add_note(f"the file is damaged(READERS[{name!r}].forms(), {seed})")
                raise
            assert time.process_time() - began < 1.0, f"seed {seed} took too long"
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < 2_000_000 + 100 * len(content), f"seed {seed}: {peak} bytes"
    finally:
        tracemalloc.stop()
    assert n_refused > N_DAMAGED / 3
