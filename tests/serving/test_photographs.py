"""A service that cuts the face out of each photograph that it is sent."""

import base64
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from siamese import Embedder
from siamese.config.using import ServeSettings, check_serve
from siamese.cropping.alignment import align
from siamese.cropping.detection import FoundFace
from siamese.cropping.face_cutter import FaceCutter, NoFace
from siamese.errors import UserError
from tests.cropping.stub import Counting, photograph
from tests.cropping.yunet_network import network_of_squares, photograph_with_square
from tests.serving.conftest import running
from tests.serving.test_app import one_line, png, several, two

SIZE = 32  # of the model's pictures


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client(cut=FaceCutter(Counting(), SIZE, 0.25))


def face_of(photo: Image.Image) -> Image.Image:
    """The largest face, which the detector names last but one of its kind."""
    largest = max(Counting().find(photo), key=lambda face: face.area)
    return align(photo, largest.points(), SIZE, 0.25)


def shown_in(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image)


def test_the_largest_face_of_each_is_compared(client: TestClient, checkpoint: Path) -> None:
    photos = photograph(1, 3), photograph(3, 4)
    asked = two(*map(png, photos))
    answer = client.post("/verify", files=asked, params={"pictures": "true"}).json()
    faces = [face_of(photo) for photo in photos]
    expected = Embedder.load(checkpoint, "cpu").verify(*faces)
    assert answer["score"] == pytest.approx(expected.score, abs=1e-6)
    for name, face in zip("ab", faces, strict=True):
        np.testing.assert_array_equal(shown_in(answer[name]), np.asarray(face))
    whole = Embedder.load(checkpoint, "cpu").verify(*photos)
    assert abs(answer["score"] - whole.score) > 1e-5
    assert client.get("/model").json()["photographs"] is True


def test_a_service_of_faces_says_so(make_client: Callable[..., TestClient]) -> None:
    assert make_client().get("/model").json()["photographs"] is False


def test_people_are_enrolled_and_found_by_photographs(client: TestClient) -> None:
    for name, seed in (("Ann", 3), ("夏子", 4)):
        photos = [png(photograph(2, seed)), png(photograph(1, 10 + seed))]
        assert client.put(f"/people/{name}", files=several(*photos)).json()["added"] == 2
    sent = {"picture": ("x.png", png(photograph(2, 4)))}
    found = client.post("/identify", files=sent).json()
    assert found["candidates"][0]["name"] == "夏子"
    assert found["candidates"][0]["score"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("photo", "said"),
    [
        (photograph(0), "b: no face was found in it"),
        (photograph(1, shape=(64, 48)), "b: its largest face has 38 pixels, 48 are needed"),
    ],
)
def test_a_photograph_without_a_face_is_one_line(
    client: TestClient, photo: Image.Image, said: str
) -> None:
    answer = client.post("/verify", files=two(png(photograph(1)), png(photo)))
    assert one_line(answer, 422) == said
    assert client.put("/people/Ann", files=several(png(photo))).status_code == 422
    assert client.get("/people").json() == []


@dataclass
class _OfOneThread:
    """A detector that, like OpenCV's, only ever one thread may use."""

    thread: int | None = None

    def find(self, picture: Image.Image) -> list[FoundFace]:
        me = threading.get_ident()
        assert self.thread in (None, me)
        self.thread = me
        return Counting().find(picture)


def test_each_thread_has_a_detector_of_its_own() -> None:
    cut, photo = FaceCutter(_OfOneThread(), SIZE), photograph(1)
    together = threading.Barrier(4)

    def work(_: int) -> bytes:
        together.wait(60)
        return cut(photo, "x").tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(work, range(4)))) == 1


class _Broken:
    def find(self, picture: Image.Image) -> list[FoundFace]:
        raise RuntimeError("secret")


def test_a_detector_that_fails_is_one_line() -> None:
    with pytest.raises(NoFace, match=r"^x: the detector failed \(RuntimeError\)$"):
        FaceCutter(_Broken(), SIZE)(photograph(1), "x")


def test_the_process_with_a_network_of_yunets_form(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(network_of_squares())
    photo, landmarks = photograph_with_square(256, 128)
    with running(tmp_path, checkpoint, "--detector", "net.onnx") as (address, _):
        files = two(png(photo), png(photo))
        told = httpx.post(f"{address}/verify?pictures=true", files=files, timeout=60).json()
    expected, whole = align(photo, landmarks, SIZE), photo.resize((SIZE, SIZE))
    seen = shown_in(told["a"]).astype(int)
    errors = [np.abs(seen - np.asarray(other)).mean() for other in (expected, whole)]
    assert errors[0] < errors[1] / 3  # looked at with half the side, so not to the last bit
    assert told["score"] == pytest.approx(1)


def test_what_cannot_be_is_one_line(
    tmp_path: Path, checkpoint: Path, run_here: Callable[..., CompletedProcess[str]]
) -> None:
    with pytest.raises(UserError, match="`margin`: is there with `detector` only"):
        check_serve(ServeSettings(margin=0.5))
    given = ("use", "serve", "--checkpoint", checkpoint, "--port", 0, "--detector")
    for content, said in ((None, "no such file"), (b"no network", "is no ONNX network")):
        if content is not None:
            (tmp_path / "net.onnx").write_bytes(content)
        done = run_here(*given, "net.onnx", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("siamese-use: error: --detector net.onnx")
        assert said in done.stderr
