"""LSTM, GRU and RNN, with ONNX's gate order turned into torch's."""

from __future__ import annotations

import torch

from worker.engine.torch_form.operation import Operation
from worker.engine.torch_form.registry import Result, implements

_LSTM_ORDER = (0, 2, 3, 1)  # ONNX i o f c -> torch i f g o
_GRU_ORDER = (1, 0, 2)  # ONNX z r h -> torch r z n


@implements("LSTM")
def lstm(op: Operation) -> Result:
    _check(op, ("Sigmoid", "Tanh", "Tanh"), peephole=7)
    state = op.optional(5), op.optional(6)
    weights = op.tensor(1), op.tensor(2), op.optional(3)
    options = op.attribute("direction", "forward"), bool(op.attribute("layout", 0))
    return op.unpack(op.call(run_lstm, op.tensor(0), *weights, *state, *options), 3)


@implements("GRU")
def gru(op: Operation) -> Result:
    _check(op, ("Sigmoid", "Tanh"))
    weights = op.tensor(1), op.tensor(2), op.optional(3)
    options = op.attribute("direction", "forward"), bool(op.attribute("layout", 0))
    reset_after = bool(op.attribute("linear_before_reset", 0))
    return op.unpack(op.call(run_gru, op.tensor(0), *weights, op.optional(5), *options, reset_after), 2)


@implements("RNN")
def rnn(op: Operation) -> Result:
    activations = op.attribute("activations", ("Tanh",))
    if any(a not in {"Tanh", "Relu"} for a in activations):
        raise op.unsupported(f"activations {activations}")
    _check(op, None)
    weights = op.tensor(1), op.tensor(2), op.optional(3)
    options = op.attribute("direction", "forward"), bool(op.attribute("layout", 0))
    return op.unpack(op.call(run_rnn, op.tensor(0), *weights, op.optional(5), *options, activations[0] == "Relu"), 2)


def run_lstm(
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None,
    h0: torch.Tensor | None,
    c0: torch.Tensor | None,
    direction: str,
    batch_first: bool,
) -> tuple[torch.Tensor, ...]:
    """x (T, B, in), w (D, 4H, in), r (D, 4H, H), b (D, 8H) -> y (T, D, B, H), h (D, B, H), c (D, B, H)."""
    x = _ordered(x, direction, batch_first)
    state = _state(x, w, r, h0, batch_first), _state(x, w, r, c0, batch_first)
    flat = _flat_weights(w, r, b, _LSTM_ORDER)
    y, h, c = torch.lstm(x, state, flat, True, 1, 0.0, False, w.shape[0] == 2, False)
    return _as_onnx(y, (h, c), direction, batch_first)


def run_gru(
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None,
    h0: torch.Tensor | None,
    direction: str,
    batch_first: bool,
    reset_after: bool,
) -> tuple[torch.Tensor, ...]:
    """As `run_lstm`, three gates. Torch's GRU resets after the product; the other kind runs step by step."""
    x = _ordered(x, direction, batch_first)
    h = _state(x, w, r, h0, batch_first)
    if reset_after:
        y, last = torch.gru(x, h, _flat_weights(w, r, b, _GRU_ORDER), True, 1, 0.0, False, w.shape[0] == 2, False)
        return _as_onnx(y, (last,), direction, batch_first)
    outs = []
    for d in range(w.shape[0]):
        bias = None if b is None else b[d]
        outs.append(_gru_reset_first(x.flip(0) if d else x, w[d], r[d], bias, h[d]))
    ys = torch.cat([o.flip(0) if d else o for d, o in enumerate(outs)], -1)
    return _as_onnx(ys, (torch.stack([o[-1] for o in outs]),), direction, batch_first)


