"""The command line: parses, calls, prints. Nothing heavy is imported before it is needed."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise import __version__
from rankwise.errors import StoreError, UserError

USER_MISTAKE = 2
OURS = 1
INTERRUPTED = 130

UsageError: Any = typer.BadParameter.__base__
"""What a wrong option raises; newer typers bring their own click, so it is had from here."""

app = typer.Typer(
    name="rankwise",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train LoRA configurations side by side over one frozen base, and learn which to use.",
)

SpecFile = Annotated[Path, typer.Argument(help="The spec of the study, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the spec; repeatable."),
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
def plan(spec: SpecFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show what a study would do: arms, parameters, memory, time. Loads no weights."""
    outlook = look(spec, overrides)
    from rankwise.cli.plan_table import plan_facts, print_plan

    facts = plan_facts(outlook)
    print(json.dumps(facts, indent=2)) if as_json else print_plan(facts)


@app.command()
def run(
    spec: SpecFile,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; studies/NAME if not given.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run a study, or go on with it: what is done is not done again."""
    outlook = look(spec, overrides)
    from rankwise.cli.progress import show
    from rankwise.report.write import write_report
    from rankwise.study.run import run_study

    folder = out or Path("studies") / outlook.spec.study
    show(run_study(outlook, folder), quiet=as_json)
    write_report(folder)
    _print_status(folder, as_json)
    if any(state in ("crashed", "out_of_memory") for state in _states(folder)):
        raise typer.Exit(OURS)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Show how far a study is and how its arms rank."""
    _print_status(folder, as_json)


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="The folder of a study, or a CSV or JSON folder.")],
    mapping: Annotated[
        Path | None, typer.Option(help="CSV: a YAML file saying which column is what.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="CSV: where the report goes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a study, or of results made elsewhere."""
    from rankwise.report.write import write_report

    if mapping is None and out is None and (source / "study.db").exists():
        path = write_report(source)
    else:
        from rankwise.report.outside import write_outside_report

        path = write_outside_report(source, mapping, out)
    if as_json:
        from rankwise.report.json import read_facts

        print(json.dumps(read_facts(path.parent), indent=2))
    else:
        print(path)


@app.command()
def compare(
    folder: Folder,
    first: Annotated[str, typer.Argument(help="Name of an arm.")],
    second: Annotated[str, typer.Argument(help="Name of another arm.")],
    as_json: AsJson = False,
) -> None:
    """Two arms side by side: settings, metrics with intervals, answers."""
    from rankwise.report.compare import compare_arms

    text, facts = compare_arms(folder, first, second)
    print(json.dumps(facts, indent=2) if as_json else text)


@app.command()
def guide(
    folders: Annotated[list[Path], typer.Argument(help="Folders of studies, or result tables.")],
    as_json: AsJson = False,
) -> None:
    """A guide to the settings: what these studies found, beside the literature."""
    from rankwise.report.guide import write_guide

    text = write_guide(folders)
    print(json.dumps({"guide": text}) if as_json else text)


@app.command()
def export(
    folder: Folder,
    arm: Annotated[str, typer.Argument(help="Name of an arm, or `best`: the recommended one.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write to; it must not exist yet.")],
    seed: Annotated[
        int | None, typer.Option(help="Seed of the run; the one with the best validation metric.")
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
def schema() -> None:
    """Print the JSON schema of a spec, for editors."""
    from rankwise.spec.docs import json_schema

    print(json.dumps(json_schema(), indent=2))


def look(spec: Path, overrides: list[str] | None) -> Any:
    """Read and check a spec, with everything that can be checked before weights are loaded."""
    from rankwise.spec.arms import make_arms
    from rankwise.spec.load import load_spec

    study = load_spec(spec, overrides or [])
    make_arms(study)  # a mistake in the arms is told before torch is imported
    quiet_libraries()
    from rankwise.study.plan import look_ahead

    return look_ahead(study, spec.parent)


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and notices off the screen."""
    import os

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads that sleep at once cost a third of a training step, threads that spin for long
        # stall every other process: spin for some tens of microseconds.
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    import logging

    import transformers

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _states(folder: Path) -> list[str]:
    from rankwise.store.writer import Store

    with Store(folder) as store:
        return [one.state for one in store.runs()]


def _print_status(folder: Path, as_json: bool) -> None:
    from rankwise.cli.status import print_status, status_facts

    facts = status_facts(folder)
    print(json.dumps(facts, indent=2)) if as_json else print_status(facts)


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 2, an interruption 130."""
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        print(f"rankwise: {error}", file=sys.stderr)
        sys.exit(USER_MISTAKE)
    except StoreError as error:
        print(f"rankwise: {error}", file=sys.stderr)
        sys.exit(OURS)
    except (KeyboardInterrupt, typer.Abort):
        print("rankwise: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
