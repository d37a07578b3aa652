"""Texts of agreement-based search: prompts in, the joint hypotheses of each as texts out."""

import math
from collections.abc import Sequence

import numpy as np

from calibtrain.ensembles.agreement import Agreed, AgreementSearch, Reading, search
from calibtrain.ensembles.members import Member, prompt_bytes
from calibtrain.ensembles.proposals import END_SYMBOL, Spelling
from calibtrain.ensembles.texts import EnsembleText, Proposal, Step, checked_limit
from calibtrain.errors import UserError
from calibtrain.generation.beam_texts import BYTES
from calibtrain.generation.growing_text import begun


def agreement_texts(
    members: Sequence[Member],
    prompts: Sequence[str | bytes],
    search_by: AgreementSearch | None = None,
    *,
    max_bytes: int | None = None,
    explain: bool = False,
) -> list[list[EnsembleText]]:
    """Returns the joint hypotheses of each prompt, the best first.

    `information_bits` of a text is the weighted mean of its members', by which the search compares
    texts; a member's is that of the tokens it chose.

    Args:
        members: of the search.
        prompts: texts, or bytes, which may end inside a character. An empty one begins a document.
        search_by: how; None means `AgreementSearch()`.
        max_bytes: most bytes of a text; None means `beam_texts.BYTES`.
        explain: whether texts say how they came about.

    Raises:
        UserError: for a number that is not allowed, a prompt that a member cannot spell, or one
            after which no text is possible for all members.
        ValueError: for weights that are not one a member.
    """
    settings, most = search_by or AgreementSearch(), checked_limit(max_bytes, BYTES)
    weights = settings.of(len(members))
    states = [member.states(settings.width) for member in members]
    spellings = [member.spelling for member in members]
    found = []
    for prompt in prompts:
        readings = [
            Reading(own, spelling, member.model.prompt_ids(prompt)[-member.model.context :])
            for member, own, spelling in zip(members, states, spellings, strict=True)
        ]
        joint = search(readings, settings, most)
        if not joint:
            names = ", ".join(member.name for member in members)
            raise UserError(
                f"prompt: no text of at most {most:,} bytes after it is possible for all of "
                f"{names}; leave one of them out, or use --method mixture"
            )
        found.append(
            [_text(each, prompt, members, spellings, weights, explain=explain) for each in joint]
        )
    return found


def _text(
    found: Agreed,
    prompt: str | bytes,
    members: Sequence[Member],
    spellings: Sequence[Spelling],
    weights: Sequence[float],
    *,
    explain: bool,
) -> EnsembleText:
    start = begun(prompt_bytes(prompt)[-4:])
    return EnsembleText(
        text=(start + found.data).decode(errors="replace"),
        data=found.data,
        finish_reason=found.finish_reason,
        prompt=prompt,
        information_bits=-found.score / math.log(2),
        members={
            member.name: -path.log_probability / math.log(2)
            for member, path in zip(members, found.paths, strict=True)
        },
        steps=_steps(found, [member.name for member in members], spellings, weights)
        if explain
        else (),
    )


def _steps(
    found: Agreed,
    names: Sequence[str],
    spellings: Sequence[Spelling],
    weights: Sequence[float],
) -> list[Step]:
    """What each member proposed at each step, and which of them were stalled."""
    steps, before = [], ""
    for joint in found.history:
        added = joint.symbols[len(before) :]
        steps.append(
            Step(
                byte_offset=len(before.removesuffix(END_SYMBOL)),
                chosen=added.removesuffix(END_SYMBOL).encode("latin-1"),
                ended=added.endswith(END_SYMBOL),
                proposals=tuple(
                    Proposal(name, b"", float("nan"), weight, stalled=True)
                    if move is None
                    else Proposal(
                        name,
                        spelling.symbols[move[0]].removesuffix(END_SYMBOL).encode("latin-1"),
                        float(np.exp(move[1])),
                        weight,
                    )
                    for name, spelling, weight, move in zip(
                        names, spellings, weights, joint.moves, strict=True
                    )
                ),
            )
        )
        before = joint.symbols
    return steps
