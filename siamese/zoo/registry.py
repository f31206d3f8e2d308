"""From a name to a network: presets of the zoo's families, or any model of timm."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from siamese.errors import UserError
from siamese.libraries import timm
from siamese.zoo.densenet import DenseNet
from siamese.zoo.named import PRESETS, Preset
from siamese.zoo.network import Network, require_option
from siamese.zoo.preact import PreActResNet
from siamese.zoo.pyramidnet import PyramidNet
from siamese.zoo.resnet import ResNet
from siamese.zoo.resnext import ResNeXt
from siamese.zoo.shake_shake import ShakeShake
from siamese.zoo.timm_models import (
    create_timm_model,
    creation_arguments,
    prefix_of,
    require_timm_model,
    takes_one_size,
)
from siamese.zoo.vgg import VGG
from siamese.zoo.wide_resnet import WideResNet

FAMILIES: dict[str, type[Network]] = {
    "vgg": VGG,
    "resnet": ResNet,
    "preact": PreActResNet,
    "se_preact": PreActResNet,
    "wrn": WideResNet,
    "densenet": DenseNet,
    "pyramidnet": PyramidNet,
    "resnext": ResNeXt,
    "shake_shake": ShakeShake,
}
_BY_NAME = {preset.name: preset for preset in PRESETS}
_TIMM = "timm/"
_SETTING = "`model.name`"
# Arguments of every network, which are no options.
_COMMON = ("self", "num_classes", "in_channels")
# Arguments of :func:`create_network` itself.
_ARGUMENTS = ("name", "num_classes", "in_channels", "image_size", "pretrained", "drop_path")


def presets() -> list[Preset]:
    """All presets, family by family."""
    return list(PRESETS)


def require_preset(name: str, setting: str | None = None) -> Preset:
    """The preset of a name; UserError, with the nearest, where there is none.

    ``setting``: how the user said it, for the message; None: ```model.name``` and the name.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    said = setting or f"{_SETTING} {name}"
    near = difflib.get_close_matches(name, _BY_NAME, n=1)
    hint = (
        f"did you mean {prefix_of(said, name)}{near[0]}?"
        if near
        else "siamese-zoo list shows them all"
    )
    raise UserError(f"{said}: no such preset; {hint}")


def require_network(name: str, options: Mapping[str, Any] | None = None) -> None:
    """UserError for a network (a preset, or ``timm/NAME``) or options that cannot be.

    Nothing is built; options of timm's models show only when they are.
    """
    reserved = [key for key in options or {} if key in _ARGUMENTS]
    if reserved:
        raise UserError(
            f"`model.options.{reserved[0]}`: is no option, other settings say it; remove it"
        )
    if name.startswith(_TIMM):
        # Arguments of timm's own function, among them files that it would load.
        if loading := sorted(set(options or {}) & creation_arguments()):
            raise UserError(f"`model.options.{loading[0]}`: is no option of a network; remove it")
        require_timm_model(name.removeprefix(_TIMM), f"{_SETTING} {name}")
        return
    if name not in _BY_NAME and timm.is_model(name.split(".")[0]):
        raise UserError(f"{_SETTING} {name}: no such preset; did you mean {_TIMM}{name}?")
    preset = require_preset(name)
    _checked_options(preset, options or {})


def create_network(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    pretrained: bool = False,
    drop_path: float = 0.0,
    **options: Any,
) -> nn.Module:
    """Build a preset of the zoo, e.g. ``preact20``, or ``timm/NAME``.

    Every network has ``num_features``, ``forward_features(images)`` to feature maps and a forward
    pass from normalised float images (N, in_channels, H, W) to logits (N, num_classes), with 0
    classes to pooled features. Presets take images of any size; a timm model with learnt positions
    takes ``image_size`` only. Only timm's have pretrained weights and stochastic depth
    (``drop_path``). ``options`` are constructor arguments over the preset's, e.g. ``dropout=0.3``.

    Raises:
        UserError: no such preset, model or option; pretrained weights or stochastic depth that are
            not to be had.
    """
    require_network(name, options)
    if name.startswith(_TIMM):
        timm_name = name.removeprefix(_TIMM)
        if takes_one_size(timm_name):
            options = {"img_size": image_size, **options}
        return create_timm_model(
            timm_name,
            f"{_SETTING} {name}",
            num_classes=num_classes,
            pretrained=pretrained,
            drop_path=drop_path,
            in_chans=in_channels,
            **options,
        )
    return create_preset(
        require_preset(name),
        num_classes=num_classes,
        in_channels=in_channels,
        pretrained=pretrained,
        drop_path=drop_path,
        **options,
    )


def create_preset(
    preset: Preset,
    *,
    num_classes: int,
    in_channels: int = 3,
    pretrained: bool = False,
    drop_path: float = 0.0,
    **options: Any,
) -> Network:
    """Build a preset; arguments and errors as in :func:`create_network`."""
    if pretrained:
        raise UserError(
            f"{preset.name} has no pretrained weights; start from random weights with "
            "`model.pretrained` false"
        )
    if drop_path > 0:
        raise UserError(
            f"`model.drop_path` {drop_path}: {preset.name} has no stochastic depth; set 0"
        )
    chosen = _checked_options(preset, options)
    network: Network = FAMILIES[preset.family](num_classes, in_channels, **chosen)  # type: ignore[arg-type]
    return network


def _checked_options(preset: Preset, options: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's options and those over them, each of the kind its constructor wants."""
    family = FAMILIES[preset.family]
    hints = get_type_hints(family.__init__)
    known = [key for key in inspect.signature(family.__init__).parameters if key not in _COMMON]
    for key, value in options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise UserError(f"`model.options.{key}`: {preset.name} has no such option; {hint}")
        require_option(_fits(value, hints[key]), key, value, _words(hints[key]))
    merged = {**preset.options, **options}
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in merged.items()
    }


def _fits(value: Any, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is tuple:
        whole = isinstance(value, (list, tuple)) and len(value) > 0
        counted = whole and (parts[-1] is Ellipsis or len(value) == len(parts))
        return counted and all(_fits(item, parts[0]) for item in value)
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if hint is int:  # all of them are counts
        return isinstance(value, int) and value > 0
    return isinstance(value, (int, float) if hint is float else hint)


def _words(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in parts)
    if origin is Literal:
        return " or ".join(str(part) for part in parts)
    if origin is tuple:
        number = "" if parts[-1] is Ellipsis else f"{len(parts)} times "
        return f"a list, {number}{_words(parts[0])}"
    words: dict[Any, str] = {
        int: "a whole number above 0",
        float: "a number",
        bool: "true or false",
        NoneType: "null",
    }
    return words[hint]
