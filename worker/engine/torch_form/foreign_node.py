"""Ops without a torch rule, which ONNX Runtime executes without gradients.

Imported only where a graph has one: the decorator loads torch's compiler, and most jobs need neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnxruntime
import torch
from onnx import NodeProto, helper

from worker.engine.graph.onnx_graph import node_label
from worker.engine.graph.runtime import RUNTIME_ERRORS
from worker.engine.torch_form.operation import TORCH_DTYPES

_ELEM_TYPES = {dtype: elem_type for elem_type, dtype in reversed(TORCH_DTYPES.items())}


class ForeignNode(torch.nn.Module):
    """One ONNX node as module: tensors in, tuple of tensors out. The session is made at the first call.

    `elem_types` are those of the named inputs, as far as they are known: quantised numbers come as floats (see
    rules.quantization) and are made integers again."""

    def __init__(
        self, node: NodeProto, model: onnx.ModelProto, names: list[str], elem_types: Sequence[int | None] = ()
    ) -> None:
        super().__init__()
        self.node = node
        self.names = names
        self._integers = {
            name: TORCH_DTYPES[elem_type]
            for name, elem_type in zip(names, elem_types, strict=False)
            if elem_type in TORCH_DTYPES and not TORCH_DTYPES[elem_type].is_floating_point
        }
        self.opsets = list(model.opset_import)
        self.ir_version = model.ir_version
        self._sessions: dict[tuple[torch.dtype, ...], onnxruntime.InferenceSession] = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arguments = [t.to(self._integers.get(name, t.dtype)) for name, t in zip(self.names, tensors, strict=False)]
        feed = {name: t.detach().cpu().numpy() for name, t in zip(self.names, arguments, strict=True)}
        try:
            results = self._session(tuple(t.dtype for t in arguments)).run(None, feed)
        except RUNTIME_ERRORS as error:
            raise RuntimeError(f"ONNX Runtime cannot run {node_label(self.node)}: {error}") from error
        return tuple(torch.as_tensor(r, device=tensors[0].device) for r in results)

    def _session(self, dtypes: tuple[torch.dtype, ...]) -> onnxruntime.InferenceSession:
        if dtypes not in self._sessions:
            inputs = [
                helper.make_tensor_value_info(n, _ELEM_TYPES[d], None) for n, d in zip(self.names, dtypes, strict=True)
            ]
            outputs = [helper.make_empty_tensor_value_info(name) for name in self.node.output if name]
            graph = helper.make_graph([self.node], "node", inputs, outputs)
            model = helper.make_model(graph, opset_imports=self.opsets, ir_version=self.ir_version)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch has these cores, too
            self._sessions[dtypes] = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[dtypes]
