"""The token file: private whatever the umask, kept when it exists, refused when open."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.credentials import create_token, read_token
from cluster.errors import ClusterError


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_it_is_private_under_an_open_umask(tmp_path: Path) -> None:
    path = tmp_path / "token"
    create_token(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_token(path)) >= 40
    assert [entry.name for entry in tmp_path.iterdir()] == ["token"]


def test_it_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "token"
    create_token(path)
    first = read_token(path)
    create_token(path)
    assert read_token(path) == first


def test_an_empty_one_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    create_token(path)
    assert read_token(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_one_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    create_token(path)
    path.chmod(mode)
    with pytest.raises(ClusterError, match=f"chmod 600 {path}") as caught:
        read_token(path)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\x00", "schlüssel".encode()])
def test_one_that_holds_no_token_is_refused_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ClusterError, match=f"delete {path}") as caught:
        read_token(path)
    assert caught.value.exit_code == 4


def test_one_that_may_not_be_looked_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ClusterError, match="Use the account") as caught:
        read_token(tmp_path / "token")
    assert caught.value.exit_code == 4


def test_a_missing_one_names_the_place_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="gcpctl cluster up") as caught:
        read_token(tmp_path / "token")
    assert caught.value.exit_code == 4
