"""What the service answers: to pictures and names, and to what it must refuse."""

import base64
import hashlib
import io
import json
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from siamese import Embedder, Gallery
from siamese.errors import UserError
from siamese.serving.service import Service
from tests.runs import write_random_model
from tests.serving.conftest import HERE, spread


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def noise(seed: int, side: int = 40) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return png(Image.fromarray(pixels))


def two(a: bytes, b: bytes) -> dict[str, tuple[str, bytes]]:
    return {"a": ("a.png", a), "b": ("b.png", b)}


def several(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("pictures", (f"{n}.png", content)) for n, content in enumerate(contents)]


def one_line(answer: object, status: int) -> str:
    """The reason of a refusal, which holds nothing of the program."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    (detail,) = answer.json().values()
    assert "\n" not in detail
    assert not any(word in answer.text for word in ("Traceback", ".py", "File ", "0x"))
    return detail


def test_verify_gives_what_the_library_gives(
    client: TestClient, checkpoint: Path, face_folder: Path
) -> None:
    paths = face_folder / "Ann" / "0.png", face_folder / "夏子" / "1.png"
    answer = client.post(
        "/verify?prior=0.2&pictures=true", files=two(*(path.read_bytes() for path in paths))
    ).json()
    model = Embedder.load(checkpoint, "cpu")
    expected = model.verify(*paths, prior=0.2)
    assert answer["score"] == pytest.approx(expected.score, abs=3e-6)
    assert answer["same"] is expected.same
    assert (answer["threshold"], answer["prior"]) == (0.999, 0.2)
    odds = np.exp(4 * answer["score"] - 2) * 0.2 / 0.8
    assert answer["probability"] == pytest.approx(odds / (1 + odds))
    for name, path in zip("ab", paths, strict=True):  # as the network sees them, to the last bit
        kind, _, data = answer[name].partition(",")
        assert kind == "data:image/png;base64"
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        wanted = model.prepare(Image.open(path).convert("RGB")).permute(1, 2, 0).numpy()
        assert np.array_equal(seen, wanted)
    same = client.post("/verify", files=two(paths[0].read_bytes(), paths[0].read_bytes())).json()
    assert (same["score"], same["same"], same["a"]) == (1, True, None)


def test_the_model_is_described_without_places(client: TestClient, checkpoint: Path) -> None:
    told = client.get("/model").json()
    histogram = spread()
    assert told["histogram"]["genuine"] == list(histogram.genuine)
    assert told["histogram"]["impostor"] == list(histogram.impostor)
    assert (told["threshold"], told["people"], told["size"]) == (0.999, 10, 32)
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert health["model"] == told["model"] == Embedder.load(checkpoint, "cpu").fingerprint
    assert health["people"] == 0
    assert "secret" not in json.dumps(told)


def test_enrolled_found_and_removed(client: TestClient, face_folder: Path, tmp_path: Path) -> None:
    assert client.get("/people").json() == []
    picture = (face_folder / "夏子" / "0.png").read_bytes()
    nobody = client.post("/identify", files={"picture": picture}).json()
    assert (nobody["name"], nobody["candidates"]) == (None, [])
    assert not (tmp_path / "g.db").exists()
    for name in ("夏子", "Ann"):
        pictures = [(face_folder / name / f"{n}.png").read_bytes() for n in range(3)]
        told = client.put(f"/people/{quote(name)}", files=several(*pictures)).json()
        assert (told["name"], told["added"], told["present"]) == (name, 3, 0)
    found = client.post("/identify?top=1&pictures=true", files={"picture": picture}).json()
    assert found["name"] == "夏子"
    assert found["candidates"][0]["score"] == 1
    assert found["picture"].startswith("data:image/png;base64,")
    people = client.get("/people").json()
    assert [(one["name"], one["pictures"]) for one in people] == [("Ann", 3), ("夏子", 3)]
    assert client.get("/health").json()["people"] == 2
    stored = Gallery(tmp_path / "g.db", create=False).person("夏子")["pictures"]
    assert [one["path"] for one in stored] == [f"upload://{n}.png" for n in range(3)]
    assert stored[0]["sha256"] == hashlib.sha256(picture).hexdigest()
    assert client.delete(f"/people/{quote('夏子')}").json() == {"name": "夏子", "removed": 3}
    one_line(client.delete(f"/people/{quote('夏子')}"), 404)
    assert client.post("/identify", files={"picture": picture}).json()["name"] != "夏子"


def test_duplicates_are_reported(client: TestClient) -> None:
    first = client.put("/people/Ann", files=several(noise(0), noise(1), noise(0))).json()
    assert (first["added"], first["present"]) == (2, 1)
    again = client.put("/people/Ann", files=several(noise(1), noise(2))).json()
    assert (again["added"], again["present"]) == (1, 1)
    other = client.put("/people/Bob", files=several(noise(0))).json()
    assert other["notes"] == ["Bob: a picture is also enrolled as Ann"]


def test_one_broken_picture_enrols_none(client: TestClient) -> None:
    files = several(noise(0), noise(1)[:200], noise(2))
    assert one_line(client.put("/people/Ann", files=files), 422).startswith("pictures 2: cannot")
    assert client.get("/people").json() == []


NAMES = ("a/b", "../../etc/passwd", "<script>alert(1)</script>", "'; DROP TABLE person; --", "夏子",
         "a\nb\x1b[31m", "\u202egnp", "x?y#z", " ")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name(client: TestClient, name: str) -> None:
    address = f"/people/{quote(name, safe='')}"
    assert client.put(address, files=several(noise(0))).json()["name"] == name
    assert [one["name"] for one in client.get("/people").json()] == [name]
    assert client.delete(address).json()["removed"] == 1


@pytest.mark.parametrize("name", ["", "%00", "x" * 501])
def test_what_is_no_name_is_refused(client: TestClient, name: str) -> None:
    one_line(client.put(f"/people/{name}", files=several(noise(0))), 422)
    one_line(client.delete(f"/people/{name}"), 422)
    one_line(client.get("/people/%ff"), 400)


def big(width: int, height: int) -> bytes:
    """A picture that is small as a file and says that it is large."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + head
        + struct.pack(">I", zlib.crc32(head))
        + noise(0)[33:]
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no picture"),
        (b"hello", "no picture"),
        (noise(0)[:300], "cannot be decoded"),
        (big(6000, 5000), "6000 x 5000 pixels; at most 25 million"),
        (big(60_000, 60_000), "pixels; at most 25 million"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    ],
)
def test_what_is_no_picture_is_refused(client: TestClient, content: bytes, words: str) -> None:
    assert words in one_line(client.post("/verify", files=two(noise(0), content)), 422)
    assert client.post("/verify", files=two(noise(0), noise(1))).status_code == 200


