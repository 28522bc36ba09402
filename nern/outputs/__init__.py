"""The outputs of networks: tensors in any nesting, kinds of outputs, and the metrics that measure them."""
