r"""What each process sends to the others in a training step of faces, and what GPUs need for it.

    python scripts/count_traffic.py                             # EfficientNetV2-B0
    python scripts/count_traffic.py --backbone resnet50 --people 128 --inside 20 --between 10

Whole steps of the face task on noise, in 2 to 4 gloo processes. Of a step is counted

- what torch is asked to send, where torch dispatches it, in bytes that a process hands over;
  DistributedDataParallel's buckets of gradients and its copies of batch norms' statistics, too;
- `written`: the bytes that the first process wrote meanwhile, into sockets, too (Linux).

Neither depends on the pictures' size. Class weights (arcface at a rate of 0.1) do not travel
themselves: sums over them and the embeddings' gradient do. Steps that are logged, and
`optimizer.clip` with class weights, send a number or two more.

A prediction is arithmetic on the counts, with assumptions: the whole batch stays as it was; in
rings of n processes each sends 2 (n - 1) / n of what all add up, and n - 1 times what it hands to
all; batch norms see all processes' pictures, as on GPUs, which takes each of them two operations;
nothing happens while something is computed; each operation waits for `--latency`. Bandwidths are
what a GPU sends inside a machine, and what a machine of eight GPUs sends to the next one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from siamese.config import LossSettings, TrainSettings
from siamese.data.folder import FaceFolder
from siamese.data.split import Split
from siamese.models.embedder import SiameseEmbedder, batch_norms
from siamese.tasks.faces.face_task import FaceTask
from siamese.tasks.faces.metric_losses import MetricLoss
from siamese.training.distribution import Distribution

SIZE, RATE = 32, 0.1
GRADIENTS, NORMS, ROWS, CLASSES, NUMBERS = KINDS = (
    "gradients",
    "batch norms",
    "embeddings, labels",
    "class weights",
    "numbers",
)
SUMS, GATHERS, COPIES = "allreduce_", ("allgather_", "_allgather_base_"), "broadcast_"
MACHINE, MACHINES = 8, 4  # GPUs in one, and how many of them are predicted


class Counted(TorchDispatchMode):
    """Counts what torch.distributed is asked for: bytes and number, by kind and operation."""

    def __init__(self) -> None:
        super().__init__()
        self.kind: str | None = None  # of what is asked for now; None: DistributedDataParallel asks
        self.bytes: dict[tuple[str, str], int] = defaultdict(int)
        self.number: dict[tuple[str, str], int] = defaultdict(int)

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        if function.namespace == "c10d":
            self._count(function.overloadpacket.__name__, arguments)
        return function(*arguments, **(named or {}))

    def _count(self, operation: str, arguments: Any) -> None:
        if operation not in (SUMS, COPIES, *GATHERS):
            raise NotImplementedError(f"{operation} is not counted yet")
        given = arguments[operation in GATHERS]
        tensors = [given] if torch.is_tensor(given) else given
        own = NORMS if operation == COPIES else GRADIENTS
        key = (self.kind or own, "gather" if operation in GATHERS else operation)
        self.bytes[key] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.number[key] += 1

    @contextmanager
    def knowing(self, owner: Any, name: str, kind: str) -> Iterator[None]:
        """While it counts, what a function asks for is of a kind, if not inside another's."""
        original: Callable[..., Any] = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            before, self.kind = self.kind, self.kind or kind
            try:
                return original(*given, **named)
            finally:
                self.kind = before

        with mock.patch.object(owner, name, call):
            yield


class Noise:
    """Pictures that need no file."""

    def read(self, root: Path, path: str) -> torch.Tensor:
        return torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8)


def written() -> int:
    """Bytes that this process has written so far, into sockets too; 0 where nobody counts them."""
    counts = Path("/proc/self/io")
    if not counts.exists():
        return 0
    lines = counts.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def face_task(given: argparse.Namespace, loss: str, distribution: Distribution) -> FaceTask:
    """A task whose pictures are noise."""
    settings = TrainSettings(device="cpu")
    rate = RATE if loss == "arcface" else 1.0
    settings.loss = LossSettings(name=loss, sample_rate=rate)  # type: ignore[arg-type]
    settings.batches.people, settings.batches.images = given.people, given.images
    labels = [person for person in range(given.classes) for _ in range(given.images)]
    names = tuple(map(str, range(given.classes)))
    people = FaceFolder(Path(), names, tuple(map(str, labels)), tuple(labels), ())
    model = SiameseEmbedder(given.backbone, given.embedding_dim, size=SIZE)
    if settings.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return FaceTask(
        settings,
        Split(people, people, None),
        model,
        model.spec("squash"),
        MetricLoss(settings.loss, given.classes, given.embedding_dim, distribution),
        torch.device("cpu"),
        torch.float32,
        0,
        lambda path, reason: None,
        Noise(),
        distribution,
    )


