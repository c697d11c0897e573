"""What the page says, under each condition that its words depend on."""

import numpy as np
import pytest
from explorer_pages import held, in_node, page

import ranef as rf

STORY = """
const {storyOf, firstGroup} = await use("story"), {prepared, fitAt} = await use("model");
const {vocabulary} = await use("words"), {layoutOf} = await use("layout");
const {remlSetting} = await use("sliders"), d = given.data, q = prepared(d), f = fitAt(q, remlSetting(d));
const w = vocabulary(d, f.population), l = layoutOf(d, q, f);
return {first: d.groups.labels[firstGroup(d, q, w, l)],
        steps: storyOf(d, q, w, l).map(s => [s.question, s.answer, s.view, s.active])};
"""


def steps(data):
    found = in_node(STORY, data=data)["steps"]
    assert not [text for step in found for text in step[:2] if "NaN" in text or "undefined" in text]
    return found


def test_the_story_of_two_coefficients():
    found = in_node(STORY, data=held(page("sleepstudy")))
    assert found["first"] == "308"
    assert [step[:2] for step in found["steps"]] == [
        [
            "Every subject alone, nothing shared: which of the 18 rings do you believe least? Tap it.",
            "No pooling: the model repeats each subject's own line, no arrow has any length, and the "
            "intervals are as wide as they get.",
        ],
        [
            "Now suppose all subjects are alike: where do 18 lines go, and how sure will the model be?",
            "Complete pooling: one line for all, so subject 335 (own −2.9) and subject 308 (own 21.8) "
            "get the same 10.5 ms per day, with the narrowest intervals and the worst fit.",
        ],
        [
            "Between these ends, where would you leave the slider?",
            "The data have a say: REML puts the sd of Days at 5.92, the posterior between 3.9 and "
            "9.5 ms per day (95 %), far from both ends.",
        ],
        [
            "If a high Intercept came with a low Days, which way would the arrows turn?",
            "A correlation of −0.8 tilts the ellipse and turns the arrows: data on one coefficient "
            "now move the other.",
        ],
        [
            "A subject nobody has measured: what would you predict, and how sure are you?",
            "A new subject's Days lies between −1.5 and 22.5 ms per day (95 %): how much subjects "
            "differ is what decides, not how well the mean is known; pull the slider to either end "
            "and see the bar at the top.",
        ],
    ]
    assert [step[2:] for step in found["steps"]] == [
        ["v2", "all"], ["v1", "all"], ["v4", "sd1"], ["v2", "corr"], ["v3", "all"]
    ]  # fmt: skip


def test_the_story_of_one_coefficient():
    found = in_node(STORY, data=held(page("schools")))
    (q1, a1, *_), (_, a2, *_), _, (q4, a4, *_), _ = found["steps"]
    assert found["first"] == "64"
    assert q1.endswith("are the most extreme rings large schools or small ones? Tap one.")
    assert a1 == (
        "No pooling: of the 10 most extreme own means, 9 belong to schools with fewer pupils than the "
        "median school: extreme, because there is little to average."
    )
    assert a2.endswith(
        "but 36 % of the schools lie outside the dotted funnel, where chance alone would put 5 %."
    )
    assert q4 == "Which moves further: school 64 with 1 pupil, or school 61 with 72 pupils?"
    assert a4 == (
        "School 64 keeps 13 % of its distance from the mean, school 61 92 %: own data count as much "
        "as there are of them."
    )


def test_reml_at_zero_and_equal_sizes():
    """Dyestuff2: nothing is left of any group at REML, and no group is larger than another."""
    (_, a1, *_), (_, a2, *_), (_, a3, *_), (q4, a4, *_), (_, a5, *_) = steps(held(page("zero")))
    assert a1 == (
        "No pooling: the model repeats each batch's own mean; all rest on 5 rows, so that no ring is "
        "much more certain than another."
    )
    assert a2.endswith("0 % of the batches lie outside the dotted funnel, no more than the 5 % of "
                       "chance alone.")  # fmt: skip
    assert a3.startswith(
        "The data have a say: REML puts the sd between batches at 0: own estimates differ no more "
        "than chance within batches would make them; the posterior puts it between 0 and "
    )
    assert a3.endswith("(95 %): that all batches are alike is not ruled out.")
    assert q4 == "Which moves further: batch C, the most extreme, or batch E, in the middle?"
    assert a4.startswith("With an sd of 0.8")
    assert "all batches keep about" in a4
    assert "if batches are all alike, as REML has it, and that is too sure: with an sd of" in a5


