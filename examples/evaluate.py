"""Accuracy of an ONNX file on the demo's test digits, with nothing of Espalier: evaluate.py MODEL.onnx DIGITS.npz"""

import sys

import numpy as np
import onnxruntime

model, data = onnxruntime.InferenceSession(sys.argv[1]), np.load(sys.argv[2])
images = data["x_test"].transpose(0, 3, 1, 2).astype(np.float32) / 255
(logits,) = model.run(None, {model.get_inputs()[0].name: images})
print(f"{(logits.argmax(axis=1) == data['y_test']).mean():.6f}")
