"""What tests of the real runtime share."""

from __future__ import annotations

import pytest

from tests.runtime.feature_run import FeatureRun, run_features


@pytest.fixture(scope="session")
def feature_run(tmp_path_factory: pytest.TempPathFactory) -> FeatureRun:
    return run_features(tmp_path_factory.mktemp("features"))
