"""The confirmatory hypotheses of HYPOTHESES.md: for each its figure, its test and its verdict."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from slopes import Effect, holm, pooled, slopes

DOUBLINGS = 5
LADDER_MARGIN = 0.003
"""A difference of the byte ECE between the ends of the ladder that matters."""
MARGIN = LADDER_MARGIN / DOUBLINGS
ERROR = 0.05
LARGEST = 8192
HEADLINE = {"match": "body", "capacity": "large", "passes": 4}
KEYS = ("corpus", "kind", "vocab_size", "capacity", "passes", "match", "seed")
"""What tells arms apart."""
SUPPORTED, REFUTED, OPEN, ABSENT = "supported", "refuted", "not decided", "not tested"


@dataclasses.dataclass(frozen=True)
class Test:
    """A confirmatory test.

    Attributes:
        name: headline, H1 and so on.
        claim: what would be supported or refuted.
        figure: what was estimated, in words, with its unit.
        effect: its estimate over corpora; None where the runs are absent.
        judge: from the adjusted p to a verdict.
        more: other figures that the verdict rests on, by name.
    """

    name: str
    claim: str
    figure: str
    effect: Effect | None
    judge: Callable[[float], str]
    more: Mapping[str, Effect] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A test with its adjusted p, and what that decides."""

    test: Test
    adjusted: float
    verdict: str

    def sentence(self) -> str:
        """One sentence: verdict, estimate, interval, p, and what could have been found."""
        test, effect = self.test, self.test.effect
        if effect is None:
            return f"{test.name}: {self.verdict}: {test.claim} (the runs for it are absent)."
        few = "" if effect.freedom else "; one corpus has no interval over corpora"
        said = (
            f"{test.name}: {self.verdict}: {test.claim}; {test.figure} {interval(effect)}, "
            f"p = {number(effect.p, 3)} (Holm {number(self.adjusted, 3)}), over "
            f"{len(effect.values)} corpora{few}; smallest effect with 80 % power "
            f"{number(effect.smallest)}"
        )
        more = "; ".join(f"{name} {interval(value)}" for name, value in test.more.items())
        return f"{said}; {more}." if more else f"{said}."