def run_rnn(
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None,
    h0: torch.Tensor | None,
    direction: str,
    batch_first: bool,
    relu: bool,
) -> tuple[torch.Tensor, ...]:
    """As `run_lstm`, one gate."""
    x = _ordered(x, direction, batch_first)
    run = torch.rnn_relu if relu else torch.rnn_tanh
    h = _state(x, w, r, h0, batch_first)
    y, last = run(x, h, _flat_weights(w, r, b, (0,)), True, 1, 0.0, False, w.shape[0] == 2, False)
    return _as_onnx(y, (last,), direction, batch_first)


def _gru_reset_first(
    x: torch.Tensor, w: torch.Tensor, r: torch.Tensor, b: torch.Tensor | None, h: torch.Tensor
) -> torch.Tensor:
    """GRU with the reset gate applied to the state before its product (linear_before_reset = 0)."""
    hidden = r.shape[-1]
    bias = torch.zeros(6 * hidden, dtype=x.dtype, device=x.device) if b is None else b
    gates = x @ w.t() + bias[: 3 * hidden]  # (T, B, 3H)
    rz, rr, rh = r.chunk(3)
    bz, br, bh = bias[3 * hidden :].chunk(3)
    steps = []
    for gate in gates:
        z_in, r_in, h_in = gate.chunk(3, -1)
        z, reset = torch.sigmoid(z_in + h @ rz.t() + bz), torch.sigmoid(r_in + h @ rr.t() + br)
        h = (1 - z) * torch.tanh(h_in + (reset * h) @ rh.t() + bh) + z * h
        steps.append(h)
    return torch.stack(steps)


def _flat_weights(
    w: torch.Tensor, r: torch.Tensor, b: torch.Tensor | None, order: tuple[int, ...]
) -> list[torch.Tensor]:
    """Torch's list w, r, bias of w, bias of r for each direction."""
    flat = []
    for d in range(w.shape[0]):
        flat += [_gates(w[d], order), _gates(r[d], order)]
        if b is None:
            zero = torch.zeros(w.shape[1], dtype=w.dtype, device=w.device)
            flat += [zero, zero]
        else:
            flat += [_gates(half, order) for half in b[d].chunk(2)]
    return flat


def _gates(weight: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    parts = weight.chunk(len(order))
    return torch.cat([parts[i] for i in order])


def _ordered(x: torch.Tensor, direction: str, batch_first: bool) -> torch.Tensor:
    x = x.transpose(0, 1) if batch_first else x
    return x.flip(0) if direction == "reverse" else x


def _state(
    x: torch.Tensor, w: torch.Tensor, r: torch.Tensor, state: torch.Tensor | None, batch_first: bool
) -> torch.Tensor:
    """(D, B, H); zeros where none is given."""
    if state is None:
        return torch.zeros(w.shape[0], x.shape[1], r.shape[-1], dtype=x.dtype, device=x.device)
    return state.transpose(0, 1).contiguous() if batch_first else state


def _as_onnx(
    y: torch.Tensor, states: tuple[torch.Tensor, ...], direction: str, batch_first: bool
) -> tuple[torch.Tensor, ...]:
    """y (T, B, D H) -> (T, D, B, H), or with batch_first (B, T, D, H)."""
    y = y.flip(0) if direction == "reverse" else y
    y = y.reshape(*y.shape[:2], states[0].shape[0], -1)
    if batch_first:
        return (y.transpose(0, 1), *(s.transpose(0, 1) for s in states))
    return (y.transpose(1, 2), *states)


def _check(op: Operation, activations: tuple[str, ...] | None, peephole: int | None = None) -> None:
    given = op.attribute("activations")
    directions = 2 if op.attribute("direction", "forward") == "bidirectional" else 1
    if activations is not None and given is not None and tuple(given) != activations * directions:
        raise op.unsupported(f"activations {given}")
    if op.has(4):
        raise op.unsupported("sequences of different lengths")
    if op.attribute("clip") or op.attribute("input_forget", 0) or (peephole is not None and op.has(peephole)):
        raise op.unsupported("clipping, peepholes, or coupled gates")
