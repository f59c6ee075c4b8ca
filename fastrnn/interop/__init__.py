"""Models of other frameworks as fastrnn layers: one module per format, each with ``layers(path) -> {name: layer}``.

``conventions`` holds what frameworks do differently: the order of the gates, activations by name, and how layers are
told from the names and shapes of their parameters. No module here imports torch or TensorFlow.
"""
