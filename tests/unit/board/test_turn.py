"""QEMU's sockets let one or two wait; the next ones wait for a turn."""

import socket
import threading
import time

import pytest

from scripts.board_driver.turn import connect


@pytest.fixture
def crowded(tmp_path):
    """A listener with a full queue."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        yield path, listener


def test_it_waits_for_a_turn(crowded):
    path, listener = crowded

    def serve():
        time.sleep(0.1)
        listener.accept()[0].close()

    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        with pytest.raises(BlockingIOError):
            client.connect(str(path))
        server = threading.Thread(target=serve)
        server.start()
        connect(client, path, 5)
        server.join()
        assert client.getpeername() == str(path)


def test_it_does_not_wait_for_ever(crowded):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        with pytest.raises(BlockingIOError):
            connect(client, crowded[0], 0.05)


def test_nobody_there_is_no_queue(tmp_path):
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(FileNotFoundError):
        connect(client, tmp_path / "none", 5)
