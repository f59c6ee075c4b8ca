"""Weight-normed, pruned and otherwise computed weights: swapped in place, with torch's results and gradients."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm  # noqa: E402
from torch_modules import (  # noqa: E402
    CELLS,
    LAYERS,
    OURS,
    H,
    I,
    N,
    T,
    assert_close,
    call,
    everything,
    numbers,
    pair,
    runs_kernels,
)

import fastrnn.pytorch  # noqa: E402
from fastrnn.pytorch import accelerate, restore  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    """In these tests small calls run on the kernels, too."""
    torch.manual_seed(0)
    monkeypatch.setattr(fastrnn.pytorch.modules, "_gains", lambda *call: True)


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


class Dropped(nn.Module):
    """Weight drop: other weights with every use."""

    def forward(self, weight):
        return nn.functional.dropout(weight, 0.5, self.training)


def of_layer(name):
    return f"weight_{name}_l0"


def of_cell(name):
    return f"weight_{name}"


PARAMETRISATIONS = {
    "weight norm": lambda m, at: parametrizations.weight_norm(m, at("hh")),
    "weight norm of both": lambda m, at: [parametrizations.weight_norm(m, at(name)) for name in ("ih", "hh")],
    "spectral norm": lambda m, at: parametrizations.spectral_norm(m, at("hh")),
    "orthogonal": lambda m, at: parametrizations.orthogonal(m, at("hh")),
    "own": lambda m, at: parametrize.register_parametrization(m, at("ih"), Halved()),
    "two": lambda m, at: [parametrize.register_parametrization(m, at("ih"), Halved()) for _ in range(2)],
    "weight drop": lambda m, at: parametrize.register_parametrization(m, at("hh"), Dropped()),
}
HOOKS = {
    "weight norm by hooks": lambda m, at: weight_norm(m, at("hh")),
    "spectral norm by hooks": lambda m, at: spectral_norm(m, at("hh")),
    "pruned at random": lambda m, at: prune.random_unstructured(m, at("hh"), amount=0.3),
    "pruned rows": lambda m, at: prune.ln_structured(m, at("ih"), amount=2, n=2, dim=0),
    "pruned twice": lambda m, at: [prune.l1_unstructured(m, at("ih"), amount=a) for a in (0.2, 0.3)],
    "pruned bias": lambda m, at: prune.l1_unstructured(m, at("hh").replace("weight", "bias"), amount=0.5),
}
WAYS = PARAMETRISATIONS | HOOKS


def computed(kind, way, **options):
    """torch's module with computed weights, and an equal one that was accelerated."""
    theirs, ours = pair(kind, **options)
    restore(ours)       # made and computed as torch's; a copy would count its uses from another start
    for module in (theirs, ours):
        torch.manual_seed(1)
        WAYS[way](module, of_cell if kind in CELLS else of_layer)
    report = accelerate(ours)
    assert list(report.swapped) == [""] and report.left == {}
    return theirs, ours


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_results_and_gradients_are_torchs(kind, way):
    theirs, ours = computed(kind, way)
    assert isinstance(ours, OURS[type(ours).__mro__[1].__name__ if way in PARAMETRISATIONS else type(ours).__name__])
    x = numbers(*(() if kind in CELLS else (T,)), N, I)
    for step in range(3):       # every use of spectral_norm changes what the next one gives
        found, expected = everything(ours, x, [], [x], seed=step), everything(theirs, x, [], [x], seed=step)
        assert runs_kernels(found[0])
        assert_close(found, expected, 1e-10)
    assert_close([v.to(torch.float64) for v in ours.state_dict().values()],
                 [v.to(torch.float64) for v in theirs.state_dict().values()], 1e-10)
    assert_close(call(ours.eval(), x, []), call(theirs.eval(), x, []), 1e-10)


@pytest.mark.parametrize("way", WAYS)
def test_training_follows_torch(way):
    models, losses = computed("LSTM", way, num_layers=2), []
    x = numbers(T, N, I, grad=False)
    for model in models:
        torch.manual_seed(2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses.append([])
        for _ in range(5):
            loss = (model(x)[0] - 0.3).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-10) and losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("way", WAYS)
def test_state_dicts_copies_and_back(way):
    theirs, ours = computed("GRU", way)
    assert ours.state_dict().keys() == theirs.state_dict().keys() and repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = numbers(T, N, I)
    if way in PARAMETRISATIONS:         # modules with hooks that compute weights have no copies in torch either
        twin = copy.deepcopy(ours)
        assert_close(call(twin.eval(), x, []), call(theirs.eval(), x, []), 1e-10)
    assert list(restore(ours).swapped) == [""]
    assert not isinstance(ours, fastrnn.pytorch.GRU) and isinstance(ours, nn.GRU)
    assert_close(call(ours.eval(), x, []), call(theirs.eval(), x, []), 1e-12)
    if way in PARAMETRISATIONS:
        assert isinstance(twin, fastrnn.pytorch.GRU) and runs_kernels(call(twin, x, [])[0])


def test_a_copy_is_not_swapped_with_its_original():
    theirs, ours = computed("GRU", "weight norm")
    assert isinstance(ours, fastrnn.pytorch.GRU) and not isinstance(theirs, fastrnn.pytorch.GRU)


@pytest.mark.parametrize("way", PARAMETRISATIONS)
def test_parametrisations_are_removed_as_ever(way):
    theirs, ours = computed("GRU", way)
    for module in (theirs, ours):
        module.eval()
        for name in list(module.parametrizations):
            parametrize.remove_parametrizations(module, name)
    assert type(ours) is fastrnn.pytorch.GRU and type(theirs) is nn.GRU
    x = numbers(T, N, I)
    assert_close(everything(ours, x, [], [x]), everything(theirs, x, [], [x]), 1e-10)


def test_pruning_made_permanent():
    theirs, ours = computed("GRU", "pruned at random")
    for module in (theirs, ours):
        prune.remove(module, "weight_hh_l0")
    x = numbers(T, N, I)
    assert_close(everything(ours, x, [], [x]), everything(theirs, x, [], [x]), 1e-10)


def test_cached_parametrisations():
    theirs, ours = computed("GRU", "orthogonal")
    x = numbers(T, N, I)
    with parametrize.cached():
        found = [ours(x)[0], ours(x)[0]]
    assert_close(found, [theirs(x)[0]] * 2, 1e-10)


def test_a_mask_beside_computed_weights():
    _, ours = computed("GRU", "weight norm")
    x, mask = numbers(T, N, I), torch.rand(T, N) < 0.4
    plain = OURS["GRU"](I, H, dtype=torch.float64)
    plain.load_state_dict({name: getattr(ours, name) for name, _ in plain.named_parameters()})
    assert_close([ours(x, reset_mask=mask)[0]], [plain(x, reset_mask=mask)[0]], 1e-11)