@pytest.mark.parametrize("types", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_types_of_pictures(client: TestClient, types: str) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(noise(0))).save(file, types)
    assert client.post("/identify", files={"picture": file.getvalue()}).status_code == 200


def test_forms_that_are_none(client: TestClient) -> None:
    picture = noise(0)
    for files in (
        {"a": picture},
        {**two(picture, picture), "c": picture},
        [("a", picture), ("a", picture)],
    ):
        assert client.post("/verify", files=files).status_code in (400, 422)
    one_line(client.post("/verify", json={}), 415)
    one_line(client.post("/verify", content=b"x", headers={"Content-Type": "multipart/form-data"}),
             400)  # fmt: skip
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (
        b"",
        b"--x",
        b"--x\r\n\r\nnothing",
        b"\xff" * 100,
        b"--x\r\nA: b\r\n\r\n\r\n--x--",
    ):
        answer = client.post("/verify", content=body, headers=head)
        assert one_line(answer, answer.status_code)
        assert answer.status_code in (400, 422), body
    for query in ("prior=0", "prior=1", "prior=nan", "prior=x", "pictures=perhaps"):
        one_line(client.post(f"/verify?{query}", files=two(picture, picture)), 422)
    one_line(client.post("/identify?top=0", files={"picture": picture}), 422)
    one_line(client.get("/verify"), 405)
    one_line(client.get("/nothing"), 404)


def test_sizes_are_limited(make_client: Callable[..., TestClient]) -> None:
    client = make_client(limits={"picture": 0.01, "request": 0.05, "pictures": 2})
    assert client.post("/verify", files=two(noise(0), noise(1))).status_code == 200
    assert "picture" in one_line(client.post("/verify", files=two(noise(0), noise(1, 80))), 413)
    large = two(noise(0), noise(1, 200))
    assert "request" in one_line(client.post("/verify", files=large), 413)
    one_line(client.put("/people/Ann", files=several(*map(noise, range(3)))), 400)

    def chunks():  # without a Content-Length
        yield b"--x\r\nContent-Disposition: form-data; name=a; filename=a\r\n\r\n"
        for _ in range(100):
            yield bytes(1000)

    head = {"Content-Type": "multipart/form-data; boundary=x"}
    assert "request" in one_line(client.post("/verify", content=chunks(), headers=head), 413)
    assert client.service._uploads._held == 0
    client = make_client(limits={"picture": 0.01, "request": 0.02, "memory": 0.0001})
    refused = client.post("/verify", files=two(noise(0), noise(1)))
    one_line(refused, 503)
    assert refused.headers["retry-after"] == "1"


