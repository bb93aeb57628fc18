"""Local folders and object storage through one interface; a stand-in takes a store's place."""

import errno
import os
import pickle

import pytest
from pyarrow import fs

from workloads.data import filesystem
from workloads.data.errors import DataError
from workloads.data.filesystem import (
    StorageError,
    explained,
    is_remote,
    list_files,
    local_path,
    open_filesystem,
    read_file,
)
from workloads.worker.failures import classify


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder that stands in for the buckets of a store: `s3://bucket/...`."""
    (tmp_path / "store").mkdir()
    stand_in = fs.SubTreeFileSystem(str(tmp_path / "store"), fs.LocalFileSystem())
    monkeypatch.setattr(filesystem, "_open_remote", lambda uri: (stand_in, uri.partition("://")[2]))
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("/data/x", False),
        ("data", False),
        ("file:///data", False),
        ("s3://bucket/x", True),
        ("GS://bucket", True),
        ("hdfs://name:8020/x", True),
        ("odd/name://x", False),
    ],
)
def test_a_scheme_makes_a_path_remote(path, remote):
    assert is_remote(path) is remote


def test_file_uris_are_local_paths(tmp_path):
    (tmp_path / "a b").mkdir()
    uri = (tmp_path / "a b").as_uri()
    assert "%20" in uri
    assert local_path(uri) == str(tmp_path / "a b")
    opened, root = open_filesystem(uri)
    assert isinstance(opened, fs.LocalFileSystem)
    assert root == str(tmp_path / "a b")


def test_relative_paths_are_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_filesystem("here/")[1] == str(tmp_path / "here")


def test_files_are_listed_in_order_and_read(store):
    for name in ("b/2", "b/1", "a"):
        path = store / "bucket" / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    opened, root = open_filesystem("s3://bucket/x/")
    assert root == "bucket/x"
    found = list_files(opened, root)
    assert [(info.path, info.size) for info in found] == [
        ("bucket/x/a", 1),
        ("bucket/x/b/1", 3),
        ("bucket/x/b/2", 3),
    ]
    assert read_file(opened, "bucket/x/b/2") == b"b/2"
    assert list_files(opened, "bucket/none") == []


def test_what_is_not_there_is_named(store, tmp_path):
    with pytest.raises(DataError, match="no folder s3://bucket/none"):
        open_filesystem("s3://bucket/none")
    with pytest.raises(DataError, match=r"no folder .*nowhere.*every node"):
        open_filesystem(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file, not a folder"):
        open_filesystem(tmp_path / "file")
    opened, _ = open_filesystem(tmp_path)
    with pytest.raises(DataError, match="called thus: No such file"):
        read_file(opened, str(tmp_path / "gone"), "called thus")


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(DataError, match=r"unknown scheme 'fille'.*did you mean 'file'.*gs://"):
        open_filesystem("fille:///data")


def test_refused_access_says_where_credentials_come_from():
    said = "When getting information for key 'x': AWS Error ACCESS_DENIED during HeadObject"
    wanted = r"s3://b/x.*ACCESS_DENIED.*AWS_ACCESS_KEY_ID"
    with pytest.raises(DataError, match=wanted), explained("s3://b/x"):
        raise OSError(said)


def test_a_store_that_does_not_answer_is_worth_a_retry():
    said = "AWS Error NETWORK_CONNECTION during HeadObject\nmore\nlines"
    wanted = "cannot reach s3://b/x"
    with pytest.raises(StorageError, match=wanted) as caught, explained("s3://b/x"):
        raise OSError(said)
    error = caught.value
    assert classify(error) == "infrastructure"
    assert "more" not in error.message
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.hint, again.errno) == (error.message, error.hint, error.errno)


def test_errors_of_a_local_disk_stay_what_they_are():
    with pytest.raises(OSError, match="I/O") as caught, explained("/data/x"):
        raise OSError(errno.EIO, os.strerror(errno.EIO).replace("Input/output", "I/O"))
    assert caught.value.errno == errno.EIO


def test_a_folder_in_a_store_may_not_be_a_local_one(monkeypatch):
    opened = []
    monkeypatch.setattr(filesystem, "_open_remote", lambda uri: opened.append(uri))
    with pytest.raises(DataError, match="unknown scheme"):
        open_filesystem("ftp://host/x")
    assert opened == []
