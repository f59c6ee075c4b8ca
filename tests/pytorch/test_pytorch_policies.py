"""whole_sequences: sb3-contrib's RecurrentPPO beside itself, and what is refused."""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sb3_contrib = pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")

from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy  # noqa: E402
from torch import nn  # noqa: E402

import fastrnn.pytorch  # noqa: E402
from fastrnn.pytorch import restore, whole_sequences  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

POLICIES = {
    "two LSTMs": {},
    "two layers": {"n_lstm_layers": 2},
    "shared": {"shared_lstm": True, "enable_critic_lstm": False},
    "actor alone": {"enable_critic_lstm": False},
    "no bias": {"lstm_kwargs": {"bias": False}},
}


def ppo(env="CartPole-v1", *, n_steps=64, batch_size=32, n_epochs=3, **policy):
    """A RecurrentPPO with everything drawn from one seed."""
    return sb3_contrib.RecurrentPPO("MlpLstmPolicy", env, n_steps=n_steps, batch_size=batch_size, n_epochs=n_epochs,
                                    seed=3, device="cpu", policy_kwargs={"lstm_hidden_size": 24, **policy})


def learned(whole, env, steps, **options):
    """The model after learning, and the rewards of its episodes."""
    model = ppo(env, **options)
    if whole:
        whole_sequences(model.policy)
    model.learn(steps)
    return model, np.array([episode["r"] for episode in model.ep_info_buffer])


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_learns_as_the_unswapped_policy_does(env, policy):
    """Discrete and continuous actions; the same parameters after every update, the same rewards on the way."""
    plain, rewards = learned(False, env, 256, **POLICIES[policy])
    whole, found = learned(True, env, 256, **POLICIES[policy])
    start = ppo(env, **POLICIES[policy]).policy.state_dict()
    for name, expected in plain.policy.state_dict().items():
        assert torch.allclose(whole.policy.state_dict()[name], expected, rtol=0, atol=1e-6), name
    assert any(not torch.allclose(value, start[name], atol=1e-4) for name, value in plain.policy.state_dict().items())
    assert found.shape == rewards.shape and np.allclose(found, rewards, rtol=1e-4)


