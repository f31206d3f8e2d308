"""A trained embedder becomes a file that other programs run: ONNX, safetensors, torch's archive."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from siamese.errors import UserError
from siamese.models.embedder import EmbedderSpec
from siamese.models.exported import KEY
from siamese.models.onnx_network import INPUT, OUTPUT, require_onnx

_LARGEST = 2**31 - 2**20  # bytes of an ONNX file without others beside it (protobuf)
# What is quantised: the layers that take the time, with the activations that follow them. The
# preprocessing and the L2 norm at the ends stay in float32; they cost nothing, and would lose most.
_QUANTIZED = ["Conv", "Gemm", "MatMul", "Relu", "Clip"]


class _FromPixels(nn.Module):
    """Pictures as programs hold them, uint8 (N, S, S, 3), to L2-normalised embeddings (N, D)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        embeddings = self.network(images.permute(0, 3, 1, 2))
        return nn.functional.normalize(embeddings.float())


class Mirrored(nn.Module):
    """A network whose embeddings are averaged with those of the mirrored pictures.

    Args:
        network: pictures (N, 3, S, S) in, embeddings (N, D) out.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Averages (N, D) of unit vectors. One pass over both halves: the network stands once."""
        found = self.network(torch.cat([images, images.flip(-1)])).float()
        return nn.functional.normalize(found).reshape(2, -1, found.shape[1]).mean(0)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the advice of the exporters to their own programmers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _traced(run: Callable[..., Any], network: nn.Module, spec: EmbedderSpec, **options: Any) -> Any:
    """What one of torch's exporters makes of a network in eval mode, for any number of pictures.

    Raises:
        UserError: the network does something that cannot be traced.
    """
    example = (torch.zeros(2, spec.size, spec.size, 3, dtype=torch.uint8),)
    shapes = {INPUT: {0: torch.export.Dim("batch")}}
    try:
        with _quietly(), torch.no_grad():
            return run(_FromPixels(network).eval(), example, dynamic_shapes=shapes, **options)
    except Exception as error:  # of many kinds; their texts are pages long
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"{spec.backbone}: torch cannot export this network ({type(error).__name__}: {said})"
        ) from error


def onnx_graph(network: nn.Module, spec: EmbedderSpec) -> bytes:
    """An ONNX model of an embedder on the CPU: preprocessed pictures in, embeddings out.

    It takes ``images`` uint8 (N, S, S, 3), RGB, of the size that the network was made for, and
    gives ``embeddings`` float32 (N, D), L2-normalised. Nothing in it tells of this machine.

    Raises:
        UserError: the extra ``onnx`` is missing; the network cannot be exported, or is too large.
    """
    require_onnx("`to` onnx", "onnxscript")
    program = _traced(
        torch.onnx.export, network, spec,
        dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT],
    )  # fmt: skip
    model = program.model_proto
    graph = model.graph
    # The exporter leaves the paths and lines of the source in every node.
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output,
                 *graph.value_info):  # fmt: skip
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return _serialized(model)


def _serialized(model: Any) -> bytes:
    if model.ByteSize() > _LARGEST:
        raise UserError(
            "`to` onnx: an ONNX file holds at most 2 GiB, and this network is larger; export it "
            "with `to` safetensors or torch"
        )
    data: bytes = model.SerializeToString()
    return data


def with_properties(graph: bytes, properties: Mapping[str, str]) -> bytes:
    """An ONNX model with properties, which ONNX calls metadata; all else stays byte for byte."""
    import onnx

    # Two messages of protobuf in a row are one that has the fields of both.
    entries = [onnx.StringStringEntryProto(key=k, value=v) for k, v in properties.items()]
    return graph + bytes(onnx.ModelProto(metadata_props=entries).SerializeToString())


def quantized(graph: bytes, batches: Iterable[npt.NDArray[np.uint8]]) -> bytes:
    """An ONNX model in 8-bit integers: weights per channel, activations by their ranges.

    Args:
        graph: in float32.
        batches: pictures to find the ranges on, uint8 (N, S, S, 3) each.

    Raises:
        UserError: onnxruntime cannot quantise it.
    """
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Hands the batches over one by one."""

        def __init__(self) -> None:
            self._left = iter(batches)

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            batch = next(self._left, None)
            return None if batch is None else {INPUT: batch}

    with tempfile.TemporaryDirectory() as folder, _quietly():
        place = Path(folder) / "quantized.onnx"
        try:
            quantization.quantize_static(
                onnx.load_model_from_string(graph),
                place,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=_QUANTIZED,
                per_channel=True,
                # The mean of the batches' ranges: a few outliers cost all others their precision.
                extra_options={"CalibMovingAverage": True},
                # Unsigned activations and signed weights of all eight bits: the fastest pair, and
                # closer to float32 than seven bits. Processors without VNNI (x86 before 2019) may
                # clip large sums.
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except UserError:
            raise
        except Exception as error:  # of onnxruntime's many kinds
            said = " ".join(str(error).split())[:200]
            raise UserError(f"`quantize` int8: onnxruntime cannot do it ({said})") from error
        model = onnx.load_model(place)
    model.ClearField("metadata_props")
    return _serialized(model)


def save_safetensors(path: Path, weights: Mapping[str, torch.Tensor], description: str) -> None:
    """Write tensors and their description; each tensor gets memory of its own, as it must be."""
    from safetensors.torch import save

    apart = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }
    # Not its save_file, which puts another file in the place of the one that is open here.
    path.write_bytes(save(apart, metadata={"format": "pt", KEY: description}))


def save_torch(path: Path, network: nn.Module, spec: EmbedderSpec, description: str) -> None:
    """Write an archive of ``torch.export`` that takes and gives what :func:`onnx_graph` does.

    Args:
        path: the file.
        network: the embedder, on the CPU.
        spec: of it.
        description: an extra file ``siamese.json`` of the archive.

    Raises:
        UserError: the network cannot be exported.
    """
    program = _traced(torch.export.export, network, spec)
    with open(path, "wb") as file, _quietly():
        torch.export.save(program, file, extra_files={f"{KEY}.json": description})


def load_torch(path: Path) -> nn.Module:
    """The network of an archive that this program wrote; a foreign one is not to be trusted."""
    with open(path, "rb") as file, _quietly():
        module: nn.Module = torch.export.load(file).module()
    return module
