"""The graph of an ONNX model: its channels, which of them live and die together, and what they cost."""

from worker.engine.graph.analysis import Analysis, Group, Layer, analyze
from worker.engine.graph.facts import sample_inputs
from worker.engine.graph.onnx_graph import OnnxGraph
from worker.engine.graph.reading import load_bundle, load_model

__all__ = ["Analysis", "Group", "Layer", "OnnxGraph", "analyze", "load_bundle", "load_model", "sample_inputs"]
