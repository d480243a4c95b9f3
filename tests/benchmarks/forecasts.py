"""Forecasts of learning curves whose truth is known: how far off at 4 × the data, and how often the band holds it.

    python tests/benchmarks/forecasts.py [curves of each truth] [--quick]

13 half-octave sizes, noise .001 on each, as `flywheel curve` measures them. Truths are power, Morgan-Mercer-Flodin
and Weibull laws with parameters drawn anew for each curve (the exponents evenly, the scales evenly in their
logarithm), and this seed had no part in setting anything. Bars: mean error at 4 × at most .005 for each truth;
the 95 % band at 2 ×, 4 × and 10 × holds the truth in 93 to 97 % of all curves. Beside it, without a bar: other noise,
fewer sizes, laws that the forecast does not know (exponential, logarithmic to a floor), and what the single law pow3
and the last value would have said.
"""

import sys

import machine
import numpy as np

from flywheel.measure import forecast, laws

PLACES = np.array([2.0, 4.0, 10.0])
NOISE, SIZES = 0.001, 13
ERROR_BAR, COVERAGE = 0.005, (0.93, 0.97)


def shape(rng, kind):
    """The shape of a truth, rows being 1 at all data."""
    scale = np.exp(rng.uniform(np.log(0.01), 0))
    if kind == "power":
        exponent = rng.uniform(0.2, 0.8)
        return lambda x: x**-exponent
    if kind == "mmf":
        exponent = rng.uniform(0.4, 1.2)
        return lambda x: 1 / (1 + (x / scale) ** exponent)
    if kind == "weibull":
        exponent = rng.uniform(0.3, 0.8)
        return lambda x: np.exp(-((x / scale) ** exponent))
    if kind == "exponential":
        return lambda x: np.exp(-x / scale)
    exponent = rng.uniform(0.5, 2)
    return lambda x: np.log1p(scale / x) ** exponent  # "logarithmic"


def truth(rng, kind, sizes):
    """A law that falls by .02 to .15 over the sizes measured, to an asymptote of .05 to .4."""
    asymptote, drop = rng.uniform(0.05, 0.4), np.exp(rng.uniform(np.log(0.02), np.log(0.15)))
    of = shape(rng, kind)
    height = drop / (of(sizes[0]) - of(1.0))
    return lambda x: asymptote + height * of(x)


def single(rows, error, se, family):
    """What one law alone, fitted by least squares, says."""
    fit = laws.fit(family, rows, error, se, PLACES)
    return fit.value[fit.misfit.argmin()]


def tried(rng, kind, curves, noise=NOISE, count=SIZES):
    """Errors at each place of the forecast and of two simpler ones, and whether its band held, shape (curves, 3)."""
    rows, se = 2.0 ** (np.arange(1 - count, 1) / 2), np.full(count, noise)
    off, held, width, power, last = [], [], [], [], []
    for _ in range(curves):
        law = truth(rng, kind, rows)
        measured = law(rows) + rng.normal(0, noise, count)
        mixture = forecast.outlook(rows, measured, se, PLACES).value
        low, high = mixture.quantile(0.025), mixture.quantile(0.975)
        off.append(np.abs(mixture.expected - law(PLACES)))
        held.append((low <= law(PLACES)) & (law(PLACES) <= high))
        width.append(high - low)
        power.append(np.abs(single(rows, measured, se, "pow3") - law(PLACES)))
        last.append(np.abs(measured[-1] - law(PLACES)))
    return [np.array(part) for part in (off, held, width, power, last)]


def line(what, found):
    off, held, width, power, last = found
    shares = " ".join(f"{share:6.1%}" for share in held.mean(axis=0))
    print(
        f"{what:28} {off[:, 1].mean():.4f} {np.quantile(off[:, 1], 0.9):.4f}   {power[:, 1].mean():.4f} "
        f"{last[:, 1].mean():.4f}   {shares}   {width[:, 1].mean():.4f}",
        flush=True,
    )


def main(curves):
    print(machine.describe("numpy", "scipy"))
    print(
        f"{curves:,} curves of each truth; "
        f"a share of 95 % is known to ±{2 * (0.0475 / curves) ** 0.5:.1%} for one truth"
    )
    print(f"{'':28} error at 4×     pow3   last     95 % band holds at 2×, 4×, 10×; width")
    print(f"{'truth':28} mean   p90      mean   mean")
    rng = np.random.default_rng(411)
    found = {kind: tried(rng, kind, curves) for kind in ("power", "mmf", "weibull")}
    for kind, part in found.items():
        line(kind, part)
    for kind in ("exponential", "logarithmic"):
        line(f"{kind} (unknown to it)", tried(rng, kind, curves // 4))
    for noise, count in ((0.003, 13), (0.0003, 13), (0.001, 10)):
        for kind in found:
            line(f"{kind}, noise {noise:g}, {count} sizes", tried(rng, kind, curves // 4, noise, count))
    met = [
        machine.ceiling(f"error at 4 ×, {kind}", f[0][:, 1].mean(), ERROR_BAR, "{:.4f}") for kind, f in found.items()
    ]
    held = np.concatenate([part[1] for part in found.values()]).mean(axis=0)
    for place, share in zip(PLACES, held, strict=True):
        met.append(machine.bar(f"of bands at {place:g} × hold the truth", share, COVERAGE[0], "{:.3f}"))
        met.append(machine.ceiling(f"of bands at {place:g} × hold the truth", share, COVERAGE[1], "{:.3f}"))
    return all(met)


if __name__ == "__main__":
    numbers = [int(a) for a in sys.argv[1:] if not a.startswith("--")]
    sys.exit(0 if main(numbers[0] if numbers else 200 if "--quick" in sys.argv else 2000) else 1)
