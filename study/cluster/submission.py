"""What is sent to a cluster for a study: the study, this code, a folder if asked for, and one command."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import StudyError
from study.provenance import PACKAGES, shipped_as
from study.store.files import located

if TYPE_CHECKING:
    from study.spec.study import Study

STUDY_FILE = "revstudy-study.yaml"
SCRIPT_FILE = "revstudy-run.sh"
ENTRYPOINT = f"exec sh {SCRIPT_FILE}"
EXCLUDED = (
    ".*",  # .git, .venv, .env and other hidden files, secrets among them
    "__pycache__",
    "*.pyc",
    "*.egg-info",
    "node_modules",
    "venv",
    "study=*",  # the folders of a results store
)
"""Never sent from a folder, by name. Tried against each file's name, each folder's, and the whole path."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A study on its way to a cluster.

    Attributes:
        study: The study, sent as it was validated.
        store: Where every machine of the cluster finds the store.
        folder: A folder that becomes the job's working directory; None sends the study alone.
        exclude: Patterns of what is not sent from it, besides `EXCLUDED` and what git ignores.
        max_upload_mb: The largest upload allowed, in MB of a million.
        python: The interpreter of the driver; None finds one on the cluster's head node.
        extend: Whether the study may be added to one of its name and of other content in the store.
    """

    study: Study
    store: str
    folder: Path | None = None
    exclude: Sequence[str] = ()
    max_upload_mb: float = 100
    python: str | None = None
    extend: bool = False

    @property
    def id(self) -> str:
        """The same for the same study on the same store; each attempt's own id is this and a number."""
        return submission_id(self.study, self.store)

    def script(self) -> str:
        """The driver's shell script: `run`, which is also resume, in a Python that has Ray and torch."""
        words = ["-P", "-m", "study.cli", "run", STUDY_FILE, "--store", located(self.store)]
        run = shlex.join([*words, "--extend"] if self.extend else words)
        if self.python is not None:
            return f"exec {shlex.quote(self.python)} {run}\n"
        # Where Ray was started by its path, its interpreter need not be the one of the search path.
        names = " ".join(map(shlex.quote, (sys.executable, "python", "python3")))
        has = "import sys, importlib.util as u; sys.exit(not (u.find_spec('ray') and u.find_spec('torch')))"
        return (
            f"for python in {names}; do\n"
            f'  "$python" -c "{has}" 2>/dev/null && exec "$python" {run}\n'
            "done\n"
            "echo 'revstudy: no Python with ray and torch on the head node: install them there, "
            "or name one with --python' >&2\n"
            "exit 4\n"
        )

    def runtime_env(self, staged: Path) -> dict[str, Any]:
        """Ray's runtime environment of the job, whose working directory was made by `stage`."""
        from study.cluster.session import ENVIRONMENT

        root = Path(__file__).resolve().parents[2]
        variables = {
            **ENVIRONMENT,
            **shipped_as(),
            # --stop sends SIGTERM, which a run takes as Ctrl-C, and leaves it the time to write its rows.
            # SIGINT is ignored by all that descends from a Ray started in the background of a script.
            "RAY_JOB_STOP_SIGNAL": "SIGTERM",
            "RAY_JOB_STOP_WAIT_TIME_S": "60",
            "PYTHONUNBUFFERED": "1",
        }
        if "REVSTUDY_DATA" in os.environ:
            variables["REVSTUDY_DATA"] = os.environ["REVSTUDY_DATA"]
        return {
            "working_dir": str(staged),
            "py_modules": [str(root / package) for package in PACKAGES],
            "excludes": ["__pycache__/", "*.pyc"],
            "env_vars": variables,
        }

    def stage(self, where: Path) -> tuple[int, int]:
        """Put what is to be sent into `where`.

        Returns:
            The number of files and their bytes.

        Raises:
            StudyError: The folder is missing or too large; the largest of its files are named.
        """
        files = [] if self.folder is None else list(files_of(self.folder, self.exclude))
        sizes = {name: path.stat().st_size for name, path in files}
        total = sum(sizes.values())
        if total > self.max_upload_mb * 1e6:
            largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
            raise StudyError(
                "--working-dir",
                value=str(self.folder),
                rule=f"at most {self.max_upload_mb:g} MB are sent, and these {len(files)} files have "
                f"{total / 1e6:.1f} MB",
                remedy="put data on storage that the cluster reaches, leave files out with --exclude, or "
                "raise --max-upload-mb; the largest: "
                + ", ".join(f"{name} ({sizes[name] / 1e6:.1f} MB)" for name in largest),
            )
        for name, path in files:
            target = where / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        (where / SCRIPT_FILE).write_text(self.script(), encoding="utf-8")
        # JSON is YAML too.
        content = json.dumps(self.study.to_dict(), indent=2, allow_nan=False)
        (where / STUDY_FILE).write_text(content, encoding="utf-8")
        return len(files) + 1, total + len(content)

    def warnings(self) -> list[str]:
        """What will not be found on the cluster, as far as can be told from here."""
        said = []
        relative = sorted(
            {name for name in data_folders(self.study) if not Path(name).expanduser().is_absolute()}
        )
        if relative and self.folder is None:
            said.append(
                f"data in {', '.join(relative)}: a relative path, which is looked for in what is sent; "
                "give an absolute one that every machine reaches, or send the folder with --working-dir"
            )
        return said


