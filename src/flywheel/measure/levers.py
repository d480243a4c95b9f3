"""What a measured loop gain comes to in words: the verdict, what binds, and what to do about it, the cheapest first."""

from dataclasses import dataclass
from datetime import datetime

from flywheel.evidence import Estimate, Gain, Period
from flywheel.measure.growth import FEWEST, Growth, binding, multiplier, verdict

TOLD = 1.96  # standard errors by which a gain differs from 0
MANY = 0.2  # a share of slots that explores beyond which more of it is no cheap lever
LOWER_BOUND = (
    "People who come because others told them fall into either arm, so this counts those who stay alone: "
    "the gain is at least as large."
)


@dataclass(frozen=True)
class Facts:
    """What of a workspace its levers depend on; shares of slots and of users, days, rows."""

    rows: int
    turn_days: float
    explore: float
    holdback: float
    holdback_users: int
    champion: bool
    measured: bool  # whether it is known what data does to quality


def told(found: Growth | None, facts: Facts, as_of: datetime, periods: tuple[Period, ...]) -> Gain:
    """The gain with its verdict and everything that is to be said about it."""
    factors = found.so_far if found else None
    gain = factors.gain if factors else None
    return Gain(
        as_of=as_of,
        turns=found.turns if found else 0,
        turn_days=facts.turn_days,
        data_per_user=factors.data_per_user if factors else None,
        quality_per_data=factors.quality_per_data if factors else None,
        users_per_quality=factors.users_per_quality if factors else None,
        gain=gain,
        one_turn=found.one_turn.gain if found else None,
        verdict=verdict(gain),
        binding=binding(found),
        users_added=found.users_added if found else None,
        levers=_levers(found, facts),
        periods=periods,
        says=(_headline(found, facts), *_more(found, facts)),
    )


def _headline(found: Growth | None, facts: Facts) -> str:
    if not facts.champion:
        return "No champion has served yet, so there is nothing that could bring users back."
    if found is None:
        return (
            f"Not enough evidence: {facts.holdback_users:,} users were ever in the holdback, and it takes {FEWEST} in "
            "each arm, over two turns at least."
        )
    gain = found.so_far.gain
    if gain is None:
        return f"Not enough evidence: {found.weak}."
    said, span = verdict(gain), f"in the {found.turns} turns that a champion has served"
    figures = f"of 100 users more, {_people(gain)} came back {span}"
    times = multiplier(gain)
    if said == "amplifying":
        grown = f", so growth from outside is multiplied by {times.value:.2f}" if times else ""
        return f"Amplifying: {figures}{grown}."
    if said == "decoration":
        return f"Decoration: {figures}: surely too few to tell the wheel from none."
    if said == "not enough evidence":
        return f"Not enough evidence: {figures}, which leaves open whether the wheel turns at all."
    return f"{said.capitalize()}: {figures}."


def _more(found: Growth | None, facts: Facts) -> list[str]:
    """What the wheel added, what binds, how fast, and what is not counted."""
    if found is None:
        return []
    added = found.users_added
    doubt = "" if added.low > 0 or added.high < 0 else ", which may be none"
    says = [f"Users that are there because of the wheel: {_count(added)}{doubt}; without it, as many stay as of the "
            f"{found.holdback_users:,} in the holdback."]  # fmt: skip
    bound, factors = binding(found), found.so_far
    if bound == "evidence":
        says.append("What binds is the evidence.")
    else:
        named = {
            "data per user": "a user more adds little to all the rows that there are",
            "quality per data": "more rows make the lists little better",
            "users per quality": "better lists keep few people",
        }
        says.append(f"What binds is {bound}: {named[bound]} ({_elasticities(factors.data_per_user, found)}).")
    if found.one_turn.gain is not None:
        says.append(f"In a single turn of {facts.turn_days:g} days it is {_people(found.one_turn.gain, 2)} of 100.")
    return [*says, LOWER_BOUND]


def _elasticities(per_user: Estimate, found: Growth) -> str:
    per_data, response = found.so_far.quality_per_data, found.so_far.users_per_quality
    parts = [f"data per user {per_user.value:.2f}"]
    parts += [f"quality per data {per_data.value:.2f}"] if per_data else []
    parts += [f"users per quality {response.value:.2f}"] if response else []
    return ", ".join(parts)


def _levers(found: Growth | None, facts: Facts) -> tuple[str, ...]:
    """Settings first, then how often it turns, then work on the model, then work on the product."""
    if not facts.champion:
        return ("turn the wheel until a challenger passes the gate (flywheel turn)",)
    turns = found is not None and verdict(found.so_far.gain) in ("amplifying", "compounding")
    bound = binding(found) if turns else ""  # where it stalls, whatever may help
    factors = found.so_far if found else None
    levers = [*_evidence(found, facts)]
    if factors and facts.explore < MANY and bound in ("", "quality per data"):
        levers.append(
            f"explore more than {facts.explore:.0%} of slots: rows that the model did not choose for itself teach it "
            "the most (flywheel explore says how many it takes)"
        )
    if factors and factors.data_per_user.value < 0.5 and bound in ("", "data per user"):
        levers.append(
            f"let old rows fade by half-lives: {1 - factors.data_per_user.value:.0%} of the {facts.rows:,} rows are "
            "from before the champion, and what new users bring weighs little among them"
        )
    if facts.turn_days > 1 and found is not None and found.one_turn.gain is not None:
        levers.append(
            f"turn more often than every {facts.turn_days:g} days: the same comes back sooner, and returns again sooner"
        )
    if factors and factors.quality_per_data and bound in ("", "quality per data"):
        doubled = 2**factors.quality_per_data.value - 1
        levers.append(
            f"give the model more to see, features or a better recipe: twice the rows would make lists {doubled:.1%} "
            "better"
        )
    if factors and factors.users_per_quality and bound in ("", "users per quality"):
        tenth = 1.1**factors.users_per_quality.value - 1
        levers.append(
            f"work on what brings people back: lists that are a tenth better change how many are there by {tenth:+.1%}"
        )
    return tuple(levers)


def _evidence(found: Growth | None, facts: Facts) -> list[str]:
    """What would show whether the wheel turns, where that is open."""
    levers = []
    if not facts.measured:
        levers.append("measure what more data does to quality (flywheel curve)")
    factor = (found.so_far.gain or found.so_far.users_per_quality) if found else None
    if found is None or factor is None:
        wanted = f"{facts.holdback:.0%} of users hold {facts.holdback_users:,}"
        return [*levers, f"a larger [serve] holdback: {wanted}, too few to compare with"]
    if factor.low <= 0 <= factor.high and factor.value != 0 and verdict(found.so_far.gain) == "not enough evidence":
        se = (factor.high - factor.low) / (2 * TOLD)
        need = found.holdback_users * (TOLD * se / factor.value) ** 2
        share = facts.holdback * need / found.holdback_users
        within = f", [serve] holdback = {share:.2f}" if share <= 0.5 else ""
        levers.append(
            f"a larger holdback: were the effect as large as it looks, it would take about {need:,.0f} users in it to "
            f"tell it from none, and {found.holdback_users:,} are{within}"
        )
    return levers


def _people(gain: Estimate, places: int = 0) -> str:
    small = max(abs(100 * gain.low), abs(100 * gain.high)) < 10
    digits = places or (1 if small else 0)
    return f"{100 * gain.value:.{digits}f} ({100 * gain.low:.{digits}f} to {100 * gain.high:.{digits}f})"


def _count(found: Estimate) -> str:
    return f"{found.value:,.0f} ({found.low:,.0f} to {found.high:,.0f})"
