"""torch modules on the kernels, as a user writes them."""

import torch

import fastrnn.pytorch

model = torch.nn.Sequential(torch.nn.GRU(3, 8))
report = fastrnn.pytorch.accelerate(model)
print(report, report.swapped, report.left)
fastrnn.pytorch.restore(model)

lstm = fastrnn.pytorch.LSTM(3, 8, num_layers=2, batch_first=True, bidirectional=True)
output, (h_n, c_n) = lstm(torch.zeros(4, 20, 3))
cell = fastrnn.pytorch.GRUCell(3, 8)
print(cell(torch.zeros(4, 3)), output, h_n, c_n)
