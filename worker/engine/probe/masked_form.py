"""A network whose channels can be silenced and brought back, without cutting or building anything anew."""

from __future__ import annotations

import numpy as np
import torch

from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis
from worker.engine.proof import maskable_original
from worker.engine.surgery import Plan
from worker.engine.torch_form import TorchForm, build


class MaskedForm:
    """The torch form of the original with a mask in front of every node that sums over channels: with a plan's masks
    it computes what the pruned network does. Norms that average over channels still see all of them.

    Raises EngineError where the model has no torch form, or where the body of an If, Loop or Scan sums over channels,
    which no mask reaches.
    """

    def __init__(self, analysis: Analysis, weights_of: MaskedForm | None = None) -> None:
        """With another form of the same model, weights and statistics are that one's, and the masks alone its own."""
        self._analysis = analysis
        model, labels = maskable_original(analysis)
        self.form: TorchForm = build(model)
        self.module = self.form.module.eval()
        if not labels.keys() <= self.form.parameters.keys():
            raise EngineError(
                "no_masks",
                "Some channels of the model cannot be masked in its torch form.",
                "Choose a method that runs no network, such as allocation uniform or global.",
            )
        self._labels = {self.form.parameters[name]: found for name, found in labels.items()}
        self._ones = dict.fromkeys(self._labels, True)
        self.masks = frozenset(self._labels)
        """Paths of all masks."""
        for path in self._labels:
            self.module.get_parameter(path).requires_grad_(False)
        if weights_of is not None:
            self._share(weights_of)
        self._averages = [(average.path, average.initial.clone()) for average in self.form.averages]

    def _share(self, other: MaskedForm) -> None:
        self.form = other.form  # it holds the weights as ONNX, too
        for path, module in self.module.named_modules():
            theirs = other.module.get_submodule(path)
            for name, parameter in theirs.named_parameters(recurse=False):
                if (f"{path}.{name}" if path else name) not in self.masks:
                    setattr(module, name, parameter)
            for name, buffer in theirs.named_buffers(recurse=False):
                setattr(module, name, buffer)

    @torch.no_grad()
    def silence(self, plan: Plan | None) -> frozenset[str]:
        """Silence what the plan removes, and nothing else; the paths of the masks that are not all ones."""
        alive = self._analysis.alive({} if plan is None else plan.kept)
        for path, labels in self._labels.items():
            kept = alive[labels]
            whole = bool(kept.all())
            if not (whole and self._ones[path]):
                mask = self.module.get_parameter(path)
                mask.copy_(torch.from_numpy(kept.astype(np.float32)).reshape(mask.shape))
            self._ones[path] = whole
        return frozenset(path for path, whole in self._ones.items() if not whole)

    @torch.no_grad()
    def restore_norms(self) -> None:
        """Give every BatchNormalization the statistics that it came with."""
        for path, initial in self._averages:
            self.module.get_buffer(path).copy_(initial)
