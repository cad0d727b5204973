"""Words typed at a prompt come in; one call of the library goes out. One file per command."""

import sys
import warnings

import typer

from recloom.cli import (
    adapt,
    backtest,
    compare,
    compress,
    datasets,
    demo,
    disclose,
    distill,
    doctor,
    encode,
    evaluate,
    explain,
    export,
    fit,
    forget,
    join,
    keys,
    prepare,
    pretrain,
    recommend,
    serve,
    similar,
    tune,
    update,
    versions,
)
from recloom.cli.console import messages
from recloom.cli.ray_option import RayCommand
from recloom.errors import InputError, RecloomError

app = typer.Typer(
    name="recloom",
    help="Recommend what each person does next, from what people did and what the items say.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.add_typer(datasets.app, name="datasets")
app.command("prepare", cls=RayCommand)(prepare.prepare)
app.command("join")(join.join)
app.command("encode", cls=RayCommand)(encode.encode)
app.command("adapt")(adapt.adapt)
app.command("distill")(distill.distill)
app.command("pretrain")(pretrain.pretrain)
app.command("fit", cls=RayCommand)(fit.fit)
app.command("evaluate", cls=RayCommand)(evaluate.evaluate)
app.command("compare")(compare.compare_models)
app.command("tune", cls=RayCommand)(tune.tune)
app.command("backtest")(backtest.backtest)
app.command("compress")(compress.compress_model)
app.command("export")(export.export)
app.command("recommend", cls=RayCommand)(recommend.recommend)
app.command("explain")(explain.explain)
app.command("similar")(similar.similar)
app.command("serve")(serve.serve)
app.add_typer(keys.app, name="keys")
app.command("update")(update.update)
app.command("disclose")(disclose.disclose)
app.command("forget")(forget.forget)
app.add_typer(versions.app, name="versions")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line: exit 0; 1 when something failed; 2, after one sentence, for the caller's mistake."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        app()
    except InputError as error:
        _fail(error, 2)
    except RecloomError as error:
        _fail(error, 1)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}; what was there before is unchanged", 1)
    except KeyboardInterrupt:
        _fail("interrupted", 130)


def _fail(message: object, code: int) -> None:
    messages.print(f"recloom: {message}", markup=False, soft_wrap=True)
    sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    # What other libraries deprecate is nothing a user can act on.
    if category is UserWarning:
        messages.print(f"warning: {message}", markup=False, soft_wrap=True)
