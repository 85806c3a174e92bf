"""A study as a job of a cluster: sent once, followed, stopped, and judged by the exit code of its driver."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from study.cluster.reach import ClusterError, agree, ask_http
from study.cluster.submission import ENTRYPOINT, Submission
from study.ray_internals import job_client

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
REQUEST_TIMEOUT_S = 60.0
PATIENCE_S = 60.0
"""How long a dashboard that was there may be gone before following its job is given up."""
SILENCE_S = 60.0
STOP_TIMEOUT_S = 120.0
POLL_S = 0.5
INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Started:
    """A job on the cluster: its id, and whether it was running before."""

    id: str
    joined: bool
    files: int = 0
    uploaded_bytes: int = 0


def dashboard_url(address: str | None) -> str:
    """Return the URL of a cluster's dashboard, which takes jobs: as given, or of the environment, or this
    machine's.

    Raises:
        ClusterError: The address is of another kind.
    """
    fallback = os.environ.get("RAY_ADDRESS", "")
    url = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    url = url or (fallback if fallback.startswith(("http://", "https://")) else DEFAULT_ADDRESS)
    url = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest or any(c.isspace() for c in rest):
        raise ClusterError(
            f"address {address!r} is not that of a dashboard, such as {DEFAULT_ADDRESS}: jobs are taken there"
        )
    return url


class Jobs:
    """The jobs of one cluster.

    Args:
        address: Its dashboard, see `dashboard_url`.

    Raises:
        ClusterError: No dashboard answers within seconds, or it refuses the token.
    """

    def __init__(self, address: str | None = None) -> None:
        self.url = dashboard_url(address)
        wanted = ask_http(self.url) != 200
        agree(self.url, wanted=wanted, accepted=lambda shown: ask_http(self.url, shown) == 200)
        # Ray lets the environment win over what it is given.
        os.environ["RAY_API_SERVER_ADDRESS"] = self.url
        self._client = _asked(lambda: job_client(self.url, timeout_s=REQUEST_TIMEOUT_S), self.url)

    def attempts(self, base: str) -> list[JobDetails]:
        """The jobs of one study and store, oldest first."""
        jobs = self._ask(self._client.list_jobs)
        found = {_number(job.submission_id, base): job for job in jobs}
        return [found[number] for number in sorted(found) if number]

    def running(self, base: str) -> str | None:
        """The id of the attempt that has not ended, if there is one."""
        return next((j.submission_id for j in self.attempts(base) if not j.status.is_terminal()), None)

    def submit(self, submission: Submission) -> Started:
        """Send the study, unless it is running there: then that job is the answer.

        Returns:
            The job that trains the study.

        Raises:
            StudyError: What is to be sent is missing or too large.
            ClusterError: The cluster cannot be reached any more or takes no job.
        """
        attempts = self.attempts(submission.id)
        for job in attempts:
            if not job.status.is_terminal():
                return Started(id=str(job.submission_id), joined=True)
        last = _number(attempts[-1].submission_id, submission.id) if attempts else 0
        name = f"{submission.id}-{last + 1}"
        with TemporaryDirectory(prefix="revstudy-") as staged:
            files, size = submission.stage(Path(staged))
            metadata = {"study": submission.study.name, "store": submission.store}
            try:
                self._client.submit_job(
                    entrypoint=ENTRYPOINT,
                    submission_id=name,
                    runtime_env=submission.runtime_env(Path(staged)),
                    metadata=metadata,
                )
            except Exception as error:
                if "already exists" in str(error):  # somebody else's command was faster by a moment
                    return Started(id=name, joined=True)
                raise _failure(error, self.url) from error
        return Started(id=name, joined=False, files=files, uploaded_bytes=size)

    def details(self, job_id: str) -> JobDetails:
        """What the cluster knows of a job."""
        return self._ask(lambda: self._client.get_job_info(job_id))

    def follow(self, job_id: str, write: Callable[[str], None]) -> JobDetails:
        """Write what the driver writes until the job has ended, and return how.

        A connection that breaks is made again; what was written before is not written twice.

        Returns:
            The job as it ended.

        Raises:
            ClusterError: The dashboard has been gone for a minute. The job may be running on.
            KeyboardInterrupt: Passed through; the job runs on.
        """
        written, seen_at = 0, time.monotonic()

        async def tail() -> None:
            nonlocal written, seen_at
            position = 0
            lines = self._client.tail_job_logs(job_id)
            # After a minute of silence the dashboard is asked whether it is there, and the log anew.
            while (text := await asyncio.wait_for(anext(lines, None), SILENCE_S)) is not None:
                seen_at = time.monotonic()
                fresh = text[max(0, written - position) :]
                position += len(text)
                written = max(written, position)
                if fresh:
                    write(fresh)

        while True:
            try:
                details = self.details(job_id)
                seen_at = time.monotonic()
                if details.status.is_terminal():
                    self._rest(job_id, written, write)
                    return details
                asyncio.run(tail())
            except TimeoutError:
                continue  # of the silence, or of a connection: the dashboard is asked next
            except (ClusterError, OSError, RuntimeError) as error:
                if time.monotonic() - seen_at > PATIENCE_S:
                    raise ClusterError(
                        f"the dashboard at {self.url!r} has gone ({_first_line(error)}); job {job_id} may be "
                        "running on: submit again to follow it"
                    ) from error
            time.sleep(POLL_S)

    def stop(self, job_id: str) -> JobDetails:
        """Interrupt a job as Ctrl-C would, and wait until it has ended.

        Returns:
            The job as it ended.

        Raises:
            ClusterError: It has not ended in time.
        """
        self._ask(lambda: self._client.stop_job(job_id))
        ends_at = time.monotonic() + STOP_TIMEOUT_S
        while not (details := self.details(job_id)).status.is_terminal():
            if time.monotonic() > ends_at:
                raise ClusterError(f"job {job_id} has not ended {STOP_TIMEOUT_S:.0f} s after it was told to")
            time.sleep(POLL_S)
        return details

    def _rest(self, job_id: str, written: int, write: Callable[[str], None]) -> None:
        """What the log holds beyond what was written: all of it, if the job ended before it was followed."""
        try:
            rest = self._client.get_job_logs(job_id)[written:]
        except Exception:  # The log went with the machine; how the job ended is known all the same.
            return
        if rest:
            write(rest)

    def _ask(self, question: Callable[[], Any]) -> Any:
        return _asked(question, self.url)


def exit_code(details: JobDetails) -> int:
    """Return the exit code to pass on: the driver's own, 128 and the number of the signal that killed it, 130
    if the job was stopped.

    Raises:
        ClusterError: The driver did not get to an exit code: it could not be started, or its machine was
            lost.
    """
    if details.status == "STOPPED":
        return INTERRUPTED
    code = details.driver_exit_code
    if code is None:
        if details.status == "SUCCEEDED":
            return 0
        raise ClusterError(
            f"job {details.submission_id} failed before its driver ended: "
            f"{details.message or 'no reason given'}; what is done is kept, submit again to go on"
        )
    return 128 - code if code < 0 else int(code)


def _number(job_id: str | None, base: str) -> int:
    """The number of an attempt, or 0 for another study's job."""
    start, _, number = (job_id or "").rpartition("-")
    return int(number) if start == base and number.isdigit() else 0


def _asked(question: Callable[[], Any], url: str) -> Any:
    try:
        return question()
    except Exception as error:
        raise _failure(error, url) from error


def _failure(error: Exception, url: str) -> ClusterError:
    if isinstance(error, ClusterError):
        return error
    return ClusterError(f"the dashboard at {url!r} did not do what it was asked: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
