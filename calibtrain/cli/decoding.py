"""What `calibtrain generate --decoding` does besides drawing: beams, and the best of samples."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from calibtrain.cli.samplers import given_only, option
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say, say_notes


class Weights(StrEnum):
    """What `--weights` allows."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Decoding(StrEnum):
    """What `--decoding` allows."""

    sample = "sample"
    greedy = "greedy"
    beam = "beam"
    diverse_beam = "diverse-beam"
    mbr = "mbr"


BEAMS = (Decoding.beam, Decoding.diverse_beam)
SAMPLES = 32
"""Samples that mbr chooses from by default."""
UTILITY = "chrf"

_DEFAULTS: dict[Decoding, dict[str, Any]] = {
    Decoding.beam: {"beam_width": 5, "length_normalization": 0.0},
    Decoding.diverse_beam: {
        "beam_width": 8,
        "beam_groups": 4,
        "beam_diversity": 1.0,
        "length_normalization": 0.0,
    },
    Decoding.mbr: {"utility": UTILITY},
}
"""The options that each way of decoding has, and their defaults."""


def check_decoding(decoding: Decoding, options: Mapping[str, Any], *, greedy: bool) -> None:
    """Refuses options of another way of decoding."""
    if greedy and decoding not in (Decoding.sample, Decoding.greedy):
        raise UserError(f"--greedy: is not a part of --decoding {decoding}; leave one of them out")
    allowed = _DEFAULTS.get(decoding, {})
    for name, value in options.items():
        if value is not None and name not in allowed:
            ways = ", ".join(way for way, names in _DEFAULTS.items() if name in names)
            raise UserError(
                f"{option(name)}: is not used with --decoding {decoding}; it is for {ways}"
            )


def refuse(decoding: Decoding, options: Mapping[str, Any]) -> None:
    """Refuses options that were given and that a way of decoding does not use."""
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{option(name)}: is not used with --decoding {decoding}; leave it out")


def check_utility(utility: str | None, samples: int) -> None:
    """Refuses a utility that is not known, and a single sample, which leaves no choice."""
    from calibtrain.generation.mbr import utility_of

    try:
        utility_of(utility or UTILITY)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    if samples < 2:
        raise UserError("--samples: 1 leaves mbr no choice; at least 2")


def search(
    path: Path,
    prompts: Sequence[str | bytes],
    decoding: Decoding,
    options: Mapping[str, Any],
    *,
    shown: int,
    head: str | None,
    max_tokens: int | None,
    max_bytes: int | None,
    as_json: bool,
) -> None:
    """Searches a beam of each prompt and prints its best texts."""
    from calibtrain.generation.beam import BeamSearch
    from calibtrain.generation.of_run import prompt_notes, search_from_run

    asked = _DEFAULTS[decoding] | given_only(options)
    settings = {name.removeprefix("beam_"): value for name, value in asked.items()}
    try:
        search_by = BeamSearch(**settings)
    except ValueError as error:
        name = str(error).partition(":")[0]
        key = option(f"beam_{name}" if f"beam_{name}" in options else name)
        raise UserError(f"{key}{str(error).removeprefix(name)}") from None
    if shown > search_by.width:
        raise UserError(
            f"--samples: {shown} is more than the beam holds; at most --beam-width "
            f"({search_by.width})"
        )
    found, about = search_from_run(
        path, prompts, search_by, head=head, max_tokens=max_tokens, max_bytes=max_bytes, say=say
    )
    best = [text for texts in found for text in texts[:shown]]
    say_notes(prompt_notes(best, about["context"]))
    if as_json:
        print_json(
            {**about, "decoding": decoding.value, "texts": [_of_beam(each) for each in best]}
        )
        return
    for number, text in enumerate(best):
        if len(best) > 1:
            print(f"--- text {number}: {said(text)}; score {text.score:.3f}")
        print(text.text)
    if len(best) == 1:
        say(f"{said(best[0])}; score {best[0].score:.3f}")


def _of_beam(text: Any) -> dict[str, Any]:
    from calibtrain.generation.of_run import fields_of

    return {**fields_of(text), "score": text.score, "group": text.group}


def show_choices(found: Any, samples: int, utility: str, *, as_json: bool) -> None:
    """Prints, of the samples of each prompt, the one that minimum Bayes risk decoding chooses."""
    from calibtrain.generation.mbr import choose

    prompts = [found.texts[i : i + samples] for i in range(0, len(found.texts), samples)]
    choices = [choose([each.text for each in texts], utility) for texts in prompts]
    if as_json:
        tree = found.to_dict()
        print_json(
            {
                **tree,
                "decoding": Decoding.mbr.value,
                "utility": utility,
                "texts": [
                    {
                        **tree["texts"][number * samples + choice.index],
                        "expected_utility": float(choice.expected_utilities[choice.index]),
                        "sample": choice.index,
                    }
                    for number, choice in enumerate(choices)
                ],
                "samples_drawn": tree["texts"],
            }
        )
        return
    for number, (texts, choice) in enumerate(zip(prompts, choices, strict=True)):
        line = (
            f"{said(texts[choice.index])}; sample {choice.index} of {samples}, mean {utility} "
            f"{choice.expected_utilities[choice.index]:.1f}"
        )
        if len(prompts) > 1:
            print(f"--- text {number}: {line}")
        print(choice.text)
        if len(prompts) == 1:
            say(line)


def said(text: Any) -> str:
    """Returns one line about a text: why it ended, how long it is, and its rates."""
    size = f"{text.finish_reason}, {text.tokens:,} tokens, {text.bytes:,} bytes"
    if not text.bytes:
        return size
    information, entropy = text.information_bits / text.bytes, text.entropy_bits / text.bytes
    return f"{size}; information {information:.3f}, entropy {entropy:.3f} bits a byte"
