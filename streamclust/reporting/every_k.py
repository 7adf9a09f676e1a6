"""What a report says of all clusterings at every k: a heat map, which agree most, and all pairs as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamclust.job import Job
from streamclust.render.agreement_chart import Block, agreement_chart
from streamclust.render.parts import Cell, Figure, Section, Table
from streamclust.stages.every_k import KIND, ROLE, agreement
from streamclust.stages.sources import came_as

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 12
TITLE = "Agreement of all clusterings at every k"
FILE = "agreement.csv"
PAIR = ["a", "b"]


def describe_every_k(job: Job) -> Section | None:
    """The heat map of ARI, a sentence, and the best k of each two clusterings; nothing where none were compared."""
    model = job.store.snapshot.newest(KIND, ROLE)
    if model is None:
        return None
    about, pairs = job.store.snapshot.entries[model].attributes, agreement(job.store)
    told = _telling(pairs, about["clusterings"])
    called, chosen = _called(list(about["chosen"])), about["chosen"]
    blocks = [
        Block(words, tuple(k for name, k, _ in about["clusterings"] if name == block), chosen[block])
        for block, words in called.items()
    ]
    image = agreement_chart(blocks, job.store.read(model, "adjusted_rand"))
    caption = (
        "Adjusted Rand index of every two clusterings, over all images that both label: 0 is what chance gives, 1 the "
        "same clusters. Orange: the chosen k. A bright block means that two agree whatever k is; bright along the "
        "diagonal only, that clusters change with k."
    )
    return Section(
        title=TITLE,
        paragraphs=tuple(_said(pairs, told, called, chosen, thinned=about["thinned"])),
        figures=(Figure(title=TITLE, image=image, caption=caption, file_name="agreement.png"),),
        tables=(_table(pairs, told, called, chosen),),
    )


def _called(names: list[str]) -> dict[str, str]:
    """Clusterings in words; k-means is not said where it is alone."""
    plain = all(name.endswith("/kmeans") for name in names)
    return {name: name.removesuffix("/kmeans") if plain else name.replace("/", " ") for name in names}


def _telling(pairs: pd.DataFrame, clusterings: list[tuple[str, int, int]]) -> pd.DataFrame:
    """Those with rows and more than one cluster on both sides: two of a single cluster each agree whatever rows are."""
    several = {(name, k) for name, k, size in clusterings if size > 1}
    sides = (zip(pairs[x], pairs[f"k_{x}"], strict=True) for x in PAIR)
    tell = np.array([several.issuperset(both) for both in zip(*sides, strict=True)], bool)
    return pairs[pairs["adjusted_rand"].notna() & tell]


def _said(
    pairs: pd.DataFrame, told: pd.DataFrame, called: dict[str, str], chosen: dict[str, int], *, thinned: bool
) -> list[str]:
    """Which two agree most, of different descriptors, or else algorithms, or else scalers, or else neighbouring k."""
    of, by = (told[PAIR].apply(lambda names, i=i: names.str.rpartition("/")[i]) for i in (0, 2))
    of = of.apply(lambda names: names.map(came_as))
    kinds = {
        "across descriptors": of["a"] != of["b"],
        "across algorithms": by["a"] != by["b"],
        "across scalers": told["a"] != told["b"],
        "among neighbouring k": told.index.isin(told.groupby(["a", "k_a"]).head(1).index),
    }
    found = []
    for words, which in kinds.items():
        some = told[which]
        if len(some):
            best = some.loc[some["adjusted_rand"].idxmax()]
            one, other = (f"{called[best[x]]} at k = {best[f'k_{x}']}" for x in PAIR)
            said = f"{one} and {other} agree most {words} (adjusted Rand index {best['adjusted_rand']:.2f})"
            found.append(said + _as_chosen(pairs, best, chosen) + ".")
            break
    if thinned:
        kept = ", ".join(f"{called[name]} at {len(_ks(pairs, name))}" for name in chosen)
        found.append(f"There are too many clusters to compare every k; compared are {kept} of its k.")
    return found


def _as_chosen(pairs: pd.DataFrame, best: pd.Series, chosen: dict[str, int]) -> str:
    """How far the same two agree at their chosen k, unless these are the best ones."""
    ks = [chosen[best[x]] for x in PAIR]
    if best["a"] == best["b"] or ks == [best["k_a"], best["k_b"]]:
        return ""
    here = (pairs[PAIR] == best[PAIR]).all(axis=1) & (pairs["k_a"] == ks[0]) & (pairs["k_b"] == ks[1])
    return f"; at the chosen k = {ks[0]} and k = {ks[1]} it is {pairs.loc[here, 'adjusted_rand'].iloc[0]:.2f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _ks(pairs: pd.DataFrame, name: str) -> set[int]:
    return {int(k) for x in PAIR for k in pairs.loc[pairs[x] == name, f"k_{x}"]}


def _table(pairs: pd.DataFrame, told: pd.DataFrame, called: dict[str, str], chosen: dict[str, int]) -> Table:
    """At which k each two clusterings agree most, and how far at the chosen k."""
    some = told[told["a"] != told["b"]]
    some = some if len(some) else told
    at_chosen = pairs[(pairs["k_a"] == pairs["a"].map(chosen)) & (pairs["k_b"] == pairs["b"].map(chosen))]
    usual = at_chosen.set_index(PAIR)["adjusted_rand"].to_dict()
    best = some.loc[some.groupby(PAIR)["adjusted_rand"].idxmax()].sort_values("adjusted_rand", ascending=False)
    rows = tuple[tuple[Cell, ...], ...](
        (
            f"{called[pair['a']]} at k = {pair['k_a']}",
            f"{called[pair['b']]} at k = {pair['k_b']}",
            pair["rows"],
            *(round(value, 3) for value in (pair["adjusted_rand"], pair["adjusted_mutual_info"])),
            _rounded(usual.get((pair["a"], pair["b"]))),
        )
        for pair in best.head(SHOWN).to_dict("records")
    )
    return Table(
        title="Where each two agree most",
        columns=("one", "other", "images", "Rand", "mutual information", "Rand at the chosen k"),
        rows=rows,
        formats=("text", "text", "count", "number", "number", "number"),
        caption=f"Both indices are adjusted for chance. The file has all {len(pairs):,} pairs.",
        file_name=FILE,
        content=pairs.to_csv(index=False, float_format="%.6f", lineterminator="\n").encode(),
    )
