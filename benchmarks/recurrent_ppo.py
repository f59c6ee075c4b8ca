"""RecurrentPPO of sb3-contrib, before and after fastrnn.pytorch.whole_sequences: steps a second.

    python benchmarks/recurrent_ppo.py                 two environments, some minutes
    python benchmarks/recurrent_ppo.py --quick         fewer steps: quick, but not accurate
    python benchmarks/recurrent_ppo.py --environment Pendulum-v1 --hidden-size 128

Both contestants are RecurrentPPO("MlpLstmPolicy", ...) with sb3-contrib's own defaults (128 steps an update,
minibatches of 128, 10 epochs) and LSTM 64, from one seed, in one process on one pinned CPU with one thread for every
library. They learn in turn, a stretch of steps each, with the order reversed in every other round; each continues with
its own random numbers, so that both see the same episodes. A rate is steps over the time of all rounds, collecting
experience included; the ratio is the median of the rounds' ratios. At the end the parameters and the episodes' rewards
are compared: a difference of a parameter over 1e-4 is an error, and the exit status is 1. A ratio under 2.5 is printed
as missed, and is no error.
"""
# Nothing but the standard library (and peers, which keeps to it) may be imported here: threads and CPU are set before
# NumPy and torch load.
import argparse
import datetime
import json
import os
import random
import sys
import time
import warnings
from pathlib import Path
from statistics import median

from peers import cpu_model, prepare_process

ENVIRONMENTS = ["CartPole-v1", "Pendulum-v1"]
TARGET, TOLERANCE = 2.5, 1e-4


def arguments():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 256 steps")
    parser.add_argument("--environment", metavar="NAME", help=f"instead of {' and '.join(ENVIRONMENTS)}")
    parser.add_argument("--hidden-size", type=int, default=64, metavar="N", help="of the LSTMs (default 64)")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="turns of each contestant (default 8)")
    parser.add_argument("--steps", type=int, default=1024, metavar="N", help="steps of a turn (default 1024)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured here")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.steps = 2, 256
    if min(args.rounds, args.steps, args.hidden_size) < 1:
        parser.error("--rounds, --steps and --hidden-size: at least 1")
    return args


class Learner:
    """A RecurrentPPO with random numbers of its own, kept from one turn to the next."""

    def __init__(self, environment, hidden_size, whole):
        from sb3_contrib import RecurrentPPO

        import fastrnn.pytorch
        self.model = RecurrentPPO("MlpLstmPolicy", environment, seed=0, device="cpu",
                                  policy_kwargs={"lstm_hidden_size": hidden_size})
        if whole:
            fastrnn.pytorch.whole_sequences(self.model.policy)
        self.rewards = []
        self.random = self._random()

    @staticmethod
    def _random():
        import numpy as np
        import torch
        return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - what sb3 draws from

    def turn(self, steps):
        """Seconds of learning for so many steps."""
        import numpy as np
        import torch
        random.setstate(self.random[0])
        np.random.set_state(self.random[1])         # noqa: NPY002 - what sb3 draws from
        torch.set_rng_state(self.random[2])
        begin = time.perf_counter()
        self.model.learn(steps, reset_num_timesteps=False)
        seconds = time.perf_counter() - begin
        self.random = self._random()
        self.rewards = [episode["r"] for episode in self.model.ep_info_buffer]
        return seconds


def contest(environment, args):
    """Steps a second of both, the median of the rounds' ratios, and how far the two have come apart."""
    plain, whole = (Learner(environment, args.hidden_size, whole) for whole in (False, True))
    for learner in (plain, whole):
        learner.turn(128)       # compiles and allocates what there is to
    seconds = {plain: [], whole: []}
    for number in range(args.rounds):
        for learner in (plain, whole) if number % 2 == 0 else (whole, plain):
            seconds[learner].append(learner.turn(args.steps))
    rates = [args.steps * args.rounds / sum(seconds[learner]) for learner in (plain, whole)]
    difference = max((p - q).abs().max().item()
                     for p, q in zip(plain.model.policy.parameters(), whole.model.policy.parameters(), strict=True))
    apart = max((abs(a - b) for a, b in zip(plain.rewards, whole.rewards, strict=False)), default=0.0)
    return {"environment": environment, "hidden_size": args.hidden_size, "steps": args.steps * args.rounds,
            "plain": rates[0], "whole": rates[1], "rewards": apart, "parameters": difference,
            "ratio": median(a / b for a, b in zip(seconds[plain], seconds[whole], strict=True))}


def main():
    args = arguments()
    prepare_process(argparse.Namespace(isa=None, child=None, only=None))
    warnings.simplefilter("ignore")
    import torch

    import fastrnn
    torch.set_num_threads(1)
    fastrnn.set_num_threads(1)
    print(f"{cpu_model()}, torch {torch.__version__}, {datetime.date.today()}, load average {os.getloadavg()[0]:.1f}")
    print(f"{'environment':14} {'plain':>10} {'whole':>10}  ratio   parameters   rewards")
    results = []
    for environment in [args.environment] if args.environment else ENVIRONMENTS:
        result = contest(environment, args)
        results.append(result)
        missed = "" if result["ratio"] >= TARGET else f"   missed: {TARGET}"
        print(f"{environment:14} {result['plain']:8.0f}/s {result['whole']:8.0f}/s  {result['ratio']:.2f}x  "
              f"{result['parameters']:10.1e}  {result['rewards']:8.1e}{missed}", flush=True)
    print(f"load average at the end {os.getloadavg()[0]:.1f}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(any(result["parameters"] > TOLERANCE for result in results))


if __name__ == "__main__":
    sys.exit(main())