def test_equal_sizes_alone():
    _, _, _, (_, a4, *_), (_, a5, *_) = steps(held(page("equal")))
    assert a4.startswith("All batches keep about 78 % of their distance from the overall mean")
    assert a5.startswith("Between 1437 and 1618 g (95 %): how much batches differ")


def test_without_a_correlation_scatter_is_asked_for():
    assert steps(held(page("diagonal")))[3][3] == "sigma"


def changed(name, **reml):
    data = held(page(name))
    data["reml"].update(reml)
    return data


def test_a_correlation_at_the_edge_is_said():
    answer = steps(changed("sleepstudy", corr=1))[3][1]
    assert (
        "REML's own is 1, the edge, where all arrows end on one line; the posterior has" in answer
    )


def test_sds_of_zero_have_nothing_to_turn():
    answer = steps(changed("sleepstudy", sd=[0, 0], corr=None))[3][1]
    assert answer.endswith("there is nothing to turn: the sds here are the middles of the sliders.")


def test_groups_with_too_few_rows_are_counted(tmp_path):
    sleep = rf.load_dataset("sleepstudy")
    few = sleep[(sleep["Subject"].astype(str) != "335") | (sleep["Days"] == 0)]
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", few, "ml")
    answer = steps(held(fit.explore_shrinkage(tmp_path / "p.html")))[0][1]
    assert "own line (1 of 18 subjects have too few rows for one), no arrow" in answer


def test_without_a_posterior_nothing_is_made_up():
    data = held(page("equal")) | {"missing": "because."}
    data["posterior"] = {"sigma": None, "sd": [None], "corr": None}
    assert steps(data)[2][1].endswith("at 42.0, there is no posterior to ask.")


WORDS = """
const m = await use("words"), {prepared, fitAt} = await use("model"), {remlSetting} = await use("sliders");
const d = given.data, q = prepared(d), f = fitAt(q, given.at ?? remlSetting(d)), w = m.vocabulary(d, f.population);
return m.groupWords(w, f, d.groups.labels.indexOf(given.group), false);
"""


def test_the_sentence_of_a_group():
    assert in_node(WORDS, data=held(page("schools")), group="64") == [
        "Own 10.0, overall mean 5.6, model 6.2 points: 13 % own data, 87 % overall mean."
    ]
    found = in_node(WORDS, data=held(page("sleepstudy")), group="308")
    assert found[0] == (
        "Intercept: own 244, all 251, model 254 ms = 251 −5 (by its own Intercept) "
        "+8 (by its own Days)."
    )


def test_misfit():
    body = 'const {misfitWords} = await use("words"); return given.d.map(d => misfitWords(d, false)[0]);'
    found = in_node(body, d=[0, 0.2, 3, 2 * np.log(661453), 40])
    assert found == [
        "Nowhere are the data more probable: this is the REML estimate.",
        "The data are nearly as probable here as at the REML estimate.",
        "The data are 1/4.5 as probable here as at the REML estimate.",
        "The data are 1/661,453 as probable here as at the REML estimate.",
        "The data are less than a millionth as probable here as at the REML estimate.",
    ]


@pytest.mark.parametrize(
    ("sd", "words"), [(0.0, "0"), (24.74, "24.7"), (5.922, "5.92"), (1e9, "∞"), (118.4, "118")]
)
def test_sds(sd, words):
    body = 'const {vocabulary} = await use("words"); return vocabulary(given.data, [251, 10]).sd(given.sd);'
    assert in_node(body, data=held(page("sleepstudy")), sd=sd) == words
