from __future__ import annotations

import pytest

from datasetdm.records.point_names import mirror, mirror_pairs, name_words


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("leftear", "rightear"), ("earL", "earR"), ("l_ear", "r_ear"), ("ear.left", "ear.right"), ("LEar", "REar"),
        ("earleft", "earright"), ("Left Ear", "Right Ear"), ("ear_l1", "ear_r1"), ("lf_paw", "rf_paw"), ("leg1L", "leg1R"),
        ("fl_paw", "fr_paw"), ("HL", "HR"), ("frontpaw_left", "frontpaw_right"),
    ],
)  # fmt: skip
def test_mirror_images_in_many_spellings(left: str, right: str) -> None:
    assert mirror(["snout", left, right, "tailbase"]) == [0, 2, 1, 3]
    assert mirror_pairs(["snout", right, left]) == [(right, left)]


def test_a_letter_before_or_behind_several_names() -> None:
    """As LSP and MPII have them; one such pair alone may be chance."""
    assert mirror(["lank", "rank", "lhip", "rhip", "head"]) == [1, 0, 3, 2, 4]
    assert mirror(["eyel", "eyer", "earl", "earr", "nose"]) == [1, 0, 3, 2, 4]
    assert mirror(["lank", "rank", "head"]) == [0, 1, 2]


def test_words_that_only_look_like_a_side() -> None:
    assert mirror(["bright", "cleft", "upright", "rear", "lear"]) == [0, 1, 2, 3, 4]
    assert name_words("cleft") == ("cleft",) and name_words("earleft") == ("ear", "left")