def number(value: float, digits: int = 5) -> str:
    """A number with fixed decimals, or a dash."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def interval(effect: Effect, digits: int = 5) -> str:
    """Estimate and interval."""
    low, high = (number(end, digits) for end in (effect.lower, effect.upper))
    return f"{effect.estimate:+.{digits}f} [{low}, {high}]"


def ladder(arms: pd.DataFrame, **cell: object) -> pd.DataFrame:
    """The arms of the nested ladder (bytes and BPE) in a cell."""
    chosen = arms[arms.kind.isin(["byte", "bpe"])]
    for name, value in cell.items():
        chosen = chosen[chosen[name] == value]
    return chosen


def matched(arms: pd.DataFrame) -> pd.DataFrame:
    """The arms that reach equal bits per byte.

    The vocabulary that needs four passes for it was not trained again: its arms are those of the
    headline cell, if they were measured on the same bytes.
    """
    bits, headline = ladder(arms, match="bits"), ladder(arms, **HEADLINE)
    parts = [bits]
    for corpus, part in bits.groupby("corpus"):
        same = headline[(headline.corpus == corpus) & headline.seed.isin(part.seed)]
        same = same[same.vocab_size.isin(wanted_sizes(arms, corpus) - set(part.vocab_size))]
        parts.append(same[same.byte_text.isin(part.byte_text)])
    return pd.concat(parts)


def wanted_sizes(arms: pd.DataFrame, corpus: str) -> set[int]:
    """The vocabularies that are matched in a corpus: those that were trained with both budgets."""
    both = ladder(arms, match="body", capacity="large", corpus=corpus).groupby("vocab_size")
    return {int(vocab) for vocab, count in both.passes.nunique().items() if count > 1}


def common_sizes(arms: pd.DataFrame) -> pd.DataFrame:
    """The arms of the vocabularies that every cell of their corpus has, so that slopes compare."""
    cells = arms.capacity + "-" + arms.passes.astype(str)
    in_all = cells.groupby(arms.corpus).transform("nunique")
    return arms[cells.groupby([arms.corpus, arms.vocab_size]).transform("nunique") == in_all]


def unmatched(arms: pd.DataFrame) -> list[str]:
    """Corpora in which a vocabulary is missing from `matched`, and which."""
    found, lacking = matched(arms), []
    for corpus, part in found.groupby("corpus"):
        if missing := sorted(wanted_sizes(arms, corpus) - set(part.vocab_size)):
            lacking.append(f"{corpus} (V = {', '.join(f'{each:,}' for each in missing)})")
    return lacking


def judged(arms: pd.DataFrame, error: str = "byte_ece") -> list[Verdict]:
    """Returns the verdict on every confirmatory hypothesis.

    Args:
        arms: `results/arms.parquet`.
        error: the column of the byte ECE.
    """
    tests = [
        headline(arms, error),
        h1(arms),
        h2(arms, error),
        *h3(arms, error),
        h4(arms),
        h5(arms),
        *h7(arms, error),
        h8(arms),
    ]
    p = {test.name: test.effect.p if test.effect else math.nan for test in tests}
    adjusted = holm(p)
    return [
        Verdict(
            test,
            adjusted[test.name],
            test.judge(adjusted[test.name])
            if test.effect and not math.isnan(test.effect.p)
            else ABSENT,
        )
        for test in tests
    ]


def moves(p: float) -> bool:
    """Whether an adjusted p says that a figure is not 0."""
    return p < ERROR


def by_moving(effect: Effect | None, still: bool) -> Callable[[float], str]:
    """The verdict on a claim that a figure moves; `still` says that it does not."""

    def judge(p: float) -> str:
        if moves(p):
            return SUPPORTED
        return REFUTED if effect and still else OPEN

    return judge


def stays(effect: Effect | None, corrected: Effect | None) -> bool:
    """Whether a byte ECE does not move, with and without what noise adds to it.

    Noise adds more to a small ECE than to a large one, so that slopes of the plain ECE are too
    flat; a null result must not come from that.
    """
    return effect is not None and all(
        each.within(MARGIN) for each in (effect, corrected) if each is not None
    )


def corrected_name(column: str) -> str:
    """The column of a byte ECE corrected for noise: byte_ece_t -> byte_ece_corrected_t."""
    return re.sub(r"^byte_ece(?=$|_t$)", "byte_ece_corrected", column)


def headline(arms: pd.DataFrame, error: str) -> Test:
    """The effect of a doubling of V on the byte ECE."""
    effect = pooled(ladder(arms, **HEADLINE), error)
    still = stays(effect, pooled(ladder(arms, **HEADLINE), corrected_name(error)))
    claim = "vocabulary size changes the byte ECE"
    return Test("headline", claim, "byte ECE per doubling of V", effect, by_moving(effect, still))


def h8(arms: pd.DataFrame) -> Test:
    """The effect of a doubling of V on the signed gap."""
    effect = pooled(ladder(arms, **HEADLINE), "byte_signed_gap")
    claim = "vocabulary size changes the byte signed gap"
    judge = by_moving(effect, effect is not None and effect.within(MARGIN))
    return Test("H8", claim, "byte signed gap per doubling of V", effect, judge)


def h1(arms: pd.DataFrame) -> Test:
    """Small models with large vocabularies are under-confident."""
    small = ladder(arms, match="body", capacity="small")
    effect = over_cells(small, "byte_signed_gap", ["passes"])
    gap = level(small[small.vocab_size == LARGEST], "byte_signed_gap")

    def judge(p: float) -> str:
        if effect is None or gap is None:
            return ABSENT
        if moves(p) and effect.estimate < 0 and gap.upper < 0:
            return SUPPORTED
        if (moves(p) and effect.estimate > 0) or effect.within(MARGIN) or gap.lower > 0:
            return REFUTED
        return OPEN

    more = {} if gap is None else {f"signed gap at V = {LARGEST:,}": gap}
    claim = "small models with large vocabularies are under-confident"
    return Test("H1", claim, "byte signed gap of small models per doubling", effect, judge, more)


def h2(arms: pd.DataFrame, error: str) -> Test:
    """Token ECE moves with V, byte ECE does not."""
    chosen = ladder(arms, **HEADLINE)
    token, byte = pooled(chosen, "token_ece"), pooled(chosen, error)
    still = stays(byte, pooled(chosen, corrected_name(error)))

    def judge(p: float) -> str:
        if token is None or byte is None:
            return ABSENT
        byte_moves = moves(byte.p)
        if moves(p) and still and not byte_moves:
            return SUPPORTED
        return REFUTED if byte_moves or token.within(MARGIN) else OPEN

    more = {} if byte is None else {"byte ECE per doubling": byte}
    claim = "token ECE moves with V, byte ECE does not"
    return Test("H2", claim, "token ECE per doubling of V", token, judge, more)


def h3(arms: pd.DataFrame, error: str) -> Sequence[Test]:
    """At equal bits per byte vocabularies do not differ, and not at all after one temperature."""
    chosen = matched(arms)
    pairs = pair_differences(chosen, error)
    adjusted = holm({name: effect.p for name, effect in pairs.items()})
    tests = []
    for name, column, claim in (
        ("H3a", error, "at equal bits per byte the byte ECE differs by less than 0.003"),
        ("H3b", f"{error}_t", "after one temperature as well it does not differ at all"),
    ):
        effect = pooled(chosen, column)

        still = stays(effect, pooled(chosen, corrected_name(column)))

        def judge(p: float, still: bool = still, name: str = name) -> str:
            outside = name == "H3a" and any(
                adjusted[pair] < ERROR and min(abs(d.lower), abs(d.upper)) > LADDER_MARGIN
                for pair, d in pairs.items()
                if d.lower * d.upper > 0
            )
            if moves(p) or outside:
                return REFUTED
            inside = name == "H3b" or all(d.within(LADDER_MARGIN) for d in pairs.values())
            return SUPPORTED if still and inside else OPEN

        largest = max(pairs, key=lambda pair: abs(pairs[pair].estimate), default=None)
        more = {f"largest difference ({largest})": pairs[largest]} if largest else {}
        per_byte = pooled(chosen, "byte_bits_per_byte")
        more |= {} if per_byte is None else {"bits per byte per doubling": per_byte}
        label = "byte ECE per doubling at equal bits per byte"
        label += ", after one temperature" if name == "H3b" else ""
        tests.append(Test(name, claim, label, effect, judge, more if name == "H3a" else {}))
    return tests


def h4(arms: pd.DataFrame) -> Test:
    """The rarest tenth gets too little or too much mass as V grows."""
    chosen = ladder(arms, **HEADLINE)
    effect = pooled(chosen, "mass_gap_9")
    gap = level(chosen[chosen.vocab_size == LARGEST], "mass_gap_9")

    def judge(p: float) -> str:
        if effect is None or gap is None:
            return ABSENT
        if moves(p) and effect.estimate * gap.estimate > 0:
            return SUPPORTED
        return REFUTED if effect.within(MARGIN) else OPEN

    more = {} if gap is None else {f"mass gap at V = {LARGEST:,}": gap}
    claim = "the rarest tenth gets too little or too much mass as V grows"
    return Test("H4", claim, "mass gap of the rarest tenth per doubling", effect, judge, more)


def h5(arms: pd.DataFrame) -> Test:
    """Words that are split are calibrated worse than words that are kept whole."""
    chosen = ladder(arms, **HEADLINE)
    chosen = chosen[chosen.kind == "bpe"]
    needed = [f"word_{each}_ece" for each in ("split", "whole")]
    if not set(needed) <= set(chosen.columns):
        chosen = chosen.iloc[:0]
    else:
        chosen = chosen.dropna(subset=needed).copy()
    effect, floor, ceiling = None, None, None
    if len(chosen):
        noise = {each: noise_bound(chosen, each) for each in ("split", "whole")}
        plain = chosen.word_split_ece - chosen.word_whole_ece
        chosen["plain"], chosen["floor"] = plain, plain - noise["split"]
        chosen["ceiling"] = plain + noise["whole"]
        effect, floor, ceiling = (level(chosen, name) for name in ("plain", "floor", "ceiling"))

    def judge(p: float) -> str:
        if floor is None or ceiling is None:
            return ABSENT
        if moves(p) and floor.lower > 0:
            return SUPPORTED
        return REFUTED if moves(p) and ceiling.upper < 0 else OPEN

    more = {} if floor is None else {"less all that noise can add": floor}
    claim = "words that are split are calibrated worse than words that are kept whole"
    return Test("H5", claim, "word ECE of split less whole words", effect, judge, more)


def noise_bound(arms: pd.DataFrame, group: str) -> pd.Series:
    """The most that a perfect model's ECE can be in expectation, with independent words."""
    c, n = arms[f"word_{group}_confidence"], arms[f"word_{group}_events"]
    bins = arms.get("word_bins", pd.Series(15, arms.index)).fillna(15)
    return (2 / math.pi * bins * c * (1 - c) / n) ** 0.5


