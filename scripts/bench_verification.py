"""Exact verification of all pairs: time and memory against the bare matrix product.

    python scripts/bench_verification.py                     # 34,283 images of 571 people, 512-d
    python scripts/bench_verification.py --sizes 5000 10000  # how time grows with N
    python scripts/bench_verification.py --device cuda

Every part runs in a process of its own; "extra" is its peak memory beyond what it held when its
embeddings were ready. Ratios are to the bare product of the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands do

import numpy as np
import torch

IMAGES, PEOPLE, DIMENSIONS = 34_283, 571, 512
SIZES = [5000, 10_000, 20_000, IMAGES, 60_000]
PARTS = ("product", "exact", "intervals", "sklearn", "loop")
LOOP_PAIRS = 20_000
SKLEARN_IMAGES = 10_000


def embeddings(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy people: AUC about 0.97."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, min(PEOPLE, images // 4), images))
    centres = rng.standard_normal((PEOPLE, DIMENSIONS), dtype=np.float32)
    noise = rng.standard_normal((images, DIMENSIONS), dtype=np.float32)
    return centres[labels] + 2.5 * noise, labels


def product(unit: torch.Tensor) -> None:
    """The bare blocked fp32 product of the upper triangle, nothing kept."""
    for first in range(0, len(unit), 512):
        for column in range(first, len(unit), 32_768):
            torch.mm(unit[first : first + 512], unit[column : column + 32_768].T)
    if unit.device.type == "cuda":
        torch.cuda.synchronize()


def part_work(part: str, images: int, device: str) -> Callable[[], dict[str, float]]:
    """What a part does, with everything prepared."""
    from siamese.verification import metrics as figures
    from siamese.verification.bootstrap import count_and_resample
    from siamese.verification.counts import count_pairs
    from siamese.verification.scores import normalise

    vectors, labels = embeddings(images)
    unit = normalise(vectors).to(device)

    def bare() -> dict[str, float]:
        product(unit)
        return {}

    def exact() -> dict[str, float]:
        counts = count_pairs(vectors, labels, device=device)
        found = figures.summarise(counts)
        points = figures.curve(counts, None)
        return {"auc": found["auc"], "ap": found["ap"], "points": len(points.fmr)}

    def intervals() -> dict[str, float]:
        limits = count_and_resample(vectors, labels, device=device)[1].intervals()["auc"]
        return {"low": limits[0], "high": limits[1]} if limits else {}

    def sklearn() -> dict[str, float]:
        from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

        rows, columns = np.triu_indices(images, 1)
        same = labels[rows] == labels[columns]
        scores = (unit @ unit.T).cpu().numpy()[rows, columns]
        del rows, columns
        roc_curve(same, scores)
        return {
            "auc": float(roc_auc_score(same, scores)),
            "ap": float(average_precision_score(same, scores)),
        }

    def loop() -> dict[str, float]:
        vectors_of = torch.from_numpy(vectors)
        rng = np.random.default_rng(1)
        for a, b in rng.integers(0, images, (LOOP_PAIRS, 2)).tolist():
            torch.nn.functional.cosine_similarity(vectors_of[a], vectors_of[b], dim=0).item()
        return {}

    return dict(zip(PARTS, (bare, exact, intervals, sklearn, loop), strict=True))[part]


def memory(field: str) -> float:
    """``VmHWM`` (peak) or ``VmRSS`` (now) of this process, in MB."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) / 1000


def measure(part: str, images: int, device: str) -> dict[str, float]:
    """Run one part in this process."""
    work = part_work(part, images, device)
    product(torch.ones(512, DIMENSIONS, device=device))  # threads and kernels are up
    if part == "product" and images > 5000:
        work()
    before = memory("VmRSS")
    start = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "extra_mb": memory("VmHWM") - before, **found}


def run(part: str, images: int, device: str) -> dict[str, float]:
    """Run one part in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--images", str(images)]
    done = subprocess.run(
        [*command, "--device", device], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--part", choices=PARTS, help="run one part in this process only")
    parser.add_argument("--images", type=int, default=IMAGES)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(measure(given.part, given.images, given.device)))
        return
    print(f"{DIMENSIONS} dimensions, {torch.get_num_threads()} threads, {given.device}")
    print("  images     pairs   product     exact  ratio  extra MB  intervals  ratio  extra MB")
    last = 0.0
    for images in given.sizes:
        bare, exact, intervals = (run(p, images, given.device) for p in PARTS[:3])
        last = exact["seconds"] / (images * (images - 1) / 2)
        print(
            f"  {images:6} {images * (images - 1) // 2:9.3g} {bare['seconds']:8.2f} s"
            f" {exact['seconds']:7.2f} s {exact['seconds'] / bare['seconds']:5.2f}"
            f" {exact['extra_mb']:9.0f} {intervals['seconds']:8.2f} s"
            f" {intervals['seconds'] / bare['seconds']:5.2f} {intervals['extra_mb']:9.0f}",
            flush=True,
        )
    print(f"  a million images at this pace: {last * 5e11 / 3600:.1f} hours")
    ours, theirs = (run(p, SKLEARN_IMAGES, given.device) for p in ("exact", "sklearn"))
    print(
        f"{SKLEARN_IMAGES} images: ours {ours['seconds']:.1f} s, {ours['extra_mb']:.0f} MB; "
        f"scikit-learn {theirs['seconds']:.1f} s, {theirs['extra_mb']:.0f} MB; "
        f"difference in AUC {ours['auc'] - theirs['auc']:.1e}, AP {ours['ap'] - theirs['ap']:.1e} "
        "(theirs on unrounded scores)"
    )
    classic = run("loop", SKLEARN_IMAGES, given.device)
    print(f"one cosine call per pair: {LOOP_PAIRS / classic['seconds']:.0f} pairs per second")


if __name__ == "__main__":
    main()
