"""Who trains which run: a lease on it, kept alive by a heartbeat, without a shared clock.

A claim is a file that lives while its run is trained. It is a lease and no fence: who was
frozen for longer than it lasts is told so, and stops before it writes anything more.
"""

import os
import re
import time
from pathlib import Path

import filelock

from experiments.files import read_json, write_json

LEASE = 60.0  # seconds without a heartbeat after which a claim is another's to take
OWNER = re.compile(r"^(host|pid)=(.*)$", re.MULTILINE)  # in a claim
MOST_STARTS = 3  # without progress between them


class ClaimLostError(RuntimeError):
    """Another process has taken the run that this one trains."""


class Claims:
    """The claims in a folder.

    Args:
      folder: of the claims.
      lease: seconds; the same for all that share the folder.
    """

    def __init__(self, folder: Path, lease: float = LEASE) -> None:
        self.folder = folder
        self.lease = lease
        # Kept between tries: a claim is seen to be stale from the first look on.
        self._leases: dict[str, filelock.SoftFileLease] = {}
        self._unsigned: dict[tuple[str, int, int], float] = {}  # an empty claim: first seen

    def take(self, run: str) -> bool:
        """Takes the claim on a run unless another process has it."""
        lease = self._leases.get(run)
        if lease is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            lease = filelock.SoftFileLease(self.folder / run, lease_duration=self.lease)
            self._leases[run] = lease
        try:
            lease.acquire(timeout=0)
        except filelock.Timeout:
            self._clear_unsigned(run)
            return False
        return True

    def _clear_unsigned(self, run: str) -> None:
        """Removes a claim that stayed empty for a lease: it would stand for ever.

        Its process was killed after it had made the file and before it wrote who it is;
        `filelock` takes an empty file for the claim of a release that wrote nothing.
        """
        file = self.folder / run
        try:
            found = file.stat()
        except FileNotFoundError:  # it was released meanwhile
            return
        if found.st_size == 0:
            key = (run, found.st_ino, found.st_mtime_ns)
            since = self._unsigned.setdefault(key, time.monotonic())
            if time.monotonic() - since >= self.lease:
                file.unlink(missing_ok=True)

    def release(self, run: str) -> None:
        """Lets go of the claim."""
        self._leases.pop(run).release()

    def check(self, run: str) -> None:
        """Raises ClaimLostError where the claim that was taken is another's now."""
        lease, file = self._leases[run], self.folder / run
        # The heartbeat finds out too, but not before its next beat.
        if lease.compromise or not _holds(file, str(lease.token)):
            raise ClaimLostError(f"another process has taken over {run}")

    def begin(self, run: str, step: int) -> int:
        """Counts a start.

        Args:
          run: its id.
          step: of its last checkpoint.

        Returns:
          How often it was begun at this step, this time included.
        """
        before = self._before(run)
        starts = before["starts"] + 1 if before["step"] == step else 1
        write_json(self._tries(run), {"starts": starts, "step": step})
        return starts

    def undo(self, run: str) -> None:
        """Does not count the start: the run was stopped, and did not fail."""
        before = self._before(run)
        write_json(self._tries(run), {**before, "starts": before["starts"] - 1})

    def forget(self, run: str) -> None:
        """Removes what is known of an ended run's starts."""
        self._tries(run).unlink(missing_ok=True)

    def held(self) -> list[str]:
        """The runs whose claims are kept alive, by what can be told from here."""
        if not self.folder.exists():
            return []
        claimed = [name for name in os.listdir(self.folder) if "." not in name]
        return [name for name in claimed if self._is_alive(self.folder / name)]

    def _is_alive(self, claim: Path) -> bool:
        """Whether its heart beats; a process of this machine that is gone has none."""
        try:
            age = time.time() - claim.stat().st_mtime
            said = dict(OWNER.findall(claim.read_text()))
        except OSError:  # it was released meanwhile
            return False
        here = said.get("host") == os.uname().nodename
        gone = here and not Path(f"/proc/{said.get('pid')}").exists()
        return not gone and age < 2 * self.lease

    def _tries(self, run: str) -> Path:
        return self.folder / f"{run}.tries"

    def _before(self, run: str) -> dict[str, int]:
        file = self._tries(run)
        return read_json(file) if file.exists() else {"starts": 0, "step": -1}


def _holds(file: Path, token: str) -> bool:
    try:
        return token in file.read_text()
    except FileNotFoundError:
        return False
