"""Recurrent policies of sb3-contrib (RecurrentPPO): whole sequences at once instead of a call for each step."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from torch import nn

from .accelerate import Report, accelerate
from .resets import process_sequence

if TYPE_CHECKING:
    from types import ModuleType


def whole_sequences(policy: nn.Module) -> Report:
    """Make a recurrent policy of sb3-contrib run whole sequences on the kernels, in place.

    An episode starts within almost every sequence that RecurrentPPO trains on, and there its policy calls the LSTM for
    one step after the other, to set the states to zero where an episode starts. After this the policy's LSTMs are those
    of `fastrnn.pytorch`, which take the starts as ``reset_mask`` and a sequence in one call. Parameters, optimizer,
    results and gradients stay what they are, up to rounding. ``restore(policy)`` undoes it.

    Parameters
    ----------
    policy : sb3_contrib.common.recurrent.policies.RecurrentActorCriticPolicy
        The policy of a ``RecurrentPPO``: its attribute ``policy``.

    Returns
    -------
    Report
        As of ``accelerate``. An LSTM that is left, on another device for one, runs torch's operator from one start of
        an episode to the next.

    Raises
    ------
    TypeError
        `policy` is not a recurrent policy of sb3-contrib.
    ValueError
        The policy has a way of its own to process sequences, or LSTMs with ``batch_first`` or ``bidirectional``.

    Notes
    -----
    ``RecurrentPPO.load`` makes a new policy: call this for it again. Dropout between the layers of an LSTM draws other
    random numbers than before.

    Examples
    --------
    >>> import fastrnn.pytorch
    >>> from sb3_contrib import RecurrentPPO                                                # doctest: +SKIP
    >>> model = RecurrentPPO("MlpLstmPolicy", "CartPole-v1", device="cpu")                  # doctest: +SKIP
    >>> print(fastrnn.pytorch.whole_sequences(model.policy))                                # doctest: +SKIP
    2 swapped, 0 left
      lstm_actor: LSTM(4, 256)
      lstm_critic: LSTM(4, 256)
    >>> model.learn(100_000)                                                                # doctest: +SKIP
    """
    module: ModuleType | None = sys.modules.get("sb3_contrib.common.recurrent.policies")
    base: Any = getattr(module, "RecurrentActorCriticPolicy", None)
    if base is None or not isinstance(policy, base):
        hint = ": give its policy" if isinstance(getattr(policy, "policy", None), nn.Module) else ""
        raise TypeError("policy: expected a RecurrentActorCriticPolicy of sb3-contrib, got "
                        f"{type(policy).__name__}{hint}")
    own: Any = getattr(policy, "_process_sequence", None)
    if own is not process_sequence and own is not getattr(base, "_process_sequence", None):
        raise ValueError(f"policy: {type(policy).__name__} processes sequences in a way of its own")
    for name in ("lstm_actor", "lstm_critic"):
        lstm: Any = getattr(policy, name, None)
        if lstm is not None and (lstm.batch_first or lstm.bidirectional):
            raise ValueError(f"policy: {name} has batch_first or bidirectional, with which its steps are no sequence")
    report = accelerate(policy)
    vars(policy)["_process_sequence"] = process_sequence
    return report
