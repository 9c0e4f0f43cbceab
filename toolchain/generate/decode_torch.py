"""Generates one batch with the greedy `generate` of transformers, and notes the time of every token.

The loop is transformers' own, so the text is exactly the model's. The loop calls a stopping criterion after each token;
the one here reads the clock and never stops the loop.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolchain.generate.causal import cache_bytes
from toolchain.generate.generator import Generated, until_end
from toolchain.generate.prompts import PromptBatch
from toolchain.generate.settings import CACHES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass
class TokenClock:
    """A stopping criterion that never stops, and notes the time at which each token of the batch was known."""

    synchronise: Callable[[], None]
    clock: Callable[[], float] = time.perf_counter
    times_s: list[float] = field(default_factory=list)

    def __call__(self, ids: "torch.Tensor", scores: Any, **given: Any) -> "torch.Tensor":
        """Note the time; return False for every row, bool [rows]."""
        import torch

        self.synchronise()
        self.times_s.append(self.clock())
        return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)


def generate(model: "PreTrainedModel", batch: PromptBatch, *, cache: str, new: int, pad: int) -> Generated:
    """Generate up to `new` tokens per row, greedily. `cache` is a key of CACHES; `pad` fills a row after its end."""
    import torch

    device = model.device
    clock = TokenClock(torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    ids, mask = torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.mask).to(device)
    clock.synchronise()
    start_s = clock.clock()
    with torch.inference_mode():
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            num_beams=1,
            max_new_tokens=new,
            pad_token_id=pad,
            stopping_criteria=[clock],
            return_dict_in_generate=True,
            **CACHES[cache],
        )
    written = made.sequences[:, ids.shape[1] :].tolist()
    stated = model.generation_config.eos_token_id
    ends = {stated} if isinstance(stated, int) else set(stated or ())
    # On a GPU, transformers may run one step too many before it notices that all rows have ended. It discards the token
    # of that step, so the step's time is left out here.
    times_s = [start_s, *clock.times_s][: len(written[0]) + 1]
    first_s, *steps_s = (after - before for before, after in itertools.pairwise(times_s))
    found = made.get("past_key_values") if cache != "none" else None
    tokens = [until_end(row, ends) for row in written]
    return Generated(tokens, [row[-1] in ends for row in tokens], first_s, steps_s, cache_bytes(found))
