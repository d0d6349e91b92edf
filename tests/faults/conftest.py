"""What several of these tests share."""

from pathlib import Path

import pytest
from tests.conftest import Lodestar
from tests.voucher_project import Voucher, make_voucher_project


@pytest.fixture(scope="module")
def voucher(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Voucher:
    target = tmp_path_factory.mktemp("voucher") / "project"
    return make_voucher_project(lodestar, sample_project, target)
