"""The whole text of `print(model)`, and when a note is due."""

import numpy as np
import pandas as pd
import pytest
from generalized_fits import design_of

import ranef as rf
from ranef.families.names import find_family
from ranef.model.describe import describe, notes, relations
from ranef.priors.assignment import PriorRow
from ranef.priors.distributions import Normal

SNAPSHOTS = {
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)"): """\
Reaction ~ Days + (Days | Subject)
  gaussian family with identity link, 180 rows

Fixed effects
  Intercept, Days

Random effects
  (1 + Days | Subject)
    18 levels of Subject, each with its own Intercept and Days
    2 standard deviations and 1 correlation

Priors of a Bayesian fit, in units of Reaction
  beta[Intercept]        Normal(298.5, 140.8)    at the mean of the predictors
  beta[Days]             Normal(0, 48.89)
  sigma                  HalfStudentT(3, 56.33)
  sd_Subject[Intercept]  HalfStudentT(3, 56.33)
  sd_Subject[Days]       HalfStudentT(3, 19.56)
  corr_Subject           LKJ(2)
""",
    ("Pastes", "strength ~ 1 + (1|batch) + (1|cask)"): """\
strength ~ 1 + (1|batch) + (1|cask)
  gaussian family with identity link, 60 rows

Fixed effects
  Intercept

Random effects
  (1 | batch)
    10 levels of batch, each with its own Intercept
    1 standard deviation
  (1 | cask)
    3 levels of cask, each with its own Intercept
    1 standard deviation

Grouping factors
  batch and cask are crossed: every combination occurs

Priors of a Bayesian fit, in units of strength
  beta[Intercept]      Normal(60.05, 8.095)
  sigma                HalfStudentT(3, 3.238)
  sd_batch[Intercept]  HalfStudentT(3, 3.238)
  sd_cask[Intercept]   HalfStudentT(3, 3.238)

Note: the labels of batch start anew within the levels of cask, and the other way round. As it
stands, the two are crossed; if batch A of one cask has nothing to do with batch A of another, write
(1 | cask/batch); if cask a of one batch has nothing to do with cask a of another, write (1 |
batch/cask).
Note: cask has 3 levels: the data say little about how much such levels vary, so the prior of a
Bayesian fit says much.
""",
    ("Pastes", "strength ~ 1 + (1|batch/cask)"): """\
strength ~ 1 + (1|batch/cask)
  gaussian family with identity link, 60 rows

Fixed effects
  Intercept

Random effects
  (1 | cask:batch)
    30 levels of cask:batch, each with its own Intercept
    1 standard deviation
  (1 | batch)
    10 levels of batch, each with its own Intercept
    1 standard deviation

Grouping factors
  cask:batch is nested in batch

Priors of a Bayesian fit, in units of strength
  beta[Intercept]           Normal(60.05, 8.095)
  sigma                     HalfStudentT(3, 3.238)
  sd_cask:batch[Intercept]  HalfStudentT(3, 3.238)
  sd_batch[Intercept]       HalfStudentT(3, 3.238)
""",
    ("Penicillin", "diameter ~ 1 + (1|plate) + (1|sample)"): """\
diameter ~ 1 + (1|plate) + (1|sample)
  gaussian family with identity link, 144 rows

Fixed effects
  Intercept

Random effects
  (1 | plate)
    24 levels of plate, each with its own Intercept
    1 standard deviation
  (1 | sample)
    6 levels of sample, each with its own Intercept
    1 standard deviation

Grouping factors
  plate and sample are crossed: every combination occurs

Priors of a Bayesian fit, in units of diameter
  beta[Intercept]       Normal(22.97, 5.078)
  sigma                 HalfStudentT(3, 2.031)
  sd_plate[Intercept]   HalfStudentT(3, 2.031)
  sd_sample[Intercept]  HalfStudentT(3, 2.031)
""",
    ("ScotsSec", "attain ~ sex*verbal + (1|primary) + (1|second)"): """\
attain ~ sex*verbal + (1|primary) + (1|second)
  gaussian family with identity link, 3435 rows

Fixed effects
  Intercept, sex[T.F], verbal, sex[T.F]:verbal
  sex: treatment coding, reference M

Random effects
  (1 | primary)
    148 levels of primary, each with its own Intercept
    1 standard deviation
  (1 | second)
    19 levels of second, each with its own Intercept
    1 standard deviation

Grouping factors
  primary and second are partially crossed: 303 of 2812 combinations occur

Priors of a Bayesian fit, in units of attain
  beta[Intercept]        Normal(5.679, 7.646)    at the mean of the predictors
  beta[sex[T.F]]         Normal(0, 7.646)        at the mean of the predictors
  beta[verbal]           Normal(0, 0.5752)       at the mean of the predictors
  beta[sex[T.F]:verbal]  Normal(0, 1.157)
  sigma                  HalfStudentT(3, 3.059)
  sd_primary[Intercept]  HalfStudentT(3, 3.059)
  sd_second[Intercept]   HalfStudentT(3, 3.059)
