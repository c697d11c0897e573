"""Options that are counts, seeds and shares: what is taken, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ranef.arguments import (
    Sampling,
    check_counts,
    check_known,
    check_options,
    check_positive,
    check_seed,
    file_path,
    in_words,
)
from ranef.errors import DataError, FitError, probability

NEW_ROWS = 'New rows are given to predict(), for draws with kind="observation", draws=True.'
ABSENT = 'Random effects are left out by groups="population", and chosen by terms=.'


@pytest.mark.parametrize("count", [1, 1000, np.int64(3)])
def test_positive_whole_numbers_are_counts(count):
    check_counts(draws=count, chains=count)


@pytest.mark.parametrize("count", [0, -1, 2.0, "4", None, True, np.nan, np.int64(0)])
def test_anything_else_is_no_count(count):
    with pytest.raises(FitError) as error:
        check_counts(draws=5, tune=count)
    assert str(error.value) == f"`tune` must be a positive whole number, got {count!r}."


@pytest.mark.parametrize("seed", [None, 0, 7, np.uint32(8), 2**63])
def test_whole_numbers_from_zero_on_are_seeds(seed):
    assert check_seed(seed) == seed
    assert type(check_seed(seed)) in (int, type(None))


@pytest.mark.parametrize("made", [np.random.default_rng, np.random.SeedSequence, np.random.PCG64])
def test_what_numpy_makes_seeds_of_gives_a_number(made):
    found = [check_seed(made(i)) for i in range(50)]
    assert found == [check_seed(made(i)) for i in range(50)]
    assert len(set(found)) == 50
    assert all(type(seed) is int and 0 <= seed < 2**63 for seed in found)


def test_a_generator_moves_on_and_a_seed_sequence_does_not():
    rng, sequence = np.random.default_rng(1), np.random.SeedSequence(1)
    assert check_seed(rng) != check_seed(rng)
    assert check_seed(sequence) == check_seed(sequence)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", False, [1, 2]])
def test_anything_else_is_no_seed(seed):
    with pytest.raises(FitError) as error:
        check_seed(seed)
    said = "`seed` must be None, a whole number from 0 on or a numpy Generator, got"
    assert str(error.value) == f"{said} {seed!r}."


@pytest.mark.parametrize("name", ["draws", "tune", "chains", "cores"])
def test_settings_of_the_sampler_are_counts(name):
    with pytest.raises(FitError) as error:
        Sampling(**{name: 0})
    assert str(error.value) == f"`{name}` must be a positive whole number, got 0."


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, np.nan])
def test_target_accept_is_a_share(share):
    with pytest.raises(FitError) as error:
        Sampling(target_accept=share)
    assert str(error.value) == f"`target_accept` must lie between 0 and 1, got {share!r}."


def test_a_seed_of_the_sampler_is_checked():
    with pytest.raises(FitError, match="`seed` must be None, a whole number"):
        Sampling(seed=-3)


def test_settings_under_the_names_of_nutpie():
    found = Sampling(draws=5, tune=6, chains=7, seed=8, cores=9, progressbar=False).of_nutpie()
    assert found == {
        "draws": 5,
        "tune": 6,
        "chains": 7,
        "seed": 8,
        "cores": 9,
        "target_accept": 0.9,
        "progress_bar": False,
        "save_warmup": False,
    }


@pytest.mark.parametrize("name", [["a"], np.array(["a", "b"]), None, pd.NA, "c"])
def test_names_that_are_not_known_are_refused_whatever_they_are(name):
    with pytest.raises(DataError, match=r"^there is none\. "):
        check_known(["a", name], ["a", "b"], lambda _: "there is none.", error=DataError)


@pytest.mark.parametrize(
    ("option", "known", "hint"),
    [
        ("nsim", ["n", "seed"], "It is `n`."),
        ("type", ["kind", "n"], "It is `kind`."),
        ("level", ["prob"], "It is `prob`."),
        ("level", ["n"], "Known names: `n`."),
        ("re_form", ["kind"], ABSENT),
        ("newdata", ["new_data"], "Did you mean `new_data`?"),
        ("newdata", ["fit", "at"], "It is `at`."),
        ("new_data", ["n"], NEW_ROWS),
    ],
)
def test_options_of_other_packages_lead_on(option, known, hint):
    with pytest.raises(FitError) as error:
        check_options("asked()", ["kind", option] if "kind" in known else [option], known)
    assert str(error.value) == f"asked() has no option `{option}`. {hint}"


def test_what_a_function_gives_stays_the_same():
    def powered(base, exponent=2):
        return base**exponent

    found = in_words(powered)
    assert (found(3), found(3, exponent=3), found.__name__) == (9, 27, "powered")
    with pytest.raises(FitError, match=r"^powered\(\) has no option `exponnt`. Did you mean"):
        found(3, exponnt=3)
    with pytest.raises(TypeError, match="missing 1 required"):
        found()


@pytest.mark.parametrize("path", [3, None, b"fit.zip", ["a"], SimpleNamespace()])
def test_what_is_no_path_of_a_file(path):
    with pytest.raises(FitError) as error:
        file_path(path)
    assert str(error.value) == f'a file is given by its path, such as "fit.zip", got {path!r}.'


def test_the_folder_of_the_user():
    assert file_path("~/fit.zip") == Path.home() / "fit.zip"


@pytest.mark.parametrize(
    ("call", "start"),
    [
        (lambda frame: check_counts(n=frame), "`n` must be a positive whole number"),
        (check_seed, "`seed` must be None, a whole number"),
        (probability, "`prob` must lie between 0 and 1"),
        (lambda frame: check_positive(sigma=frame), "`sigma` must be a positive number"),
    ],
)
def test_a_table_in_the_place_of_a_number_is_not_printed_in_an_error(call, start):
    with pytest.raises(FitError) as error:
        call(pd.DataFrame({"x": range(100)}))
    assert str(error.value).startswith(start)
    assert str(error.value).endswith(", got a DataFrame.")