@pytest.mark.slow
def test_many_environments_at_once():
    from stable_baselines3.common.env_util import make_vec_env
    models = []
    for whole in (False, True):
        model = ppo(make_vec_env("CartPole-v1", 3, seed=3))
        if whole:
            whole_sequences(model.policy)
        models.append(model.learn(3 * 128))
    for a, b in zip(*(model.policy.parameters() for model in models), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("starts", ["none", "some", "all"])
@pytest.mark.parametrize("policy", POLICIES)
def test_evaluated_actions_and_gradients(policy, starts):
    """In float64, where the two ways differ by rounding alone."""
    plain = ppo(**POLICIES[policy]).policy.double()
    whole = copy.deepcopy(plain)
    whole_sequences(whole)
    rows, steps, layers = 4, 7, plain.lstm_actor.num_layers
    random = torch.Generator().manual_seed(0)
    observations = torch.rand(rows * steps, 4, generator=random, dtype=torch.float64)
    actions = torch.randint(0, 2, (rows * steps,), generator=random)
    episode_starts = {"none": torch.zeros(rows * steps), "all": torch.ones(rows * steps),
                      "some": (torch.rand(rows * steps, generator=random) < 0.3).float()}[starts]
    states = [torch.rand(layers, rows, 24, generator=random, dtype=torch.float64) for _ in range(4)]
    from sb3_contrib.common.recurrent.type_aliases import RNNStates
    results = []
    for model in (whole, plain):
        # sb3's own preprocessing makes observations float32
        model.extract_features = lambda x, extractor=None, model=model: model.features_extractor(x)
        values, log_prob, entropy = model.evaluate_actions(observations, actions, RNNStates(
            (states[0], states[1]), (states[2], states[3])), episode_starts.double())
        loss = values.square().sum() + log_prob.sum() + entropy.sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        results.append([values, log_prob, entropy, *(g for g in gradients if g is not None)])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_sequences_are_one_call_each(passes):
    model = ppo()
    whole_sequences(model.policy)
    model.learn(64)
    training = [args for name, args, _ in passes if name == "forward_layer" and args[8]]
    assert len(training) == 3 * 2 * 2 and all(args[5] is not None for args in training)
    assert sum(name == "backward_layer" for name, *_ in passes) == len(training)


def test_predictions():
    model = ppo()
    observation, state, starts = model.env.reset(), None, np.ones(1, bool)
    expected = []
    for whole in (False, True):
        if whole:
            whole_sequences(model.policy)
        state, starts, actions = None, np.ones(1, bool), []
        for t in range(12):
            action, state = model.predict(observation, state=state, episode_start=starts, deterministic=True)
            starts = np.array([t % 5 == 4])
            actions.append((action, *state))
        expected.append(actions)
    for a, b in zip(*expected, strict=True):
        assert all(np.allclose(p, q, atol=1e-6) for p, q in zip(a, b, strict=True))


def test_reports_copies_and_restores(tmp_path):
    model = ppo()
    parameters = dict(model.policy.named_parameters())
    report = whole_sequences(model.policy)
    assert report.swapped == {"lstm_actor": "LSTM(4, 24)", "lstm_critic": "LSTM(4, 24)"} and report.left == {}
    again = whole_sequences(model.policy)
    assert again.swapped == {} and set(again.left.values()) == {"fastrnn's already"}
    for twin in (copy.deepcopy(model.policy), pickle.loads(pickle.dumps(model.policy))):
        assert twin._process_sequence is model.policy._process_sequence
    model.save(tmp_path / "model.zip")
    loaded = sb3_contrib.RecurrentPPO.load(tmp_path / "model.zip", device="cpu")
    assert type(loaded.policy.lstm_actor) is nn.LSTM
    for name, p in loaded.policy.named_parameters():
        assert torch.equal(p, parameters[name])
    assert set(restore(model.policy).swapped) == {"lstm_actor", "lstm_critic"}
    assert model.policy._process_sequence is RecurrentActorCriticPolicy._process_sequence
    assert type(model.policy.lstm_actor) is nn.LSTM
    assert all(p is parameters[name] for name, p in model.policy.named_parameters())


def test_an_lstm_that_is_left_runs_torchs_operator(passes):
    """As on another device: here a subclass, which accelerate leaves."""
    class Own(nn.LSTM):
        pass

    plain, whole = ppo(), ppo()
    whole.policy.lstm_actor.__class__ = Own
    assert list(whole_sequences(whole.policy).left) == ["lstm_actor"]
    for model in (plain, whole):
        model.set_random_seed(0)
        model.learn(64)
    for a, b in zip(plain.policy.parameters(), whole.policy.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


def test_what_is_refused():
    model = ppo()
    with pytest.raises(TypeError, match=r"policy: expected a RecurrentActorCriticPolicy of sb3-contrib, got GRU$"):
        whole_sequences(nn.GRU(2, 3))
    with pytest.raises(TypeError, match="got RecurrentPPO: give its policy"):
        whole_sequences(model)
    for option in ("batch_first", "bidirectional"):
        other = ppo()
        setattr(other.policy.lstm_actor, option, True)
        with pytest.raises(ValueError, match="lstm_actor has batch_first or bidirectional"):
            whole_sequences(other.policy)
        assert type(other.policy.lstm_critic) is nn.LSTM
    model.policy._process_sequence = lambda *args: None
    with pytest.raises(ValueError, match="processes sequences in a way of its own"):
        whole_sequences(model.policy)
    assert type(model.policy.lstm_actor) is nn.LSTM and "whole_sequences" in fastrnn.pytorch.__all__