def submission_id(study: Study, store: str | Path) -> str:
    """The study's name and 12 hexadecimal digits of a hash of its content and of the store's place."""
    content = json.dumps([study.to_dict(), located(store)], sort_keys=True, allow_nan=False)
    return f"revstudy-{study.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def data_folders(study: Study) -> Iterator[str]:
    """The paths of data that a study names: ``parquet:`` and ``folder:`` sets, and roots."""
    values = [(f"data.{key}", value) for key, value in (("name", study.data.name), ("root", study.data.root))]
    for space in study.all_spaces().values():
        for path, axis in space.items():
            if path in ("data.name", "data.root"):
                values += [(path, value) for value in axis.to_dict().get("grid", ())]
    for path, value in values:
        kind, colon, rest = str(value).partition(":")
        if path == "data.root" and value:
            yield str(value)
        elif path == "data.name" and colon and kind in ("parquet", "folder"):
            yield rest


def files_of(folder: Path, exclude: Iterable[str] = ()) -> Iterator[tuple[str, Path]]:
    """The files of a folder that are to be sent, each with its name below the folder.

    In a checkout of git those that it tracks or would (what `.gitignore` names is left out), elsewhere all of
    them; in both cases without `EXCLUDED` and `exclude`.

    Yields:
        The name below the folder, with slashes, and the path.

    Raises:
        StudyError: There is no such folder.
    """
    if not folder.is_dir():
        raise StudyError("--working-dir", value=str(folder), rule="must be a folder", remedy="check the path")
    patterns = (*EXCLUDED, *exclude)
    for name in _listed(folder, patterns):
        parts = Path(name).parts
        if not any(_matches(name, parts, pattern) for pattern in patterns) and (folder / name).is_file():
            yield name, folder / name


def _listed(folder: Path, patterns: Sequence[str]) -> Iterator[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        for base, folders, names in os.walk(folder):
            folders[:] = [f for f in folders if not any(fnmatch.fnmatch(f, p) for p in patterns)]
            yield from ((Path(base) / name).relative_to(folder).as_posix() for name in names)
        return
    yield from filter(None, dict.fromkeys(os.fsdecode(done.stdout).split("\0")))


def _matches(name: str, parts: tuple[str, ...], pattern: str) -> bool:
    pattern = pattern.rstrip("/")
    return fnmatch.fnmatch(name, pattern) or any(fnmatch.fnmatch(part, pattern) for part in parts)