def count(given: argparse.Namespace, loss: str, distribution: Distribution) -> dict[str, Any]:
    """The traffic of a step in this process."""
    torch.manual_seed(0)
    task = face_task(given, loss, distribution)
    task.model.train()
    batches = iter(task.batches(0, 0))
    counted, before = Counted(), written()
    for step in range(3):
        if step == 2:  # after two that let DistributedDataParallel order its buckets
            counted, before = Counted(), written()
        with (
            counted,
            counted.knowing(Distribution, "gather_rows", ROWS),
            counted.knowing(Distribution, "mean", NUMBERS),
            counted.knowing(dist, "all_gather", CLASSES),
            counted.knowing(dist, "all_reduce", CLASSES),
        ):
            result = task.step_loss(next(batches), False)
            distribution.mean(float(result.value.detach()))  # as the loop reads it
            result.value.backward()
    after = written()
    keys = sorted(counted.bytes)
    return {
        "loss": loss,
        "processes": distribution.world,
        "parameters": sum(one.numel() for one in task.model.parameters()),
        "sent": [(*key, counted.bytes[key], counted.number[key]) for key in keys],
        "written": after - before,
        "features": [norm.num_features for norm in batch_norms(task.model)],
    }


def process(rank: int, world: int, folder: str, given: argparse.Namespace) -> None:
    """One of some processes; the first one leaves what it counted in a file."""
    torch.set_num_threads(1)
    meeting = (Path(folder) / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    try:
        found = [count(given, loss, Distribution(rank, world, rank)) for loss in given.losses]
        if rank == 0:
            (Path(folder) / "found.json").write_text(json.dumps(found), encoding="utf-8")
    finally:
        dist.destroy_process_group()


def predicted(found: dict[str, Any], processes: int) -> tuple[float, int]:
    """Bytes that a process of some others sends in a step, and the operations it waits for."""
    share = (processes - 1) / processes
    total, operations = 0.0, 0
    for kind, operation, size, number in found["sent"]:
        if operation == SUMS:
            total += 2 * share * size
        elif operation == COPIES:
            total += size
        elif kind == ROWS:  # the batch stays the same, so each hands over less of it
            total += share * size * found["processes"]
        else:
            total += (processes - 1) * size
        operations += number
    for features in found["features"]:  # means, deviations and a number; two sums of gradients
        total += (processes - 1) * 4 * (2 * features + 1) + 2 * share * 4 * 2 * features
        operations += 2
    return total, operations


def tell(found: list[dict[str, Any]], given: argparse.Namespace) -> None:
    """The table, and the predictions from each loss's row of most processes."""
    print(f"{given.backbone}: {found[0]['parameters']:,} parameters; bytes in a step")
    print(" | ".join(["loss", "processes", *KINDS, "written"]))
    for row in found:
        sent: dict[str, int] = defaultdict(int)
        for kind, _, size, _ in row["sent"]:
            sent[kind] += size
        cells = [f"{sent[kind]:,}" for kind in KINDS]
        print(" | ".join([row["loss"], str(row["processes"]), *cells, f"{row['written']:,}"]))
    print("prediction, not measured (assumptions: --help), for the same batch:")
    for loss in given.losses:
        row = [one for one in found if one["loss"] == loss][-1]
        for machines, speed in ((1, given.inside), (MACHINES, given.between)):
            total, operations = predicted(row, machines * MACHINE)
            sending, waiting = total / speed / 1e6, operations * given.latency / 1e3
            print(
                f"{loss}, {machines} x {MACHINE} GPUs: {total / 1e6:.1f} MB at {speed:g} GB/s "
                f"{sending:.2f} ms + {operations} operations of {given.latency:g} us "
                f"{waiting:.2f} ms = {sending + waiting:.2f} ms"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="tf_efficientnetv2_b0")
    parser.add_argument("--people", type=int, default=64, help="P, of the whole batch")
    parser.add_argument("--images", type=int, default=4, help="K, of each of them")
    parser.add_argument("--embedding_dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10_000, help="people in training")
    parser.add_argument("--losses", nargs="+", default=["triplet", "arcface"])
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--inside", type=float, default=300, help="GB/s of a GPU to the next")
    parser.add_argument("--between", type=float, default=25, help="GB/s of a machine to the next")
    parser.add_argument("--latency", type=float, default=20, help="microseconds of an operation")
    given = parser.parse_args()
    spawn: Any = torch.multiprocessing.spawn  # type: ignore[attr-defined]
    found: list[dict[str, Any]] = []
    for world in given.processes:
        with tempfile.TemporaryDirectory() as folder:
            spawn(process, (world, folder, given), nprocs=world)
            found += json.loads((Path(folder) / "found.json").read_text(encoding="utf-8"))
    tell(sorted(found, key=lambda row: given.losses.index(row["loss"])), given)


if __name__ == "__main__":
    main()