""",
    ("Machines", "score ~ 1 + (Machine || Worker)"): """\
score ~ 1 + (Machine || Worker)
  gaussian family with identity link, 54 rows

Fixed effects
  Intercept

Random effects
  (1 + Machine || Worker)
    6 levels of Worker, each with its own Intercept, Machine[T.B] and Machine[T.C]
    3 standard deviations and no correlations

Priors of a Bayesian fit, in units of score
  beta[Intercept]          Normal(59.65, 20.19)
  sigma                    HalfStudentT(3, 8.076)
  sd_Worker[Intercept]     HalfStudentT(3, 8.076)
  sd_Worker[Machine[T.B]]  HalfStudentT(3, 8.076)
  sd_Worker[Machine[T.C]]  HalfStudentT(3, 8.076)

Note: Machine[T.B] and Machine[T.C] vary by Worker around a mean of zero, as they are not among the
fixed effects.
""",
    ("Oats", "yield ~ nitro + Variety + offset(nitro*2) + (0 + Variety | Block)"): """\
yield ~ nitro + Variety + offset(nitro*2) + (0 + Variety | Block)
  gaussian family with identity link, 72 rows with prior weights and an offset

Fixed effects
  Intercept, nitro, Variety[T.Marvellous], Variety[T.Victory]
  Variety: treatment coding, reference Golden Rain

Random effects
  (0 + Variety | Block)
    6 levels of Block, each with its own Variety[Golden Rain], Variety[Marvellous] and
    Variety[Victory]
    3 standard deviations and 3 correlations

Priors of a Bayesian fit, in units of yield
  beta[Intercept]                 Normal(103.4, 66.96)    at the mean of the predictors
  beta[nitro]                     Normal(0, 297.4)
  beta[Variety[T.Marvellous]]     Normal(0, 66.96)
  beta[Variety[T.Victory]]        Normal(0, 66.96)
  sigma                           HalfStudentT(3, 32.81)
  sd_Block[Variety[Golden Rain]]  HalfStudentT(3, 26.79)
  sd_Block[Variety[Marvellous]]   HalfStudentT(3, 26.79)
  sd_Block[Variety[Victory]]      HalfStudentT(3, 26.79)
  corr_Block                      LKJ(2)
