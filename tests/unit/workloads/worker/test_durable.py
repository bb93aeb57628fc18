import inspect
from pathlib import Path

import pytest

from workloads import durable


def test_the_seam_of_the_fault_tests_names_every_operation(faults):
    seam = {"make_folder", "write", "sync", "sync_folder", "move", "remove_tree"}
    functions = {name for name, _ in inspect.getmembers(durable, inspect.isfunction)}
    assert functions - seam == {"write_file", "write_json", "write_json_fleeting"}
    with faults().installed() as counting:
        for name in seam:
            assert getattr(durable, name).__name__ == "operation"
        assert counting.count == 0


@pytest.mark.parametrize("kind", ["crash before", "crash half", "crash after", "ENOSPC", "EIO"])
def test_write_file_leaves_the_old_or_the_new_content(kind, faults, in_child, tmp_path: Path):
    path = tmp_path / "file"
    for at in range(1, 6):
        path.write_bytes(b"old")
        with faults(kind, at).installed():
            in_child(lambda: durable.write_file(path, b"new content"))
        assert path.read_bytes() in (b"old", b"new content")
