"""A pruned torchvision network in PyTorch: python load_slim.py pruned.safetensors [pruned.onnx to compare with]."""

import sys

import torch
import torchvision
from safetensors import safe_open


def load_slim(path: str) -> torch.nn.Module:
    """The network whose layers have the widths of the weights in the file."""
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        network = torchvision.models.get_model(file.metadata()["architecture"], weights=None)
    for name, child in list(network.named_children()):
        if any(True for _ in child.parameters()) and not any(key.startswith(f"{name}.") for key in state):
            setattr(network, name, None)  # a head that only training uses
    for name, tensor in state.items():
        layer, _, attribute = name.rpartition(".")
        module = network.get_submodule(layer)
        if isinstance(module, torch.nn.Conv2d) and attribute == "weight" and module.groups == module.in_channels > 1:
            module.groups = len(tensor)  # depthwise
        store = module._parameters if attribute in module._parameters else module._buffers
        store[attribute] = torch.nn.Parameter(tensor) if store is module._parameters else tensor
    return network.eval()


if __name__ == "__main__":
    network = load_slim(sys.argv[1])
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters")
    if len(sys.argv) > 2:
        import onnxruntime

        session = onnxruntime.InferenceSession(sys.argv[2])
        (image,) = session.get_inputs()
        x = torch.rand(2, *image.shape[1:])
        expected = torch.from_numpy(session.run(None, {image.name: x.numpy()})[0])
        with torch.inference_mode():
            error = float((network(x) - expected).abs().max() / expected.abs().max())
        print(f"relative difference from {sys.argv[2]}: {error:.1e}")
        sys.exit(error > 1e-4)
