"""The command line: parses, calls, prints. Nothing heavy is imported before it is needed."""

import json
import sys
import traceback
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise import __version__
from rankwise.cli.interrupt import Interrupted, Stop
from rankwise.errors import StoreError, UserError, is_shortage

USER_MISTAKE = 2
OURS = 1
INTERRUPTED = 130

UsageError: Any = typer.BadParameter.__base__
"""Raised for a wrong option. Taken from typer, since newer versions bundle their own click."""

app = typer.Typer(
    name="rankwise",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train LoRA configurations side by side over one frozen base, and find out which to use.",
)

SpecFile = Annotated[Path, typer.Argument(help="The spec of the study, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the spec; repeatable."),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder of the results; studies/NAME if not given.")
]
Folder = Annotated[Path, typer.Argument(help="The folder of a study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.callback(invoke_without_command=True)
def rankwise(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Commands take a spec (YAML) or the folder of a study."""
    if show_version:
        print(__version__)
        raise typer.Exit


@app.command()
def plan(
    spec: SpecFile, out: Out = None, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Show what a study would do: configurations, parameters, memory, time. Loads no weights.

    Where the folder of its results holds a study already, the spec is compared with that.
    """
    study = read_spec(spec, overrides)
    folder = out or folder_of(study)
    plan = check(study, spec.parent, False, folder)
    from rankwise.cli.tables import plan_facts, print_plan
    from rankwise.study.outlook import look_ahead, outlook_facts, outlook_words

    outlook, facts = look_ahead(plan, folder), plan_facts(plan, folder)
    if as_json:
        print(json.dumps({**facts, "folder": outlook_facts(outlook)}, indent=2))
    else:
        print_plan(facts)
        _print_lines(outlook_words(outlook, plan) if outlook.begun else ())


@app.command()
def data(
    spec: SpecFile,
    rows: Annotated[int, typer.Option(min=0, help="Training rows to show.")] = 3,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show what a study learns from: rows as tokens, lengths, what is cut and left out, and why.

    Loads no weights.
    """
    study = read_spec(spec, overrides)
    quiet_libraries()
    from rankwise.cli.rows import print_preview
    from rankwise.study.preview import preview_facts

    facts = preview_facts(study, spec.parent, rows)
    print(json.dumps(facts, indent=2)) if as_json else print_preview(facts)


@app.command()
def run(
    spec: SpecFile,
    out: Out = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be trained and what is kept; load nothing, change nothing.",
        ),
    ] = False,
    train_dropped: Annotated[
        bool,
        typer.Option(
            "--train-dropped",
            help="Train runs again whose adapters keep_adapters dropped and keeps today.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a study, or continue it: finished runs are not repeated."""
    from rankwise.store.lock import hold

    study = read_spec(spec, overrides)
    folder = out or folder_of(study)
    if dry_run:
        _dry_run(study, spec.parent, folder, train_dropped, as_json)
        return
    with Stop().listening() as stop, closing(hold(folder)) as lock:  # before heavy imports
        _repair(folder)
        from rankwise.study.settled import is_settled

        if not train_dropped and is_settled(study, spec.parent, folder):
            _say_settled(folder, as_json)
        else:
            plan = check(study, spec.parent, download=True)
            from rankwise.cli.progress import show
            from rankwise.study.run import run_study

            show(run_study(plan, folder, lock, train_dropped), stop, quiet=as_json)
            _report(folder)
    facts = _print_status(folder, as_json)
    if {"crashed", "out_of_memory"} & set(facts["states"]):
        raise typer.Exit(OURS)


def _say_settled(folder: Path, quiet: bool) -> None:
    """Say that nothing is to be done; names and report that somebody removed are made again."""
    from rankwise.store.links import link_names
    from rankwise.store.reader import Reader
    from rankwise.store.seal import made_is_whole

    with Reader(folder, untouched=True) as store:
        link_names(store)
    if not quiet:
        print("nothing has changed, and nothing is left to be trained", file=sys.stderr)
    if not made_is_whole(folder):
        _report(folder)


def _report(folder: Path) -> None:
    """Write the report of a study whose lock is held, and note its checksums."""
    from rankwise.report.write import report_files, write_report
    from rankwise.store.seal import seal_made

    write_report(folder)
    seal_made(folder, report_files(folder))


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Show the progress of a study and the ranking of its configurations."""
    _print_status(folder, as_json)


@app.command()
def report(
    source: Annotated[
        Path,
        typer.Argument(
            help="The folder of a study, a table (CSV, TSV, JSON lines, JSON, parquet; a row for "
            "each run), or a folder of PEFT's result files."
        ),
    ],
    mapping: Annotated[
        Path | None,
        typer.Option(
            help="Table: a YAML file that says what its columns mean (docs/outside.md). What it "
            "leaves open is guessed and reported."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the report; that of the study if not given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a study, or of results from another tool."""
    from rankwise.report.write import write_report

    ours = mapping is None and is_study(source)
    path = write_report(source, out) if ours else _report_outside(source, mapping, out)
    if as_json:
        from rankwise.report.json import read_facts

        print(json.dumps(read_facts(source if ours else path.parent), indent=2))
    else:
        print(path)


@app.command()
def compare(
    folder: Folder,
    first: Annotated[str, typer.Argument(metavar="CONFIG", help="Name of a configuration.")],
    second: Annotated[str, typer.Argument(metavar="CONFIG", help="Name of another configuration.")],
    as_json: AsJson = False,
) -> None:
    """Two configurations side by side: settings, metrics with intervals, answers."""
    from rankwise.report.compare import compare_arms

    text, facts = compare_arms(folder, first, second)
    print(json.dumps(facts, indent=2) if as_json else text)


@app.command()
def guide(
    folders: Annotated[list[Path], typer.Argument(help="Folders of studies, or result tables.")],
    as_json: AsJson = False,
) -> None:
    """A guide to the settings: what these studies found, and what the literature says."""
    from rankwise.report.guide import write_guide

    text = write_guide(folders)
    print(json.dumps({"guide": text}) if as_json else text)


@app.command()
def export(
    folder: Folder,
    arm: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG", help="Name of a configuration, or `best`: the recommended one."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder to write to; it must not exist yet.")],
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the run; the run with the best validation metric if not given."),
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Merge the adapter into the base, as a whole model.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy an adapter out of a study, in the format of peft."""
    from rankwise.study.export import export_adapter

    quiet_libraries()
    found = export_adapter(folder, arm, to, seed, merged)
    print(json.dumps(found, indent=2) if as_json else found["said"])


@app.command()
def repair(folder: Folder, as_json: AsJson = False) -> None:
    """Repair a damaged study.db from its backup and from what can still be read.

    The damaged file is kept under another name. `rankwise run` does the same before it goes on.
    """
    from rankwise.errors import WrongFolderError
    from rankwise.store.lock import hold

    if not is_study(folder):
        raise WrongFolderError(f"{folder}: no study here (no study.db and no backup of one)")
    with closing(hold(folder)):
        said = _repair(folder)
    whole = f"{folder / 'study.db'}: nothing is damaged"
    print(json.dumps({"repaired": said}, indent=2) if as_json else said or whole)


@app.command()
def schema() -> None:
    """Print the JSON schema of a spec, for editors."""
    from rankwise.spec.docs import json_schema

    print(json.dumps(json_schema(), indent=2))


def look(spec: Path, overrides: list[str] | None, download: bool = False) -> Any:
    """Read and check a spec, with everything that can be checked before weights are loaded."""
    return check(read_spec(spec, overrides), spec.parent, download)


def read_spec(spec: Path, overrides: list[str] | None) -> Any:
    """Read a spec; a mistake in its configurations is found before torch is imported."""
    from rankwise.spec.arms import make_arms
    from rankwise.spec.load import load_spec

    study = load_spec(spec, overrides or [])
    make_arms(study)
    if study.search is not None:
        from rankwise.search.sampler import require_optuna
        from rankwise.search.space import space_of

        space_of(study)
        require_optuna()
    return study


def check(study: Any, base_dir: Path, download: bool, folder: Path | None = None) -> Any:
    """The plan of a study, its paths relative to `base_dir`.

    With what its search has proposed already, where the folder of its results is given.
    """
    quiet_libraries()
    from rankwise.study.budget import refuse_small_budget
    from rankwise.study.plan import plan_study

    plan = plan_study(study, base_dir, download)
    refuse_small_budget(plan)
    if folder is None or study.search is None:
        return plan
    from rankwise.study.search import as_in_folder

    return as_in_folder(plan, folder)


def folder_of(study: Any) -> Path:
    """Where the results of a study are, unless the user says otherwise."""
    return Path("studies", study.study)


def _report_outside(source: Path, mapping: Path | None, out: Path | None) -> Path:
    """Write the report on a table, and say on the error output what was guessed of its columns."""
    from rankwise.report.write import outside_folder, write_records_report
    from rankwise.results.from_table import read_outside
    from rankwise.results.roles import guessed_words

    records = read_outside(source, mapping)
    for line in guessed_words(records.study["roles"]):
        print(printable_text(f"rankwise: {line}"), file=sys.stderr)
    return write_records_report(records, out or outside_folder(source))


def _dry_run(study: Any, base_dir: Path, folder: Path, train_dropped: bool, as_json: bool) -> None:
    """Print what `run` would do, or raise what it would raise before it loads anything."""
    plan = check(study, base_dir, False, folder)
    from rankwise.study.outlook import (
        look_ahead,
        outlook_facts,
        outlook_words,
        refuse_as_run_would,
    )

    outlook = look_ahead(plan, folder, train_dropped)
    refuse_as_run_would(plan, outlook)
    if as_json:
        print(json.dumps(outlook_facts(outlook), indent=2))
    else:
        _print_lines(outlook_words(outlook, plan))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(printable_text(line))


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study's database, or a backup of it."""
    from rankwise.store.schema import FILE
    from rankwise.store.seal import BACKUP

    return (folder / FILE).exists() or (folder / BACKUP).exists()


def _repair(folder: Path) -> str | None:
    """Repair a damaged study and say so on the error output; what was done."""
    from rankwise.store.damage import repair

    done = repair(folder)
    if done is None:
        return None
    print(f"rankwise: {done.words()}", file=sys.stderr)
    return done.words()


def quiet_libraries() -> None:
    """Turn off the libraries' progress bars, notices and telemetry; set how threads wait."""
    import os

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Else transformers asks a service of the hub for safetensors that nobody reviewed.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads that sleep at once make a training step a third longer; threads that spin for long
        # slow down every other process. Spin for some tens of microseconds.
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    import logging

    import transformers

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _print_status(folder: Path, as_json: bool) -> dict[str, Any]:
    from rankwise.cli.status import print_status, status_facts

    facts = status_facts(folder)
    print(json.dumps(facts, indent=2)) if as_json else print_status(facts)
    return facts


def printable(error: BaseException) -> str:
    """A message without secrets, and without characters that would steer the terminal."""
    return printable_text(str(error))


def printable_text(text: str) -> str:
    """As `printable`."""
    from rankwise.text import redacted

    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in redacted(text))


def _print_traceback(kind: Any, error: BaseException, trace: Any) -> None:
    from rankwise.text import redacted

    print(redacted("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr)


def _out_of_memory(error: BaseException) -> str:
    return (
        f"out of memory ({printable(error) or type(error).__name__}); what was saved is kept. End "
        f"other programs, raise this process's limit (ulimit -v, the memory of the container or "
        f"job), set hardware.max_runs or hardware.memory_gb, or use a smaller base; then the same "
        f"command goes on"
    )


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 2, an interruption 130."""
    sys.excepthook = _print_traceback
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        print(f"rankwise: {printable(error)}", file=sys.stderr)
        sys.exit(USER_MISTAKE)
    except StoreError as error:
        print(f"rankwise: {printable(error)}", file=sys.stderr)
        sys.exit(OURS)
    except Interrupted as error:
        print(f"rankwise: {error.message()}", file=sys.stderr)
        sys.exit(128 + error.signum)
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        if not is_shortage(error):
            raise
        print(f"rankwise: {_out_of_memory(error)}", file=sys.stderr)
        sys.exit(OURS)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer catches an interruption and returns this code itself
        print("rankwise: interrupted; run the same command to continue", file=sys.stderr)
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
