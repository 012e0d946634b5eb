"""The kernel's list of local sockets."""

import socket
from pathlib import Path

from zentrid.core.unixsockets import connections


def test_only_accepted_connections_of_this_path_count(tmp_path):
    path, other = tmp_path / "a b", tmp_path / "a"

    def count(of):
        return connections(Path("/proc/net/unix").read_text(), str(of))

    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
        socket.socket(socket.AF_UNIX) as second,
    ):
        listener.bind(str(path))
        listener.listen(4)
        assert count(path) == 0
        client.connect(str(path))
        second.connect(str(path))
        assert count(path) == 0, "they wait"
        accepted, _ = listener.accept()
        assert (count(path), count(other)) == (1, 0)
        accepted.close()
        assert count(path) == 0


def test_what_is_no_list_has_none():
    assert connections("", "/x") == 0
    assert connections("Num RefCount Protocol Flags Type St Inode Path\nnonsense\n", "/x") == 0