def test_rate_is_limited(make_client: Callable[..., TestClient]) -> None:
    client = make_client(limits={"rate": 20})
    statuses = [client.get("/people").status_code for _ in range(8)]
    assert statuses[:4] == [200] * 4
    assert statuses[5:] == [429] * 3
    refused = client.get("/people")
    one_line(refused, 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 3


def test_other_hosts_and_pages_are_refused(make_client: Callable[..., TestClient]) -> None:
    client = make_client(hosts=("faces.example",))
    for host in ("127.0.0.1", "localhost:8000", "[::1]:8000", "FACES.example"):
        assert client.get("/people", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[::1", "0.0.0.0:8000"):
        one_line(client.get("/people", headers={"Host": host}), 421)
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9", "http://[", HERE[:-1]):
        one_line(client.delete("/people/Ann", headers={"Origin": origin}), 403)
    assert client.delete("/people/Ann", headers={"Origin": HERE}).status_code == 404


def test_a_token_opens_everything_but_the_empty_pages(
    make_client: Callable[..., TestClient],
) -> None:
    token = "0123456789abcdef"
    client = make_client(token=token, host="0.0.0.0")
    for path in ("/", "/docs", "/openapi.json"):
        assert client.get(path, headers={"Host": "any.example"}).status_code == 200
    for given in (None, token, f"Bearer {token[:-1]}", f"Bearer {token}x", f"Basic {token}",
                  "Bearer", "Bearer é"):  # fmt: skip
        head = {} if given is None else {"Authorization": given.encode("utf-8")}
        for method, path in (("GET", "/people"), ("GET", "/health"), ("GET", "/model"),
                             ("DELETE", "/people/Ann"), ("POST", "/verify")):  # fmt: skip
            refused = client.request(method, path, headers=head)
            one_line(refused, 401)
            assert refused.headers["www-authenticate"] == "Bearer"
    head = {"Authorization": f"Bearer {token}", "Host": "any.example"}
    assert client.get("/people", headers=head).json() == []
    assert client.get("/openapi.json").json()["security"] == [{"token": []}]


def test_every_answer_is_guarded(client: TestClient) -> None:
    for path in ("/", "/docs", "/openapi.json", "/people", "/nothing", "/people/%ff"):
        head = client.get(path).headers
        assert head["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in head["content-security-policy"]
        assert head["x-frame-options"] == "DENY"
        assert head["x-content-type-options"] == "nosniff"
        assert head["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in head


def test_the_pages_need_no_other_place(client: TestClient) -> None:
    for path in ("/", "/docs"):
        html = client.get(path).text
        assert "connect-src 'self'" in html or path == "/docs"
        assert "script-src 'sha256-" in html
        links = [link for link in html.split('"') if link.startswith(("http:", "https:", "//"))]
        assert set(links) <= {"http://www.w3.org/2000/svg"}  # a name, not a place
    assert "PUT /people/{name}" in client.get("/docs").text


def test_a_fault_shows_nothing_of_the_program(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Service, "describe", broken)
    answer = client.get("/model")
    assert "secret" not in one_line(answer, 500)
    monkeypatch.setattr(client.service.model, "embed_prepared", broken)
    assert "secret" not in one_line(client.post("/verify", files=two(noise(0), noise(1))), 500)
    monkeypatch.undo()
    assert client.post("/verify", files=two(noise(0), noise(1))).status_code == 200


def test_a_gallery_that_cannot_be_used_is_told_here(
    client: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "g.db"
    assert client.put("/people/Ann", files=several(noise(0))).status_code == 200
    with sqlite3.connect(place) as connection:
        connection.execute("UPDATE head SET fingerprint = 'another'")
    for answer in (client.get("/people"), client.post("/identify", files={"picture": noise(1)}),
                   client.put("/people/Bob", files=several(noise(1)))):  # fmt: skip
        assert str(place) not in one_line(answer, 503)
    assert "holds embeddings of another model" in capsys.readouterr().err


def test_a_gallery_that_was_replaced_is_opened_anew(client: TestClient, tmp_path: Path) -> None:
    place = tmp_path / "g.db"
    client.put("/people/Ann", files=several(noise(0)))
    os.rename(place, tmp_path / "old.db")
    assert client.get("/people").json() == []
    client.put("/people/Bob", files=several(noise(1)))
    assert [one["name"] for one in client.get("/people").json()] == ["Bob"]
    assert [one.name for one in Gallery(tmp_path / "old.db", create=False).people()] == ["Ann"]


def test_without_a_threshold_nobody_is_said_to_be_the_same(
    make_client: Callable[..., TestClient], tmp_path: Path
) -> None:
    write_random_model(tmp_path / "checkpoints" / "run" / "best.pt")
    client = make_client()
    answer = client.post("/verify", files=two(noise(0), noise(0))).json()
    assert answer["score"] == 1
    assert (answer["same"], answer["threshold"], answer["probability"]) == (None, None, None)
    client.put("/people/Ann", files=several(noise(0)))
    found = client.post("/identify", files={"picture": noise(0)}).json()
    assert found["name"] is None
    assert found["candidates"][0]["name"] == "Ann"
    assert client.get("/model").json()["histogram"] is None


def test_uploads_cannot_be_embedded_anew(client: TestClient, tmp_path: Path) -> None:
    client.put("/people/Ann", files=several(noise(0)))
    newer = Embedder.load(write_random_model(tmp_path / "newer.pt", seed=1), "cpu")
    gallery = Gallery(tmp_path / "g.db", create=False)
    with pytest.raises(UserError, match=r"1 people \(Ann\) were uploaded and not kept") as error:
        gallery.migrate(newer)
    assert "\n" not in str(error.value)
    assert gallery.people()[0].pictures == 1
