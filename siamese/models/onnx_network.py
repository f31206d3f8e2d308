"""An ONNX graph in the place of an embedder: run by onnxruntime, refused where it could do more."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from siamese.errors import UserError
from siamese.files.shown import shown
from siamese.models.embedder import EmbedderSpec
from siamese.models.torch_file import NotReadable

INPUT, OUTPUT = "images", "embeddings"
_DOMAINS = ("", "ai.onnx")


def require_onnx(what: str, *more: str) -> None:
    """Import the libraries of the extra ``onnx``.

    Args:
        what: needs them, for the message.
        more: further ones than those that run a model.

    Raises:
        UserError: one of them is not installed; says how to install it.
    """
    for name in ("onnx", "onnxruntime", *more):
        try:
            import_module(name)
        except ModuleNotFoundError:
            raise UserError(
                f"{what}: needs the library {name}, which is not installed: pip install "
                "'siamese[onnx]'"
            ) from None


def load_graph(data: bytes, told: str) -> dict[str, str]:
    """Refuse a graph that reads other files, or has more than the standard's plain operators.

    Args:
        data: an ONNX file whose sizes were looked at.
        told: what a message calls it.

    Returns:
        its properties.

    Raises:
        UserError: what it has that no embedder needs.
        NotReadable: no ONNX file.
    """
    require_onnx(told)
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own kinds
        raise NotReadable(str(error)) from None
    graph = model.graph
    if any(map(_is_external, _tensors(graph))):
        raise UserError(
            f"{told}: keeps weights in other files, which are not read; export the checkpoint again"
        )
    foreign = {node.domain for node in graph.node if node.domain not in _DOMAINS}
    if foreign:
        raise UserError(
            f"{told}: has operators of {shown(min(foreign))[:100]}; only those of the ONNX standard"
            " are run"
        )
    nested = any(attribute.HasField("g") or attribute.graphs for attribute in _attributes(graph))
    if nested or model.functions or model.training_info or graph.sparse_initializer:
        raise UserError(
            f"{told}: has graphs in its graph (loops, branches, functions), which no embedder "
            "needs; it is not run"
        )
    return {entry.key: entry.value for entry in model.metadata_props}


def _attributes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield from node.attribute


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in _attributes(graph):
        yield from (attribute.t, *attribute.tensors)


def _is_external(tensor: Any) -> bool:
    return bool(tensor.external_data or tensor.data_location)


def providers_of(device: str, told: str) -> list[str]:
    """What runs a graph on the device that a setting names.

    Args:
        device: ``auto`` (a GPU where onnxruntime has one), ``cpu``, ``cuda``, ``cuda:1``.
        told: what a message calls the model.

    Raises:
        UserError: onnxruntime has no such device here.
    """
    import onnxruntime

    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    kind, _, number = device.partition(":")
    if kind == "cuda" and not cuda:
        raise UserError(
            f"`device` {device}: the onnxruntime that is installed cannot use it for {told}; use "
            "auto or cpu (or pip install onnxruntime-gpu)"
        )
    if kind not in ("auto", "cpu", "cuda") or not (number.isdecimal() or not number):
        raise UserError(f"`device` {device}: onnxruntime runs {told} on auto, cpu or cuda")
    if not cuda or kind == "cpu":
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": number or "0"}), "CPUExecutionProvider"]  # type: ignore[list-item]


class OnnxNetwork(nn.Module):
    """An exported graph that stands where a :class:`SiameseEmbedder` would.

    Args:
        data: the graph, checked by :func:`load_graph`.
        spec: what it is fed with and gives.
        fingerprint: of the model.
        told: what a message calls it.
        device: see :func:`providers_of`.
        mirrors: whether its embeddings are averages with those of the mirrored pictures.

    Raises:
        UserError: onnxruntime cannot run it; it takes or gives something else than ``spec`` says.
    """

    def __init__(
        self,
        data: bytes,
        spec: EmbedderSpec,
        fingerprint: str,
        told: str,
        device: str = "cpu",
        *,
        mirrors: bool = False,
    ):
        super().__init__()
        self.mirrors = mirrors
        require_onnx(told)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        providers = providers_of(device, told)
        self.fingerprint, self._told, self._dim = fingerprint, told, spec.embedding_dim
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=providers)
            put, got = self._session.get_inputs(), self._session.get_outputs()
        except Exception as error:  # of onnxruntime's many kinds
            raise UserError(f"{told}: onnxruntime cannot run it ({_first(error)})") from None
        takes = [(one.name, one.type, one.shape[1:]) for one in put]
        gives = [(one.name, one.type, one.shape[1:]) for one in got]
        if takes != [(INPUT, "tensor(uint8)", [spec.size, spec.size, 3])] or gives != [
            (OUTPUT, "tensor(float)", [spec.embedding_dim])
        ]:
            raise UserError(
                f"{told}: its graph takes or gives something else than it describes; export the "
                "checkpoint again"
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed pictures.

        Args:
            images: uint8 (N, 3, size, size), RGB.

        Returns:
            embeddings float32 (N, D), L2-normalised, on the pictures' device.

        Raises:
            UserError: pictures of another size or type; a graph that fails.
        """
        given = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())
        try:
            found = self._session.run([OUTPUT], {INPUT: given})[0]
        except Exception as error:  # of onnxruntime's many kinds
            raise UserError(
                f"{self._told}: fails on pictures {tuple(images.shape)} ({_first(error)})"
            ) from None
        if found.shape != (len(images), self._dim):
            raise UserError(f"{self._told}: gives embeddings of shape {found.shape}")
        return torch.from_numpy(np.asarray(found, np.float32)).to(images.device)


def _first(error: BaseException) -> str:
    """The first words of a library's error, on one line."""
    return shown(" ".join(str(error).split())[:200])
