"""A deprovision that is cut short at any step is made good by the next one (ruling 44)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.deprovision.image import Image
from waagent.plan import Executor
from waagent_deprovision.removal import Removal


class Killed(BaseException):
    """The process ends here, as with SIGKILL."""


class Mortal(Image):
    """A machine whose command dies after so many steps, or in the middle of one."""

    lives: int | None = None
    within = False

    def executor_in(self, directory: str) -> Executor:
        executor = super().executor_in(directory)
        run_step = executor._run_step

        def run(running: object, step: object) -> object:
            if self.lives is not None:
                self.lives -= 1
                if self.lives < 0:
                    if self.within:
                        step.run()  # type: ignore[attr-defined]
                    raise Killed
            return run_step(running, step)  # type: ignore[arg-type]

        executor._run_step = run  # type: ignore[method-assign, assignment]
        return executor


def count_of_steps(image: Image) -> int:
    return len(image.executor.dry_run(Removal(image, True).plan()))


@pytest.mark.parametrize("within", [False, True])
def test_killed_at_every_step(tmp_path: Path, within: bool) -> None:
    whole = Image(tmp_path / "whole")
    whole.configure("Provisioning.DeleteRootPassword=y\nDeprovision.Also=histories,fstab\n")
    steps = count_of_steps(whole)
    assert steps > 12
    assert whole.deprovision(force=True) == 0
    for number in range(steps):
        image = Mortal(tmp_path / f"killed {number}")
        image.configure("Provisioning.DeleteRootPassword=y\nDeprovision.Also=histories,fstab\n")
        image.lives, image.within = number, within
        with pytest.raises(Killed):
            image.deprovision(force=True)
        image.lives = None
        assert image.deprovision(force=True) == 0, f"after step {number}: {image.lines[-5:]}"
        assert image.tree() == whole.tree(), f"killed at step {number}"
        assert ("delete_user", "ops") in image.distro.calls
