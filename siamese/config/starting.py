"""The settings files and studies that siamese brings, found from any folder by their names."""

from __future__ import annotations

import os
from pathlib import Path

from siamese.config.reading import did_you_mean
from siamese.errors import UserError
from siamese.files.places import is_inside

_STUDIES = "studies"


def brought() -> Path | None:
    """The folder ``configs/``: within the package where it was installed, else beside it."""
    package = Path(__file__).resolve().parents[1]
    places = (package / "configs", package.parent / "configs")
    return next((place for place in places if (place / "face").is_dir()), None)


def starting_point(given: str, setting: str, *, studies: bool = False) -> Path:
    """The file that a user names: a path, or a name below ``configs/``.

    A path that exists wins. A name may lack ``.yaml``, and may begin with ``configs/``.

    Raises:
        UserError: there is neither; lists what there is.
    """
    root = brought()
    if os.path.exists(given) or root is None or not given:
        return Path(given)
    name = given.removeprefix("./").removeprefix("configs/")
    names = [name, f"{name}.yaml"]
    if studies:
        names += [f"{_STUDIES}/{one}" for one in names]
    for one in names:
        if os.path.isfile(root / one) and is_inside(root / one, root):
            return root / one
    known = sorted(
        path.relative_to(root).with_suffix("").as_posix()
        for path in root.glob(f"{_STUDIES}/*.yaml" if studies else "*/*.yaml")
        if studies or path.parent.name != _STUDIES
    )
    near = did_you_mean(name.removesuffix(".yaml"), known, "")
    raise UserError(f"{setting} {given}: no such file{near} (siamese brings {', '.join(known)})")
