"""``paretorch data``: what image folders there are, whether they lie as they must, and packs of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from paretorch.cli.boundary import boundary
from paretorch.cli.options import named_options
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console
    from rich.markup import escape

if TYPE_CHECKING:
    from paretorch.workloads.checks.data_report import CheckableData
    from paretorch.workloads.imagenet_coco import ImagenetCoco

data = typer.Typer(help="Image folders: what there is, whether it lies as it must, and packs of it.")

What = Annotated[
    str, typer.Argument(metavar="[DIR|WORKLOAD]", help="A folder with all data in it, or a workload with its options.")
]
Root = Annotated[Path, typer.Option(help="The folder in which data are looked for.")]
Workers = Annotated[int | None, typer.Option(help="Processes that read; by the number of cores by default.")]


@data.command("list", epilog="Example: [bold]paretorch data list[/bold]")
def data_list() -> None:
    """Say which folders the workloads read, how they must lie, and where they are published."""
    with boundary():
        from paretorch.training.names.workloads import workload_class, workload_names
        from paretorch.workloads.checks.console import LAYOUT

        files = {name: workload_class(name).files for name in workload_names()}
        parts = [f"{name} reads, below its root:\n\n{text}" for name, text in files.items() if text]
        Console().print(escape("\n\n".join([LAYOUT, *parts])), highlight=False)


@data.command("check", epilog="Example: [bold]paretorch data check data/[/bold]")
def data_check(
    what: What = "",
    root: Root = Path("data"),
    images: Annotated[int | None, typer.Option(help="Read so many images of each data set; all by default.")] = None,
    workers: Workers = None,
) -> None:
    """Say what was looked for and found; read every image, name those that cannot be read; verify packs."""
    with boundary("Nothing was changed."):
        from paretorch.workloads.checks.console import ReadingProgress
        from paretorch.workloads.checks.data_report import report_text
        from paretorch.workloads.checks.image_reports import report_images

        if (other := _other_workload(what, root)) is not None:
            with ReadingProgress() as reading:
                reports = other.check_data(images=images, progress=reading.update)
            print(report_text(reports))
            if any(report.problems for report in reports):
                raise typer.Exit(1)
            return
        workload, _ = _image_workload(what, root, {"workers": workers})
        with ReadingProgress() as reading:
            reports = report_images(
                Path(workload.root),
                workload.imagenet,
                workload.coco,
                images=images,
                workers=workload.readers("image files"),
                progress=reading.update,
            )
        print(report_text(reports))
        if any(report.problems for report in reports):
            raise typer.Exit(1)


@data.command("pack", epilog="Example: [bold]paretorch data pack 'imagenet_coco(classes=100)' --root data/[/bold]")
def data_pack(
    what: What = "",
    root: Root = Path("data"),
    size: Annotated[
        int | None, typer.Option(help="Pixels along one side that the network gets; 256 by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of packs; ROOT/packed by default.")] = None,
    workers: Workers = None,
) -> None:
    """Store resized images and masks so that training never waits for them; the same command goes on after a stop.

    A folder is packed whole, a workload as far as its options choose images.
    """
    with boundary("The same command goes on from there."):
        from paretorch.workloads.checks.console import ReadingProgress, pack_text

        workload, whole = _image_workload(what, root, {"workers": workers, "size": size})
        with ReadingProgress() as reading:
            packs = workload.packed(out or workload.pack_folder("").parent, whole=whole, progress=reading.update)
        print(pack_text(packs))


def _other_workload(what: str, root: Path) -> CheckableData | None:
    """The workload called ``what``, where it reads files and is not ``imagenet_coco``."""
    from paretorch.training.names.constructors import parse
    from paretorch.training.names.workloads import find_workload, workload_class, workload_names
    from paretorch.workloads.checks.data_report import CheckableData

    call = parse(what or str(root))
    if call.name not in workload_names() or not workload_class(call.name).files:
        return None
    options = {"root": str(root), **named_options(call.positional, call.named, what)}
    workload = find_workload(call.name, options)
    return workload if isinstance(workload, CheckableData) else None


def _image_workload(what: str, root: Path, flags: dict[str, Any]) -> tuple[ImagenetCoco, bool]:
    """The workload, and whether all images below its root are meant."""
    from paretorch.training.names.constructors import parse
    from paretorch.training.names.workloads import find_workload
    from paretorch.workloads.imagenet_coco import ImagenetCoco

    call, given = parse(what or str(root)), {name: value for name, value in flags.items() if value is not None}
    whole = call.name != "imagenet_coco"
    if whole and not Path(what or root).is_dir():
        raise ValueError(f"{what or root} is no folder, and no workload that reads files (imagenet_coco does)")
    named = (
        {"root": what or str(root)}
        if whole
        else {"root": str(root), **named_options(call.positional, call.named, what)}
    )
    workload = find_workload("imagenet_coco", named | given)
    assert isinstance(workload, ImagenetCoco)
    return workload, whole
