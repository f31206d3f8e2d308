"""The detector's file: fetched when asked, by its checksum; what is read is not trusted."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from siamese.cropping import detector_file
from siamese.cropping.detector_file import NAME, fetch_detector, read_detector
from siamese.errors import UserError
from tests.cropping.yunet_network import yunet_like

Run = Callable[..., CompletedProcess[str]]
OFFSETS = ((0.0, 5.0), (2.0, 5.0), (1.0, 6.0), (0.0, 7.0), (2.0, 7.0))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A server that sends ``content`` (with ``status``); the known file is what it should be."""
    answer: dict[str, Any] = {"content": b"the network", "status": 200, "asked": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer["asked"] += 1
            self.send_response(answer["status"])
            self.end_headers()
            self.wfile.write(answer["content"])

        def log_message(self, *_: object) -> None:
            pass

    serving = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = f"http://127.0.0.1:{serving.server_port}/{NAME}"
    monkeypatch.setattr(detector_file, "URL", url)
    monkeypatch.setattr(detector_file, "SIZE", len(b"the network"))
    monkeypatch.setattr(detector_file, "SHA256", hashlib.sha256(b"the network").hexdigest())
    yield answer
    serving.shutdown()
    serving.server_close()


# Fetched


def test_it_is_fetched_once_and_says_what_it_does(server, tmp_path, run_here: Run):
    done = run_here("data", "fetch", "yunet", "--out", "yunet.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "yunet.onnx").read_bytes() == b"the network"
    assert os.listdir(tmp_path) == ["yunet.onnx"]
    for part in (detector_file.URL, detector_file.SHA256, "11 bytes", "to yunet.onnx"):
        assert part in done.stderr
    assert "siamese-data crop PHOTOS --out faces --detector ./yunet.onnx" in done.stdout
    again = run_here("data", "fetch", "yunet", "--out", "yunet.onnx", cwd=tmp_path)
    assert "is there already" in again.stdout
    assert server["asked"] == 1


def test_a_folder_gets_the_file_under_its_own_name(server, tmp_path):
    assert fetch_detector(tmp_path).path == tmp_path / NAME
    assert (tmp_path / NAME).read_bytes() == b"the network"


@pytest.mark.parametrize("content", [b"the netwOrk", b"the net", b"the network and more"])
def test_another_checksum_is_refused_and_nothing_kept(server, tmp_path, content):
    server["content"] = content
    with pytest.raises(UserError, match=r"another checksum than [0-9a-f]{64}; nothing is kept"):
        fetch_detector(tmp_path / "yunet.onnx")
    assert os.listdir(tmp_path) == []


def test_another_file_is_not_written_over(server, tmp_path):
    (tmp_path / "yunet.onnx").write_bytes(b"mine")
    with pytest.raises(UserError, match="is another file than"):
        fetch_detector(tmp_path / "yunet.onnx")
    assert (tmp_path / "yunet.onnx").read_bytes() == b"mine"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", None])
def test_without_network_it_says_how_to_do_it_by_hand(server, tmp_path, monkeypatch, run_here, url):
    if url is None:
        server["status"] = 404
    else:
        monkeypatch.setattr(detector_file, "URL", url)
    done = run_here("data", "fetch", "yunet", "--out", "y.onnx", cwd=tmp_path)
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert "cannot be downloaded (" in error
    for part in (detector_file.URL, detector_file.SHA256, "save it as y.onnx"):
        assert part in error


def test_the_known_file_is_stated_in_full():
    """As Git LFS's pointer in OpenCV's model zoo has it; a slip here would refuse the true file."""
    assert len(detector_file.SHA256) == 64
    assert detector_file.SIZE == 232589
    assert detector_file.URL.startswith("https://github.com/opencv/opencv_zoo/raw/")
    assert detector_file.URL.endswith(f"/{NAME}")


# Read


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "made.onnx"
    path.write_bytes(yunet_like(OFFSETS))
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_another_network_of_the_form_is_taken_with_a_note(network, workers):
    detector, note = read_detector(network, 640, 0.7, workers)
    assert (detector.side, detector.score) == (640, 0.7)
    assert note is not None
    assert hashlib.sha256(network.read_bytes()).hexdigest() in note


def test_the_known_file_has_no_note(network, monkeypatch):
    known = hashlib.sha256(network.read_bytes()).hexdigest()
    monkeypatch.setattr(detector_file, "SHA256", known)
    assert read_detector(network, 640, 0.9, 0)[1] is None


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no ONNX network"),
        (b"\x08\x07\x12\x04" * 1000, "is no ONNX network"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:8f\n", "a pointer of Git LFS"),
        (yunet_like(OFFSETS, values=8), "kps_8 has the shape"),
        (b"x" * (16 * 2**20 + 1), "is larger than 16 MiB"),
    ],
)
def test_what_is_no_such_network_is_one_line(tmp_path, content, told, workers, capfd):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told) as raised:
        read_detector(path, 640, 0.9, workers)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"`detector` {path}: ")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UserError, match=r"`detector` .*x: (no such file|is a)"):
        read_detector(path, 640, 0.9, 0)


def test_a_file_that_crashes_opencv_is_refused(network, monkeypatch):
    def crash(*_: object) -> None:
        os._exit(11)

    monkeypatch.setattr(detector_file, "network_fault", crash)
    with pytest.raises(UserError, match="the reader crashed on it"):
        read_detector(network, 640, 0.9, 2)


def test_without_opencv_it_says_what_to_install(network, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"pip install 'siamese\[crop\]'"):
        read_detector(network, 640, 0.9, 0)