def h7(arms: pd.DataFrame, error: str) -> Sequence[Test]:
    """The effect changes sign with capacity, or with budget."""
    body = common_sizes(ladder(arms, match="body"))
    tests = []
    for name, axis, low, high, other in (
        ("H7a", "capacity", "small", "large", "passes"),
        ("H7b", "passes", 1, 4, "capacity"),
    ):
        ends, effect = interaction(body, error, axis, (low, high), other)
        corrected = interaction(body, corrected_name(error), axis, (low, high), other)[1]
        still = stays(effect, corrected)

        def judge(p: float, ends: Sequence[Effect | None] = ends, still: bool = still) -> str:
            first, second = ends
            assert first is not None
            assert second is not None
            if moves(p) and first.estimate * second.estimate < 0:
                return SUPPORTED
            alike = first.lower * first.upper > 0 and second.lower * second.upper > 0
            alike = alike and first.estimate * second.estimate > 0
            return REFUTED if alike or still else OPEN

        more = {f"{axis} {end}": e for end, e in zip((low, high), ends, strict=True) if e}
        claim = f"the effect changes sign with {'budget' if axis == 'passes' else axis}"
        label = f"byte ECE per doubling, {high} less {low} ({axis})"
        tests.append(Test(name, claim, label, effect, judge, more))
    return tests


