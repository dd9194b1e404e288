"""Named torchvision architectures with safetensors weights, exported once to ONNX.

BatchNormalization stays a node of its own and every initializer keeps its state-dict key, so that what is pruned and
finetuned can be told by the names its user knows.
"""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
import torchvision
from onnxscript.optimizer import optimize_ir
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from worker.engine.errors import EngineError

INPUT_NAME, OUTPUT_NAME = "input", "scores"
MAX_NAMED_KEYS = 5
_EXPORT_BATCH = 2  # torch.export takes a batch of one for a constant
_UNUSED_KEY = "num_batches_tracked"  # counts training steps; old checkpoints lack it
_AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.")  # of GoogLeNet and Inception, which only training uses


def architecture_names() -> list[str]:
    """The torchvision classification architectures that can be exported."""
    return sorted(torchvision.models.list_models(module=torchvision.models))


def export_architecture(
    name: str, weights: Path, num_classes: int, input_shape: tuple[int, int, int]
) -> onnx.ModelProto:
    """The architecture with the weights of a safetensors file, for inputs (N, *input_shape), in evaluation mode.

    Raises EngineError for an unknown name, weights that do not fit, and an input shape that the network cannot take.
    """
    state = _read_weights(weights)
    network = _make(name, num_classes, input_shape, has_auxiliary=any(k.startswith(_AUXILIARY_HEADS) for k in state))
    _load(network, state, name)
    return _export(network.eval(), name, input_shape)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise EngineError(
            "unreadable_weights",
            f"The file holds no safetensors weights: {error}.",
            "Save the state dict with safetensors.torch.save_file; pickles are refused.",
        ) from error


def _make(name: str, num_classes: int, input_shape: tuple[int, int, int], has_auxiliary: bool) -> nn.Module:
    if name not in architecture_names():
        close = difflib.get_close_matches(name, architecture_names(), 3, 0.4)
        raise EngineError(
            "unknown_architecture",
            f"torchvision has no classification architecture named {name!r}.",
            f"Did you mean {', '.join(close)}?"
            if close
            else "Names are those of torchvision.models, such as resnet50.",
        )
    options: dict[str, object] = {}
    if name in {"googlenet", "inception_v3"}:
        options = {"aux_logits": has_auxiliary, "init_weights": False}
    elif name.startswith("vit_"):
        options = {"image_size": input_shape[1]}
    elif name.startswith("maxvit_"):
        options = {"input_size": input_shape[1:]}
    try:
        network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    except (ValueError, AssertionError) as error:
        raise _unfit_shape(name, input_shape, error) from error
    return network


def _load(network: nn.Module, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Put the weights into the network, or tell the first keys that do not fit."""
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith(_UNUSED_KEY)]
    unexpected = [key for key in state if key not in wanted]
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    faults = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    told = [f"{len(keys)} {kind} ({', '.join(keys[:MAX_NAMED_KEYS])})" for kind, keys in faults if keys]
    if told:
        raise EngineError(
            "weights_do_not_fit",
            f"The weights do not fit {name}: {'; '.join(told)}.",
            "Check the architecture's name and num_classes, and save the bare state dict of the torchvision model.",
        )
    wanted.update(state)
    network.load_state_dict(wanted)  # the network's own dictionary, which carries its layers' format versions


def _export(network: nn.Module, name: str, input_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Export without the optimisations that fold weights: as graph inputs of unknown values, they are out of the
    optimiser's reach, which drops biases that are zero, too."""
    example = torch.zeros(_EXPORT_BATCH, *input_shape)
    with _quiet():
        try:
            with torch.no_grad():
                network(example)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise _unfit_shape(name, input_shape, error) from error
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            optimize=False,
            verbose=False,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
        if program is None:
            raise RuntimeError(f"torch.onnx.export returned nothing for {name}")
        graph = program.model.graph
        inputs = len(graph.inputs)
        weights = list(graph.initializers.values())
        graph.initializers.clear()
        graph.inputs.extend(weights)
        values = [weight.const_value for weight in weights]
        for weight in weights:
            weight.const_value = None
        optimize_ir(program.model)
        del graph.inputs[inputs:]
        for weight, value in zip(weights, values, strict=True):
            weight.const_value = value
            graph.initializers.add(weight)
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes on source files and lines, which are most of a small model's size."""
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        item.ClearField("metadata_props")
    del model.metadata_props[:]
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter comments on every initializer that it leaves alone."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _unfit_shape(name: str, input_shape: tuple[int, int, int], error: Exception) -> EngineError:
    return EngineError(
        "input_shape_does_not_fit",
        f"{name} cannot take inputs of shape {input_shape}: {error}.",
        "Give channels, height and width as the network was trained with, such as 3, 224, 224.",
    )
