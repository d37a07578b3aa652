"""Candidate answers scored by the tokens that the tokenizer writes, each after its prompt."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from calibtrain.data.batches.examples import Answer
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.errors import UserError
from calibtrain.models import Network, Params
from calibtrain.scoring.answers import AnswerScorer

ROWS = 16


def candidate_log_probabilities(
    network: Network,
    params: Params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    candidates: Sequence[Sequence[str]],
    *,
    context: int,
    end: bool = False,
    rows: int = ROWS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Float[np.ndarray, " candidates"]], int]:
    """Returns log p(candidate | prompt) of the candidates of each prompt, in nats.

    Prompt and candidate are tokenised separately, so that the tokens of neither depend on the
    other. Of a prompt that is too long, the end is seen.

    Args:
        network: the model.
        params: its parameters.
        tokenizer: its tokenizer.
        prompts: what comes before the candidates.
        candidates: of each prompt; white space before an answer belongs to it.
        context: tokens that the model sees.
        end: whether the end of the text after the candidate counts.
        rows: candidates that are scored at once.
        progress: is told how many are scored, and of how many.

    Returns:
        The log-probabilities, and the number of candidates whose prompt was cut.

    Raises:
        UserError: for a candidate that does not fit into the context.
    """
    before = tokenizer.encode_batch(prompts)
    flat = [(place, text) for place, own in enumerate(candidates) for text in own]
    after = tokenizer.encode_batch([text for _, text in flat])
    answers, cut = [], 0
    for (place, text), own in zip(flat, after, strict=True):
        room = context - len(own) - end
        if room < 0:
            raise UserError(
                f"a candidate of {len(own)} tokens does not fit into the context of {context}: "
                f"{text[:60]!r}"
            )
        prompt = before[place]
        if len(prompt) > room:
            prompt, cut = prompt[len(prompt) - room :], cut + 1
        last = [tokenizer.eos_id] if end else []
        ids = np.concatenate([[tokenizer.bos_id], prompt, own, last]).astype(np.int32)
        answers.append(Answer(ids, len(prompt), len(text.encode())))
    by_size: dict[int, list[int]] = {}
    for number, answer in enumerate(answers):
        slots = len(answer.ids) - 1
        by_size.setdefault(min(context, max(16, 1 << (slots - 1).bit_length())), []).append(number)
    found, done = np.zeros(len(answers)), 0
    for size, numbers in sorted(by_size.items()):
        scorer = AnswerScorer(network, rows=rows, context=size)
        for first in range(0, len(numbers), 8 * rows):
            some = numbers[first : first + 8 * rows]
            found[some] = scorer.log_probabilities(params, [answers[i] for i in some])
            done += len(some)
            progress(done, len(answers))
    ends = np.cumsum([len(own) for own in candidates])[:-1]
    return np.split(found, ends), cut