def interaction(
    arms: pd.DataFrame, figure: str, axis: str, ends: tuple[object, object], other: str
) -> tuple[list[Effect | None], Effect | None]:
    """Returns the slopes at both ends of an axis, each in the mean over another, and the paired
    difference: second less first.
    """
    found = [over_cells(arms[arms[axis] == end], figure, [other]) for end in ends]
    first, second = found
    if first is None or second is None:
        return found, None
    common = sorted(first.values.keys() & second.values.keys())
    gaps = {corpus: second.values[corpus] - first.values[corpus] for corpus in common}
    return found, Effect.of(gaps) if gaps else None


def over_cells(arms: pd.DataFrame, figure: str, cells: Sequence[str]) -> Effect | None:
    """The slope by corpus, in the mean over cells; only corpora that have every cell."""
    if figure not in arms:
        return None
    found = [
        slopes(part, figure).mean(axis=1).rename(str(name))
        for name, part in arms.groupby(list(cells))
    ]
    if not found:
        return None
    table = pd.concat(found, axis=1).dropna()
    return Effect.of(table.mean(axis=1).to_dict()) if len(table) else None


def level(arms: pd.DataFrame, figure: str) -> Effect | None:
    """The mean of a figure over corpora."""
    if figure not in arms or not len(arms):
        return None
    means = arms.groupby("corpus")[figure].mean().dropna()
    return Effect.of(means.to_dict()) if len(means) else None


def pair_differences(arms: pd.DataFrame, figure: str) -> dict[str, Effect]:
    """The difference of a figure between each pair of vocabularies, larger less smaller."""
    if figure not in arms or not len(arms):
        return {}
    means = arms.pivot_table(index="corpus", columns="vocab_size", values=figure)
    found = {}
    for small, large in itertools.combinations(sorted(means.columns), 2):
        values = (means[large] - means[small]).dropna()
        if len(values):
            found[f"V = {large:,} less {small:,}"] = Effect.of(values.to_dict())
    return found
