# %% [markdown]
# # Reinforcement learning with memory, in whole sequences
#
# RecurrentPPO of sb3-contrib trains an LSTM policy on sequences in which episodes start. At such a start the LSTM's
# state is zero, and to set it so the policy calls its LSTM for one step after the other. One line makes it run whole
# sequences instead: `fastrnn.pytorch.LSTM` takes the starts as `reset_mask`.

# %%
import sys
import time

try:
    import gymnasium
    import torch
    from sb3_contrib import RecurrentPPO
except ImportError:
    print("This example needs PyTorch and sb3-contrib: pip install fastrnn[torch] sb3-contrib")
    sys.exit()

import fastrnn.pytorch

# %% [markdown]
# ## A pole whose velocities are hidden
#
# CartPole shows the cart's position and velocity and the pole's angle and angular velocity. Without the velocities the
# policy must remember what it saw before.


# %%
class Positions(gymnasium.ObservationWrapper):
    def __init__(self, env):
        super().__init__(env)
        space = env.observation_space
        self.observation_space = gymnasium.spaces.Box(space.low[[0, 2]], space.high[[0, 2]])

    def observation(self, observation):
        return observation[[0, 2]]


def learner():
    return RecurrentPPO("MlpLstmPolicy", Positions(gymnasium.make("CartPole-v1")), n_steps=128, batch_size=128, seed=0,
                        device="cpu", policy_kwargs={"lstm_hidden_size": 64})


# %% [markdown]
# ## One line
#
# The report says which LSTMs were swapped. Parameters and optimizer stay what they are.

# %%
plain = learner()
whole = learner()
print(fastrnn.pytorch.whole_sequences(whole.policy))

# %% [markdown]
# ## Learning, before and after
#
# The same seeds, so the same episodes: the parameters agree to float error after every update.


# %%
def learn(model, steps=512):
    torch.manual_seed(0)
    model.set_random_seed(0)
    begin = time.perf_counter()
    model.learn(steps)
    return steps / (time.perf_counter() - begin)


before = learn(plain)
after = learn(whole)
difference = max((p - q).abs().max().item() for p, q in zip(plain.policy.parameters(), whole.policy.parameters()))
rewards = [[episode["r"] for episode in model.ep_info_buffer] for model in (plain, whole)]
print(f"steps a second: {before:.0f} before, {after:.0f} in whole sequences ({after / before:.1f} times as many)")
print(f"{len(rewards[0])} episodes with the same rewards: {rewards[0] == rewards[1]}")
print(f"largest difference of a parameter: {difference:.1e}")
assert rewards[0] == rewards[1] and difference <= 1e-5

# %% [markdown]
# ## The mask by itself
#
# Any model of one's own can have it: `reset_mask` is [T, N] and True where the state is to be zero before a step.

# %%
layer = fastrnn.pytorch.GRU(2, 8)
x, starts = torch.randn(10, 3, 2), torch.zeros(10, 3, dtype=torch.bool)
starts[4, 0] = True
output, h_n = layer(x, reset_mask=starts)
anew, _ = layer(x[4:, :1])
print(f"row 0 starts anew at step 4: differs by {(output[4:, :1] - anew).abs().max():.1e} from a sequence of its own")
assert torch.allclose(output[4:, :1], anew, atol=1e-6)
