"""Optimizers with torch's names, options and results; schedules of the learning rate; clipping of gradients.

    optimizer = Adam(model, learning_rate=1e-3, schedule=cosine(1000))
    optimizer.step(gradients)           # by parameter name: what model.backward(...).parameters is

``optimizers`` has the classes, ``schedules`` the functions that change the learning rate as training goes on, and
``clipping`` the norm of gradients.
"""

from .clipping import clip_grad_norm
from .optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from .schedules import cosine, exponential, step_decay, warmup

__all__ = ["SGD", "RMSprop", "Adam", "AdamW", "Optimizer", "clip_grad_norm", "warmup", "cosine", "step_decay",
           "exponential"]
