"""Names that a disk may give: any bytes but NUL and the slash."""

import os

from hypothesis import strategies as st

_WRITTEN = [
    "Ann", "ann", "夏子", "夏子 ", "が", "か\u3099", "-x", "a\nb", "a'b\"c", ".h", "caf\udce9"
]  # fmt: skip


def raw_names(max_size: int = 6, hidden: bool = True) -> st.SearchStrategy[bytes]:
    """Bytes, text and names that people write; with hidden=False none begins with a dot."""

    def possible(name: bytes) -> bool:
        dot = name in (b".", b"..") if hidden else name.startswith(b".")
        return not (set(name) & set(b"\0/") or dot)

    text = st.text(min_size=1, max_size=max_size).map(lambda name: name.encode("utf-8"))
    written = st.sampled_from([os.fsencode(name) for name in _WRITTEN])
    return (st.binary(min_size=1, max_size=max_size) | text | written).filter(possible)


def file_names(max_size: int = 6, hidden: bool = True) -> st.SearchStrategy[str]:
    """The same as Python gives them: bytes that are no UTF-8 as lone surrogates."""
    return raw_names(max_size, hidden).map(os.fsdecode)
