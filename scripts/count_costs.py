"""Count every preset's parameters and multiply-accumulates anew; half a minute on one core.

    python scripts/count_costs.py

Prints the table of ``siamese/zoo/kept_macs.py`` where it differs, and ends with 1 then.
"""

import sys

import torch
from tqdm import tqdm

from siamese.zoo import count_cost, create_network, presets
from siamese.zoo.kept_macs import COSTS


def main() -> int:
    """Count, compare, print."""
    counted = {}
    for preset in tqdm(presets(), desc="counting", leave=False, disable=None):
        with torch.device("meta"):  # counting needs no weights
            network = create_network(preset.name)
        counted[preset.name] = count_cost(network, 3, 32)
    if counted == COSTS:
        print(f"siamese/zoo/kept_macs.py: all {len(counted)} as counted")
        return 0
    print("COSTS = {")
    for name, (parameters, macs) in counted.items():
        print(f'    "{name}": ({parameters:_}, {macs:_}),')
    print("}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
