"""Programs of JAX as ONNX graphs, which other runtimes run: browsers, phones, and Python without JAX."""
