"""Dropout masks are determined by their place in the training, on every machine."""

from __future__ import annotations

import hashlib

import pytest

from farsearch.runtime.onnx_engine.dropout import draw_mask


def test_a_mask_has_its_published_bits() -> None:
    """They must not change with a version: a savepoint of one board resumes on another."""
    mask = draw_mask((3, 14, 1, 5), (5, 123, 457), 0.1)
    digest = hashlib.sha256(mask.tobytes()).hexdigest()
    assert digest == "afc31aea0451c7dff52fac7cc800e95b15c81faa979b8ef6d0c185cc2aa44fe7"


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 2**-16])
def test_the_share_of_dropped_elements_is_p(p: float) -> None:
    size = 1 << 21
    dropped = int(draw_mask((0, 0, 0, 0), (size,), p).sum())
    assert abs(dropped - p * size) < 5 * (size * p * (1 - p)) ** 0.5


def test_nothing_is_dropped_at_0_and_all_at_1() -> None:
    assert not draw_mask((1, 2, 3, 4), (7, 9), 0.0).any()
    assert draw_mask((1, 2, 3, 4), (7, 9), 1.0).all()


def test_each_part_of_the_key_gives_another_mask() -> None:
    key = (1, 2, 3, 4)
    masks = {draw_mask(key, (1000,), 0.5).tobytes()}
    for i in range(4):
        masks.add(draw_mask((*key[:i], 99, *key[i + 1 :]), (1000,), 0.5).tobytes())
    assert len(masks) == 5
