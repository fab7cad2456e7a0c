"""The command ``paretorch data``: layout and checks of image folders, and packs of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from paretorch.cli.errors import readable_errors
from paretorch.cli.options import given, name_and_options
from paretorch.extras import extra

with extra("studies"):
    import typer
    from rich.console import Console
    from rich.markup import escape

if TYPE_CHECKING:
    from paretorch.workloads.checks.data_report import CheckableData
    from paretorch.workloads.imagenet_coco import ImagenetCoco

data = typer.Typer(help="Image folders: their layout, checks of them, and packs for fast reading.")

What = Annotated[
    str, typer.Argument(metavar="[DIR|WORKLOAD]", help="A folder with all data in it, or a workload with its options.")
]
Root = Annotated[Path, typer.Option(help="The folder of the image data.")]
Workers = Annotated[int | None, typer.Option(help="Processes that read; by the number of cores by default.")]


@data.command("list", epilog="Example: [bold]paretorch data list[/bold]")
def data_list() -> None:
    """Print the folders that the workloads read, their layout, and where they are published."""
    with readable_errors():
        from paretorch.training.names.workloads import workload_class, workload_names
        from paretorch.workloads.checks.console import LAYOUT

        files = {name: workload_class(name).files for name in workload_names()}
        parts = [f"{name} reads, below its root:\n\n{text}" for name, text in files.items() if text]
        Console(emoji=False).print(escape("\n\n".join([LAYOUT, *parts])), highlight=False)


@data.command("check", epilog="Example: [bold]paretorch data check data/[/bold]")
def data_check(
    what: What = "",
    root: Root = Path("data"),
    images: Annotated[int | None, typer.Option(help="Images of each data set to read; all by default.")] = None,
    workers: Workers = None,
) -> None:
    """Print the folders that were searched and found; read every image, name those that cannot be read; verify packs.

    The exit code is 1 if there are problems.
    """
    with readable_errors("Nothing was changed."):
        from paretorch.workloads.checks.console import ReadingProgress
        from paretorch.workloads.checks.data_report import report_text
        from paretorch.workloads.checks.image_reports import report_images
        from paretorch.workloads.loading.read_stream import worker_count

        other = _other_workload(what, root)
        workload = None if other else _image_workload(what, root, workers=workers)[0]
        with ReadingProgress() as reading:
            if workload is not None:
                reports = report_images(
                    Path(workload.root),
                    workload.imagenet,
                    workload.coco,
                    images=images,
                    workers=worker_count(workload.workers, "image files"),
                    progress=reading.update,
                )
            else:
                assert other is not None
                reports = other.check_data(images=images, progress=reading.update)
        print(report_text(reports))
        if any(report.problems for report in reports):
            raise typer.Exit(1)


@data.command("pack", epilog="Example: [bold]paretorch data pack 'imagenet_coco(classes=100)' --root data/[/bold]")
def data_pack(
    what: What = "",
    root: Root = Path("data"),
    size: Annotated[
        int | None, typer.Option(help="Side length in pixels of the network's input; 256 by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of packs; ROOT/packed by default.")] = None,
    workers: Workers = None,
) -> None:
    """Store resized images and masks for fast reading; the same command continues an interrupted one.

    All images of a folder are packed; of a workload, those that its options choose.
    """
    with readable_errors("The same command continues from there."):
        from paretorch.workloads.checks.console import ReadingProgress, pack_text

        workload, whole = _image_workload(what, root, workers=workers, size=size)
        with ReadingProgress() as reading:
            packs = workload.packed(out or workload.pack_folder("").parent, whole=whole, progress=reading.update)
        print(pack_text(packs))


def _other_workload(what: str, root: Path) -> CheckableData | None:
    """The workload that ``what`` names, if it reads files and is not ``imagenet_coco``."""
    from paretorch.training.names.constructors import parse
    from paretorch.training.names.workloads import find_workload, workload_class, workload_names
    from paretorch.workloads.checks import data_report

    text = what or str(root)
    name = parse(text).name
    if name not in workload_names() or not workload_class(name).files:
        return None
    workload = find_workload(name, {"root": str(root)} | name_and_options(text)[1])
    return workload if isinstance(workload, data_report.CheckableData) else None


def _image_workload(what: str, root: Path, **flags: int | None) -> tuple[ImagenetCoco, bool]:
    """The workload ``imagenet_coco``, and whether ``what`` is a folder, of which all images are meant."""
    from paretorch.training.names.constructors import parse
    from paretorch.training.names.workloads import find_workload
    from paretorch.workloads.imagenet_coco import ImagenetCoco

    text = what or str(root)
    whole = parse(text).name != "imagenet_coco"
    if whole and not Path(text).is_dir():
        raise ValueError(
            f"{text} is no folder, and no workload that this command supports: give a folder with the images, or imagenet_coco"
        )
    options = {"root": text} if whole else {"root": str(root)} | name_and_options(text)[1]
    workload = find_workload("imagenet_coco", options | given(**flags))
    assert isinstance(workload, ImagenetCoco)
    return workload, whole
