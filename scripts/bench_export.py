r"""How fast an exported model is, as ratios in one run: eager torch, ONNX, and ONNX in 8 bits.

    python scripts/bench_export.py --data faces/                  # test_resnet, 64 px, random
    python scripts/bench_export.py --data faces/ --backbone tf_efficientnet_lite0 \
        --weights lite0.pth --size 112                            # real weights

One picture and a batch of 32, prepared and in memory: the network alone, as a server would call it.
The three run in turns, so that other work on the machine meets them all; a round is one call of
each for half a second. Printed: the median of the rounds' milliseconds per picture, and the median,
least and greatest of the rounds' ratios to eager torch (above 1: faster). The quantised model is
only timed here; what it costs is what siamese-use export --quantize int8 prints.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands set it, see cli/commands.py

import numpy as np
import torch

from siamese.data.decode import decode
from siamese.data.folder import scan_folder
from siamese.data.transforms import Preprocess
from siamese.models.embedder import SiameseEmbedder
from siamese.models.exporting import onnx_graph, quantized
from siamese.models.loading import load_start_weights
from siamese.models.onnx_network import OnnxNetwork


def pictures_of(folder: str, number: int, size: int) -> torch.Tensor:
    """Some pictures of a face folder, uint8 (N, 3, size, size)."""
    found = scan_folder(Path(folder))
    at = np.linspace(0, len(found.paths) - 1, number).round().astype(int)
    prepare = Preprocess(size, "squash")
    return torch.stack([prepare(decode(found.root / found.paths[i], size)) for i in at])


def per_call(call: Callable[[], object], seconds: float) -> float:
    """Seconds that one call takes."""
    calls, start = 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        call()
        calls += 1
    return taken / calls


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="a folder with one folder per person")
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--weights", type=Path, help="weights of the backbone; none: random")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each, in each round")
    given = parser.parse_args()
    torch.manual_seed(0)
    network = SiameseEmbedder(given.backbone, 512, size=given.size)
    if given.weights is not None:
        load_start_weights(network, given.weights)
    spec = network.eval().spec("squash")
    pictures = pictures_of(given.data, 256, given.size)
    graph = onnx_graph(network, spec)
    batches = (batch.permute(0, 2, 3, 1).numpy().copy() for batch in torch.split(pictures, 32))
    small = quantized(graph, batches)
    # As siamese-eval runs it.
    eager = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kinds = {
        "eager": eager,
        "onnx": OnnxNetwork(graph, spec, "", "the graph"),
        "int8": OnnxNetwork(small, spec, "", "the quantised graph"),
    }
    parameters = sum(one.numel() for one in network.parameters())
    print(
        f"{given.backbone}, {given.size} px, {parameters / 1e6:.1f} M parameters, "
        f"{torch.get_num_threads()} threads; ONNX {len(graph) / 1e6:.1f} MB, int8 "
        f"{len(small) / 1e6:.1f} MB; {given.rounds} rounds"
    )
    for number in (1, 32):
        batch = pictures[:number].contiguous(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {name: [] for name in kinds}
        with torch.inference_mode():
            for a_round in range(given.rounds + 1):  # the first one warms up
                for name, one in kinds.items():
                    taken = per_call(partial(one, batch), given.seconds)
                    times[name] += [taken] if a_round else []
        for name, taken in times.items():
            ratios = [a / b for a, b in zip(times["eager"], taken, strict=True)]
            each = statistics.median(taken) / number * 1e3
            print(
                f"batch {number:2}  {name:5}  {each:7.2f} ms per picture  "
                f"{statistics.median(ratios):5.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            )


if __name__ == "__main__":
    main()
