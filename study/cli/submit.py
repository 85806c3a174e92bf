"""The verb that sends a study to a cluster: submit."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import typer

from study.cli import interrupts
from study.cli.options import STORE, JsonOption, StoreOption, StudyArgument, with_options
from study.cli.output import print_json, say, tell
from study.cli.submit_options import JobOptions, ManifestOptions, UploadOptions

if TYPE_CHECKING:
    from study.cluster.jobs import Jobs, Started
    from study.cluster.submission import Submission


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    example = (
        "`revstudy submit depth.yaml --address http://127.0.0.1:8265 --store /mnt/results`, "
        "`revstudy submit depth.yaml --store /mnt/results --kuberay > job.yaml`"
    )
    app.command(epilog=f"Example: {example}")(submit)


@with_options
def submit(
    study: StudyArgument,
    job: JobOptions,
    upload: UploadOptions,
    manifest: ManifestOptions,
    store: StoreOption = STORE,
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

    `--kuberay` and `--cluster-yaml` print what makes a cluster for the study: worker nodes that hold its
    trials side by side, as many as `--max-nodes` allows, with the memory that the plan predicts. With
    `--json` too.

    The token that clusters ask for is read from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH or
    `~/.ray/auth_token`.
    """
    from study.cluster.submission import Submission
    from study.spec.load import load_study

    submission = Submission(
        study=load_study(study),
        store=store,
        folder=upload.working_dir,
        exclude=tuple(upload.exclude or ()),
        max_upload_mb=upload.max_upload_mb,
        python=job.python,
        extend=job.extend,
    )
    if manifest.kuberay or manifest.cluster_yaml:
        if manifest.kuberay and manifest.cluster_yaml:
            raise typer.BadParameter("--kuberay and --cluster-yaml are two kinds of file; give one of them")
        _print_manifest(submission, manifest, as_json=as_json)
        return
    from study.cluster.jobs import Jobs

    jobs = Jobs(job.address)
    if job.stop:
        raise typer.Exit(_stop(jobs, submission, as_json=as_json))
    for warning in submission.warnings():
        tell(f"revstudy: {warning}")
    started = jobs.submit(submission)
    command = f"revstudy submit {shlex.quote(study)} --store {shlex.quote(store)} --address {jobs.url}"
    _say_started(started, jobs)
    if not job.wait:
        tell(f"follow it: {command}\nstop it:   {command} --stop")
        if as_json:
            print_json(_json(submission, started, jobs, status=None, code=None))
        else:
            say(started.id)
        return
    raise typer.Exit(_follow(jobs, submission, started, command, as_json=as_json))


def _print_manifest(submission: Submission, options: ManifestOptions, *, as_json: bool) -> None:
    from study.cluster.manifests import cluster_file, kuberay_job
    from study.cluster.sizing import size_of
    from study.errors import StoreError
    from study.plan.expand import make_plan
    from study.run import plan_run
    from study.spec.yaml_file import parse_yaml

    try:
        planned = plan_run(submission.study, submission.store, predict=True)
    except StoreError as error:  # Storage that the cluster reaches need not be reachable from here.
        tell(f"revstudy: counting no trial as done: {error}")
        planned = make_plan(submission.study, predict=True)
    size = size_of(
        planned,
        submission.study,
        cpus=options.cpus_per_node,
        gpus=options.gpus_per_node,
        memory_gb=options.memory_per_node_gb,
        max_nodes=options.max_nodes,
    )
    text = (kuberay_job if options.kuberay else cluster_file)(
        submission.study, submission.store, size, options.place()
    )
    tell(f"{submission.study.name}: {size}")
    print_json(parse_yaml(text)) if as_json else say(text.rstrip())


def _follow(jobs: Jobs, submission: Submission, started: Started, command: str, *, as_json: bool) -> int:
    from study.cluster.jobs import INTERRUPTED, exit_code

    stream = sys.stderr if as_json else sys.stdout

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    try:
        with interrupts.own_time():
            details = jobs.follow(started.id, write)
    except KeyboardInterrupt:
        tell(f"\nLet go of {started.id}, which runs on.\nfollow it: {command}\nstop it:   {command} --stop")
        return INTERRUPTED
    code = exit_code(details)
    tell(f"{started.id}: {details.status.value.lower()}, exit code {code}")
    if as_json:
        print_json(_json(submission, started, jobs, status=details.status.value, code=code))
    return code


def _stop(jobs: Jobs, submission: Submission, *, as_json: bool) -> int:
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
        tell(f"{started.id} is running on {jobs.url} already")
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
