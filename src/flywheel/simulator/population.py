"""Who lives in a world and what it shows: users and items as columns, and how new ones are drawn."""

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DEVICES = ("tv", "phone", "web")
COUNTRIES = {"NL": 1, "BR": -3, "JP": 9, "KE": 3}  # hours ahead of UTC
GENRES = (
    "Action",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Family",
    "Horror",
    "Music",
    "Romance",
    "Sci-Fi",
)
HIDDEN = 4  # factors of taste that no column of the log shows
CONSONANTS, VOWELS = "bdfgklmnrs", "aeio"


@dataclass(frozen=True)
class Users:
    """Who has joined, by index; times in seconds since the world's start, negative before it."""

    joined: Ints
    country: Ints
    taste: Floats  # users × GENRES
    hidden: Floats  # users × HIDDEN
    keenness: Floats
    activity: Floats  # mean 1
    peak_hour: Floats  # local
    devices: Floats  # users × DEVICES, shares


@dataclass(frozen=True)
class Items:
    """What has been released, by index; times in seconds since the world's start, negative before it."""

    released: Ints
    genres: Floats  # items × GENRES, rows of length 1
    hidden: Floats  # items × HIDDEN
    quality: Floats
    length: Ints  # minutes


Columns = TypeVar("Columns", Users, Items)


def extend(columns: Columns, more: Columns) -> Columns:
    """The rows of `columns`, then those of `more`."""
    names = [field.name for field in fields(columns)]
    return type(columns)(*(np.concatenate([getattr(columns, n), getattr(more, n)]) for n in names))


def joining(rng: np.random.Generator, joined: Ints) -> Users:
    """Users who join at these times, each with tastes of their own."""
    n = len(joined)
    return Users(
        joined=joined,
        country=rng.choice(len(COUNTRIES), n, p=[0.4, 0.3, 0.2, 0.1]),
        taste=rng.normal(size=(n, len(GENRES))),
        hidden=rng.normal(size=(n, HIDDEN)),
        keenness=rng.normal(size=n),
        activity=rng.gamma(1.2, 1 / 1.2, n),
        peak_hour=rng.normal(20, 2.5, n),
        devices=rng.dirichlet([1.5, 1.2, 0.6], n),
    )


def releasing(rng: np.random.Generator, released: Ints) -> Items:
    """Items released at these times, half of them films and half episodes."""
    n = len(released)
    order = rng.random((n, len(GENRES))).argsort(axis=1)
    many = rng.choice([1, 2, 3], n, p=[0.3, 0.5, 0.2])
    genres = (order < many[:, None]) / np.sqrt(many)[:, None]
    film = rng.random(n) < 0.5
    length = np.where(film, rng.integers(80, 151, n), rng.integers(20, 61, n))
    return Items(released, genres, rng.normal(size=(n, HIDDEN)), rng.normal(size=n), length)


def title(index: int) -> str:
    """A made-up title of four syllables; no two of the first 2,560,000 are equal.

    >>> title(0), title(7)
    ('Kadi Sebe', 'Gere Negi')
    """
    syllables = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]
    number = (index * 848_611 + 123_456) % len(syllables) ** 4  # coprime with the modulus: a permutation
    parts = [syllables[number // len(syllables) ** place % len(syllables)] for place in range(4)]
    return f"{parts[0]}{parts[1]} {parts[2]}{parts[3]}".title()
