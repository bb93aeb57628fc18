"""The home: made private when it is ours, left alone and refused when it is not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.home import prepare_home
from cluster.layout import Layout
from cluster.ray_head import prepare_temp_dir


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_home_is_private(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "new" / "home")
    prepare_home(layout)
    prepare_home(layout)
    assert {mode(path) for path in (layout.home, *layout.folders())} == {0o700}


@pytest.mark.parametrize("content", [(), ("profiles",), ("cluster",)])
def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path, content: tuple[str, ...]) -> None:
    layout = Layout(tmp_path / "home")
    layout.home.mkdir()
    layout.home.chmod(0o1777)
    for name in content:
        (layout.home / name).mkdir(mode=0o755)
    prepare_home(layout)
    prepare_temp_dir(layout.home / "ray" / "t")
    assert mode(layout.home) == 0o1777
    assert {mode(path) for path in (*layout.folders(), layout.home / "ray")} == {0o700}


def test_a_folder_with_other_things_is_refused_untouched(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")
    layout.home.mkdir(mode=0o755)
    (layout.home / "thesis.tex").touch()
    with pytest.raises(ClusterError, match=r"thesis\.tex.*new or empty folder"):
        prepare_home(layout)
    assert mode(layout.home) == 0o755
    assert [path.name for path in layout.home.iterdir()] == ["thesis.tex"]


def test_a_home_with_other_things_in_it_stays_a_home_without_its_token(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")
    prepare_home(layout)
    (layout.home / "notes.txt").touch()
    layout.lock.touch()
    layout.token.unlink()  # the way to a new one
    prepare_home(layout)
    assert layout.token.exists()


def test_a_home_of_somebody_else_is_refused_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "home")
    layout.home.mkdir()
    mine = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: mine + 1)
    with pytest.raises(ClusterError, match="belongs to another user"):
        prepare_home(layout)
    assert list(layout.home.iterdir()) == []


def test_a_folder_that_was_put_elsewhere_keeps_its_mode(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")
    prepare_home(layout)
    layout.storage.rmdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk").chmod(0o755)
    layout.storage.symlink_to(tmp_path / "disk")
    prepare_home(layout)
    assert mode(tmp_path / "disk") == 0o755
