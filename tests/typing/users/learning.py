"""Training, losses, optimizers and diagnostics, as a user writes them."""

import numpy as np

import fastrnn
from fastrnn import losses, optim, training
from fastrnn.diagnostics import gradient_flow

rng = np.random.default_rng(0)
x = rng.standard_normal((48, 64, 3), np.float32)
y = rng.standard_normal((48, 64, 1), np.float32)

model = fastrnn.Sequential(fastrnn.GRU(3, 16, rng=0), fastrnn.Linear(16, 1, rng=1))
optimizer = optim.AdamW(model, learning_rate=2e-3, weight_decay=0.01, schedule=optim.warmup(10, optim.cosine(100)))
history = training.fit(model, x, y, loss=losses.Huber(delta=1.0), optimizer=optimizer, epochs=2, batch_size=16,
                       validation=(x[:, :8], y[:, :8]), patience=3, clip_norm=1.0, tbptt=16, progress=False)
best: int | None = history.best_epoch
print(history["loss"][-1], history.epochs, best)
print(training.evaluate(model, x, y, loss=losses.MSE()))

output, state, cache = model.forward(x)
value, d_output = losses.MSE()(output, y)
gradients = model.backward(cache, d_output)
norm: float = optim.clip_grad_norm(gradients.parameters, 1.0)
optimizer.step(gradients.parameters)
print(value, norm, optimizer.learning_rate, optimizer.state_dict().keys())

stream = model.stream()
print(stream.step(x[0, 0]))

cell = fastrnn.GRUCell(2, 3)
optim.Adam(cell, learning_rate=0.01)
optim.SGD(cell, learning_rate=0.01, momentum=0.9, nesterov=True)
optim.RMSprop(cell, learning_rate=0.01, alpha=0.9, centered=True)

table = fastrnn.Embedding(10, 4, rng=0)
tokens = np.array([[1, 2], [3, 4]])
embedded, _ = table(tokens)
print(losses.CrossEntropy()(rng.standard_normal((2, 2, 5), np.float32), tokens))
print(losses.Quantile([0.1, 0.5, 0.9]), losses.MAE())

flow = gradient_flow(fastrnn.LSTM(3, 8), x)
print(flow)
print(embedded.shape)