""",
}


@pytest.mark.parametrize(("data", "formula"), SNAPSHOTS)
def test_the_expansion_of_a_formula(data, formula):
    frame = rf.load_dataset(data)
    weights = np.linspace(1, 2, len(frame)) if "offset" in formula else None
    model = rf.Model(formula, frame, weights=weights)
    assert f"{model!r}\n" == SNAPSHOTS[data, formula]
    assert str(model) == repr(model)


def random_frame(n=48, **columns):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n)})
    return frame.assign(
        g=np.repeat([f"g{i}" for i in range(8)], n // 8),
        f=rng.choice(["u", "v", "w"], size=n),
        **columns,
    )


def notes_of(formula, frame):
    return notes(rf.Model(formula, frame).design)


# ------------------------------------------------------------------------- how factors are related


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1 | a) + (1 | b)", ["a and b are crossed: every combination occurs"]),
        ("(1 | a) + (1 | c)", ["a is nested in c"]),
        ("(1 | c) + (1 | a)", ["a is nested in c"]),
        ("(1 | a) + (1 | d)", ["a and d are partially crossed: 16 of 24 combinations occur"]),
        ("(1 | c/b)", ["b:c is nested in c"]),
        ("(1 | a) + (0 + x | a)", []),
        ("(1 | a)", []),
        (
            "(1 | a) + (1 | c) + (1 | b)",
            [
                "a is nested in c",
                "a and b are crossed: every combination occurs",
                "c and b are crossed: every combination occurs",
            ],
        ),
    ],
)
def test_pairs_of_grouping_factors(text, expected):
    i = np.arange(48)
    frame = random_frame(a=i // 6, b=i % 3, c=i // 12, d=(i // 4) % 3)
    assert frame.groupby(["a", "d"]).ngroups == 16
    assert relations(rf.Model(f"y ~ x + {text}", frame).design) == expected


# ------------------------------------------------------------------------------------- the notes


def test_labels_that_start_anew_are_noted():
    frame = random_frame(pupil=np.tile([1, 2, 3], 16))
    (nesting, few) = notes_of("y ~ x + (1 | g) + (1 | pupil)", frame)
    assert nesting == (
        "the labels of g start anew within the levels of pupil, and the other way round. As it "
        "stands, the two are crossed; if g g0 of one pupil has nothing to do with g g0 of another, "
        "write (1 | pupil/g); if pupil 1 of one g has nothing to do with pupil 1 of another, write "
        "(1 | g/pupil)."
    )
    assert few == (
        "pupil has 3 levels: the data say little about how much such levels vary, so the prior of "
        "a Bayesian fit says much."
    )


@pytest.mark.parametrize(
    ("sites", "plots", "ways"),
    [
        ("ABC", (4, 4, 4), {"site/plot", "plot/site"}),  # every label in every level of the other
        ("AB", (20, 20), {"site/plot", "plot/site"}),
        ("ABCDEFGH", (3,) * 8, {"site/plot", "plot/site"}),
        ("ABC", (4, 4, 2), {"site/plot", "plot/site"}),  # a staircase
        ("ABC", (4, 3, 2), {"site/plot"}),  # site A alone has a plot 4
        ("ABC", (4, 3, 5), {"site/plot"}),
        ("ABC", (2, 10, 3), {"site/plot"}),
        ("AB", (19, 20), {"site/plot"}),
        ("ABCDEF", (2, 2, 2, 3, 2, 2), {"site/plot"}),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_note_on_nesting_says_no_more_than_the_data(sites, plots, ways, turned):
    cells = [(s, p) for s, n in zip(sites, plots, strict=True) for p in range(1, n + 1)]
    frame = pd.DataFrame(cells * 5, columns=["site", "plot"])
    frame["y"] = np.random.default_rng(1).normal(size=len(frame))
    terms = ["(1 | site)", "(1 | plot)"][:: -1 if turned else 1]
    text = " ".join(str(rf.Model(f"y ~ 1 + {' + '.join(terms)}", frame)).split())
    assert {way for way in ("site/plot", "plot/site") if f"(1 | {way})" in text} == ways


def labels_within(counts):
    return np.concatenate([np.repeat([f"p{i:02}" for i in range(c)], 6 // c) for c in counts])


@pytest.mark.parametrize(
    ("counts", "noted"),
    [
        ([6, 6, 3, 2, 6, 2, 3, 6], False),  # no replicates where there are six
        ([3, 3, 2, 2, 3, 2, 3, 3], True),
        ([3, 3, 1, 2, 3, 2, 3, 3], False),  # one label alone starts nothing
    ],
)
def test_unbalanced_nesting_is_noted_too(counts, noted):
    frame = random_frame(p=labels_within(counts))
    found = notes_of("y ~ x + (1 | g) + (1 | p)", frame)
    assert any("start anew" in note for note in found) is noted


def test_labels_that_go_on_are_not_noted():
    p = labels_within([3] * 8).reshape(8, 6)
    p[0, :2] = "p99"  # the first group has p01, p02 and p99
    frame = random_frame(p=p.ravel())
    assert not any("start anew" in note for note in notes_of("y ~ x + (1 | g) + (1 | p)", frame))


def test_explicit_nesting_needs_no_note():
    frame = random_frame(p=labels_within([3] * 8))
    assert notes_of("y ~ x + (1 | g/p)", frame) == []


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("y ~ 1 + (x | g)", ["x varies by g around a mean of zero, as it is"]),
        (
            "y ~ 1 + (x + f | g)",
            ["x, f[T.v] and f[T.w] vary by g around a mean of zero, as they are"],
        ),
        ("y ~ x + (x | g)", []),
        ("y ~ 0 + x + (1 | g)", ["Intercept varies by g around a mean of zero, as it is"]),
        ("y ~ 0 + (1 | g)", ["Intercept varies by g around a mean of zero, as it is"]),
        ("y ~ 0 + f + (1 | g)", []),  # the indicators of f add up to the intercept
        ("y ~ f + (0 + f | g)", []),
        ("y ~ 0 + f + (f | g)", []),
        ("y ~ f*x + (0 + f:x | g)", []),
        ("y ~ f + x + (0 + f:x | g)", ["f[u]:x, f[v]:x and f[w]:x vary by g around a mean"]),
    ],
)
def test_random_slopes_without_a_mean_are_noted(formula, expected):
    found = notes_of(formula, random_frame())
    assert len(found) == len(expected)
    for note, start in zip(found, expected, strict=True):
        assert note.startswith(start)
        assert note.endswith(" not among the fixed effects.")


@pytest.mark.parametrize("scale", [1e9, 1e-9])
def test_the_scale_of_a_column_makes_no_note(scale):
    frame = random_frame()
    frame["x"] *= scale
    assert notes_of("y ~ x + (x | g)", frame) == []
    assert len(notes_of("y ~ 1 + (x | g)", frame)) == 1


def test_one_level_is_described():
    text = repr(rf.Model("y ~ x + (1 | one)", random_frame(one="a")))
    assert "    1 level of one, each with its own Intercept\n    1 standard deviation\n" in text
    assert "Note: one has 1 level: the data say little" in text


def test_codings_are_described():
    text = repr(rf.Model("y ~ C(f, contr.sum) + C(g, contr.treatment('g3'))", random_frame()))
    assert "  C(f, contr.sum): sum coding\n" in text
    assert "  C(g, contr.treatment('g3')): treatment coding, reference g3\n" in text


def test_no_line_is_too_long():
    columns = np.random.default_rng(2).normal(size=(5, 48))
    frame = random_frame(**{f"column_number_{i}": x for i, x in enumerate(columns)})
    names = " + ".join(f"column_number_{i}" for i in range(5))
    text = repr(rf.Model(f"y ~ {names} + (0 + {names} || g)", frame))
    assert max(map(len, text.split("\n")[1:])) <= 100


# ------------------------------------------------------------------------ generalised models


PRIORS = (PriorRow("beta", "Intercept", Normal(0, 1.5), "at the mean"),)


def described(formula, data, family, choices=()):
    return str(describe(design_of(formula, data, family), family, PRIORS, choices))


CBPP = """\
cbind(incidence, size - incidence) ~ period + (1 | herd)
  binomial family with logit link, 56 rows with 842 trials

