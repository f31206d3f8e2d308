"""Every finding of a check, its plan, its cache, its words."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from siamese.config import CheckSettings
from siamese.curation import check, inspection
from siamese.curation.check import check_folder
from siamese.curation.findings import ABOUT
from siamese.curation.moves import carry_out, mend_folder, restore
from siamese.curation.plans import read_plan
from siamese.data.folder import scan_folder
from tests.curation.test_inspection import png_that_claims
from tests.file_names import raw_names


def picture(seed=99):
    """Soft spots with some noise, 40 x 48: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    spots = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8))
    soft = np.asarray(spots.resize((40, 48), Image.Resampling.BICUBIC))
    return Image.fromarray((soft + rng.normal(0, 4, soft.shape)).clip(0, 255).astype(np.uint8))


@pytest.fixture
def face_folder(tmp_path):
    """Six people with six pictures each, none like another."""
    for person, name in enumerate(("Ann", "Bob Lee", "Chloé", "夏子", "dora", "eve")):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(6):
            picture(1000 + 10 * person + number).save(tmp_path / "faces" / name / f"{number}.png")
    return tmp_path / "faces"


@pytest.fixture
def no_page(monkeypatch):
    """Checks without drawing the page, which is tested on its own."""
    monkeypatch.setattr(check, "_write_page", lambda *_: None)


@pytest.fixture
def run(tmp_path, no_page):
    def run(root, **changed):
        chosen = {"data": str(root), "out": str(tmp_path / "out"), "workers": 0, "min_side": 16}
        return check_folder(CheckSettings(**{**chosen, **changed}))

    return run


def cases(checked, kind):
    return [case.paths for one in checked.findings if one.kind == kind for case in one.cases]


def kinds(checked):
    return {one.kind for one in checked.findings}


def plan_of(checked, kind):
    [one] = [one for one in checked.findings if one.kind == kind]
    return [(move.path, move.to) for move in read_plan(one.plan)]


def tree(root):
    found = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in [
            *files,
            *(one for one in folders if os.path.islink(os.path.join(folder, one))),
        ]:
            path = os.path.join(folder, name)
            content = (
                os.readlink(path) if os.path.islink(path) else Path(os.fsdecode(path)).read_bytes()
            )
            found[os.path.relpath(path, os.fsencode(root))] = content
    return found


def test_a_good_folder_has_nothing_wrong(face_folder, run):
    checked = run(face_folder)
    assert checked.findings == ()
    assert checked.counts == dict.fromkeys(["Ann", "Bob Lee", "Chloé", "dora", "eve", "夏子"], 6)
    assert "nothing is wrong" in checked.text()


def test_a_folder_without_anybody_is_no_good_folder(tmp_path, run):
    root = tmp_path / "faces"
    root.mkdir()
    assert "nothing is wrong" not in run(root).text()
    picture().save(root / "Ann.png")
    told = run(root).text()
    assert "nobody has a usable picture in it" in told
    assert "faces/NAME/picture.jpg" in told


def test_two_checks_at_once_do_not_mix_their_results(face_folder, tmp_path, run, monkeypatch):
    (face_folder / "Ann" / "none.jpg").write_bytes(b"")
    run(face_folder)

    def look(*_):
        with pytest.raises(Timeout):
            FileLock(tmp_path / "out" / ".check.lock", timeout=0, is_singleton=False).acquire()
        looked.append(True)

    looked = []
    monkeypatch.setattr(check, "_write_page", look)
    run(face_folder)
    assert looked


def test_files_that_training_refuses(face_folder, run):
    ann = face_folder / "Ann"
    (ann / "cut.png").write_bytes((ann / "0.png").read_bytes()[:800])
    (ann / "none.jpg").write_bytes(b"")
    (ann / "bomb.png").write_bytes(png_that_claims(12_000, 12_000))
    (ann / "notes.txt").write_text("who is who")
    checked = run(face_folder)
    assert cases(checked, "unreadable") == [("Ann/cut.png",)]
    assert cases(checked, "zero_bytes") == [("Ann/none.jpg",)]
    assert cases(checked, "bomb") == [("Ann/bomb.png",)]
    assert cases(checked, "not_picture") == [("Ann/notes.txt",)]
    assert kinds(checked) == {"unreadable", "zero_bytes", "bomb", "not_picture"}
    assert plan_of(checked, "unreadable") == [("Ann/cut.png", None)]
    assert checked.counts["Ann"] == 6


