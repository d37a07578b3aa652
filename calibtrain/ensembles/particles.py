"""The geometric mixture over whole texts, by sequential Monte Carlo over bytes.

The geometric mean that is normalised at each byte draws texts x with probability q(x), the product
of its factors prod_i p_i^w_i / Z_t. The product of the models over texts, pi(x) proportional to
prod_i p_i(x)^w_i, differs by the product of the Z_t, which depends on the text. So particles are
drawn from q and weighted by that product; where their effective number falls below half, they are
resampled. The mean weight estimates the normaliser of pi without bias, and a text that is drawn by
the weights comes from pi as the number of particles grows. With one particle it comes from q.

Texts that reach the limit count with the probability of what they begin with.

References:
    Del Moral, Doucet and Jasra (2006), Sequential Monte Carlo Samplers.
    Lew et al. (2023), Sequential Monte Carlo Steering of Large Language Models using Probabilistic
        Programs.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.corpora.documents import END
from calibtrain.ensembles.byte_mixture import ByteMixture
from calibtrain.ensembles.members import Member, begin, prompt_bytes
from calibtrain.ensembles.mixture_texts import Mixture, draw
from calibtrain.ensembles.texts import EnsembleText, checked_limit
from calibtrain.errors import UserError
from calibtrain.generation.byte_beam import STOP
from calibtrain.generation.growing_text import begun
from calibtrain.generation.next_byte import Beam

RESAMPLED = 0.5
"""The share of particles below which their effective number makes them be resampled."""


@dataclasses.dataclass(frozen=True)
class Population:
    """The particles of one text, all over.

    Attributes:
        data: the bytes of each.
        ended: whether each one ended by itself.
        log_weights: of each, in nats; the mean of their exponents estimates the normaliser.
        log_product: of each, sum_i w_i log p_i of its text.
        of_members: log-probability that each member gave to each.
        resampled: how often they were resampled.
    """

    data: tuple[bytes, ...]
    ended: tuple[bool, ...]
    log_weights: Float[np.ndarray, " particles"]
    log_product: Float[np.ndarray, " particles"]
    of_members: Float[np.ndarray, "members particles"]
    resampled: int

    @property
    def log_normalizer(self) -> float:
        """The logarithm of the estimate of the normaliser, in nats."""
        top = float(self.log_weights.max())
        if top == -math.inf:
            return top
        return top + math.log(float(np.mean(np.exp(self.log_weights - top))))

    @property
    def shares(self) -> Float[np.ndarray, " particles"]:
        """The weights, which sum to 1."""
        weights = np.exp(self.log_weights - self.log_weights.max())
        return weights / weights.sum()


def particle_texts(
    members: Sequence[Member],
    prompts: Sequence[str | bytes],
    mixture: Mixture,
    particles: int,
    *,
    samples: int = 1,
    seed: int = 0,
    max_bytes: int | None = None,
    beam: Beam | None = None,
) -> list[EnsembleText]:
    """Returns `samples` texts for each prompt, each drawn from particles of its own.

    Text i is a function of the prompt, the seed and i. `information_bits` is that under the product
    over texts, with the estimate of its normaliser.

    Args:
        members: of the mixture.
        prompts: texts, or bytes.
        mixture: a geometric one with fixed weights.
        particles: of each text.
        samples: texts of each prompt.
        seed: of the request.
        max_bytes: most bytes of a text; None means `texts.BYTES`.
        beam: how many tokenisations of each text a member follows; None means `Beam()`.

    Raises:
        UserError: for what is not allowed, or a prompt that a member cannot spell.
    """
    if (mixture.average, mixture.weighting) != ("geometric", "fixed"):
        raise UserError("particles: correct a geometric average with fixed or uniform weights")
    for name, value in (("particles", particles), ("samples", samples)):
        if value < 1:
            raise UserError(f"{name}: {value} is not allowed; at least 1")
    most = checked_limit(max_bytes)
    readers = [member.next_byte(particles, beam, 1) for member in members]
    names = [member.name for member in members]
    found = []
    for number in range(len(prompts) * samples):
        prompt = prompts[number // samples]
        start = prompt_bytes(prompt)
        begin(members, readers, [start])
        rng = np.random.default_rng((seed, number))
        population = grown(mixture.of(readers), particles, most, rng)
        found.append(_chosen(population, names, prompt, start, rng))
    return found


def _chosen(
    population: Population,
    names: Sequence[str],
    prompt: str | bytes,
    start: bytes,
    rng: np.random.Generator,
) -> EnsembleText:
    """A text that is drawn from particles by their weights."""
    if population.log_normalizer == -math.inf:
        place, reason, nats = 0, "disagreement", math.nan
    else:
        place = draw(population.shares, rng.random())
        reason = "end" if population.ended[place] else "length"
        nats = population.log_normalizer - float(population.log_product[place])
    data = population.data[place]
    bits = (-population.of_members[:, place] / math.log(2)).tolist()
    return EnsembleText(
        text=(begun(start[-4:]) + data).decode(errors="replace"),
        data=data,
        finish_reason=reason,
        prompt=prompt,
        information_bits=nats / math.log(2),
        members=dict(zip(names, bits, strict=True)),
    )


def grown(mixture: ByteMixture, particles: int, most: int, rng: np.random.Generator) -> Population:
    """Returns particles that all begin with the text in lane 0 of a mixture, grown to their ends.

    Args:
        mixture: geometric, with a lane for each particle.
        particles: their number.
        most: most bytes of a text.
        rng: draws.
    """
    data, ended = [b""] * particles, np.zeros(particles, bool)
    over = np.zeros(particles, bool)
    log_weights, log_product = np.zeros(particles), np.zeros(particles)
    of_members = np.zeros((len(mixture.members), particles))
    source, resampled = np.zeros(particles, np.int64), 0  # of each lane's state: the prompt's
    while not over.all():
        probability = mixture.predict()[source]
        each, mass = mixture.predicted[:, source], mixture.mass[source]
        going = ~over
        with np.errstate(divide="ignore"):
            log_weights[going] += np.log(mass[going])
        shares = np.exp(log_weights - max(float(log_weights.max()), -1e300))
        if not shares.any():
            break
        ancestors = np.arange(particles)
        if shares.sum() ** 2 / np.square(shares).sum() < RESAMPLED * particles:
            ancestors = _resample(shares / shares.sum(), rng.random())
            total = _log_mean(log_weights)
            log_weights = np.full(particles, total)
            data, resampled = [data[place] for place in ancestors], resampled + 1
            ended, over, log_product = ended[ancestors], over[ancestors], log_product[ancestors]
            of_members, probability = of_members[:, ancestors], probability[ancestors]
            each, mass = each[:, ancestors], mass[ancestors]
        uniform = rng.random(particles)
        symbols = np.full(particles, STOP)
        for lane in np.flatnonzero(~over):
            if not probability[lane].any():  # its weight is 0
                over[lane] = True
                continue
            symbol = draw(probability[lane], uniform[lane])
            log_product[lane] += math.log(probability[lane, symbol]) + math.log(mass[lane])
            of_members[:, lane] += np.log(each[:, lane, symbol])
            if symbol == END:
                ended[lane] = over[lane] = True
                continue
            data[lane] += bytes([symbol])
            if len(data[lane]) == most:
                over[lane] = True
                continue
            symbols[lane] = symbol
        lanes = source[ancestors]
        mixture.read(symbols, np.where(symbols == STOP, np.arange(particles), lanes))
        source = np.arange(particles)
    return Population(
        tuple(data), tuple(ended.tolist()), log_weights, log_product, of_members, resampled
    )


def _log_mean(logs: Float[np.ndarray, " values"]) -> float:
    top = float(logs.max())
    return top + math.log(float(np.mean(np.exp(logs - top))))


def _resample(
    shares: Float[np.ndarray, " particles"], uniform: float
) -> Int[np.ndarray, " particles"]:
    """Returns the ancestor of each particle, by systematic resampling.

    A particle that has descendants is one of them, so that its state stays where it is.

    Example:
        >>> _resample(np.array([0.05, 0.6, 0.3, 0.05]), 0.5).tolist()
        [1, 1, 2, 1]
    """
    count = len(shares)
    points = (np.arange(count) + uniform) / count
    picked = np.minimum(np.searchsorted(np.cumsum(shares), points, side="right"), count - 1)
    offspring = np.bincount(picked, minlength=count)
    ancestors = np.arange(count)
    ancestors[offspring == 0] = np.repeat(np.arange(count), np.maximum(offspring - 1, 0))
    return ancestors
