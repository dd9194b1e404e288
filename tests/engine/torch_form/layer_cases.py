"""Single-node graphs for every op that the torch form knows: inputs, attributes, and the opsets to try.

Inputs are given to the graph at run time; those wrapped in `Known` are initializers, as exporters write them.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Known:
    """An input that is stored in the file."""

    value: np.ndarray


@dataclass(frozen=True)
class Case:
    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opsets: tuple[int, ...] = (17,)
    outputs: int = 1
    folds: bool = True  # whether ONNX Runtime takes it with all inputs stored

    def __str__(self) -> str:
        return f"{self.op}-{'-'.join(f'{k}={v}' for k, v in self.attributes.items())}"[:80]


def floats(*shape, low=-2.0, high=2.0, seed=0):
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype(np.float32)


def integers(*shape, low=0, high=5, dtype=np.int64):
    return np.random.default_rng(list(shape)).integers(low, high, shape).astype(dtype)


def booleans(*shape):
    return np.random.default_rng(list(shape)).random(shape) < 0.5


def ints(*values):
    return Known(np.array(values, np.int64))


def scalar(value, dtype=np.int64):
    return Known(np.array(value, dtype))


X = floats(2, 4, 7, 9)
POSITIVE = floats(2, 3, 5, low=0.1, high=3.0)
UNIT_CIRCLE = floats(2, 5, 4), floats(2, 5, 4, seed=1)
UNIT = floats(2, 3, 5, low=-0.9, high=0.9)


def weight(*shape):
    return Known(floats(*shape, low=-0.5, high=0.5, seed=1))


CONVOLUTIONS = [
    Case("Conv", (X, weight(6, 4, 3, 3), weight(6)), {"pads": [1, 1, 1, 1]}, (7, 11, 22)),
    Case("Conv", (X, weight(6, 4, 3, 3)), {"strides": [2, 1], "dilations": [1, 2], "pads": [1, 2, 0, 1]}),
    Case("Conv", (X, weight(8, 1, 3, 3), weight(8)), {"group": 4}),
    Case("Conv", (X, weight(6, 4, 3, 2)), {"auto_pad": "SAME_UPPER", "strides": [2, 2], "kernel_shape": [3, 2]}),
    Case("Conv", (X, weight(6, 4, 3, 2)), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    Case("Conv", (X, weight(6, 4, 3, 3)), {"auto_pad": "VALID"}),
    Case("Conv", (floats(2, 4, 11), weight(6, 4, 3), weight(6)), {"pads": [2, 0]}),
    Case("Conv", (floats(1, 2, 5, 6, 7), weight(3, 2, 3, 3, 3)), {"pads": [1, 1, 1, 1, 1, 1]}),
    Case("ConvTranspose", (X, weight(4, 3, 3, 3), weight(3)), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, (7, 11, 22)),
    Case("ConvTranspose", (X, weight(4, 3, 2, 2)), {"strides": [2, 2], "output_padding": [1, 0]}),
    Case("ConvTranspose", (X, weight(4, 3, 3, 3), weight(3)), {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
    Case(
        "ConvTranspose",
        (X, weight(4, 3, 3, 3), weight(3)),
        {"strides": [2, 2], "pads": [0, 1, 1, 1], "output_padding": [0, 1]},
    ),
    Case("ConvTranspose", (X, weight(4, 2, 3, 3)), {"group": 2, "dilations": [2, 1]}),
    Case("ConvTranspose", (X, weight(4, 3, 3, 3)), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("ConvTranspose", (X, weight(4, 3, 3, 3), weight(3)), {"output_shape": [15, 19], "strides": [2, 2]}),
    Case("ConvTranspose", (X, weight(4, 3, 3, 3), weight(3)), {"output_shape": [14, 18], "strides": [2, 2]}),
    Case("ConvTranspose", (floats(2, 4, 11), weight(4, 3, 3)), {"strides": [2]}),
]

POOLS = [
    Case("MaxPool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, (7, 8, 12)),
    Case("MaxPool", (X,), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    Case("MaxPool", (X,), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}),
    Case("MaxPool", (X,), {"kernel_shape": [3, 3], "dilations": [2, 2]}),
    Case("MaxPool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("MaxPool", (X,), {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    Case("MaxPool", (X,), {"kernel_shape": [2, 2], "strides": [2, 2]}, outputs=2),
    Case("MaxPool", (floats(2, 3, 11),), {"kernel_shape": [3], "strides": [2]}),
    Case("MaxPool", (floats(1, 2, 5, 6, 7),), {"kernel_shape": [2, 2, 2]}),
    Case("AveragePool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, (7, 11, 19)),
    Case("AveragePool", (X,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("AveragePool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    Case("AveragePool", (X,), {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "count_include_pad": 1}),
    Case("AveragePool", (X,), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, (19,)),
    Case("AveragePool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("AveragePool", (X,), {"kernel_shape": [3, 3], "dilations": [2, 2]}, (19,)),
    Case("LpPool", (X,), {"kernel_shape": [2, 2], "strides": [2, 2], "p": 2}, (11, 18)),
    Case("LpPool", (X,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "p": 3}, (18,)),
    Case("GlobalAveragePool", (X,), opsets=(7, 22)),
    Case("GlobalMaxPool", (X,), opsets=(7, 22)),
    Case("GlobalLpPool", (X,), {"p": 2}),
    Case(
        "MaxUnpool",
        (floats(1, 1, 2, 2), Known(np.array([[[[0, 3], [9, 15]]]], np.int64))),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        (11,),
    ),
]

PER_CHANNEL = tuple(Known(floats(4, low=0.5, high=1.5, seed=s)) for s in range(4))
NORMS = [
    Case("BatchNormalization", (X, *PER_CHANNEL), opsets=(7, 9, 14, 15)),
    Case("BatchNormalization", (floats(3, 4), *PER_CHANNEL), {"epsilon": 1e-3}),
    Case("InstanceNormalization", (X, *PER_CHANNEL[:2]), opsets=(7, 22)),
    Case("LayerNormalization", (X, Known(floats(9)), Known(floats(9, seed=3))), {"axis": -1}),
    Case("LayerNormalization", (X, Known(floats(7, 9))), {"axis": 2, "epsilon": 1e-3}),
    Case("LayerNormalization", (X, Known(floats(1, 9)), Known(floats(1))), {"axis": 2}),
    Case("GroupNormalization", (X, Known(floats(4)), Known(floats(4, seed=3))), {"num_groups": 2}, (21,)),
    Case("GroupNormalization", (X, Known(floats(2)), Known(floats(2, seed=3))), {"num_groups": 2}, (18,)),
    Case("RMSNormalization", (X, Known(floats(9))), {"axis": -1, "epsilon": 1e-3}, (23,)),
    Case("SimplifiedLayerNormalization", (X, Known(floats(9))), {"axis": -1, "epsilon": 1e-3}, (17,)),
    Case("MeanVarianceNormalization", (X,), opsets=(9, 13)),
    Case("LpNormalization", (X,), {"axis": 1, "p": 2}),
    Case("LpNormalization", (X,), {"p": 1}),
    Case("LRN", (X,), {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 1.2}),
    Case("LRN", (X,), {"size": 5, "alpha": 0.1}),
    Case("Dropout", (X,), opsets=(7, 10, 13)),
]

BROADCAST = (X, floats(4, 1, 9, seed=2))
INTEGER_PAIR = (integers(3, 4, low=-9, high=9), integers(3, 4, low=1, high=4))
ARITHMETIC = [
    *(Case(op, BROADCAST, opsets=(7, 14)) for op in ("Add", "Sub", "Mul", "Div")),
    *(Case(op, INTEGER_PAIR, opsets=(14,)) for op in ("Add", "Sub", "Mul", "Div")),
    Case("Add", (X, scalar(2.5, np.float32))),
    Case("Sub", (scalar(2.5, np.float32), X)),
    Case("Div", (scalar(2.5, np.float32), POSITIVE)),
    Case("Mod", INTEGER_PAIR, opsets=(10, 13)),
    Case("Mod", (X, POSITIVE.reshape(-1)[:9]), {"fmod": 1}),
    Case("Pow", (POSITIVE, scalar(1.7, np.float32)), opsets=(7, 13)),
    Case("Pow", (POSITIVE, floats(5))),
    Case("Pow", (integers(3, 4), scalar(2))),
    *(Case(op, (X, floats(4, 1, 9), floats(9)), opsets=(8, 13)) for op in ("Sum", "Max", "Min", "Mean")),
    Case("Max", (X,)),
    Case("Clip", (X,), {"min": -0.5, "max": 0.7}, (7,)),
    Case("Clip", (X,), {"max": 0.7}, (7,)),
    Case("Clip", (X, scalar(-0.5, np.float32), scalar(0.7, np.float32)), opsets=(11, 13)),
    Case("Clip", (X, None, scalar(0.7, np.float32)), opsets=(13,)),
    Case("Clip", (X,), opsets=(13,)),
    *(Case(op, BROADCAST, opsets=(9, 13)) for op in ("Equal", "Less", "Greater") if op != "Equal"),
    Case("Equal", (integers(3, 4), integers(1, 4)), opsets=(7, 13)),
    *(Case(op, BROADCAST, opsets=(12, 16)) for op in ("LessOrEqual", "GreaterOrEqual")),
    *(Case(op, (booleans(3, 4), booleans(4))) for op in ("And", "Or", "Xor")),
    *(Case(op, INTEGER_PAIR, opsets=(18,)) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    Case("BitwiseNot", (integers(3, 4),), opsets=(18,)),
    Case("BitShift", (integers(3, 4, dtype=np.uint8), integers(4, dtype=np.uint8)), {"direction": "LEFT"}),
    Case("Where", (booleans(3, 1), floats(3, 4), floats(4)), opsets=(9, 16)),
    Case("Cast", (X,), {"to": 7}, (9, 13)),
    Case("Cast", (integers(3, 4),), {"to": 1}),
    Case("Cast", (integers(3, 4),), {"to": 9}),
    Case("CastLike", (integers(3, 4), floats(1)), opsets=(15,)),
    Case("IsNaN", (np.array([1.0, np.nan], np.float32),), opsets=(13,)),
    Case("IsInf", (np.array([1.0, np.inf, -np.inf], np.float32),), opsets=(10,)),
    Case("IsInf", (np.array([1.0, np.inf, -np.inf], np.float32),), {"detect_negative": 0}, (10,)),
]

UNARY = [
    *(
        Case(op, (X,), opsets=(13,))
        for op in (
            *("Abs", "Atan", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Round", "Sigmoid", "Sign", "Sin"),
            *("Softplus", "Softsign", "Tanh", "Relu", "Tan"),
        )
    ),
    *(Case(op, (X,), opsets=(9,)) for op in ("Sinh", "Cosh", "Asinh")),
    *(Case(op, (POSITIVE,), opsets=(13,)) for op in ("Log", "Sqrt", "Reciprocal")),
    *(Case(op, (UNIT,), opsets=(9,)) for op in ("Acos", "Asin", "Atanh")),
    Case("Acosh", (floats(3, 4, low=1.1, high=3.0),), opsets=(9,)),
    Case("Not", (booleans(3, 4),)),
    Case("LeakyRelu", (X,), {"alpha": 0.2}, (7, 16)),
    Case("PRelu", (X, Known(floats(4, 1, 1, low=0.1, high=0.4))), opsets=(9, 16)),
    Case("Elu", (X,), {"alpha": 0.7}),
    Case("Celu", (X,), {"alpha": 0.7}),
    Case("Selu", (X,)),
    Case("Selu", (X,), {"alpha": 1.2, "gamma": 0.9}),
    Case("ThresholdedRelu", (X,), {"alpha": 0.6}),
    Case("HardSigmoid", (X,)),
    Case("HardSigmoid", (X * 3,), {"alpha": 1 / 6, "beta": 0.5}),
    Case("HardSwish", (X * 3,), opsets=(14,)),
    Case("Mish", (X,), opsets=(18,)),
    Case("Gelu", (X,), opsets=(20,)),
    Case("Gelu", (X,), {"approximate": "tanh"}, (20,)),
    Case("Swish", (X,), {"alpha": 1.3}, (24,)),
    Case("Shrink", (X,), {"lambd": 0.6, "bias": 0.1}),
    *(Case(op, (X,), {"axis": 1}, (7, 11, 13)) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(Case(op, (X,), opsets=(11, 13)) for op in ("Softmax", "LogSoftmax", "Hardmax")),
]

LINEAR = [
    Case("MatMul", (floats(2, 3, 4), weight(4, 5)), opsets=(7, 13)),
    Case("MatMul", (floats(2, 3, 4), floats(2, 4, 5))),
    Case("MatMul", (floats(4), floats(4, 5))),
    Case("Gemm", (floats(3, 4), weight(5, 4), weight(5)), {"transB": 1}, (7, 11, 13)),
    Case("Gemm", (floats(3, 4), weight(4, 5), weight(5))),
    Case("Gemm", (floats(3, 4), weight(4, 5), weight(1, 5))),
    Case("Gemm", (floats(4, 3), weight(4, 5), weight(3, 5)), {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (floats(3, 4), weight(4, 5))),
    Case("Einsum", (floats(2, 3, 4), floats(2, 4, 5)), {"equation": "bij,bjk->bik"}, (12,)),
    Case("Einsum", (floats(3, 4),), {"equation": "ij->ji"}, (12,)),
    Case("Det", (floats(2, 3, 3),), opsets=(11,)),
]

RECURRENT_X = floats(5, 2, 3)
RECURRENT = [
    Case("LSTM", (RECURRENT_X, weight(1, 16, 3), weight(1, 16, 4), weight(1, 32)), {"hidden_size": 4}, outputs=3),
    Case(
        "LSTM",
        (RECURRENT_X, weight(2, 16, 3), weight(2, 16, 4), weight(2, 32), None, floats(2, 2, 4), floats(2, 2, 4)),
        {"hidden_size": 4, "direction": "bidirectional"},
        outputs=3,
    ),
    Case("LSTM", (RECURRENT_X, weight(1, 16, 3), weight(1, 16, 4)), {"hidden_size": 4, "direction": "reverse"}),
    Case("GRU", (RECURRENT_X, weight(1, 12, 3), weight(1, 12, 4), weight(1, 24)), {"hidden_size": 4}, outputs=2),
    Case(
        "GRU",
        (RECURRENT_X, weight(2, 12, 3), weight(2, 12, 4), weight(2, 24), None, floats(2, 2, 4)),
        {"hidden_size": 4, "direction": "bidirectional", "linear_before_reset": 1},
        outputs=2,
    ),
    Case(
        "GRU",
        (RECURRENT_X, weight(2, 12, 3), weight(2, 12, 4), weight(2, 24)),
        {"hidden_size": 4, "direction": "bidirectional"},
        outputs=2,
    ),
    Case("RNN", (RECURRENT_X, weight(1, 4, 3), weight(1, 4, 4), weight(1, 8)), {"hidden_size": 4}, outputs=2),
    Case(
        "RNN",
        (RECURRENT_X, weight(1, 4, 3), weight(1, 4, 4)),
        {"hidden_size": 4, "activations": ["Relu"], "direction": "reverse"},
    ),
]

REDUCTIONS = [
    *(
        Case(op, (POSITIVE,), {"axes": [1, -1]}, (11,))
        for op in (
            *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
            *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
        )
    ),
    *(
        Case(op, (POSITIVE, ints(0, 2)), {"keepdims": 0}, (18, 20))
        for op in (
            *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
            *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
        )
    ),
    Case("ReduceSum", (POSITIVE, ints(1)), opsets=(13,)),
    Case("ReduceSum", (POSITIVE,), {"keepdims": 0}, (13,)),
    Case("ReduceSum", (POSITIVE,), {"noop_with_empty_axes": 1}, (13,)),
    Case("ReduceMean", (POSITIVE,), {"keepdims": 0}, (13,)),
    Case("ReduceSum", (integers(3, 4),), {"axes": [1]}, (11,)),
    Case("ReduceMax", (integers(3, 4),), {"axes": [1]}, (12,)),
    *(Case(op, (X,), {"axis": 1, "keepdims": 0}) for op in ("ArgMax", "ArgMin")),
    *(Case(op, (integers(3, 4, high=2),), {"axis": 1, "select_last_index": 1}) for op in ("ArgMax", "ArgMin")),
    Case("TopK", (X,), {"k": 3, "axis": 3}, (7,), outputs=2),
    Case("TopK", (X, ints(2)), {"axis": 1, "largest": 0}, (11,), outputs=2),
    Case("NonZero", (booleans(3, 4),), folds=False),
    Case("CumSum", (X, scalar(2)), opsets=(14,)),
    Case("CumSum", (X, ints(2)), opsets=(14,)),
    Case("CumSum", (X, scalar(1)), {"exclusive": 1, "reverse": 1}, (14,)),
    Case("OneHot", (integers(2, 3, low=-4, high=4), ints(4), Known(np.array([0.5, 2.0], np.float32))), {"axis": 1}),
    Case("OneHot", (integers(2, 3, high=6), ints(4), Known(np.array([0.0, 1.0], np.float32)))),
]

LAYOUTS = [
    Case("Identity", (X,)),
    Case("Shape", (X,), opsets=(13,)),
    Case("Shape", (X,), {"start": 1, "end": -1}, (15,)),
    Case("Size", (X,)),
    Case("Reshape", (X, ints(0, 2, -1)), opsets=(7, 14)),
    Case("Reshape", (X, ints(2, 2, 126))),
    Case("Flatten", (X,), opsets=(7, 13)),
    Case("Flatten", (X,), {"axis": 2}),
    Case("Flatten", (X,), {"axis": 0}),
    Case("Flatten", (floats(5),), {"axis": 1}),
    Case("Squeeze", (floats(2, 1, 3, 1),), {"axes": [1]}, (7,)),
    Case("Squeeze", (floats(2, 1, 3, 1), ints(-1)), opsets=(13,)),
    Case("Squeeze", (floats(2, 1, 3, 1),), opsets=(13,)),
    Case("Unsqueeze", (floats(2, 3),), {"axes": [0, 3]}, (7,)),
    Case("Unsqueeze", (floats(2, 3), ints(-1, 0)), opsets=(13,)),
    Case("Unsqueeze", (floats(2, 3), ints(1)), opsets=(13,)),
    Case("Transpose", (X,), {"perm": [0, 2, 3, 1]}),
    Case("Transpose", (X,)),
    Case("Concat", (X, floats(2, 2, 7, 9)), {"axis": 1}, (7, 13)),
    Case("Concat", (X,), {"axis": -1}),
    Case("Split", (X,), {"axis": 1, "split": [1, 3]}, (7,), outputs=2),
    Case("Split", (X, ints(1, 3)), {"axis": 1}, (13,), outputs=2),
    Case("Split", (X,), {"axis": 1}, (13,), outputs=2),
    Case("Split", (X,), {"axis": 2, "num_outputs": 3}, (18,), outputs=3),
    Case("Slice", (X,), {"starts": [1, -5], "ends": [3, 2**31 - 1], "axes": [1, 3]}, (7,)),
    Case("Slice", (X,), {"starts": [0, 1], "ends": [1, 3]}, (7,)),
    Case("Slice", (X, ints(1), ints(2**62), ints(-1), ints(2)), opsets=(10, 13)),
    Case("Slice", (X, ints(-1), ints(-(2**62)), ints(3), ints(-2))),
    Case("Slice", (X, ints(6), ints(1), ints(2), ints(-1))),
    Case("Slice", (X, integers(1, low=1, high=2), integers(1, low=3, high=4), ints(2))),
    Case("Gather", (X, ints(2, 0, -1)), {"axis": 1}, (7, 13)),
    Case("Gather", (X, ints(1, 2)), {"axis": 1}),
    Case("Gather", (X, scalar(-1)), {"axis": 2}),
    Case("Gather", (X, integers(2, 3, low=-4, high=4)), {"axis": 1}),
    Case("GatherElements", (X, integers(2, 4, 2, 9, low=-7, high=7)), {"axis": 2}),
    Case("GatherND", (X, Known(np.array([[0, 1], [1, -1]], np.int64)))),
    Case("GatherND", (X, integers(2, 5, 1, high=4)), {"batch_dims": 1}),
    Case("ScatterElements", (X, integers(2, 4, 1, 9, low=-7, high=7), floats(2, 4, 1, 9)), {"axis": 2}, (11, 16)),
    Case("Scatter", (X, integers(2, 4, 1, 9, high=7), floats(2, 4, 1, 9)), {"axis": 2}, (9,)),
    *(
        Case(
            "ScatterElements", (X, integers(2, 4, 3, 9, high=7), floats(2, 4, 3, 9)), {"axis": 2, "reduction": r}, (18,)
        )
        for r in ("add", "mul", "max", "min")
    ),
    Case("ScatterND", (X, Known(np.array([[0, 1], [1, -1]], np.int64)), floats(2, 7, 9)), opsets=(11, 18)),
    Case("ScatterND", (X, Known(np.array([[0, 1], [0, 1]], np.int64)), floats(2, 7, 9)), {"reduction": "add"}, (18,)),
    *(
        Case("DFT", (x, *length, *axis), {"onesided": sided, "inverse": 0, **attributes}, (opset,))
        for opset, axis, attributes in ((17, (), {"axis": 2}), (20, (Known(np.array(-2, np.int64)),), {}))
        for length in ((scalar(6),), (scalar(8),))
        for x, sided in ((floats(2, 3, 6, 1), 0), (floats(2, 3, 6, 1), 1), (floats(2, 3, 6, 2), 0))
    ),
    Case("DFT", (floats(2, 6, 3, 2),), {"inverse": 1}, (17,)),
    Case("DFT", (floats(2, 3, 6, 2),), {"inverse": 1}, (20,)),
    Case("DFT", (floats(2, 3, 4, 2), scalar(6), scalar(2)), {"inverse": 1, "onesided": 1}, (20,)),
    Case("Expand", (floats(3, 1), ints(2, 1, 4))),
    Case("Tile", (floats(2, 3), ints(2, 2))),
    Case("Pad", (X,), {"pads": [0, 1, 2, 3, 0, 0, 1, 1], "value": 0.5}, (7,)),
    Case("Pad", (X, ints(0, 0, 1, 2, 0, 0, 3, 1)), opsets=(11, 18)),
    Case("Pad", (X, ints(0, 0, -1, 2, 0, 0, 3, -2), scalar(0.5, np.float32))),
    Case("Pad", (X, ints(0, 0, 1, 2, 0, 0, 3, 1)), {"mode": "reflect"}),
    Case("Pad", (X, ints(0, 1, 1, 2, 0, 0, 3, 1)), {"mode": "edge"}),
    Case("Pad", (X, ints(0, 0, 1, 2, 0, 0, 3, 1)), {"mode": "wrap"}, (19,)),
    Case("Pad", (X, ints(1, 2), None, ints(-1)), opsets=(18,)),
    Case("Pad", (X, integers(8, low=1, high=2))),
    Case("ConstantOfShape", (ints(2, 3),)),
    Case("ConstantOfShape", (integers(2, low=2, high=4),)),
    Case("Range", (scalar(1), scalar(9), scalar(3))),
    Case("Range", (scalar(5), np.array(1, np.int64), scalar(-2))),
    Case("Range", (scalar(5), np.array(9, np.int64), scalar(-2))),
    Case("EyeLike", (floats(3, 4),), {"k": 1}),
    Case("DepthToSpace", (floats(2, 8, 3, 4),), {"blocksize": 2}, (7, 13)),
    Case("DepthToSpace", (floats(2, 8, 3, 4),), {"blocksize": 2, "mode": "CRD"}, (11,)),
    Case("SpaceToDepth", (floats(2, 2, 4, 6),), {"blocksize": 2}),
    Case("Trilu", (floats(2, 4, 5),), {"upper": 0}, (14,)),
    Case("Trilu", (floats(2, 4, 5), scalar(1)), opsets=(14,)),
    Case("ReverseSequence", (floats(4, 3, 2), ints(1, 4, 2)), {"time_axis": 0, "batch_axis": 1}),
    Case("ReverseSequence", (floats(3, 4, 2), ints(1, 4, 2)), {"time_axis": 1, "batch_axis": 0}),
    Case("CenterCropPad", (X, ints(5, 12)), {"axes": [2, 3]}, (18,)),
]

HEADS = floats(2, 3, 5, 8)  # (B, heads, T, width)
ATTENTION = [
    Case("Attention", (HEADS, floats(2, 3, 6, 8, seed=1), floats(2, 3, 6, 8, seed=2)), opsets=(23,)),
    Case("Attention", (HEADS, HEADS * 0.5, HEADS * 0.3), {"is_causal": 1, "scale": 0.2}, (23,)),
    Case("Attention", (HEADS, HEADS * 0.5, HEADS * 0.3, Known(floats(5, 5))), opsets=(23,)),
    Case("Attention", (HEADS, HEADS * 0.5, HEADS * 0.3, Known(booleans(5, 5) | np.eye(5, dtype=bool))), opsets=(23,)),
    Case("Attention", (HEADS, floats(2, 1, 5, 8), floats(2, 1, 5, 8, seed=3)), opsets=(23,)),
    Case(
        "Attention",
        (floats(2, 5, 12), floats(2, 5, 12, seed=1), floats(2, 5, 12, seed=2)),
        {"q_num_heads": 3, "kv_num_heads": 3},
        (23,),
    ),
    Case("RotaryEmbedding", (HEADS, Known(UNIT_CIRCLE[0]), Known(UNIT_CIRCLE[1])), opsets=(23,)),
    Case("RotaryEmbedding", (HEADS, Known(UNIT_CIRCLE[0]), Known(UNIT_CIRCLE[1])), {"interleaved": 1}, (23,)),
    Case(
        "RotaryEmbedding",
        (floats(2, 5, 24), Known(floats(9, 4)), Known(floats(9, 4, seed=1)), Known(integers(2, 5, high=9))),
        {"num_heads": 3},
        (23,),
    ),
]

REGIONS = [
    Case(
        "RoiAlign",
        (X, Known(np.array([[0, 0, 5, 5], [1, 2, 8, 6]], np.float32)), ints(0, 1)),
        {"output_height": 3, "output_width": 2, "sampling_ratio": 2, "spatial_scale": 0.8},
        (10, 16),
    ),
    Case(
        "MaxRoiPool",
        (X, Known(np.array([[0, 0, 0, 5, 5], [1, 1, 2, 8, 6]], np.float32))),
        {"pooled_shape": [2, 2], "spatial_scale": 1.0},
    ),
    Case(
        "DeformConv",
        (X, weight(5, 4, 3, 3), floats(2, 18, 5, 7), weight(5), floats(2, 9, 5, 7, low=0.1, seed=3)),
        opsets=(19,),
    ),
    Case("Col2Im", (floats(2, 12, 15), ints(4, 6), ints(2, 2)), {}, (18,)),
    Case("Col2Im", (floats(2, 12, 25), ints(4, 6), ints(2, 2)), {"pads": [1, 0, 1, 0]}, (18,)),
    Case("Compress", (X, Known(np.array([False, True, True]))), {"axis": 1}, (11,)),
    Case("Compress", (floats(3, 2), booleans(6)), opsets=(11,), folds=False),
]

NO_ROI = Known(np.array([], np.float32))


def scales(*values):
    return Known(np.array(values, np.float32))


RESIZES = [
    Case("Upsample", (X,), {"scales": [1.0, 1.0, 2.0, 3.0]}, (7,)),
    Case("Upsample", (X, scales(1, 1, 2, 2)), {"mode": "linear"}, (9,)),
    Case("Resize", (X, scales(1, 1, 2, 2)), opsets=(10,)),
    Case("Resize", (X, scales(1, 1, 0.5, 0.7)), opsets=(10,)),
    *(
        Case("Resize", (X, NO_ROI, scales(1, 1, *s)), {"coordinate_transformation_mode": c, "nearest_mode": n}, (13,))
        for c in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_half_pixel_for_nn")
        for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for s in ((2, 3), (1.7, 0.5))
        if c != "tf_half_pixel_for_nn" or n == "floor"
    ),
    *(
        Case("Resize", (X, NO_ROI, scales(1, 1, *s)), {"coordinate_transformation_mode": c, "mode": m}, (13,))
        for c in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for m in ("linear", "cubic")
        for s in ((2, 3), (1.7, 0.5))
    ),
    Case("Resize", (X, NO_ROI, None, ints(2, 4, 13, 5)), {"mode": "linear"}, (13,)),
    Case("Resize", (X, NO_ROI, None, ints(2, 4, 1, 5)), {"mode": "linear"}, (13,)),
    Case("Resize", (X, NO_ROI, None, ints(2, 4, 14, 18)), opsets=(13,)),
    Case(
        "Resize",
        (X, NO_ROI, scales(1, 1, 2, 2)),
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"},
        (19,),
    ),
    Case(
        "Resize",
        (X, NO_ROI, scales(1, 1, 1.5, 2)),
        {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
        (13,),
    ),
    Case(
        "Resize",
        (X, Known(np.array([0, 0, 0.1, 0.2, 1, 1, 0.9, 1.2], np.float32)), None, ints(2, 4, 5, 6)),
        {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 3.0},
        (13,),
    ),
    Case("Resize", (X, NO_ROI, None, ints(14, 12)), {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}, (18,)),
    *(
        Case(
            "Resize",
            (X, NO_ROI, None, ints(*sizes)),
            {"axes": [2, 3], "mode": mode, "antialias": 1, "exclude_outside": exclude},
            (18,),
        )
        for mode in ("linear", "cubic")
        for sizes in ((4, 3), (9, 3))
        for exclude in (0, 1)
    ),
    Case("Resize", (floats(2, 7, 9, 4), NO_ROI, scales(1, 2, 2, 1)), {"mode": "linear"}, (13,)),
    Case("Resize", (floats(2, 4, 9), NO_ROI, scales(1, 1, 2)), {"mode": "linear"}, (13,)),
    *(
        Case(
            "Resize", (integers(2, 4, 7, 9, low=low, high=100, dtype=t), NO_ROI, scales(1, 1, 2, 2)), {"mode": m}, (o,)
        )
        for t, low in ((np.uint8, 0), (np.int8, -100), (np.int32, -100))
        for m, o in (("linear", 13), ("nearest", 19))
    ),
    *(
        Case("GridSample", (X, floats(2, 5, 6, 2)), {"mode": m, "padding_mode": p, "align_corners": a}, (o,))
        for o, m in ((16, "bilinear"), (16, "nearest"), (16, "bicubic"), (20, "linear"), (20, "cubic"))
        for p, a in (("zeros", 0), ("border", 1), ("reflection", 0))
    ),
    Case("AffineGrid", (floats(2, 2, 3), ints(2, 3, 4, 5)), {"align_corners": 1}, (20,)),
]

QUANTIZERS = [
    Case("QuantizeLinear", (X, scalar(0.02, np.float32), scalar(128, np.uint8)), opsets=(10, 13)),
    Case("QuantizeLinear", (X, scalar(0.02, np.float32)), opsets=(13,)),
    Case("QuantizeLinear", (X, Known(floats(4, low=0.01, high=0.03)), Known(np.zeros(4, np.int8))), {"axis": 1}, (13,)),
    Case("DequantizeLinear", (integers(2, 4, 3, dtype=np.uint8), scalar(0.02, np.float32), scalar(3, np.uint8))),
    Case(
        "DequantizeLinear",
        (integers(2, 4, 3, low=-5, dtype=np.int8), Known(floats(4, low=0.01, high=0.03))),
        {"axis": 1},
        (13,),
    ),
]

CASES = [
    *CONVOLUTIONS,
    *POOLS,
    *NORMS,
    *ARITHMETIC,
    *UNARY,
    *LINEAR,
    *RECURRENT,
    *REDUCTIONS,
    *LAYOUTS,
    *RESIZES,
    *ATTENTION,
    *REGIONS,
    *QUANTIZERS,
]
