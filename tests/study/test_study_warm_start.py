"""A search that starts from an earlier study: what it takes over, and when it is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial

from farsearch.errors import BadInput, StudyMismatch
from farsearch.study.optuna_adapter import queued_params
from farsearch.study.random_configs import draw_params
from farsearch.study.search import Search
from farsearch.study.warm_start import WarmStart, find_warm_start
from tests.beds import Bed, make_bed


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory, tiny_distilbert: Path) -> Iterator[Bed]:
    """Return the tiny task with the tiny DistilBERT."""
    with make_bed(tmp_path_factory.mktemp("bed"), tiny_distilbert) as made:
        yield made


def earlier_study(bed: Bed, home: Path, count: int = 12) -> Search:
    """Return a study with complete trials: the metric rises with memory and time, so that all are on its front."""
    search = bed.search(home, "earlier")
    distributions = bed.job.space.distributions(search.layers)
    for i, params in enumerate(draw_params(distributions, count, np.random.default_rng(0))):
        values = [0.6 + 0.02 * i, 500.0 + i, 10.0 + i]
        search.study.add_trial(create_trial(params=params, distributions=distributions, values=values))
    return search


def find(search: Search, name: str = "new", **changes: Any) -> WarmStart | None:
    """Return what a study of this name, with these changes of the settings, would start from."""
    store = search.store
    settings = dataclasses.replace(store_settings(search), **changes)
    return find_warm_start(store, "earlier", name, settings)


def store_settings(search: Search) -> Any:
    """Return the settings of a search's study."""
    from farsearch.records import StudySettings

    return StudySettings.from_dict(search.study.user_attrs["settings"])


def begun(bed: Bed, home: Path, warm: WarmStart | None) -> Search:
    """Return a new study that has enqueued its first trials."""
    search = bed.search(home, "new")
    if warm is not None:
        search.start_from(warm)
    search.prepare(8)
    return search


def test_first_trials_are_of_the_earlier_front(bed: Bed, tmp_path: Path) -> None:
    """From the best metric down to the floor, after the starts of the space."""
    earlier = earlier_study(bed, tmp_path)
    warm = find(earlier)
    assert warm is not None
    metrics = [warm.values[warm.params.index(params)][0] for params in warm.starts]
    assert metrics[0] == pytest.approx(0.82)
    assert metrics == sorted(metrics, reverse=True)
    plain = [queued_params(trial) for trial in begun(bed, tmp_path / "plain", None).study.get_trials()]
    queued = [queued_params(trial) for trial in begun(bed, tmp_path, warm).study.get_trials()]
    assert queued[: len(plain)] == plain
    added = queued[len(plain) :]
    assert 0 < len(added) <= 4
    assert all(params in warm.starts for params in added)


def test_study_keeps_what_it_started_from(bed: Bed, tmp_path: Path) -> None:
    """It is resumed alike when the earlier study has got more trials, or is gone."""
    earlier = earlier_study(bed, tmp_path)
    warm = find(earlier)
    search = begun(bed, tmp_path, warm)
    assert WarmStart.of(search.study) == warm
    assert find(earlier) is None
    earlier.store.delete("earlier")
    assert find(search) is None
    assert WarmStart.of(search.study) == warm


def test_other_tasks_and_devices_are_accepted(bed: Bed, tmp_path: Path) -> None:
    """Only model and space have to be the same."""
    earlier = earlier_study(bed, tmp_path)
    job = dataclasses.replace(store_settings(earlier).job, task="cola", data="other")
    assert find(earlier, job=job, device="raspberry-pi-4") is not None


def test_another_model_or_space_is_refused(bed: Bed, tmp_path: Path) -> None:
    """The error names both."""
    earlier = earlier_study(bed, tmp_path)
    settings = store_settings(earlier)
    with pytest.raises(StudyMismatch, match="'bert'"):
        find(earlier, job=dataclasses.replace(settings.job, model="bert"))
    with pytest.raises(StudyMismatch, match="another space"):
        find(earlier, space={**settings.space, "name": "other"})


def test_a_study_that_can_teach_nothing_is_refused(bed: Bed, tmp_path: Path) -> None:
    """It is the new one, does not exist, or has no complete trial."""
    earlier = earlier_study(bed, tmp_path, count=0)
    for name, what in (("new", "no complete trial"), ("earlier", "itself")):
        with pytest.raises(BadInput, match=what):
            find(earlier, name)
    with pytest.raises(BadInput, match="'missing' is not in"):
        find_warm_start(earlier.store, "missing", "new", store_settings(earlier))


def test_begun_study_is_not_given_another_start(bed: Bed, tmp_path: Path) -> None:
    """Neither one that has begun without, nor one that started from another."""
    earlier = earlier_study(bed, tmp_path)
    begun(bed, tmp_path, None)
    with pytest.raises(StudyMismatch, match="has begun without a warm start"):
        find(earlier)


def test_search_with_a_warm_start_trains(bed: Bed, tmp_path: Path) -> None:
    """Trials of the earlier front and proposals of the model, the same in parts as in one run."""
    warm = find(earlier_study(bed, tmp_path))
    assert warm is not None

    def search(home: Path) -> Search:
        made = bed.search(home, "new")
        made = Search(
            made.study, made.store, bed.bench, bed.pricer, bed.job.space, "known-cost", made.goal, made.watcher
        )
        made.start_from(warm)
        return made

    search(tmp_path / "parts").run(6)
    parts, whole = search(tmp_path / "parts").run(8), search(tmp_path / "whole").run(8)
    assert [trial.config for trial in parts.complete] == [trial.config for trial in whole.complete]
    assert len(whole.trials) == 8
    assert {trial.state for trial in search(tmp_path / "whole").study.get_trials()} <= {
        TrialState.COMPLETE,
        TrialState.PRUNED,
    }