def test_names_that_say_something_else(face_folder, run):
    ann = face_folder / "Ann"
    (ann / "0.png").rename(ann / "0.jpg")
    (ann / "1.png").rename(ann / "2.3")
    picture().save(ann / "new.png", "JPEG")
    picture(98).save(ann / "new.jpg", "JPEG")
    picture(97).save(ann / "fine.JPEG", "JPEG")
    picture(96).save(ann / "fine.tiff")
    checked = run(face_folder)
    assert kinds(checked) == {"wrong_extension"}
    assert plan_of(checked, "wrong_extension") == [
        ("Ann/0.jpg", "Ann/0.png"),
        ("Ann/2.3", "Ann/2.3.png"),
        ("Ann/new.png", "Ann/new-2.jpg"),
    ]


def test_pictures_that_look_wrong(face_folder, run):
    ann = face_folder / "Ann"
    picture().resize((15, 20)).save(ann / "small.png")
    picture(98).resize((90, 30)).save(ann / "wide.png")
    picture(97).convert("L").save(ann / "grey.png")
    picture(96).convert("CMYK").save(ann / "cmyk.jpg")
    deep = np.asarray(picture(95).convert("L")).astype(np.uint16) * 256
    Image.fromarray(deep).save(ann / "deep.png")
    frames = [picture(94), picture(93)]
    frames[0].save(ann / "moves.webp", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 8
    picture(92).save(ann / "turned.jpg", exif=exif.tobytes())
    Image.new("RGB", (40, 40), (3, 3, 3)).save(ann / "black.jpg")
    Image.new("RGB", (40, 40), (3, 3, 3)).save(face_folder / "eve" / "black.png")
    checked = run(face_folder)
    assert cases(checked, "too_small") == [("Ann/small.png",)]
    assert cases(checked, "odd_aspect") == [("Ann/wide.png",)]
    assert cases(checked, "animated") == [("Ann/moves.webp",)]
    assert cases(checked, "rotated") == [("Ann/turned.jpg",)]
    assert cases(checked, "blank") == [("Ann/black.jpg",), ("eve/black.png",)]
    modes = {case.paths[0]: case.detail for one in checked.findings if one.kind == "colour_mode"
             for case in one.cases}  # fmt: skip
    assert modes == {
        "Ann/cmyk.jpg": "CMYK",
        "Ann/deep.png": "16-bit or deeper",
        "Ann/grey.png": "greyscale",
    }
    [command] = {one.command for one in checked.findings if one.kind == "rotated"}
    beside = f"{face_folder}-rgb"
    assert shlex.split(command) == ["siamese-data", "convert", str(face_folder), "--out", beside]
    assert kinds(checked) == {
        "too_small", "odd_aspect", "animated", "rotated", "blank", "colour_mode"
    }  # fmt: skip


def test_things_in_no_place(face_folder, run):
    (face_folder / "Ann" / "same_face" / "more").mkdir(parents=True)
    picture().save(face_folder / "Ann" / "same_face" / "0.png")
    picture().save(face_folder / "Ann" / "same_face" / "more" / "0.png")
    (face_folder / ".cache").mkdir()
    (face_folder / "eve" / ".DS_Store").write_bytes(b"x")
    picture().save(face_folder / "stray.png")
    (face_folder / "nobody").mkdir()
    (face_folder / "gone").symlink_to("nowhere")
    (face_folder / "Anna").symlink_to("Ann")
    (face_folder / "only").mkdir()
    picture(97).save(face_folder / "only" / "x.png")
    checked = run(face_folder)
    assert cases(checked, "nested") == [("Ann/same_face",)]
    assert cases(checked, "hidden") == [(".cache",), ("eve/.DS_Store",)]
    assert cases(checked, "outside") == [("stray.png",)]
    assert cases(checked, "no_pictures") == [("nobody",)]
    assert cases(checked, "special") == [("gone",)]
    assert cases(checked, "linked_folder") == [("Anna",)]
    assert cases(checked, "one_picture") == [("only",)]
    assert {to for _, to in plan_of(checked, "nested")} == {"Ann/0-2.png", "Ann/0-3.png"}
    assert plan_of(checked, "one_picture") == [("only", None)]
    assert plan_of(checked, "linked_folder") == [("Anna", None)]


def test_folders_that_may_not_be_read(face_folder, run, monkeypatch):
    real = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("eve"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    checked = run(face_folder)
    assert kinds(checked) == {"closed_folder"}
    assert checked.findings[0].command == f"chmod -R u+rwX {face_folder}"


def draw_people(root, names, images, seed):
    for person, name in enumerate(names):
        (root / name).mkdir(exist_ok=True)
        for number in range(images):
            picture(seed * 1000 + 100 * person + number).save(root / name / f"{number}.png")


def test_twin_folders_are_merged(face_folder, run):
    twins = [("が", "か\u3099"), ("夏子", "夏子 "), ("eve", "EVE"), ("Bob Lee", "Bob\u3000Lee")]
    draw_people(face_folder, ["が"], 4, seed=5)
    draw_people(face_folder, [second for _, second in twins], 2, seed=6)
    first = (face_folder / "夏子" / "0.png").read_bytes()
    (face_folder / "夏子 " / "copy.png").write_bytes(first)
    (face_folder / "Ａnn").mkdir()
    picture().save(face_folder / "Ａnn" / "0.png")
    picture(98).save(face_folder / "Ａnn" / "1.png")
    checked = run(face_folder)
    assert {frozenset(case) for case in cases(checked, "twin_folders")} == set(
        map(frozenset, twins)
    )
    assert cases(checked, "similar_names") == [("Ann", "Ａnn")]
    plan = plan_of(checked, "twin_folders")
    assert ("夏子 /copy.png", None) in plan, "the larger folder has it already"
    assert ("か\u3099/0.png", "が/0-2.png") in plan
    assert len(plan) == 9
    assert plan_of(checked, "similar_names")[0] == ("Ａnn/0.png", "Ann/0-2.png")
    for kind in ("twin_folders", "similar_names"):
        [one] = [one for one in checked.findings if one.kind == kind]
        mend_folder(CheckLike(face_folder, one.plan))
    again = run(face_folder)
    assert not kinds(again) & {"twin_folders", "similar_names", "copies_across"}
    assert again.counts["が"] == 6
    assert again.counts["夏子"] == 8


class CheckLike:
    """Settings of mend."""

    def __init__(self, data, plan):
        self.data, self.plan, self.quarantine = str(data), str(plan), f"{data}-q"


def test_the_same_file(face_folder, run):
    ann, eve = face_folder / "Ann", face_folder / "eve"
    (ann / "again.png").write_bytes((ann / "3.png").read_bytes())
    (ann / "third.png").write_bytes((ann / "3.png").read_bytes())
    (eve / "other.png").write_bytes((ann / "4.png").read_bytes())
    checked = run(face_folder)
    assert cases(checked, "copies_within") == [("Ann/3.png", "Ann/again.png", "Ann/third.png")]
    assert cases(checked, "copies_across") == [("Ann/4.png", "eve/other.png")]
    assert kinds(checked) == {"copies_within", "copies_across"}
    assert plan_of(checked, "copies_within") == [("Ann/again.png", None), ("Ann/third.png", None)]
    assert plan_of(checked, "copies_across") == [("Ann/4.png", None), ("eve/other.png", None)]


def test_nearly_the_same_picture(face_folder, run):
    ann, eve = face_folder / "Ann", face_folder / "eve"
    large = Image.open(ann / "2.png").resize((80, 96), Image.Resampling.BICUBIC)
    large.save(ann / "large.png")
    for quality in (50, 60):
        Image.open(ann / "5.png").save(eve / f"stolen{quality}.jpg", quality=quality)
    checked = run(face_folder)
    assert cases(checked, "near_within")[0] in (
        ("Ann/large.png", "Ann/2.png"),
        ("eve/stolen60.jpg", "eve/stolen50.jpg"),
    )
    assert set(cases(checked, "near_across")[0]) == {
        "Ann/5.png", "eve/stolen50.jpg", "eve/stolen60.jpg"
    }  # fmt: skip
    assert kinds(checked) == {"near_within", "near_across"}
    assert plan_of(checked, "near_within") == [("Ann/2.png", None)]  # the larger one stays
    assert len(plan_of(checked, "near_across")) == 3
    strict = run(face_folder, near=0)
    assert len(cases(strict, "near_across")) <= 1


def test_one_person_under_two_names_is_not_thrown_away(face_folder, run):
    (face_folder / "Evelyn").mkdir()
    for number in range(4):
        source = face_folder / "eve" / f"{number}.png"
        (face_folder / "Evelyn" / f"{number}.png").write_bytes(source.read_bytes())
    picture().save(face_folder / "Evelyn" / "new.png")
    checked = run(face_folder)
    assert cases(checked, "shared_pictures") == [("Evelyn", "eve")]
    assert len(cases(checked, "copies_across")) == 4
    [across] = [one for one in checked.findings if one.kind == "copies_across"]
    assert across.plan is None, "taking all copies out would empty both folders"
    assert plan_of(checked, "shared_pictures") == [
        *((f"Evelyn/{number}.png", None) for number in range(4)),
        ("Evelyn/new.png", "eve/new.png"),
    ]


def spoil(root):
    """One of nearly everything."""
    ann, eve = root / "Ann", root / "eve"
    (ann / "cut.png").write_bytes((ann / "0.png").read_bytes()[:800])
    (ann / "none.jpg").write_bytes(b"")
    (ann / "again.png").write_bytes((ann / "3.png").read_bytes())
    (eve / "other.png").write_bytes((ann / "4.png").read_bytes())
    picture(92).resize((15, 20)).save(ann / "small.gif.png")
    picture(91).save(eve / "wrong.gif", "PNG")
    (root / "eve " / "deep").mkdir(parents=True)
    (root / "eve " / "0.png").write_bytes((eve / "0.png").read_bytes())
    picture(90).save(root / "eve " / "1.png")
    picture(89).save(root / "eve " / "deep" / "1.png")
    (root / "stray.png").write_bytes((ann / "4.png").read_bytes())
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x").write_text("x")
    odd = os.fsdecode(b"\xff\n -odd")
    (root / odd).mkdir()
    picture(88).save(root / odd / "x.png")


def test_all_plans_can_be_carried_out_and_undone(face_folder, run):
    spoil(face_folder)
    before = tree(face_folder)
    checked = run(face_folder)
    plans = [one.plan for one in checked.findings if one.plan is not None]
    assert len(plans) >= 8
    quarantine = face_folder.with_name("q")
    manifests = [
        carry_out(face_folder, read_plan(plan), quarantine, reason="test") for plan in plans[::-1]
    ]
    after = run(face_folder)
    assert not kinds(after) & {
        "unreadable", "zero_bytes", "copies_across", "copies_within", "twin_folders", "outside",
        "hidden", "too_small", "one_picture",
    }  # fmt: skip
    for manifest in manifests[::-1]:
        restore(manifest)
    assert tree(face_folder) == before


def test_an_earlier_run_s_plan_does_not_stay(face_folder, run):
    (face_folder / "Ann" / "none.jpg").write_bytes(b"")
    plan = run(face_folder).findings[0].plan
    assert plan.exists()
    (face_folder / "Ann" / "none.jpg").unlink()
    run(face_folder)
    assert not plan.exists()


def test_the_json_has_everything(face_folder, run, tmp_path):
    spoil(face_folder)
    checked = run(face_folder)
    told = json.loads((tmp_path / "out" / "check.json").read_text())
    assert [one["kind"] for one in told["findings"]] == [one.kind for one in checked.findings]
    severities = [one["severity"] for one in told["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    for one, finding in zip(told["findings"], checked.findings, strict=True):
        assert one["count"] == len(one["found"]) == len(finding.cases)
        assert [tuple(case["paths"]) for case in one["found"]] == cases(checked, one["kind"])
    assert told["pictures_per_person"]["by_person"]["Bob Lee"] == 6
    assert told["pictures_per_person"]["median"] == 6
    assert told["settings"]["near"] == 6
    assert told["usable_pictures"] == sum(told["pictures_per_person"]["by_person"].values())


def test_the_text_names_each_finding_and_its_command(face_folder, run):
    spoil(face_folder)
    checked = run(face_folder)
    text = checked.text()
    for one in checked.findings:
        about = ABOUT[one.kind]
        assert f"{about.severity}: {about.title}: {len(one.cases)}" in text
        assert (
            one.command is None
            or f"$ {one.command}" in text.splitlines()[0:]
            or (f"  $ {one.command}" in text.splitlines())
        )
    assert "\\udcff\\n -odd" in text


def test_commands_of_odd_names_run_as_they_are_printed(tmp_path, draw_people, no_page):
    root = tmp_path / os.fsdecode(b"-it's \xff a\nfolder")
    draw_people(root, ("Ann", "Bob"), 2)
    (root / "Ann" / "none.jpg").write_bytes(b"")
    out = tmp_path / "out $HOME"
    checked = check_folder(CheckSettings(data=str(root), out=str(out), workers=0, min_side=9))
    code = "import sys; from siamese.cli.data import main; sys.argv[0] = 'x'; main()"
    shell = f'siamese-data() {{ "{sys.executable}" -c "{code}" "$@"; }}; '
    command = shell.encode() + os.fsencode(checked.findings[0].command)
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (root / "Ann" / "none.jpg").exists()


@pytest.fixture
def counted(monkeypatch):
    """Paths that were read."""
    read = []

    def inspect(path):
        read.append(path)
        return inspection.inspect_file(path)

    keywords = inspection.gather_facts.__kwdefaults__
    monkeypatch.setitem(keywords, "inspect", inspect)
    return read


def test_a_second_run_reads_nothing(face_folder, run, counted):
    spoil(face_folder)
    first = run(face_folder)
    assert len(counted) == len(set(counted)) == first.files
    counted.clear()
    assert run(face_folder).findings == first.findings
    assert counted == []
    picture(70).save(face_folder / "Ann" / "0.png")
    run(face_folder)
    assert counted == [str(face_folder / "Ann" / "0.png")]


def test_an_interrupted_run_goes_on_where_it_was(face_folder, run, counted, monkeypatch):
    whole = inspection.gather_facts.__kwdefaults__["inspect"]

    def interrupted(path):
        if len(counted) == 20:
            raise KeyboardInterrupt
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setitem(inspection.gather_facts.__kwdefaults__, "inspect", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(face_folder)
    counted.clear()
    assert run(face_folder).findings == ()
    assert len(counted) == 16


def test_a_damaged_cache_is_made_anew(face_folder, run, tmp_path, counted):
    run(face_folder)
    (tmp_path / "out" / "facts.jsonl").write_bytes(b"broken" * 999)
    counted.clear()
    assert run(face_folder).findings == ()
    assert len(counted) == 36
    counted.clear()
    run(face_folder)
    assert counted == []


def test_processes_find_what_one_process_finds(face_folder, run, tmp_path):
    spoil(face_folder)
    alone = run(face_folder)
    together = run(face_folder, out=str(tmp_path / "other"), workers=2)
    assert [(one.kind, one.cases) for one in together.findings] == [
        (one.kind, one.cases) for one in alone.findings
    ]


def crash_on_one(path):
    if path.endswith("Ann/3.png"):
        os._exit(9)
    return inspection.inspect_file(path)


def test_a_file_that_kills_its_reader_is_a_finding(face_folder, run, monkeypatch):
    monkeypatch.setitem(inspection.gather_facts.__kwdefaults__, "inspect", crash_on_one)
    checked = run(face_folder, workers=2)
    assert cases(checked, "failed") == [("Ann/3.png",)]
    monkeypatch.setitem(inspection.gather_facts.__kwdefaults__, "inspect", inspection.inspect_file)
    assert run(face_folder).findings == ()  # it was not remembered


def test_control_c_stops_at_once_and_keeps_the_facts(tmp_path, draw_people):
    root = draw_people(tmp_path / "faces", ("Ann", "Bob"), 64)
    code = (
        "import time\n"
        "from siamese.curation import inspection\n"
        "from siamese.cli.data import main\n"
        "def slow(path):\n"
        "    if 'Bob' in path:\n"
        "        open('began', 'w').close()\n"
        "        time.sleep(60)\n"
        "    return inspection.inspect_file(path)\n"
        "inspection.gather_facts.__kwdefaults__['inspect'] = slow\n"
        "main()\n"
    )
    arguments = ["check", root, "--out", tmp_path / "out", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
    )
    start = time.monotonic()
    while not (tmp_path / "began").exists() and time.monotonic() - start < 60:
        time.sleep(0.05)
    time.sleep(0.3)
    start = time.monotonic()
    os.killpg(process.pid, 2)
    _, told = process.communicate(timeout=20)
    assert time.monotonic() - start < 5
    assert process.returncode == 130
    assert "interrupted" in told
    assert "Traceback" not in told
    kept = (tmp_path / "out" / "facts.jsonl").read_text().split("\n")
    assert len([line for line in kept if line]) == 64  # Ann's


def test_the_page(face_folder, tmp_path, draw_people):
    spoil(face_folder)
    out = tmp_path / "out"
    checked = check_folder(CheckSettings(data=str(face_folder), out=str(out), workers=0))
    page = (out / "check.html").read_text(encoding="utf-8")
    for one in checked.findings:
        assert ABOUT[one.kind].title.replace("'", "&#39;") in page
    assert page.count("data:image/jpeg") > 10
    assert "Pictures per person" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--data is missing"),
        (["nowhere"], "nowhere: no such file"),
        (["file"], "is a file"),
        (["faces", "--near", "17"], "--near"),
        (["faces", "--min_side", "0"], "--min_side"),
        (["faces", "--workers", "-1"], "--workers"),
        (["faces", "--max_aspect", "nan"], "--max_aspect"),
        (["faces", "--out", "faces/out"], "lies inside"),
        (["faces", "--out", "file/out"], "file"),
        (["faces", "--nearr", "3"], "did you mean near"),
    ],
)
def test_bad_input_is_one_line(tmp_path, run_here, no_page, arguments, words, draw_people):
    draw_people(tmp_path / "faces", ("Ann",), 1)
    (tmp_path / "file").write_text("x")
    done = run_here("data", "check", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert words in done.stderr
    assert scan_folder(tmp_path / "faces", progress=False).paths == ("Ann/0.png",)


def test_the_command_prints_and_writes(face_folder, tmp_path, run_here, no_page):
    (face_folder / "Ann" / "none.jpg").write_bytes(b"")
    done = run_here("data", "check", face_folder, "--workers", 0, "--min_side", 9, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "error: files of zero bytes: 1" in done.stdout
    assert (tmp_path / "runs" / "check-faces" / "check.json").exists()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        raw_names(), st.dictionaries(raw_names(), st.integers(0, 3), max_size=4), max_size=4
    )
)
def test_any_layout_is_checked_and_mended_without_losing_a_file(
    tmp_path_factory, no_page, monkeypatch, layout
):
    place = tmp_path_factory.mktemp("any")
    root = os.path.join(os.fsencode(place), b"faces")
    file = io.BytesIO()
    picture().save(file, "PNG")
    for person, files in layout.items():
        os.makedirs(os.path.join(root, person), exist_ok=True)
        for number, (name, kind) in enumerate(files.items()):
            path = os.path.join(root, person, name)
            if kind == 3:
                os.makedirs(path)
                path = os.path.join(path, b"deep")
            new = io.BytesIO()
            picture(number).save(new, "PNG")
            content = [b"", file.getvalue(), new.getvalue(), b"no picture"][kind]
            with open(path, "wb") as opened:
                opened.write(content)
    os.makedirs(root, exist_ok=True)
    root = place / "faces"
    before = tree(root)
    chosen = CheckSettings(data=str(root), out=str(place / "out"), workers=0, min_side=9)
    for one in check_folder(chosen).findings:
        if one.plan is not None:
            carry_out(root, read_plan(one.plan), place / "q", reason="test")
    kept = list(tree(root).values())
    kept += [content for name, content in tree(place / "q").items() if b"manifest-" not in name
             and not name.endswith(b"lock")] if (place / "q").exists() else []  # fmt: skip
    assert sorted(kept) == sorted(before.values())


@pytest.mark.real_faces
def test_copies_among_real_faces(real_faces, tmp_path, run):
    people = ("person_028", "person_042")
    for person in people:
        shutil.copytree(real_faces / person, tmp_path / "real" / person)
    checked = run(tmp_path / "real")
    assert kinds(checked) == {"copies_within", "near_within"}
    same = cases(checked, "copies_within")
    assert same == [("person_042/0071.jpg", "person_042/0072.jpg")]
    near = [set(paths) for paths in cases(checked, "near_within")]
    assert {"person_028/0067.jpg", "person_028/0011.jpg"} in near