Fixed effects
  Intercept, period[T.2], period[T.3], period[T.4]
  period: treatment coding, reference 1

Random effects
  (1 | herd)
    15 levels of herd, each with its own Intercept
    1 standard deviation

Priors of a Bayesian fit, on the logit scale
  beta[Intercept]  Normal(0, 1.5)  at the mean

Random effects as MCMC samples them
  herd: non-centred (because)"""


def test_a_binomial_model():
    data = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    choices = ["herd: non-centred (because)"]
    assert described(formula, data, find_family("binomial"), choices) == CBPP


def test_what_counts_as_a_success_is_said():
    data = pd.DataFrame({"use": list("NYNYNY"), "x": range(6)})
    lines = described("use ~ x", data, find_family("binomial", "probit")).split("\n")
    assert lines[1:3] == [
        "  binomial family with probit link, 6 rows",
        "  success: use == 'Y'",
    ]
    assert "Priors of a Bayesian fit, on the probit scale" in lines
    assert not any("MCMC" in line for line in lines)


def test_priors_have_the_unit_of_the_linear_predictor():
    data = pd.DataFrame({"k": [0, 1, 4, 2], "x": range(4)})
    assert "on the log scale" in described("k ~ x", data, find_family("poisson"))
    assert "fit, in units of k\n" in described("k ~ x", data, find_family("poisson", "identity"))
    assert "fit, in units of k\n" in described("k ~ x", data, find_family("t"))


def test_long_reasons_are_wrapped():
    data = pd.DataFrame({"k": [0, 1, 4, 2], "x": range(4)})
    text = described("k ~ x", data, find_family("poisson"), ["why " * 60, "b"])
    assert max(map(len, text.split("\n"))) <= 100
    assert text.endswith("\n  b")


def test_independent_effects_depend_on_an_origin_that_was_not_observed():
    data = rf.load_dataset("sleepstudy").assign(year=lambda d: 1990 + d["Days"])
    expected = (
        "(1 + year || Subject) takes the effects to be independent where `year` is 0, which was "
        "not observed: `||` is another model for every origin. With I(year - 1990) they are "
        "independent at the nearest observed value; `|` fits the same from any origin."
    )
    model = rf.Model("Reaction ~ year + (year || Subject)", data)
    assert notes(model.design) == [expected]
    for right in ("(year | Subject)", "(I(year - 1990) || Subject)", "(1 | Subject)"):
        assert notes(rf.Model(f"Reaction ~ year + I(year - 1990) + {right}", data).design) == []
    assert "corr_Subject           LKJ(2)                  at year = 1990" in str(
        rf.Model("Reaction ~ year + (year | Subject)", data)
    )


def test_levels_that_differ_in_capitals_or_spaces_are_noted():
    data = pd.DataFrame({"y": np.sin(np.arange(40)), "answer": ["Ja", "ja ", "nein", "JA"] * 10})
    data["id"] = [f"{'pP'[i % 3 == 0]}{i % 7}" for i in range(40)]
    answer, ids = rf.Model("y ~ answer + (1 | id)", data).summary().notes
    words = "has levels that differ in capitals or spaces only:"
    assert answer == f"Note: answer {words} `JA`, `Ja` and `ja `."
    shown = "`P0` and `p0`, `P1` and `p1`, `P2` and `p2`, `P3` and `p3`, `P4` and `p4` and 2 more"
    assert ids == f"Note: id {words} {shown}."
    clean = data.assign(answer=data["answer"].str.strip().str.upper(), id=data["id"].str.upper())
    assert not rf.Model("y ~ answer + (1 | id)", clean).summary().notes
