"""Count parameters and multiply-accumulates of every preset anew, into ``siamese/zoo/costs.json``.

    python scripts/count_costs.py           # writes the file
    python scripts/count_costs.py --check   # exit code 1 where the file says something else

``siamese-zoo list`` reads them from there: they change only with a network, and counting all of
them takes half a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from siamese.zoo import count_cost, create_network, presets

FILE = Path(__file__).resolve().parents[1] / "siamese" / "zoo" / "costs.json"


def main() -> int:
    """Count; returns the exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    lines = []
    for preset in tqdm(presets(), desc="counting", disable=None):
        with torch.device("meta"):  # counting needs no weights
            network = create_network(preset.name)
        lines.append(f" {json.dumps(preset.name)}: {json.dumps(count_cost(network, 3, 32))}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if not check:
        FILE.write_text(text, encoding="utf-8")
        return 0
    same = FILE.read_text(encoding="utf-8") == text
    print("every count is as it was" if same else f"{FILE} is out of date: run {sys.argv[0]}")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
