"""The program ``revstudy``, also started as ``python -m study.cli``."""

import os


def main() -> None:
    """Take charge of Ctrl-C, and only then import the command line, which takes a while."""
    interrupted = None
    try:
        from study.cli import interrupts

        interrupted = interrupts.interrupted
        interrupts.guard()
        from study.cli.main import main as command_line

        command_line()
    except BaseException as error:
        # Not by sys.exit: Python would end by the signal if it came while a string was executed.
        if isinstance(error, KeyboardInterrupt) or (interrupted is not None and interrupted()):
            os._exit(130)
        raise


if __name__ == "__main__":
    main()
