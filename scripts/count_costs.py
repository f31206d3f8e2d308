"""Count every preset's parameters and multiply-accumulates anew; half a minute on one core.

    python scripts/count_costs.py

Prints what differs from ``siamese/zoo/presets.tsv``, and ends with 1 then.
"""

import sys

import torch
from tqdm import tqdm

from siamese.zoo import count_cost, create_network, presets


def main() -> int:
    """Count, compare, print."""
    wrong = 0
    for preset in tqdm(presets(), desc="counting", leave=False, disable=None):
        with torch.device("meta"):  # counting needs no weights
            network = create_network(preset.name)
        counted = count_cost(network, 3, 32)
        if counted != (preset.parameters, preset.macs):
            wrong += 1
            tqdm.write(f"{preset.name}\t{counted[0]}\t{counted[1]}")
    if not wrong:
        print(f"siamese/zoo/presets.tsv: all {len(presets())} as counted")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
