"""The verb that sends a study to a cluster: submit."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli_options import STORE, JsonOption, StoreOption, StudyArgument
from study.output import print_json, say, tell
from study.submission import MAX_UPLOAD_MB, Submission

if TYPE_CHECKING:
    from study.executors.jobs import Jobs, Started

CLUSTER, MANIFEST, UPLOAD = "Cluster", "Manifests", "Upload"


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    example = (
        "`revstudy submit depth.yaml --address http://127.0.0.1:8265 --store /mnt/results`, "
        "`revstudy submit depth.yaml --store /mnt/results --kuberay > job.yaml`"
    )
    app.command(epilog=f"Example: {example}")(submit)


def submit(
    study: StudyArgument,
    store: StoreOption = STORE,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="RAY_API_SERVER_ADDRESS",
            help="The cluster's dashboard, which takes jobs; http://127.0.0.1:8265 if not given.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            help="Follow the log to the end; --no-wait returns once the job is sent.", rich_help_panel=CLUSTER
        ),
    ] = True,
    stop: Annotated[
        bool,
        typer.Option(
            "--stop", help="Interrupt the study if it runs there; what is done is kept.", rich_help_panel=CLUSTER
        ),
    ] = False,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The driver's interpreter on the head node; found if not given.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Send this folder too, as the job's working directory (for data with relative paths).",
            rich_help_panel=UPLOAD,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Leave these files or folders of it out.", rich_help_panel=UPLOAD
        ),
    ] = None,
    max_upload_mb: Annotated[
        float, typer.Option(min=0, metavar="MB", help="Refuse to send more.", rich_help_panel=UPLOAD)
    ] = MAX_UPLOAD_MB,
    as_json: JsonOption = False,
) -> None:
    """Run a study on a Ray cluster, follow it, and exit with its exit code.

    Sent are the validated study and the Python code of this installation, some 300 kB. Its dependencies
    must be installed on every machine in the same versions; with other versions, or without, a machine is
    named before the first trial. `--working-dir` sends a folder too: what git ignores, hidden files (`.git`,
    `.env`), caches and results stores stay here.

    STORE must be a path (or URL such as s3://bucket/results) under which every machine of the cluster reaches
    the same storage. That is checked before the first trial, and machines that cannot write to it are named.

    The job's id is made from the study and the store. Submitted again while it runs, it is followed, not
    started twice; submitted again after it ended, what is left is trained. Ctrl-C lets go of the log and
    leaves the study running; `--stop` ends it.

    The token that clusters ask for is read from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or
    `~/.ray/auth_token`.
    """
    from study.spec import load_study

    submission = Submission(
        study=load_study(study),
        store=store,
        folder=working_dir,
        exclude=tuple(exclude or ()),
        max_upload_mb=max_upload_mb,
        python=python,
    )
    from study.executors.jobs import Jobs

    jobs = Jobs(address)
    if stop:
        raise typer.Exit(_stop(jobs, submission, as_json))
    for warning in submission.warnings():
        tell(f"revstudy: {warning}")
    started = jobs.submit(submission)
    command = f"revstudy submit {shlex.quote(study)} --store {shlex.quote(store)} --address {jobs.url}"
    _say_started(started, jobs)
    if not wait:
        tell(f"follow it: {command}\nstop it:   {command} --stop")
        if as_json:
            print_json(_json(submission, started, jobs, status=None, code=None))
        else:
            say(started.id)
        return
    raise typer.Exit(_follow(jobs, submission, started, command, as_json))


def _follow(jobs: Jobs, submission: Submission, started: Started, command: str, as_json: bool) -> int:
    from study.executors.jobs import INTERRUPTED, exit_code

    stream = sys.stderr if as_json else sys.stdout

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    try:
        details = jobs.follow(started.id, write)
    except KeyboardInterrupt:
        tell(f"\nLet go of {started.id}, which runs on.\nfollow it: {command}\nstop it:   {command} --stop")
        return INTERRUPTED
    code = exit_code(details)
    tell(f"{started.id}: {details.status.value.lower()}, exit code {code}")
    if as_json:
        print_json(_json(submission, started, jobs, status=details.status.value, code=code))
    return code


def _stop(jobs: Jobs, submission: Submission, as_json: bool) -> int:
    job_id = jobs.running(submission.id)
    if job_id is not None:
        jobs.stop(job_id)
    name = submission.study.name
    if as_json:
        print_json({"study": name, "store": submission.store, "address": jobs.url, "stopped": job_id})
    elif job_id is None:
        say(f"{name} is not running on {jobs.url} with this study file and store.")
    else:
        say(f"Stopped {job_id}. What is done is kept; submit again to go on.")
    return 0


def _say_started(started: Started, jobs: Jobs) -> None:
    if started.joined:
        tell(f"{started.id} is running on {jobs.url} already: following it")
    else:
        size = f"{started.uploaded_bytes / 1e3:.1f} kB" if started.uploaded_bytes < 1e6 else ""
        size = size or f"{started.uploaded_bytes / 1e6:.1f} MB"
        files = "the study" if started.files == 1 else f"{started.files} files"
        tell(f"{started.id} sent to {jobs.url}: {files} ({size}) and this version's code")


def _json(
    submission: Submission, started: Started, jobs: Jobs, *, status: str | None, code: int | None
) -> dict[str, Any]:
    return {
        "study": submission.study.name,
        "store": submission.store,
        "address": jobs.url,
        "submission_id": started.id,
        "already_running": started.joined,
        "status": status,
        "exit_code": code,
    }
